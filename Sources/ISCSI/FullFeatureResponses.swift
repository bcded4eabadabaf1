/// Reasons of a Reject PDU (RFC 7143 §11.17.1).
public struct RejectReason: RawRepresentable, Hashable, Sendable {
  public var rawValue: UInt8

  public init(rawValue: UInt8) { self.rawValue = rawValue }

  public static let dataDigestError = RejectReason(rawValue: 0x02)
  public static let snackReject = RejectReason(rawValue: 0x03)
  public static let protocolError = RejectReason(rawValue: 0x04)
  public static let commandNotSupported = RejectReason(rawValue: 0x05)
  public static let taskInProgress = RejectReason(rawValue: 0x07)
  public static let invalidPDUField = RejectReason(rawValue: 0x09)
  public static let outOfResources = RejectReason(rawValue: 0x0A)
}

/// Responses of task management (RFC 7143 §11.6.1).
public enum TaskManagementResponse: UInt8, Sendable {
  case functionComplete = 0
  case taskDoesNotExist = 1
  case lunDoesNotExist = 2
  case taskStillAllegiant = 3
  case reassignmentNotSupported = 4
  case functionNotSupported = 5
  case authorizationFailed = 6
  case functionRejected = 255
}

/// Functions of task management (RFC 7143 §11.5.1).
public enum TaskManagementFunction: UInt8, Sendable {
  case abortTask = 1
  case abortTaskSet = 2
  case clearACA = 3
  case clearTaskSet = 4
  case logicalUnitReset = 5
  case targetWarmReset = 6
  case targetColdReset = 7
  case taskReassign = 8
}

/// Events of an Asynchronous Message (RFC 7143 §11.9.1).
public enum AsyncEvent: UInt8, Sendable {
  /// Sense data in the data segment.
  case scsi = 0
  case logoutRequest = 1
  case connectionDrop = 2
  case sessionDrop = 3
  case renegotiation = 4
}

/// How much less or more was to be moved than the initiator expected (RFC 7143 §11.4.5.1).
public enum Residual: Equatable, Sendable {
  case none
  case underflow(UInt32)
  case overflow(UInt32)

  /// - Parameters:
  ///   - expected: Expected Data Transfer Length.
  ///   - actual: what the command would move if nothing limited it, in bytes.
  @inlinable
  public init(expected: UInt64, actual: UInt64) {
    if actual == expected {
      self = .none
    } else if actual < expected {
      self = .underflow(UInt32(truncatingIfNeeded: expected - actual))
    } else {
      self = .overflow(UInt32(clamping: actual - expected))
    }
  }

  /// The U or O flag of byte 1 (for SCSI Response and for Data-In with status, which share these bits).
  @inlinable
  public var flags: UInt8 {
    switch self {
    case .none: 0
    case .underflow: 0x02
    case .overflow: 0x04
    }
  }

  @inlinable
  public var count: UInt32 {
    switch self {
    case .none: 0
    case .underflow(let count), .overflow(let count): count
    }
  }
}

/// The headers of the full-feature phase that a target sends. StatSN, ExpCmdSN and MaxCmdSN are the sender's to fill in.
extension BasicHeaderSegment {
  /// SCSI Response (RFC 7143 §11.4) with the command completed at the target.
  @inlinable
  public static func scsiResponse(
    initiatorTaskTag: UInt32, status: UInt8, residual: Residual, expDataSN: UInt32
  ) -> Self {
    var header = Self(.scsiResponse, flags: 0x80 | residual.flags, initiatorTaskTag: initiatorTaskTag)
    header.word0 |= UInt32(status)
    header.word9 = expDataSN
    header.word11 = residual.count
    return header
  }

  /// Data-In (RFC 7143 §11.7) without status; the sender numbers and cuts it.
  @inlinable
  public static func dataIn(initiatorTaskTag: UInt32) -> Self {
    var header = Self(.dataIn, flags: 0, initiatorTaskTag: initiatorTaskTag)
    header.word5 = reservedTag
    return header
  }

  /// Makes a Data-In carry GOOD status (RFC 7143 §11.7.3): S and F, the residual.
  @inlinable
  public mutating func addStatus(_ status: UInt8, residual: Residual) {
    word0 |= UInt32(0x81 | residual.flags) << 16 | UInt32(status)
    word11 = residual.count
  }

  /// Ready To Transfer (RFC 7143 §11.8).
  public static func readyToTransfer(
    lun: UInt64, initiatorTaskTag: UInt32, targetTransferTag: UInt32, r2tSN: UInt32, bufferOffset: UInt32,
    desiredLength: UInt32
  ) -> Self {
    var header = Self(.readyToTransfer, flags: 0x80, initiatorTaskTag: initiatorTaskTag)
    header.lun = lun
    header.targetTransferTag = targetTransferTag
    header.word9 = r2tSN
    header.bufferOffset = bufferOffset
    header.word11 = desiredLength
    return header
  }

  /// NOP-In (RFC 7143 §11.19): an answer when `initiatorTaskTag` is not reserved, else a ping that wants one.
  public static func nopIn(lun: UInt64, initiatorTaskTag: UInt32, targetTransferTag: UInt32) -> Self {
    var header = Self(.nopIn, flags: 0x80, initiatorTaskTag: initiatorTaskTag)
    header.lun = lun
    header.targetTransferTag = targetTransferTag
    return header
  }

  /// Task Management Function Response (RFC 7143 §11.6).
  public static func taskManagementResponse(initiatorTaskTag: UInt32, _ response: TaskManagementResponse) -> Self {
    var header = Self(.taskManagementResponse, flags: 0x80, initiatorTaskTag: initiatorTaskTag)
    header.word0 |= UInt32(response.rawValue) << 8
    return header
  }

  /// Logout Response (RFC 7143 §11.15). Times in seconds.
  public static func logoutResponse(
    initiatorTaskTag: UInt32, response: UInt8, time2Wait: UInt16 = 0, time2Retain: UInt16 = 0
  ) -> Self {
    var header = Self(.logoutResponse, flags: 0x80, initiatorTaskTag: initiatorTaskTag)
    header.word0 |= UInt32(response) << 8
    header.word10 = UInt32(time2Wait) << 16 | UInt32(time2Retain)
    return header
  }

  /// Reject (RFC 7143 §11.17); the data segment is the rejected header.
  public static func reject(_ reason: RejectReason) -> Self {
    var header = Self(.reject, flags: 0x80, initiatorTaskTag: reservedTag)
    header.word0 |= UInt32(reason.rawValue) << 8
    return header
  }

  /// Asynchronous Message (RFC 7143 §11.9) with its three parameters.
  public static func asyncMessage(
    _ event: AsyncEvent, lun: UInt64 = 0, parameters: (UInt16, UInt16, UInt16) = (0, 0, 0)
  ) -> Self {
    var header = Self(.asyncMessage, flags: 0x80, initiatorTaskTag: reservedTag)
    header.lun = lun
    header.word9 = UInt32(event.rawValue) << 24 | UInt32(parameters.0)
    header.word10 = UInt32(parameters.1) << 16 | UInt32(parameters.2)
    return header
  }
}
