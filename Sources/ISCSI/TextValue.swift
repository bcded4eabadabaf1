/// The value formats of RFC 7143 §6.1.
enum TextValue {
  static let notUnderstood = "NotUnderstood"
  static let irrelevant = "Irrelevant"
  static let reject = "Reject"

  /// Values that only answer, and are never an offer (§6.2).
  static func isAnswer(_ value: String) -> Bool {
    value == notUnderstood || value == irrelevant || value == reject
  }

  static func boolean(_ value: String) -> Bool? {
    switch value {
    case "Yes": true
    case "No": false
    default: nil
    }
  }

  static func text(_ value: Bool) -> String { value ? "Yes" : "No" }

  /// A decimal or hexadecimal constant below 2^32, which covers every numeric key. No sign, no blank.
  static func number(_ value: String) -> Int? {
    var digits = Array(value.utf8)
    var radix = 10
    if digits.count > 2, digits[0] == 0x30, digits[1] == 0x78 || digits[1] == 0x58 {
      digits.removeFirst(2)
      radix = 16
    }
    guard !digits.isEmpty, digits.count <= 20 else { return nil }
    var number = 0
    for digit in digits {
      guard let next = hexDigit(digit), next < radix else { return nil }
      number = number * radix + next
      guard number <= UInt32.max else { return nil }
    }
    return number
  }

  /// The entries of a list of values; nil where one is empty.
  static func list(_ value: String) -> [String]? {
    let entries = value.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
    return entries.contains("") ? nil : entries
  }

  /// A large binary value: a hexadecimal (0x) or base64 (0b) constant of 1 to `byteCountMax` bytes.
  static func binary(_ value: String, byteCountMax: Int) -> [UInt8]? {
    let bytes = Array(value.utf8)
    guard bytes.count > 2, bytes[0] == 0x30 else { return nil }
    let decoded: [UInt8]? =
      switch bytes[1] {
      case 0x78, 0x58: hexBytes(bytes[2...])
      case 0x62, 0x42: base64Bytes(bytes[2...])
      default: nil
      }
    guard let decoded, !decoded.isEmpty, decoded.count <= byteCountMax else { return nil }
    return decoded
  }

  static func hexText(_ bytes: [UInt8]) -> String {
    let digits = Array("0123456789abcdef".utf8)
    var text: [UInt8] = [0x30, 0x78]
    for byte in bytes {
      text.append(digits[Int(byte >> 4)])
      text.append(digits[Int(byte & 15)])
    }
    return String(decoding: text, as: UTF8.self)
  }

  /// RFC 4648 §4 with padding, behind the 0b of the value format.
  static func base64Text(_ bytes: [UInt8]) -> String {
    var text: [UInt8] = [0x30, 0x62]
    for start in stride(from: 0, to: bytes.count, by: 3) {
      let group = bytes[start..<min(start + 3, bytes.count)]
      let bits = group.reduce(0) { $0 << 8 | UInt32($1) } << UInt32(8 * (3 - group.count))
      for index in 0..<4 {
        text.append(index <= group.count ? base64Digits[Int(bits >> UInt32(18 - 6 * index)) & 63] : 0x3D)
      }
    }
    return String(decoding: text, as: UTF8.self)
  }

  /// An odd number of digits has a leading zero left out.
  private static func hexBytes(_ digits: ArraySlice<UInt8>) -> [UInt8]? {
    var bytes: [UInt8] = []
    var high: UInt8?
    if !digits.count.isMultiple(of: 2) { high = 0 }
    for digit in digits {
      guard let value = hexDigit(digit) else { return nil }
      if let first = high {
        bytes.append(first << 4 | UInt8(value))
        high = nil
      } else {
        high = UInt8(value)
      }
    }
    return bytes
  }

  private static func hexDigit(_ byte: UInt8) -> Int? {
    switch byte {
    case 0x30...0x39: Int(byte) - 0x30
    case 0x41...0x46: Int(byte) - 0x41 + 10
    case 0x61...0x66: Int(byte) - 0x61 + 10
    default: nil
    }
  }

  private static let base64Digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

  private static func base64Bytes(_ text: ArraySlice<UInt8>) -> [UInt8]? {
    guard text.count.isMultiple(of: 4) else { return nil }
    let padding = text.suffix(2).reversed().prefix { $0 == 0x3D }.count
    var bytes: [UInt8] = []
    var bits: UInt32 = 0
    var held = 0
    for digit in text.dropLast(padding) {
      guard let value = base64Value(digit) else { return nil }
      bits = bits << 6 | value
      held += 6
      if held >= 8 {
        held -= 8
        bytes.append(UInt8(truncatingIfNeeded: bits >> UInt32(held)))
      }
    }
    return bits & (1 << UInt32(held) - 1) == 0 ? bytes : nil
  }

  private static func base64Value(_ digit: UInt8) -> UInt32? {
    switch digit {
    case 0x41...0x5A: UInt32(digit) - 0x41
    case 0x61...0x7A: UInt32(digit) - 0x61 + 26
    case 0x30...0x39: UInt32(digit) - 0x30 + 52
    case 0x2B: 62
    case 0x2F: 63
    default: nil
    }
  }
}
