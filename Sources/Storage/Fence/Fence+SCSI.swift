import CSystem
import Glibc
import SCSI
import Wire

/// Service actions of PERSISTENT RESERVE OUT (SPC-5 table 65).
enum ReserveOutAction: UInt8 {
  case register = 0x00
  case reserve = 0x01
  case preempt = 0x04
  case preemptAndAbort = 0x05
  case registerAndIgnoreExistingKey = 0x06
}

/// Service actions of PERSISTENT RESERVE IN (SPC-5 table 57).
enum ReserveInAction: UInt8 {
  case readKeys = 0x00
  case readReservation = 0x01
  case reportCapabilities = 0x02
}

extension Fence {
  /// PERSISTENT RESERVE OUT with the basic parameter list (SPC-5 §6.17.3).
  func reserveOut(
    _ action: ReserveOutAction, key: UInt64, serviceActionKey: UInt64
  ) throws(FenceFailure) {
    // SCOPE 0 (the logical unit), then TYPE.
    let type = PersistentReservations.Kind.writeExclusiveRegistrantsOnly.rawValue
    let cdb: [UInt8] = [0x5F, action.rawValue, type, 0, 0, 0, 0, 0, 24, 0]
    var list: [UInt8] = []
    list.append(be: key)
    list.append(be: serviceActionKey)
    list.append(be: UInt32(0))
    // APTPL of the last registration holds for all nexuses (SPC-5 §5.14.5): also the one who leaves must ask for it, or the
    // others' registrations would go with the power.
    let isRegistration = action == .register || action == .registerAndIgnoreExistingKey
    list += [isRegistration ? 1 : 0, 0, 0, 0]
    _ = try command(cdb, output: list)
  }

  func reserveIn(_ action: ReserveInAction, allocation: Int) throws(FenceFailure) -> [UInt8] {
    var cdb: [UInt8] = [0x5E, action.rawValue, 0, 0, 0, 0, 0]
    cdb.append(be: UInt16(allocation))
    return try command(cdb + [0], inputBytes: allocation)
  }

  func readKeysSCSI() throws(FenceFailure) -> RegisteredKeys {
    var bytes = try reserveIn(.readKeys, allocation: 520)
    let whole = min(RegisteredKeys.byteCount(bytes), 0xFFF8)
    if whole > bytes.count { bytes = try reserveIn(.readKeys, allocation: whole) }
    guard let keys = RegisteredKeys(decoding: bytes) else { throw .failed(EBADMSG) }
    return keys
  }

  func readReservationSCSI() throws(FenceFailure) -> (generation: UInt32, reservation: HeldReservation?) {
    guard let held = HeldReservation.read(try reserveIn(.readReservation, allocation: 24)) else {
      throw .failed(EBADMSG)
    }
    return held
  }

  func readCapabilitiesSCSI() throws(FenceFailure) -> ReservationCapabilities {
    let bytes = try reserveIn(.reportCapabilities, allocation: 8)
    guard let capabilities = ReservationCapabilities(decoding: bytes) else { throw .failed(EBADMSG) }
    return capabilities
  }

  /// Sends a command until it has an answer that means something, at most for as long as the fence's bound; what it read.
  private func command(
    _ cdb: [UInt8], output: [UInt8] = [], inputBytes: Int = 0
  ) throws(FenceFailure) -> [UInt8] {
    let begin = system_monotonic_ns()
    while true {
      let elapsed = (system_monotonic_ns() - begin) / 1_000_000
      let left = max(UInt64(timeoutMilliseconds), elapsed + 1) - elapsed
      var data = output.isEmpty ? [UInt8](repeating: 0, count: inputBytes) : output
      var result = system_scsi_result()
      let code = data.withUnsafeMutableBytes { data in
        system_scsi_command(
          fd, cdb, UInt32(cdb.count), data.baseAddress, UInt32(data.count), output.isEmpty ? 0 : 1, UInt32(left),
          &result)
      }
      guard code == 0 else { throw FenceFailure(errno: -code) }
      switch SCSIEnd(result) {
      case .good: return output.isEmpty ? Array(data.prefix(Int(result.transferred))) : []
      case .failure(let failure): throw failure
      case .again:
        guard left > 20 else { throw .failed(EBUSY) }
        usleep(10_000)
      }
    }
  }
}

/// How a command to a SCSI disk ended.
enum SCSIEnd: Equatable {
  case good
  /// Not done; another attempt may be.
  case again
  case failure(FenceFailure)

  /// Host status codes of the kernel (include/scsi/scsi_status.h): of those whose command never reached the disk.
  private static let didNoConnect: UInt16 = 0x01
  private static let didBadTarget: UInt16 = 0x04

  init(_ result: system_scsi_result) {
    let sense = withUnsafeBytes(of: result.sense) { Array($0.prefix(Int(result.sense_bytes))) }
    self.init(status: Status(rawValue: result.status), host: result.host_status, sense: SenseData(decoding: sense))
  }

  /// The status comes first: older kernels tell a reservation conflict by a host status as well.
  init(status: Status, host: UInt16, sense: SenseData?) {
    switch status {
    case .reservationConflict: self = .failure(.conflict)
    case .checkCondition: self = Self.end(of: sense)
    case .busy, .taskSetFull: self = .again
    // Another nexus had it aborted (TAS): so it was not done, or not wholly.
    case .taskAborted: self = .failure(.timedOut)
    case .good where host == 0: self = .good
    case .good where host == Self.didNoConnect || host == Self.didBadTarget: self = .failure(.failed(ENXIO))
    // Timeout, reset, transport lost: the disk may have done it.
    case .good: self = .failure(.timedOut)
    default: self = .failure(.failed(EIO))
    }
  }

  private static func end(of sense: SenseData?) -> SCSIEnd {
    guard let sense else { return .failure(.failed(EIO)) }
    if sense.tellsOfRegistrations { return .failure(.disturbed) }
    if sense.isPassing { return .again }
    switch (sense.key, sense.code) {
    case (SenseKey.recoveredError.rawValue, _): return .good
    // INVALID COMMAND OPERATION CODE, INVALID FIELD IN CDB, LOGICAL UNIT NOT SUPPORTED.
    case (SenseKey.illegalRequest.rawValue, 0x2000), (SenseKey.illegalRequest.rawValue, 0x2400):
      return .failure(.failed(EOPNOTSUPP))
    case (SenseKey.illegalRequest.rawValue, 0x2500): return .failure(.failed(ENXIO))
    // INSUFFICIENT REGISTRATION RESOURCES.
    case (SenseKey.illegalRequest.rawValue, 0x5504): return .failure(.failed(ENOSPC))
    case (SenseKey.illegalRequest.rawValue, _): return .failure(.failed(EINVAL))
    default: return .failure(.failed(EIO))
    }
  }
}
