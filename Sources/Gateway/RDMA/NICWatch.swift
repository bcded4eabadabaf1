import Discovery
import Synchronization

/// The gateway's view of its RDMA NICs: has them watched, logs what changes, and tells the composition, so that the iSER
/// listener can be tried again. Nothing here is fatal: a gateway that cannot watch them serves TCP and says so.
final class NICWatch: Sendable {
  private struct State: Sendable {
    /// nil: nobody has looked yet.
    var inventory: RDMAInventory?
    var problem: String?
    var monitor: NICMonitor?
  }

  /// Whether iSER is wanted. The NICs are watched all the same, so that `nics` can tell of them.
  let isEnabled: Bool
  private let state = Mutex(State())

  init(isEnabled: Bool) { self.isEnabled = isEnabled }

  /// Begins to watch.
  ///
  /// - Parameter onChange: called on the monitor's thread after each change, first with what there is at the start.
  func start(onChange: @escaping @Sendable (RDMAInventory) -> Void) {
    let monitor = NICMonitor { [weak self] inventory in
      guard let self else { return }
      self.take(inventory)
      onChange(inventory)
    }
    do throws(DiscoveryError) {
      try monitor.start()
      state.withLock { $0.monitor = monitor }
    } catch {
      let problem = "RDMA NICs are not watched (\(error)): one that comes is used after a restart only"
      Log.warning(problem)
      state.withLock { $0.problem = problem }
      let inventory = RDMAReader().read()
      take(inventory)
      onChange(inventory)
    }
  }

  func stop() {
    let monitor = state.withLock { state in
      defer { state.monitor = nil }
      return state.monitor
    }
    // Not under the lock: it waits for the thread, which may be about to take it.
    monitor?.stop()
  }

  private func take(_ inventory: RDMAInventory) {
    let old = state.withLock { state in
      defer { state.inventory = inventory }
      return state.inventory
    }
    for line in inventory.news(since: old) { Log.notice(line) }
  }

  var inventory: RDMAInventory? { state.withLock { $0.inventory } }

  var reports: [NICReport] { inventory.map(NICReport.all) ?? [] }

  /// Sentences for `status`.
  ///
  /// - Parameter iser: a listener that failed is one.
  func problems(_ iser: ISERState) -> [String] {
    var problems = state.withLock { $0.problem }.map { [$0] } ?? []
    if case .failed(let reason) = iser { problems.append("iSER: \(reason); TCP only") }
    return problems
  }
}
