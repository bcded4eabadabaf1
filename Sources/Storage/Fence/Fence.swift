import CSystem
import Glibc
import SCSI

/// The persistent reservations of a backing disk, through its open descriptor: the fence between two nodes that share it.
///
/// Calls block, and belong to a thread that the disk may keep: the kernel gives a command up after `timeoutMilliseconds`,
/// but its error handling, or a path that is down, may take longer. Whoever needs a bound waits for the answer elsewhere.
///
/// A SCSI disk is asked by PERSISTENT RESERVE IN and OUT through SG_IO, an NVMe namespace by its reservation commands: so
/// status and sense are exact. A multipath map is registered by the kernel's own call on every path (`IOC_PR_REGISTER`),
/// which tells less. Not the kernel's calls for all: those of 6.1 cannot read keys, and retry unit attentions unseen.
public struct Fence: Sendable {
  enum Route: Equatable {
    case scsi
    case nvme
    /// A multipath map whose paths speak SCSI or (`isNVMe`) NVMe.
    case paths(isNVMe: Bool)
  }

  public static let timeoutMillisecondsDefault: UInt32 = 2000

  /// Keeps the descriptor open; nil: somebody else does.
  private let disk: Disk?
  let fd: Int32
  let route: Route
  /// For what this process may not do itself; nil: it is that part.
  private let part: FencePart?
  public let timeoutMilliseconds: UInt32

  /// nil: no such commands can be sent to the disk.
  /// - Parameter part: who does what the kernel does not allow this process.
  public init?(
    _ disk: Disk, timeoutMilliseconds: UInt32 = timeoutMillisecondsDefault, part: FencePart = .standard
  ) {
    guard let fd = disk.descriptor, disk.facts.is_block_device != 0 else { return nil }
    self.init(fd, disk, timeoutMilliseconds, part)
  }

  /// The fence of a block device that the caller keeps open, and with what this process itself may do.
  init?(descriptor: Int32, timeoutMilliseconds: UInt32) {
    self.init(descriptor, nil, timeoutMilliseconds, nil)
  }

  private init?(_ fd: Int32, _ disk: Disk?, _ timeoutMilliseconds: UInt32, _ part: FencePart?) {
    self.fd = fd
    self.disk = disk
    self.part = part
    self.timeoutMilliseconds = timeoutMilliseconds
    let isMap = system_disk_is_map(fd) != 0
    switch Int(system_disk_protocol(fd)) {
    case SYSTEM_PROTOCOL_SCSI: route = isMap ? .paths(isNVMe: false) : .scsi
    case SYSTEM_PROTOCOL_NVME: route = isMap ? .paths(isNVMe: true) : .nvme
    default: return nil
    }
  }

  /// How the disk is reached: "SCSI", "NVMe", "multipath over SCSI".
  public var routeName: String {
    switch route {
    case .scsi: "SCSI"
    case .nvme: "NVMe"
    case .paths(let isNVMe): "multipath over \(isNVMe ? "NVMe" : "SCSI")"
    }
  }

  // MARK: - Orders

  /// Registers `key` whatever this node had registered (REGISTER AND IGNORE EXISTING KEY), on every path, to outlive a loss
  /// of power (APTPL).
  public func register(_ key: UInt64) throws(FenceFailure) { _ = try ask(.register(key)) }

  /// RESERVE, Write Exclusive - Registrants Only.
  public func reserve(_ key: UInt64) throws(FenceFailure) { _ = try ask(.reserve(key)) }

  /// Takes the victim's registration, and the reservation if it holds it. `conflict`: the victim's key is not registered
  /// (any more), or our own is not.
  /// - Parameter aborts: PREEMPT AND ABORT: when it returns, no command of the victim takes effect any more. Without, commands
  ///   that the disk has already accepted still do.
  public func preempt(own: UInt64, victim: UInt64, aborts: Bool = true) throws(FenceFailure) {
    _ = try ask(.preempt(own: own, victim: victim, aborts: aborts))
  }

