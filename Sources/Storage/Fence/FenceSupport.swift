import Glibc
import SCSI

/// Whether a disk can be a fence between two nodes. Found out by reading only.
public enum FenceSupport: Equatable, Sendable {
  case able(FenceState)
  case unable(FenceObstacle)

  /// Asks a disk, in the few commands of a healthy one; one that hangs keeps the caller as any other command would.
  ///
  /// A unit attention that is told meanwhile is passed over: this node has no registration yet that it could be about.
  public static func probe(_ disk: Disk) -> FenceSupport {
    guard let fence = Fence(disk) else { return .unable(.noCommands) }
    do throws(FenceFailure) {
      let capabilities = try Fence.patiently { () throws(FenceFailure) in try fence.readCapabilities() }
      guard capabilities.canPersist else { return .unable(.losesRegistrations) }
      guard capabilities.has(.writeExclusiveRegistrantsOnly) else { return .unable(.lacksType) }
      let state = try Fence.patiently { () throws(FenceFailure) in try fence.readState() }
      if fence.usesNVMe, try !fence.hasHostIdentifier() { return .unable(.noHostIdentifier) }
      return .able(state)
    } catch {
      switch error {
      // EBADMSG: what it answers are no reservations.
      case .failed(EOPNOTSUPP), .failed(EINVAL), .failed(ENOTTY), .failed(EBADMSG): return .unable(.noReservations)
      case .failed(EPERM), .failed(EACCES): return .unable(.notPermitted)
      default: return .unable(.noAnswer(error))
      }
    }
  }

  public var state: FenceState? { if case .able(let state) = self { state } else { nil } }
}

extension Fence {
  /// Does something again that a unit attention disturbed: for whoever has no registration yet that it could be about, or
  /// looks at registrations anyway. As many of them may wait for a nexus as there are kinds.
  public static func patiently<Value>(_ body: () throws(FenceFailure) -> Value) throws(FenceFailure) -> Value {
    for _ in 0..<8 {
      do throws(FenceFailure) {
        return try body()
      } catch {
        guard error == .disturbed else { throw error }
      }
    }
    throw .disturbed
  }
}

/// Why a disk cannot fence; `description` is for people.
public enum FenceObstacle: Equatable, Sendable, CustomStringConvertible {
  /// Not a block device, or its driver passes no commands: loop, virtio-blk, files.
  case noCommands
  /// The disk knows no persistent reservations, or not REPORT CAPABILITIES: most SATA disks.
  case noReservations
  /// It forgets registrations with its power (PTPL_C is 0).
  case losesRegistrations
  /// No Write Exclusive - Registrants Only, or it does not tell its types.
  case lacksType
  /// An NVMe controller that knows no host identifier.
  case noHostIdentifier
  /// The kernel wants privileges that this process does not have.
  case notPermitted
  case noAnswer(FenceFailure)

  /// Whether the next question may well have another answer.
  /// - Parameter hasPart: there is a privileged part, which may only be late.
  public func isPassing(hasPart: Bool) -> Bool {
    switch self {
    case .noCommands, .noReservations, .losesRegistrations, .lacksType, .noHostIdentifier: false
    case .notPermitted: hasPart
    case .noAnswer: true
    }
  }

  public var description: String {
    switch self {
    case .noCommands: "its driver passes no reservation commands"
    case .noReservations: "it has no persistent reservations"
    case .losesRegistrations: "it loses persistent reservations with its power"
    case .lacksType: "it has no reservations of the type Write Exclusive - Registrants Only"
    case .noHostIdentifier: "its NVMe controller has no host identifier"
    case .notPermitted: "gatewayd may not send reservation commands: \(FencePart.remedy)"
    case .noAnswer(.conflict): "a reservation of another host keeps this one from asking"
    case .noAnswer(.disturbed): "it tells of resets at every question"
    case .noAnswer(.timedOut): "it did not answer in time"
    case .noAnswer(.failed(let code)): "it cannot be asked: \(String(cString: strerror(code)))"
    }
  }
}
