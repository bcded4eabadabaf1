import Wire

/// iSCSI opcodes (RFC 7143 §11.2.1.2), without the immediate bit.
public struct Opcode: RawRepresentable, Hashable, Sendable {
  public var rawValue: UInt8

  @inlinable
  public init(rawValue: UInt8) { self.rawValue = rawValue }

  public static let nopOut = Opcode(rawValue: 0x00)
  public static let scsiCommand = Opcode(rawValue: 0x01)
  public static let taskManagementRequest = Opcode(rawValue: 0x02)
  public static let loginRequest = Opcode(rawValue: 0x03)
  public static let textRequest = Opcode(rawValue: 0x04)
  public static let dataOut = Opcode(rawValue: 0x05)
  public static let logoutRequest = Opcode(rawValue: 0x06)
  public static let snackRequest = Opcode(rawValue: 0x10)

  public static let nopIn = Opcode(rawValue: 0x20)
  public static let scsiResponse = Opcode(rawValue: 0x21)
  public static let taskManagementResponse = Opcode(rawValue: 0x22)
  public static let loginResponse = Opcode(rawValue: 0x23)
  public static let textResponse = Opcode(rawValue: 0x24)
  public static let dataIn = Opcode(rawValue: 0x25)
  public static let logoutResponse = Opcode(rawValue: 0x26)
  public static let readyToTransfer = Opcode(rawValue: 0x31)
  public static let asyncMessage = Opcode(rawValue: 0x32)
  public static let reject = Opcode(rawValue: 0x3F)
}

/// The 48-byte basic header segment (RFC 7143 §11.2.1) as twelve words in host order, so that reading a field never touches
/// the receive buffer again and no offset can leave it. Fields are named where several PDUs share them; the rest are words.
public struct BasicHeaderSegment: Equatable, Sendable {
  public static let byteCount = 48
  /// The Initiator Task Tag and Target Transfer Tag that name nothing.
  public static let reservedTag: UInt32 = 0xFFFF_FFFF

  // Words by byte offset / 4.
  public var word0: UInt32 = 0
  public var word1: UInt32 = 0
  public var word2: UInt32 = 0
  public var word3: UInt32 = 0
  public var word4: UInt32 = 0
  public var word5: UInt32 = 0
  public var word6: UInt32 = 0
  public var word7: UInt32 = 0
  public var word8: UInt32 = 0
  public var word9: UInt32 = 0
  public var word10: UInt32 = 0
  public var word11: UInt32 = 0

  @inlinable
  public init() {}

  /// A PDU of the given opcode with byte 1 (`flags`) and an initiator task tag.
  @inlinable
  public init(_ opcode: Opcode, flags: UInt8, initiatorTaskTag: UInt32) {
    word0 = UInt32(opcode.rawValue) << 24 | UInt32(flags) << 16
    word4 = initiatorTaskTag
  }

  /// Reads 48 bytes at `bytes`.
  @inlinable
  public init(at bytes: UnsafeRawPointer) {
    word0 = bytes.be32(0)
    word1 = bytes.be32(4)
    word2 = bytes.be32(8)
    word3 = bytes.be32(12)
    word4 = bytes.be32(16)
    word5 = bytes.be32(20)
    word6 = bytes.be32(24)
    word7 = bytes.be32(28)
    word8 = bytes.be32(32)
    word9 = bytes.be32(36)
    word10 = bytes.be32(40)
    word11 = bytes.be32(44)
  }

  /// Writes 48 bytes at `bytes`.
  @inlinable
  public func store(at bytes: UnsafeMutableRawPointer) {
    bytes.store(be32: word0, at: 0)
    bytes.store(be32: word1, at: 4)
    bytes.store(be32: word2, at: 8)
    bytes.store(be32: word3, at: 12)
    bytes.store(be32: word4, at: 16)
    bytes.store(be32: word5, at: 20)
    bytes.store(be32: word6, at: 24)
    bytes.store(be32: word7, at: 28)
    bytes.store(be32: word8, at: 32)
    bytes.store(be32: word9, at: 36)
    bytes.store(be32: word10, at: 40)
    bytes.store(be32: word11, at: 44)
  }

  /// The 48 bytes.
  public var bytes: [UInt8] {
    [UInt8](unsafeUninitializedCapacity: Self.byteCount) { buffer, count in
      store(at: UnsafeMutableRawPointer(buffer.baseAddress!))
      count = Self.byteCount
    }
  }

  // Byte 0.
  @inlinable public var opcode: Opcode { Opcode(rawValue: UInt8(truncatingIfNeeded: word0 >> 24) & 0x3F) }
  @inlinable public var isImmediate: Bool { word0 & 0x4000_0000 != 0 }
  // Byte 1: F and the opcode-specific flags.
  @inlinable public var flags: UInt8 { UInt8(truncatingIfNeeded: word0 >> 16) }
  @inlinable public var isFinal: Bool { word0 & 0x0080_0000 != 0 }
  // Bytes 2 and 3.
  @inlinable public var byte2: UInt8 { UInt8(truncatingIfNeeded: word0 >> 8) }
  @inlinable public var byte3: UInt8 { UInt8(truncatingIfNeeded: word0) }
  /// TotalAHSLength, in bytes (on the wire: 4-byte words).
  @inlinable public var additionalHeaderBytes: Int { Int(word1 >> 24) * 4 }

  /// DataSegmentLength, in bytes without padding.
  @inlinable public var dataSegmentLength: Int {
    get { Int(word1 & 0x00FF_FFFF) }
    set { word1 = word1 & 0xFF00_0000 | UInt32(newValue) & 0x00FF_FFFF }
  }

  /// The eight-byte LUN field.
  @inlinable public var lun: UInt64 {
    get { UInt64(word2) << 32 | UInt64(word3) }
    set {
      word2 = UInt32(truncatingIfNeeded: newValue >> 32)
      word3 = UInt32(truncatingIfNeeded: newValue)
    }
  }

  @inlinable public var initiatorTaskTag: UInt32 { word4 }

  @inlinable public var targetTransferTag: UInt32 {
    get { word5 }
    set { word5 = newValue }
  }
  @inlinable public var expectedDataTransferLength: UInt32 { word5 }
  @inlinable public var referencedTaskTag: UInt32 { word5 }
  // Requests.
  @inlinable public var cmdSN: UInt32 { word6 }
  @inlinable public var expStatSN: UInt32 { word7 }
  // Responses.
  @inlinable public var statSN: UInt32 {
    get { word6 }
    set { word6 = newValue }
  }
  @inlinable public var expCmdSN: UInt32 {
    get { word7 }
    set { word7 = newValue }
  }
  @inlinable public var maxCmdSN: UInt32 {
    get { word8 }
    set { word8 = newValue }
  }
  // Data-Out, Data-In, R2T.
  @inlinable public var dataSN: UInt32 {
    get { word9 }
    set { word9 = newValue }
  }
  @inlinable public var bufferOffset: UInt32 {
    get { word10 }
    set { word10 = newValue }
  }
  /// Residual count of a SCSI Response or of a Data-In with status; Desired Data Transfer Length of an R2T.
  @inlinable public var word11Value: UInt32 {
    get { word11 }
    set { word11 = newValue }
  }
}