  /// Takes the own registration back, and with it a reservation that this node holds. `conflict`: it is not registered.
  public func unregister(_ key: UInt64) throws(FenceFailure) { _ = try ask(.unregister(key)) }

  // MARK: - Questions

  public func readKeys() throws(FenceFailure) -> RegisteredKeys {
    let state = try state(.readKeys)
    return RegisteredKeys(generation: state.generation, keys: state.keys)
  }

  public func readReservation() throws(FenceFailure) -> HeldReservation? { try state(.readReservation).reservation }

  /// Keys and reservation of one moment, as far as the generation tells.
  public func readState() throws(FenceFailure) -> FenceState { try state(.readState) }

  public func readCapabilities() throws(FenceFailure) -> ReservationCapabilities {
    guard case .capabilities(let capabilities) = try ask(.readCapabilities) else { throw .failed(EBADMSG) }
    return capabilities
  }

  /// Whether the controller of an NVMe disk knows the host by an identifier: without one it takes no registrations. (A fabric's
  /// host always has one, a PCIe controller only if somebody set it.)
  func hasHostIdentifier() throws(FenceFailure) -> Bool {
    guard case .flag(let has) = try ask(.hasHostIdentifier) else { throw .failed(EBADMSG) }
    return has
  }

  private func state(_ question: FenceRequest) throws(FenceFailure) -> FenceState {
    guard case .state(let state) = try ask(question) else { throw .failed(EBADMSG) }
    return state
  }

  /// By this process where the kernel lets it, which it finds out before anything is sent; else by the part that may.
  private func ask(_ request: FenceRequest) throws(FenceFailure) -> FenceAnswer {
    do throws(FenceFailure) {
      return try perform(request)
    } catch {
      guard error.isForbidden, let part else { throw error }
      return try part.ask(request, fd, timeoutMilliseconds: timeoutMilliseconds, insteadOf: error)
    }
  }

  var usesNVMe: Bool { route == .nvme || route == .paths(isNVMe: true) }
}

extension Fence {
  /// One of the kernel's calls. It tells a status, but no sense: a CHECK CONDITION may have been a unit attention, which is
  /// gone once it was told, so it is tried again. That loses nothing: an order of a nexus whose registration is gone gets a
  /// conflict, and a registration is what would be done about it.
  func callKernel(_ call: (Int32) -> Int32) throws(FenceFailure) {
    var end = SCSIEnd.again
    for _ in 0..<4 where end == .again { end = SCSIEnd(kernel: call(fd), isNVMe: usesNVMe) }
    switch end {
    case .good: return
    case .failure(let failure): throw failure
    case .again: throw .failed(EIO)
    }
  }
}

extension SCSIEnd {
  /// What one of the kernel's calls came to: -errno, or SAM-5's status in the low byte with the kernel's own remarks above
  /// it, of which bits 16 to 23 are a host status. For NVMe it is a status field, or (newer kernels) the same as for SCSI.
  init(kernel value: Int32, isNVMe: Bool) {
    let status = Status(rawValue: UInt8(truncatingIfNeeded: value))
    if value < 0 {
      self = .failure(FenceFailure(errno: -value))
    } else if isNVMe, value <= 0xFFFF, status != .reservationConflict {
      self = NVMeStatus(rawValue: UInt16(truncatingIfNeeded: value)).failure.map(SCSIEnd.failure) ?? .good
    } else if status == .checkCondition {
      self = .again
    } else {
      self.init(status: status, host: UInt16(value >> 16 & 0xFF), sense: nil)
    }
  }
}

extension FenceFailure {
  /// What a positive errno of a command or a write means. EBADE is how the block layer tells a reservation conflict.
  public init(errno code: Int32) {
    switch code {
    case EBADE: self = .conflict
    // The block layer's word for a command whose end nobody saw.
    case ETIMEDOUT, EINTR: self = .timedOut
    default: self = .failed(code)
    }
  }
}
