import Discovery
import Glibc

/// An IPv4 or IPv6 address with port, as sockets have it.
struct SocketAddress {
  var address: NetworkAddress
  var port: UInt16
  /// Index of the interface that a link-local address belongs to; 0: none.
  var scope: UInt32 = 0

  init(address: NetworkAddress, port: UInt16) {
    self.address = address
    self.port = port
  }

  /// nil if the host is not an address, or its zone not an interface.
  init?(_ listen: ListenAddress) {
    let parts = listen.host.split(separator: "%", maxSplits: 1)
    guard let host = parts.first, let bytes = IPNetwork.bytes(ofAddress: String(host)),
      let address = NetworkAddress(bytes)
    else { return nil }
    self.init(address: address, port: listen.port)
    isIPv6Socket = listen.isIPv6
    if parts.count == 2 {
      scope = if_nametoindex(String(parts[1]))
      guard scope != 0 else { return nil }
    }
    raw = bytes
  }

  private var isIPv6Socket = false
  private var raw: [UInt8] = []

  static func peer(of fd: Int32) -> SocketAddress? { read { getpeername(fd, $0, $1) } }
  static func local(of fd: Int32) -> SocketAddress? { read { getsockname(fd, $0, $1) } }

  private static func read(
    _ body: (UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Int32
  ) -> SocketAddress? {
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    let code = withUnsafeMutablePointer(to: &storage) { storage in
      storage.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, &length) }
    }
    guard code == 0 else { return nil }
    return withUnsafeBytes(of: storage) { SocketAddress(UnsafeRawBufferPointer(rebasing: $0[..<Int(length)])) }
  }

  /// From a `sockaddr_in` or `sockaddr_in6`; nil if it is neither.
  init?(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= 4, let address = NetworkAddress(socketAddress: bytes) else { return nil }
    // Both families have the port at the same place.
    let port = UInt16(bigEndian: bytes.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
    self.init(address: address, port: port)
  }

  /// `10.0.0.1:3260`, `[::1]:3260`.
  var text: String { "\(address.targetAddressText):\(port)" }

  /// Calls `body` with a `sockaddr_in` or `sockaddr_in6` and its length.
  func withBytes<Result>(_ body: (UnsafeRawPointer, UInt32) -> Result) -> Result {
    if isIPv6Socket {
      var six = sockaddr_in6()
      six.sin6_family = sa_family_t(AF_INET6)
      six.sin6_port = port.bigEndian
      six.sin6_scope_id = scope
      withUnsafeMutableBytes(of: &six.sin6_addr) { $0.copyBytes(from: raw) }
      return withUnsafeBytes(of: six) { body($0.baseAddress!, UInt32($0.count)) }
    }
    var four = sockaddr_in()
    four.sin_family = sa_family_t(AF_INET)
    four.sin_port = port.bigEndian
    withUnsafeMutableBytes(of: &four.sin_addr) { $0.copyBytes(from: raw) }
    return withUnsafeBytes(of: four) { body($0.baseAddress!, UInt32($0.count)) }
  }
}
