/// 16 bytes that name a disk or a cluster (RFC 9562; version 4 when we make one).
public struct UUID: Hashable, Sendable, CustomStringConvertible {
  /// Always 16.
  public let bytes: [UInt8]

  /// - Parameter bytes: 16 bytes; more or fewer is a bug of ours.
  public init(bytes: [UInt8]) {
    precondition(bytes.count == 16)
    self.bytes = bytes
  }

  /// A version 4 UUID of 16 random bytes.
  public init(random: [UInt8]) {
    var bytes = random
    bytes[6] = bytes[6] & 0x0F | 0x40
    bytes[8] = bytes[8] & 0x3F | 0x80
    self.init(bytes: bytes)
  }

  /// Reads the form with hyphens, or 32 hexadecimal digits.
  public init?(_ text: String) {
    let digits = text.utf8.filter { $0 != UInt8(ascii: "-") }
    guard digits.count == 32, text.utf8.count == 32 || text.utf8.count == 36 else { return nil }
    // Number parsing takes a sign as well.
    guard !digits.contains(UInt8(ascii: "+")) else { return nil }
    var bytes: [UInt8] = []
    for i in stride(from: 0, to: 32, by: 2) {
      guard let byte = UInt8(String(decoding: digits[i..<i + 2], as: UTF8.self), radix: 16) else { return nil }
      bytes.append(byte)
    }
    self.init(bytes: bytes)
  }

  /// 32 hexadecimal digits in the form 8-4-4-4-12.
  public var description: String {
    var text = ""
    for (i, byte) in bytes.enumerated() {
      if i == 4 || i == 6 || i == 8 || i == 10 { text += "-" }
      text += byte < 16 ? "0" + String(byte, radix: 16) : String(byte, radix: 16)
    }
    return text
  }
}
