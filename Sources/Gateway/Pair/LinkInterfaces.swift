import CSystem
import Discovery
import Glibc
import HA

/// An interface and address family that beats can go over.
struct LinkInterface: Hashable, Sendable {
  var interface: String
  var index: UInt32
  var isIPv6: Bool
  var isLoopback: Bool

  var id: LinkID { LinkID("\(interface)/\(isIPv6 ? 6 : 4)") }
}

/// The interfaces of this moment with what a link needs to know of them.
struct LinkInterfaces: Equatable, Sendable {
  /// More interfaces than any machine has cables: containers' are not worth a socket each.
  static let countMax = 32

  /// With an address to show of each.
  var links: [LinkInterface: NetworkAddress] = [:]

  /// One address of an interface, with the interface's flags.
  struct Entry {
    var interface: String
    var index: UInt32
    var flags: UInt32
    var address: NetworkAddress
  }

  /// - Parameter onLoopback: loopback alone, for tests on one machine; else everything but that.
  init(_ entries: [Entry], onLoopback: Bool) {
    for entry in entries where Self.isUsable(entry, onLoopback: onLoopback) {
      let isLoopback = entry.flags & UInt32(IFF_LOOPBACK) != 0
      let link = LinkInterface(
        interface: entry.interface, index: entry.index, isIPv6: entry.address.isIPv6, isLoopback: isLoopback)
      // The first address is what the kernel sends from; with IPv6 the link-local one, for the group is link-local.
      if links[link] == nil {
        guard links.count < Self.countMax else { continue }
        links[link] = entry.address
      } else if entry.address.isIPv6, entry.address.isLinkLocal {
        links[link] = entry.address
      }
    }
  }

  private static func isUsable(_ entry: Entry, onLoopback: Bool) -> Bool {
    // Running: there is a carrier.
    let needed = UInt32(IFF_UP) | UInt32(IFF_RUNNING)
    guard entry.flags & needed == needed, !entry.address.isUnassignable else { return false }
    // Loopback has no multicast flag, and IPv6 multicast has no route there.
    if entry.flags & UInt32(IFF_LOOPBACK) != 0 { return onLoopback && !entry.address.isIPv6 }
    return !onLoopback && entry.flags & UInt32(IFF_MULTICAST) != 0
  }

  static func read(onLoopback: Bool) -> LinkInterfaces {
    var first: UnsafeMutablePointer<ifaddrs>?
    guard getifaddrs(&first) == 0 else { return LinkInterfaces([], onLoopback: onLoopback) }
    defer { freeifaddrs(first) }
    var entries: [Entry] = []
    var next = first
    while let entry = next {
      if let found = Entry(entry.pointee) { entries.append(found) }
      next = entry.pointee.ifa_next
    }
    return LinkInterfaces(entries, onLoopback: onLoopback)
  }
}

extension LinkInterfaces.Entry {
  fileprivate init?(_ entry: ifaddrs) {
    guard let pointer = entry.ifa_addr else { return nil }
    let size =
      switch Int32(pointer.pointee.sa_family) {
      case AF_INET: MemoryLayout<sockaddr_in>.size
      case AF_INET6: MemoryLayout<sockaddr_in6>.size
      default: 0
      }
    guard size > 0, let address = NetworkAddress(socketAddress: UnsafeRawBufferPointer(start: pointer, count: size))
    else { return nil }
    let index = if_nametoindex(entry.ifa_name)
    guard index != 0 else { return nil }
    self.init(interface: String(cString: entry.ifa_name), index: index, flags: entry.ifa_flags, address: address)
  }
}
