import CSystem
import Glibc
import SCSI

/// The status field of an NVMe completion as Linux gives it: code (8 bits), code type (3), CRD, M, DNR.
struct NVMeStatus: RawRepresentable, Equatable {
  var rawValue: UInt16
  /// Code and code type.
  init(rawValue: UInt16) { self.rawValue = rawValue & 0x7FF }

  static let success = NVMeStatus(rawValue: 0x000)
  static let invalidOpcode = NVMeStatus(rawValue: 0x001)
  static let invalidField = NVMeStatus(rawValue: 0x002)
  static let abortedByRequest = NVMeStatus(rawValue: 0x007)
  static let hostIdentifierInconsistentFormat = NVMeStatus(rawValue: 0x018)
  static let reservationConflict = NVMeStatus(rawValue: 0x083)
  static let hostPathError = NVMeStatus(rawValue: 0x370)
  static let hostAbortedCommand = NVMeStatus(rawValue: 0x371)

  /// nil: success.
  var failure: FenceFailure? {
    switch self {
    case .success: nil
    case .reservationConflict: .conflict
    // The kernel's own: the path was lost, or the command was given up, with the command perhaps done.
    case .abortedByRequest, .hostPathError, .hostAbortedCommand: .timedOut
    case .invalidOpcode: .failed(EOPNOTSUPP)
    case .invalidField, .hostIdentifierInconsistentFormat: .failed(EINVAL)
    default: .failed(EIO)
    }
  }
}

/// RREGA of Reservation Register.
enum NVMeRegisterAction: UInt32 {
  case unregister = 1
  /// With the existing key ignored it also registers a host that was not.
  case replace = 2
}

/// RACQA of Reservation Acquire.
enum NVMeAcquireAction: UInt32 {
  case acquire = 0
  case preempt = 1
  case preemptAndAbort = 2
}

extension Fence {
  /// Reservation Register: CRKEY, NRKEY. CPTPL 11b: registrations outlive a loss of power.
  func registerNVMe(
    _ action: NVMeRegisterAction, key: UInt64, newKey: UInt64, ignoresKey: Bool
  ) throws(FenceFailure) {
    let persists: UInt32 = action == .unregister ? 0 : 3 << 30
    var keys = Self.little(key) + Self.little(newKey)
    try commandNVMe(0x0D, cdw10: action.rawValue | (ignoresKey ? 1 << 3 : 0) | persists, data: &keys)
  }

  /// Reservation Acquire: CRKEY, PRKEY. RTYPE 3 is Write Exclusive - Registrants Only.
  func acquireNVMe(_ action: NVMeAcquireAction, key: UInt64, victim: UInt64) throws(FenceFailure) {
    var keys = Self.little(key) + Self.little(victim)
    try commandNVMe(0x11, cdw10: action.rawValue | 3 << 8, data: &keys)
  }

  /// Reservation Report, in the structure that fits the host identifier's length, which is known by trying.
  func reportNVMe() throws(FenceFailure) -> NVMeReservationReport {
    var failure = FenceFailure.failed(EBADMSG)
    for isExtended in [true, false] {
      do throws(FenceFailure) {
        return try reportNVMe(isExtended: isExtended)
      } catch {
        guard error == .failed(EINVAL) else { throw error }
        failure = error
      }
    }
    throw failure
  }

  private func reportNVMe(isExtended: Bool) throws(FenceFailure) -> NVMeReservationReport {
    var count = 4096
    while true {
      var bytes = [UInt8](repeating: 0, count: count)
      // NUMD is a number of dwords less one.
      try commandNVMe(0x0E, cdw10: UInt32(count / 4 - 1), cdw11: isExtended ? 1 : 0, data: &bytes)
      let whole = NVMeReservationReport.byteCount(bytes, isExtended: isExtended)
      if whole > count, count < 1 << 16 {
        count = 1 << 16
        continue
      }
      guard let report = NVMeReservationReport(decoding: bytes, isExtended: isExtended) else { throw .failed(EBADMSG) }
      return report
    }
  }

  func readCapabilitiesNVMe() throws(FenceFailure) -> ReservationCapabilities {
    // Identify Namespace (CNS 0): RESCAP is byte 31.
    var identity = [UInt8](repeating: 0, count: 4096)
    try commandNVMe(0x06, isAdmin: true, cdw10: 0, data: &identity)
    guard identity[31] != 0 else { throw .failed(EOPNOTSUPP) }
    return ReservationCapabilities(rescap: identity[31], persists: try reportNVMe().persists)
  }

  func readHostIdentifier() throws(FenceFailure) -> Bool {
    for isLong in [true, false] {
      var identifier = [UInt8](repeating: 0, count: isLong ? 16 : 8)
      do throws(FenceFailure) {
        // Get Features, Host Identifier; EXHID.
        try commandNVMe(0x0A, isAdmin: true, cdw10: 0x81, cdw11: isLong ? 1 : 0, data: &identifier)
        if identifier.contains(where: { $0 != 0 }) { return true }
      } catch {
        guard error == .failed(EINVAL) else { throw error }
      }
    }
    return false
  }

  private func commandNVMe(
    _ opcode: UInt8, isAdmin: Bool = false, cdw10: UInt32, cdw11: UInt32 = 0, data: inout [UInt8]
  ) throws(FenceFailure) {
    let count = UInt32(data.count)
    let status = data.withUnsafeMutableBytes { data in
      var command = system_nvme_command()
      command.opcode = opcode
      command.is_admin = isAdmin ? 1 : 0
      command.cdw10 = cdw10
      command.cdw11 = cdw11
      command.data = data.baseAddress
      command.data_bytes = count
      command.timeout_ms = timeoutMilliseconds
      return system_nvme_command(fd, &command)
    }
    guard status >= 0 else { throw FenceFailure(errno: -status) }
    if let failure = NVMeStatus(rawValue: UInt16(truncatingIfNeeded: status)).failure { throw failure }
  }

  private static func little(_ value: UInt64) -> [UInt8] {
    (0..<8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
  }
}
