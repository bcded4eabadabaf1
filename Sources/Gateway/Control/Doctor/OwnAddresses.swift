import Glibc

/// The addresses of this machine's interfaces that are up.
enum OwnAddresses {
  /// Numeric, IPv4 first; without loopback and without IPv6 link-local ones, which need a scope that differs at each peer.
  static func all() -> [String] {
    var first: UnsafeMutablePointer<ifaddrs>?
    guard getifaddrs(&first) == 0 else { return [] }
    defer { freeifaddrs(first) }
    var addresses: [[UInt8]] = []
    var next = first
    while let entry = next?.pointee {
      next = entry.ifa_next
      let isUp = entry.ifa_flags & UInt32(IFF_UP) != 0
      let isLoopback = entry.ifa_flags & UInt32(IFF_LOOPBACK) != 0
      guard isUp, !isLoopback, let address = entry.ifa_addr else { continue }
      if let bytes = bytes(of: UnsafeRawPointer(address)) { addresses.append(bytes) }
    }
    let isLinkLocal: ([UInt8]) -> Bool = { $0.count == 16 && $0[0] == 0xFE && $0[1] & 0xC0 == 0x80 }
    return addresses.filter { !isLinkLocal($0) }.sorted { $0.count < $1.count }.map(IPNetwork.text(of:))
  }

  /// The 4 or 16 bytes of a socket address; nil: of another family.
  private static func bytes(of address: UnsafeRawPointer) -> [UInt8]? {
    // The family says which structure it is; both begin with it.
    switch Int32(address.loadUnaligned(as: sa_family_t.self)) {
    case AF_INET:
      withUnsafeBytes(of: address.loadUnaligned(as: sockaddr_in.self).sin_addr) { [UInt8]($0) }
    case AF_INET6:
      withUnsafeBytes(of: address.loadUnaligned(as: sockaddr_in6.self).sin6_addr) { [UInt8]($0) }
    default: nil
    }
  }
}
