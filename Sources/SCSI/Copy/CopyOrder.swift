/// What an EXTENDED COPY asks for, decoded. Who executes it takes one segment after the other, in pieces, asks before each
/// piece whether it may (`DeviceServer.refusal(of:nexus:)`), and tells the nexus how far it is.
public struct CopyOrder: Sendable {
  /// The most that there may be of each in one command.
  static let targetsMax = 16
  static let segmentsMax = 64
  static let targetBytes = 32
  static let segmentBytes = 28
  static let descriptorBytesMax = targetsMax * targetBytes + segmentsMax * segmentBytes
  /// MAXIMUM SEGMENT LENGTH, in bytes: 65535 blocks of 4096 bytes are less.
  static let segmentLengthMax: UInt32 = 1 << 28

  /// In order; one that cannot be done ends the command when its turn comes.
  public var segments: [Result<CopySegment, CopyFailure>]
  /// The copy's name in the nexus (`Nexus.updateCopies`).
  public var token: UInt64
}

/// A segment descriptor of type 02h: blocks from one logical unit to another, or within one.
public struct CopySegment: Sendable {
  public var source: LogicalUnit
  public var sourceLBA: UInt64
  public var destination: LogicalUnit
  public var destinationLBA: UInt64
  /// A multiple of both block lengths.
  public var byteCount: UInt64
  /// Its place among the segment descriptors.
  public var number: UInt16
}

/// Why a copy ended early.
public struct CopyFailure: Error, Equatable, Sendable {
  /// COPY ABORTED, with the segment's number.
  public var sense: Sense
  /// How the logical unit ended what the copy asked of it; nil: it was not asked.
  public var status: Status?
  public var cause: Sense?

  /// - Parameters:
  ///   - code: ASC and ASCQ.
  ///   - byte: the field of the segment descriptor that is in error.
  public init(_ code: UInt16, segment: UInt16, byte: UInt16? = nil, status: Status? = nil, cause: Sense? = nil) {
    sense = Sense(
      .copyAborted, code, information: UInt64(segment),
      field: byte.map { Sense.FieldPointer(inCDB: false, byte: $0) })
    self.status = status
    self.cause = cause
  }

  static let unreachableTarget: UInt16 = 0x0804
  static let deviceFailure: UInt16 = 0x0D01
  static let inexactSegment: UInt16 = 0x260A

  /// A logical unit ended a read or write of the copy.
  public static func device(segment: UInt16, cause: Sense) -> CopyFailure {
    CopyFailure(deviceFailure, segment: segment, status: .checkCondition, cause: cause)
  }
}
