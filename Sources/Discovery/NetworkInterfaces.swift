import Glibc

/// The machine's addresses at one moment; cheap enough to be read again for each login from an address not seen before.
public struct NetworkInterfaces: Equatable, Sendable {
  public struct Address: Equatable, Sendable {
    public var interface: String
    public var address: NetworkAddress
    /// Bits of the network's part, 0 to 32 or 128.
    public var prefixLength: Int
    public var isLoopback: Bool
    /// The far end of a point-to-point link.
    public var peer: NetworkAddress?

    public init(
      interface: String, address: NetworkAddress, prefixLength: Int, isLoopback: Bool = false,
      peer: NetworkAddress? = nil
    ) {
      self.interface = interface
      self.address = address
      self.prefixLength = prefixLength
      self.isLoopback = isLoopback
      self.peer = peer
    }
  }

  public var addresses: [Address]

  public init(addresses: [Address]) { self.addresses = addresses }

  /// Whether the remote address is on a directly connected network, or this machine's own.
  ///
  /// Loopback always is, and so is IPv6 link-local, which no router forwards (RFC 4291 §2.5.6). A network of prefix
  /// length 0 would be the whole Internet: it connects nothing. No route is consulted.
  public func isOnLink(_ remote: NetworkAddress) -> Bool {
    if remote.isUnassignable { return false }
    if remote.isLoopback || remote.isIPv6 && remote.isLinkLocal { return true }
    return addresses.contains { local in
      local.peer == remote || local.prefixLength > 0 && remote.shares(prefix: local.prefixLength, with: local.address)
    }
  }

  /// The same for the bytes of an address, 4 or 16 in network order; false for any other number.
  public func isOnLink(_ remote: [UInt8]) -> Bool { NetworkAddress(remote).map { isOnLink($0) } ?? false }

  /// The addresses to advertise as portals, each once, in the interfaces' order: link-local ones last, for they mean
  /// something only on their own link; loopback only if there is nothing else.
  public var portalAddresses: [NetworkAddress] {
    let usable = addresses.filter { !$0.address.isUnassignable }
    let real = usable.filter { !$0.isLoopback && !$0.address.isLoopback }.map(\.address)
    let chosen = real.isEmpty ? usable.map(\.address) : real.filter { !$0.isLinkLocal } + real.filter(\.isLinkLocal)
    var seen: Set<NetworkAddress> = []
    return chosen.filter { seen.insert($0).inserted }
  }

  /// The addresses of all interfaces that are up.
  public static func read() throws(DiscoveryError) -> NetworkInterfaces {
    var first: UnsafeMutablePointer<ifaddrs>?
    guard getifaddrs(&first) == 0 else { throw DiscoveryError(.interfaces, errno: errno) }
    defer { freeifaddrs(first) }
    var addresses: [Address] = []
    var next = first
    while let entry = next {
      if let address = Address(entry.pointee) { addresses.append(address) }
      next = entry.pointee.ifa_next
    }
    return NetworkInterfaces(addresses: addresses)
  }
}

extension NetworkInterfaces.Address {
  /// Nil for an interface that is down and for families other than IPv4 and IPv6.
  fileprivate init?(_ entry: ifaddrs) {
    let isUp = entry.ifa_flags & UInt32(IFF_UP) != 0
    guard isUp, let address = Self.address(entry.ifa_addr) else { return nil }
    let isPointToPoint = entry.ifa_flags & UInt32(IFF_POINTOPOINT) != 0
    self.init(
      interface: String(cString: entry.ifa_name), address: address,
      prefixLength: Self.address(entry.ifa_netmask)?.leadingOnes ?? address.bytes.count * 8,
      isLoopback: entry.ifa_flags & UInt32(IFF_LOOPBACK) != 0,
      peer: isPointToPoint ? Self.address(entry.ifa_ifu.ifu_dstaddr) : nil)
  }

  private static func address(_ pointer: UnsafeMutablePointer<sockaddr>?) -> NetworkAddress? {
    guard let pointer else { return nil }
    // getifaddrs(3) allocates each address in its family's own size.
    let size =
      switch Int32(pointer.pointee.sa_family) {
      case AF_INET: MemoryLayout<sockaddr_in>.size
      case AF_INET6: MemoryLayout<sockaddr_in6>.size
      default: 0
      }
    guard size > 0 else { return nil }
    return NetworkAddress(socketAddress: UnsafeRawBufferPointer(start: pointer, count: size))
  }
}

extension NetworkAddress {
  /// How many one bits lead: the prefix length of a mask.
  fileprivate var leadingOnes: Int {
    let full = bytes.prefix { $0 == 0xff }.count
    return full * 8 + (full < bytes.count ? (~bytes[full]).leadingZeroBitCount : 0)
  }

  /// Whether both are of one family and their first `length` bits are equal.
  fileprivate func shares(prefix length: Int, with other: NetworkAddress) -> Bool {
    guard bytes.count == other.bytes.count, length <= bytes.count * 8 else { return false }
    let full = length / 8
    guard bytes[..<full] == other.bytes[..<full] else { return false }
    let rest = length % 8
    return rest == 0 || (bytes[full] ^ other.bytes[full]) >> (8 - rest) == 0
  }
}
