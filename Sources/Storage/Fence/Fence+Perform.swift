import CSystem
import Glibc
import SCSI

/// What the requests mean on each route.
extension Fence {
  /// Carries a request out on the disk, with what this process may.
  func perform(_ request: FenceRequest) throws(FenceFailure) -> FenceAnswer {
    switch request {
    case .register(let key):
      switch route {
      case .scsi: try reserveOut(.registerAndIgnoreExistingKey, key: 0, serviceActionKey: key)
      case .nvme: try registerNVMe(.replace, key: 0, newKey: key, ignoresKey: true)
      case .paths: try callKernel { system_pr_register($0, 0, key, 1) }
      }
    case .reserve(let key):
      switch route {
      case .scsi: try reserveOut(.reserve, key: key, serviceActionKey: 0)
      case .nvme: try acquireNVMe(.acquire, key: key, victim: 0)
      case .paths: try callKernel { system_pr_reserve($0, key) }
      }
    case .preempt(let own, let victim, let aborts):
      switch route {
      case .scsi: try reserveOut(aborts ? .preemptAndAbort : .preempt, key: own, serviceActionKey: victim)
      case .nvme: try acquireNVMe(aborts ? .preemptAndAbort : .preempt, key: own, victim: victim)
      case .paths: try callKernel { system_pr_preempt($0, own, victim, aborts ? 1 : 0) }
      }
    case .unregister(let key):
      switch route {
      case .scsi: try reserveOut(.register, key: key, serviceActionKey: 0)
      case .nvme: try registerNVMe(.unregister, key: key, newKey: 0, ignoresKey: false)
      case .paths: try callKernel { system_pr_register($0, key, 0, 0) }
      }
    case .readKeys:
      let keys = usesNVMe ? try reportNVMe().keys : try readKeysSCSI()
      return .state(FenceState(generation: keys.generation, keys: keys.keys, reservation: nil))
    case .readReservation:
      if usesNVMe {
        let report = try reportNVMe()
        return .state(FenceState(generation: report.keys.generation, keys: [], reservation: report.reservation))
      }
      let held = try readReservationSCSI()
      return .state(FenceState(generation: held.generation, keys: [], reservation: held.reservation))
    case .readState: return .state(try readWhole())
    case .readCapabilities: return .capabilities(usesNVMe ? try readCapabilitiesNVMe() : try readCapabilitiesSCSI())
    case .hasHostIdentifier: return .flag(try readHostIdentifier())
    case .resetUnit: try UnitReset.send(fd)
    }
    return .done
  }

  private func readWhole() throws(FenceFailure) -> FenceState {
    if usesNVMe {
      let report = try reportNVMe()
      return FenceState(generation: report.keys.generation, keys: report.keys.keys, reservation: report.reservation)
    }
    for attempt in 1... {
      let keys = try readKeysSCSI()
      let held = try readReservationSCSI()
      // Registrations that change at each look: whoever decides by them compares again, on the disk (PREEMPT).
      if keys.generation == held.generation || attempt == 4 {
        return FenceState(generation: held.generation, keys: keys.keys, reservation: held.reservation)
      }
    }
    preconditionFailure("the loop ends by itself")
  }
}
