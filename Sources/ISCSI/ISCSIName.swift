/// An iSCSI node name (RFC 7143 §4.2.7), checked and normalised: ASCII letters in lower case (RFC 3722), anything
/// beyond ASCII kept as it came. Two names are the same node exactly when they are equal.
public struct ISCSIName: Hashable, Sendable, CustomStringConvertible {
  /// Bytes in UTF-8 (§4.2.7.1).
  public static let byteCountMax = 223

  public let text: String

  public var description: String { text }

  /// nil unless `text` is an iqn., eui. or naa. name of at most 223 bytes.
  public init?(_ text: String) {
    var bytes: [UInt8] = []
    for byte in text.utf8 {
      guard bytes.count < Self.byteCountMax else { return nil }
      bytes.append(byte >= 0x41 && byte <= 0x5A ? byte | 0x20 : byte)
    }
    guard bytes.count > 4, Self.isWellFormed(bytes[4...], type: bytes[..<4]) else { return nil }
    self.text = String(decoding: bytes, as: UTF8.self)
  }

  private static func isWellFormed(_ rest: ArraySlice<UInt8>, type: ArraySlice<UInt8>) -> Bool {
    switch String(decoding: type, as: UTF8.self) {
    case "iqn.": isQualified(Array(rest))  // §4.2.7.4
    case "eui.": rest.count == 16 && rest.allSatisfy(isHexDigit)  // §4.2.7.5
    case "naa.": (rest.count == 16 || rest.count == 32) && rest.allSatisfy(isHexDigit)  // §4.2.7.6
    default: false
    }
  }

  /// yyyy-mm, a dot, and the naming authority with whatever it appended.
  private static func isQualified(_ rest: [UInt8]) -> Bool {
    guard rest.count > 8 else { return false }
    let date = rest[..<8]
    for (index, byte) in date.enumerated() {
      let isRight =
        switch index {
        case 4: byte == 0x2D
        case 7: byte == 0x2E
        default: isDigit(byte)
        }
      guard isRight else { return false }
    }
    let month = (rest[5] - 0x30) * 10 + (rest[6] - 0x30)
    return (1...12).contains(month) && rest[8...].allSatisfy(isNameByte)
  }

  /// RFC 3722 leaves dash, dot, colon, digits and lower-case letters of ASCII. The underscore is not among them, but
  /// Windows puts host names with underscores into its initiator name.
  private static func isNameByte(_ byte: UInt8) -> Bool {
    switch byte {
    case 0x2D, 0x2E, 0x3A, 0x5F: true
    case 0x30...0x39, 0x61...0x7A: true
    default: byte >= 0x80
    }
  }

  private static func isDigit(_ byte: UInt8) -> Bool { byte >= 0x30 && byte <= 0x39 }

  private static func isHexDigit(_ byte: UInt8) -> Bool { isDigit(byte) || byte >= 0x61 && byte <= 0x66 }
}
