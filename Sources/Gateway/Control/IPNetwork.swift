import Glibc

/// An IPv4 or IPv6 network in CIDR notation.
public struct IPNetwork: Sendable, Equatable, CustomStringConvertible {
  /// 4 or 16 bytes, zero beyond the prefix.
  public let bytes: [UInt8]
  /// Leading bits that count: 0...32 or 0...128.
  public let prefix: Int

  /// Reads `10.0.0.0/8`, `fd00::/8`, or an address alone as a network of one.
  public init(parsing text: String) throws(ValueError) {
    let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    guard let address = Self.bytes(ofAddress: parts[0]) else {
      throw ValueError("'\(text)' is not a network; allowed: ADDRESS/PREFIX, as in 10.0.0.0/8 or fd00::/64")
    }
    let bits = address.count * 8
    guard let prefix = parts.count == 2 ? Int(parts[1]) : bits, (0...bits).contains(prefix) else {
      throw ValueError("'\(text)': the prefix is 0 to \(bits)")
    }
    let masked = Self.mask(address, to: prefix)
    guard masked == address else {
      throw ValueError("'\(text)' has bits set beyond its prefix of \(prefix)")
    }
    self.bytes = masked
    self.prefix = prefix
  }

  /// Whether an address of 4 or 16 bytes is in the network. An IPv4 address that arrived on an IPv6 socket
  /// (::ffff:0:0/96, RFC 4291 §2.5.5.2) counts as the IPv4 address that it is.
  public func contains(_ address: [UInt8]) -> Bool {
    let plain = Self.unmapped(address)
    return plain.count == bytes.count && Self.mask(plain, to: prefix) == bytes
  }

  public var description: String { "\(Self.text(of: bytes))/\(prefix)" }

  /// The 4 or 16 bytes of a numeric address without a scope; nil: not one.
  public static func bytes(ofAddress text: String) -> [UInt8]? {
    guard !text.utf8.contains(0) else { return nil }
    var buffer = [UInt8](repeating: 0, count: 16)
    if inet_pton(AF_INET, text, &buffer) == 1 { return [UInt8](buffer[..<4]) }
    if inet_pton(AF_INET6, text, &buffer) == 1 { return buffer }
    return nil
  }

  public static func text(of bytes: [UInt8]) -> String {
    var buffer = [CChar](repeating: 0, count: 64)
    let family = bytes.count == 4 ? AF_INET : AF_INET6
    guard inet_ntop(family, bytes, &buffer, socklen_t(buffer.count)) != nil else { return "?" }
    return String(decoding: buffer.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
  }

  private static func unmapped(_ address: [UInt8]) -> [UInt8] {
    let isMapped =
      address.count == 16 && address[..<10].allSatisfy { $0 == 0 } && address[10] == 0xFF && address[11] == 0xFF
    return isMapped ? [UInt8](address[12...]) : address
  }

  private static func mask(_ address: [UInt8], to prefix: Int) -> [UInt8] {
    address.enumerated().map { index, byte in
      let bits = min(max(prefix - index * 8, 0), 8)
      return byte & UInt8(truncatingIfNeeded: 0xFF00 >> bits)
    }
  }
}
