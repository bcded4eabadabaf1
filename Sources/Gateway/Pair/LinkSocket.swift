import CSystem
import Discovery
import Glibc

/// The two sockets of a link. One sends everything and hears what is sent to this node; the other hears the group. Two, for
/// then the port that unicast beats come to may be another: several gateways of one machine can share loopback in tests.
final class LinkSocket: Sendable {
  static let groupIPv4: [UInt8] = [239, 255, 71, 87]
  static let groupIPv6: [UInt8] = [0xFF, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x87, 0x47, 0x47, 0x57]

  let own: Int32
  let group: Int32
  private let groupAddress: [UInt8]

  /// - Throws: the errno.
  init(_ link: LinkInterface, port: UInt16) throws(LinkSocketError) {
    let family = link.isIPv6 ? AF_INET6 : AF_INET
    let bytes = link.isIPv6 ? Self.groupIPv6 : Self.groupIPv4
    own = system_open_beats(
      family, link.interface, link.index, link.isLoopback ? 0 : port, link.isLoopback ? 1 : 0)
    guard own >= 0 else { throw LinkSocketError(code: -own) }
    group = system_open_group(family, link.interface, link.index, port, bytes)
    guard group >= 0 else {
      close(own)
      throw LinkSocketError(code: -group)
    }
    groupAddress = Self.socketAddress(bytes, port: port, scope: link.index)
  }

  deinit {
    close(own)
    close(group)
  }

  func sendToGroup(_ bytes: [UInt8]) -> Bool { send(bytes, to: groupAddress) }

  /// False if the kernel does not take it now; it never waits.
  func send(_ bytes: [UInt8], to address: [UInt8]) -> Bool {
    let sent = address.withUnsafeBytes { address in
      // sendto reads `count` bytes of a sockaddr of any family: the bytes are one.
      sendto(
        own, bytes, bytes.count, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL),
        address.baseAddress?.assumingMemoryBound(to: sockaddr.self), socklen_t(address.count))
    }
    return sent == bytes.count
  }

  /// One datagram and where it came from; nil: none waits. Longer ones are cut to the buffer, and are too long then.
  static func receive(_ descriptor: Int32, into buffer: UnsafeMutableRawBufferPointer) -> (Int, [UInt8])? {
    for _ in 0..<4 {
      var storage = sockaddr_storage()
      var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
      let count = withUnsafeMutablePointer(to: &storage) { storage in
        storage.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          recvfrom(
            descriptor, buffer.baseAddress, buffer.count, Int32(MSG_DONTWAIT) | Int32(MSG_TRUNC), $0, &length)
        }
      }
      if count < 0, errno == EAGAIN { return nil }
      // An error is the fate of an earlier datagram of ours (ECONNREFUSED and the like); what came stands behind it.
      if count < 0 { continue }
      let size = min(Int(length), MemoryLayout<sockaddr_storage>.size)
      return (count, withUnsafeBytes(of: storage) { Array($0[..<size]) })
    }
    return nil
  }

  static func socketAddress(_ address: [UInt8], port: UInt16, scope: UInt32) -> [UInt8] {
    if address.count == 4 {
      var four = sockaddr_in()
      four.sin_family = sa_family_t(AF_INET)
      four.sin_port = port.bigEndian
      withUnsafeMutableBytes(of: &four.sin_addr) { $0.copyBytes(from: address) }
      return withUnsafeBytes(of: four) { Array($0) }
    }
    var six = sockaddr_in6()
    six.sin6_family = sa_family_t(AF_INET6)
    six.sin6_port = port.bigEndian
    six.sin6_scope_id = scope
    withUnsafeMutableBytes(of: &six.sin6_addr) { $0.copyBytes(from: address) }
    return withUnsafeBytes(of: six) { Array($0) }
  }

  /// `10.0.0.2:3260`
  static func text(of socketAddress: [UInt8]) -> String {
    socketAddress.withUnsafeBytes { SocketAddress($0)?.text ?? "?" }
  }
}

struct LinkSocketError: Error, Equatable {
  var code: Int32
  var text: String { SystemError.text(code) }
}
