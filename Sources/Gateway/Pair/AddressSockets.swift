import Discovery
import Glibc
import Privileged

/// Why an address could not be changed or announced.
struct AddressError: Error, Equatable, CustomStringConvertible {
  var what: String
  /// errno; 0: everything is said.
  var code: Int32 = 0

  var description: String {
    if code == 0 { return what }
    // EPERM by netlink, EPERM or EACCES by sockets.
    let isForbidden = code == EPERM || code == EACCES
    return "\(what): "
      + (isForbidden
        ? "not permitted; it needs \(Part.addresses.unit), or CAP_NET_ADMIN and CAP_NET_RAW" : SystemError.text(code))
  }
}

/// A socket of rtnetlink(7) for the time of a question.
final class AddressSocket {
  private static let rtnetlink: Int32 = 0  // NETLINK_ROUTE
  private let descriptor: Int32
  private var sequence: UInt32 = 0

  init() throws(AddressError) {
    descriptor = socket(AF_NETLINK, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue), Self.rtnetlink)
    guard descriptor >= 0 else { throw AddressError(what: "no socket of rtnetlink", code: errno) }
    // The kernel answers at once; should it not, nobody waits for ever.
    var patience = timeval(tv_sec: 1, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  /// - Returns: 0 or a positive errno.
  func change(_ change: AddressMessages.Change, _ address: NetworkAddress, prefix: Int, index: UInt32) -> Int32 {
    sequence += 1
    let message = AddressMessages.change(change, address, prefix: prefix, index: index, sequence: sequence)
    guard send(descriptor, message, message.count, 0) == message.count else { return errno }
    while true {
      guard let answers = receive() else { return errno == 0 ? EIO : errno }
      for case .result(let code) in answers { return code }
    }
  }

  /// All addresses of the machine.
  func list() throws(AddressError) -> [AddressMessages.Found] {
    sequence += 1
    let message = AddressMessages.list(sequence: sequence)
    guard send(descriptor, message, message.count, 0) == message.count else {
      throw AddressError(what: "addresses cannot be listed", code: errno)
    }
    var found: [AddressMessages.Found] = []
    while true {
      guard let answers = receive() else { throw AddressError(what: "addresses cannot be listed", code: errno) }
      for answer in answers {
        switch answer {
        case .address(let one): found.append(one)
        case .end: return found
        case .result(let code): throw AddressError(what: "addresses cannot be listed", code: code)
        }
      }
    }
  }

  private func receive() -> [AddressMessages.Answer]? {
    // rtnetlink's lists come in parts of at most 32 KiB.
    var buffer = [UInt8](repeating: 0, count: 64 << 10)
    let count = recv(descriptor, &buffer, buffer.count, 0)
    guard count > 0 else { return nil }
    return AddressMessages.answers(Array(buffer[..<count]), to: sequence)
  }
}

/// Tells the neighbours of an interface where an address is now.
enum Announcement {
  static func send(_ address: NetworkAddress, index: UInt32) throws(AddressError) {
    guard let hardware = hardwareAddress(of: index) else { return }
    if address.isIPv6 {
      try sendAdvertisement(address, index: index, hardware: hardware)
    } else {
      try sendARP(address, index: index, hardware: hardware)
    }
  }

  /// nil: not Ethernet, so nothing is to be announced. Not from /sys, which shows the interfaces of the network namespace
  /// that it was mounted in.
  private static func hardwareAddress(of index: UInt32) -> [UInt8]? {
    var first: UnsafeMutablePointer<ifaddrs>?
    guard getifaddrs(&first) == 0 else { return nil }
    defer { freeifaddrs(first) }
    var next = first
    while let entry = next {
      next = entry.pointee.ifa_next
      guard let address = entry.pointee.ifa_addr, Int32(address.pointee.sa_family) == AF_PACKET else { continue }
      // struct sockaddr_ll, which getifaddrs(3) allocates whole: index at 4, kind of hardware at 8 (1: Ethernet), length at
      // 11, address.
      let bytes = UnsafeRawBufferPointer(start: address, count: 20)
      guard bytes.load(fromByteOffset: 4, as: UInt32.self) == index else { continue }
      return bytes.load(fromByteOffset: 8, as: UInt16.self) == 1 && bytes[11] == 6 ? Array(bytes[12..<18]) : nil
    }
    return nil
  }

  private static func sendARP(_ address: NetworkAddress, index: UInt32, hardware: [UInt8]) throws(AddressError) {
    let what = "\(address) cannot be announced by ARP"
    let descriptor = socket(AF_PACKET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { throw AddressError(what: what, code: errno) }
    defer { close(descriptor) }
    // struct sockaddr_ll: family, protocol (ETH_P_ARP), index, hardware type, packet type, length, address (8): broadcast.
    var to = [UInt8](repeating: 0, count: 20)
    to.withUnsafeMutableBytes { to in
      to.storeBytes(of: UInt16(AF_PACKET), toByteOffset: 0, as: UInt16.self)
      to.storeBytes(of: UInt16(0x0806).bigEndian, toByteOffset: 2, as: UInt16.self)
      to.storeBytes(of: index, toByteOffset: 4, as: UInt32.self)
      to[11] = 6
      for place in 12..<18 { to[place] = 0xFF }
    }
    for operation in [1, 2] as [UInt8] {
      let packet = AddressMessages.arp(address, hardware: hardware, operation: operation)
      try send(packet, to: to, by: descriptor, what)
    }
  }

  private static func sendAdvertisement(_ address: NetworkAddress, index: UInt32, hardware: [UInt8])
    throws(AddressError)
  {
    let what = "\(address) cannot be announced by neighbour advertisement"
    let icmp: Int32 = 58
    let descriptor = socket(AF_INET6, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue), icmp)
    guard descriptor >= 0 else { throw AddressError(what: what, code: errno) }
    defer { close(descriptor) }
    // Neighbours take it only with a hop limit of 255 (RFC 4861 §7.1.2).
    var hops: Int32 = 255
    setsockopt(descriptor, Int32(IPPROTO_IPV6), IPV6_MULTICAST_HOPS, &hops, socklen_t(MemoryLayout<Int32>.size))
    let allNodes: [UInt8] = [0xFF, 2] + [UInt8](repeating: 0, count: 13) + [1]
    let to = LinkSocket.socketAddress(allNodes, port: 0, scope: index)
    try send(AddressMessages.advertisement(address, hardware: hardware), to: to, by: descriptor, what)
  }

  private static func send(
    _ packet: [UInt8], to address: [UInt8], by descriptor: Int32, _ what: String
  ) throws(AddressError) {
    let sent = address.withUnsafeBytes { address in
      // sendto reads a sockaddr of any family from these bytes.
      sendto(
        descriptor, packet, packet.count, Int32(MSG_DONTWAIT),
        address.baseAddress?.assumingMemoryBound(to: sockaddr.self),
        socklen_t(address.count))
    }
    guard sent == packet.count else { throw AddressError(what: what, code: errno) }
  }
}
