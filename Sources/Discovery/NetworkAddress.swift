import Glibc

/// An IPv4 or IPv6 address; an IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2) is the IPv4 address it stands for.
public struct NetworkAddress: Hashable, Sendable, CustomStringConvertible {
  /// 4 or 16 bytes, network order.
  public let bytes: [UInt8]

  /// Nil unless 4 or 16 bytes.
  public init?(_ bytes: [UInt8]) {
    guard bytes.count == 4 || bytes.count == 16 else { return nil }
    let mappedPrefix: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]
    self.bytes = bytes.count == 16 && bytes.starts(with: mappedPrefix) ? Array(bytes[12...]) : bytes
  }

  /// From a `sockaddr_in` or `sockaddr_in6`; nil for any other family or too few bytes.
  public init?(socketAddress: UnsafeRawBufferPointer) {
    guard socketAddress.count >= MemoryLayout<sa_family_t>.size else { return nil }
    switch Int32(socketAddress.loadUnaligned(as: sa_family_t.self)) {
    // struct sockaddr_in: family 2, port 2, address 4. struct sockaddr_in6: family 2, port 2, flow label 4, address 16.
    case AF_INET where socketAddress.count >= 8: self.init(Array(socketAddress[4..<8]))
    case AF_INET6 where socketAddress.count >= 24: self.init(Array(socketAddress[8..<24]))
    default: return nil
    }
  }

  public var isIPv6: Bool { bytes.count == 16 }
  /// 127.0.0.0/8 or ::1.
  public var isLoopback: Bool {
    isIPv6 ? bytes.dropLast().allSatisfy { $0 == 0 } && bytes[15] == 1 : bytes[0] == 127
  }
  /// fe80::/10 or 169.254.0.0/16.
  public var isLinkLocal: Bool {
    isIPv6 ? bytes[0] == 0xfe && bytes[1] & 0xc0 == 0x80 : bytes[0] == 169 && bytes[1] == 254
  }
  /// No host's own: unspecified, multicast or limited broadcast.
  public var isUnassignable: Bool {
    if isIPv6 { return bytes[0] == 0xff || bytes.allSatisfy { $0 == 0 } }
    return bytes[0] == 0 || bytes[0] >= 224
  }

  /// RFC 5952 form, without a zone.
  public var description: String {
    var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
    _ = bytes.withUnsafeBytes {
      inet_ntop(isIPv6 ? AF_INET6 : AF_INET, $0.baseAddress, &text, socklen_t(text.count))
    }
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// As TargetAddress wants it (RFC 7143 §13.8): an IPv6 address in brackets.
  public var targetAddressText: String { isIPv6 ? "[\(description)]" : description }
}
