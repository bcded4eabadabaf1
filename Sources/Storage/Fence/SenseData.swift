import SCSI

/// Sense data that a disk gave, of either format (SPC-5 §4.4): its sense key and its codes.
public struct SenseData: Equatable, Sendable {
  /// Four bits.
  public var key: UInt8
  /// ASC in the high byte, ASCQ in the low.
  public var code: UInt16

  public init(key: UInt8, code: UInt16) {
    self.key = key
    self.code = code
  }

  public init?(decoding bytes: [UInt8]) {
    guard let first = bytes.first else { return nil }
    switch first & 0x7F {
    case 0x70, 0x71:
      guard bytes.count >= 3 else { return nil }
      // ADDITIONAL SENSE LENGTH may end before the codes.
      let hasCodes = bytes.count >= 14 && bytes[7] >= 6
      self.init(key: bytes[2] & 0x0F, code: hasCodes ? UInt16(bytes[12]) << 8 | UInt16(bytes[13]) : 0)
    case 0x72, 0x73:
      guard bytes.count >= 4 else { return nil }
      self.init(key: bytes[1] & 0x0F, code: UInt16(bytes[2]) << 8 | UInt16(bytes[3]))
    default: return nil
    }
  }

  public var isUnitAttention: Bool { key == SenseKey.unitAttention.rawValue }

  /// A unit attention after which registrations may be gone.
  public var tellsOfRegistrations: Bool {
    isUnitAttention && (code >> 8 == 0x29 || (0x2A03...0x2A05).contains(code))
  }

  /// Worth another attempt: a unit attention about something else, or a unit that is about to be ready (02/04xx: also
  /// asymmetric access in transition), or aborted with the request to retry.
  var isPassing: Bool {
    switch key {
    case SenseKey.unitAttention.rawValue: !tellsOfRegistrations
    case SenseKey.notReady.rawValue: code >> 8 == 0x04
    case SenseKey.abortedCommand.rawValue: true
    default: false
    }
  }
}
