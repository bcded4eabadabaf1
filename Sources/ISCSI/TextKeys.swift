/// Why a text data segment cannot be read (RFC 7143 §6.1). Every one is the sender's fault.
public enum TextKeysError: Error, Equatable, Sendable {
  /// More bytes than `TextKeys.byteCountMax`.
  case tooLong
  /// More pairs than `TextKeys.countMax`.
  case tooMany
  /// A pair without its closing NUL.
  case unterminated
  /// No "=", or a name that is empty, longer than 63 bytes or not printable.
  case malformedKey
  /// A value over its length, or not UTF-8.
  case malformedValue(key: String)
  /// A key twice in one sequence.
  case duplicate(key: String)
}

/// The key=value pairs of a login or text data segment, in the order they came (RFC 7143 §6.1).
public struct TextKeys: Equatable, Sendable {
  public struct Pair: Equatable, Sendable {
    public var key: String
    public var value: String

    public init(key: String, value: String) {
      self.key = key
      self.value = value
    }
  }

  /// Bytes of one sequence of PDUs.
  public static let byteCountMax = 65_536
  public static let countMax = 64
  /// §6.1: a standard label.
  public static let keyByteCountMax = 63
  /// §6.1: a value, unless its key says otherwise.
  public static let valueByteCountMax = 255
  /// §6.1: a large binary value has at most 1024 bytes, which are two digits each in hexadecimal, and a prefix.
  public static let largeBinaryByteCountMax = 2 + 2 * 1024

  public private(set) var pairs: [Pair] = []

  public init() {}

  /// Reads a whole data segment, or the segments of a sequence put together. NULs between pairs beyond the one that
  /// closes a pair are padding. At most `countMax` pairs, none twice.
  public init(parsing bytes: [UInt8]) throws(TextKeysError) {
    guard bytes.count <= Self.byteCountMax else { throw .tooLong }
    var seen: Set<String> = []
    var position = 0
    while position < bytes.count {
      guard bytes[position] != 0 else {
        position += 1
        continue
      }
      guard let end = bytes[position...].firstIndex(of: 0) else { throw .unterminated }
      guard pairs.count < Self.countMax else { throw .tooMany }
      let pair = try Self.pair(bytes[position..<end])
      guard seen.insert(pair.key).inserted else { throw .duplicate(key: pair.key) }
      pairs.append(pair)
      position = end + 1
    }
  }

  private static func pair(_ bytes: ArraySlice<UInt8>) throws(TextKeysError) -> Pair {
    let head = bytes.prefix(keyByteCountMax + 1)
    guard let equals = head.firstIndex(of: 0x3D), equals > bytes.startIndex,
      bytes[..<equals].allSatisfy({ $0 > 0x20 && $0 < 0x7F })
    else { throw .malformedKey }
    let key = String(decoding: bytes[..<equals], as: UTF8.self)
    let value = bytes[(equals + 1)...]
    let countMax = largeBinaryKeys.contains(key) ? largeBinaryByteCountMax : valueByteCountMax
    guard value.count <= countMax, let text = String(validating: value, as: UTF8.self) else {
      throw .malformedValue(key: key)
    }
    return Pair(key: key, value: text)
  }

  private static let largeBinaryKeys: Set<String> = ["CHAP_C", "CHAP_R"]

  public var isEmpty: Bool { pairs.isEmpty }

  public subscript(_ key: String) -> String? { pairs.first { $0.key == key }?.value }

  /// Adds a pair of ours at the end. A key may come again (TargetAddress).
  public mutating func append(_ key: String, _ value: String) { pairs.append(Pair(key: key, value: value)) }

  /// Each pair with its closing NUL.
  public var bytes: [UInt8] {
    var bytes: [UInt8] = []
    for pair in pairs {
      bytes += pair.key.utf8
      bytes.append(0x3D)
      bytes += pair.value.utf8
      bytes.append(0)
    }
    return bytes
  }
}
