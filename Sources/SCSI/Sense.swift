import Wire

/// Sense data (SPC-5 §4.4) as a small value; encoded only when a response is built.
public struct Sense: Error, Equatable, Sendable {
  public var key: SenseKey
  /// ASC in the high byte, ASCQ in the low.
  public var code: UInt16
  /// INFORMATION, where the standard gives it a meaning (an LBA, a byte offset). Of COPY ABORTED it is the segment's number,
  /// which goes to COMMAND-SPECIFIC INFORMATION (SPC-4 §6.4.6.4).
  public var information: UInt64?
  /// The first byte in error and, for a bit, its number: the sense-key-specific field of ILLEGAL REQUEST (SPC-5
  /// §4.4.2.4.2), or of COPY ABORTED, in the segment descriptor. Of NOT READY `byte` is the PROGRESS INDICATION.
  public var field: FieldPointer?

  public struct FieldPointer: Equatable, Sendable {
    /// Whether the field is in the CDB (else in the parameter data).
    public var inCDB: Bool
    public var byte: UInt16
    public var bit: UInt8?

    public init(inCDB: Bool, byte: UInt16, bit: UInt8? = nil) {
      self.inCDB = inCDB
      self.byte = byte
      self.bit = bit
    }
  }

  public init(_ key: SenseKey, _ code: UInt16, information: UInt64? = nil, field: FieldPointer? = nil) {
    self.key = key
    self.code = code
    self.information = information
    self.field = field
  }
}
