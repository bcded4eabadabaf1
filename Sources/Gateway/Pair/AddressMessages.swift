import Discovery
import Glibc

/// Messages of rtnetlink(7) about addresses, and the packets that announce one. Bytes only.
enum AddressMessages {
  /// Marks the addresses that gatewayd added (IFA_PROTO, Linux 5.18; below 4 the kernel's own): so one that a crash left
  /// behind is known, and the machine's own addresses are never touched.
  static let mark: UInt8 = 0x67

  enum Change: UInt16 {
    /// RTM_NEWADDR
    case add = 20
    /// RTM_DELADDR
    case remove = 21
  }

  /// An address as the kernel tells it.
  struct Found: Equatable {
    var address: NetworkAddress
    var prefix: Int
    var index: UInt32
    var isOurs: Bool
  }

  static func change(_ change: Change, _ address: NetworkAddress, prefix: Int, index: UInt32, sequence: UInt32)
    -> [UInt8]
  {
    // struct ifaddrmsg: family, prefix, flags, scope (0: universe), index.
    let family = UInt8(address.isIPv6 ? AF_INET6 : AF_INET)
    var body = [family, UInt8(prefix), 0, 0] + host(index)
    body += attribute(2, address.bytes) + attribute(1, address.bytes)  // IFA_LOCAL, IFA_ADDRESS
    if change == .add {
      body += attribute(11, [mark])  // IFA_PROTO
      if address.isIPv6 {
        // IFA_FLAGS: IFA_F_NODAD. Whoever had it before is fenced, and a second of waiting is a second of outage.
        body += attribute(8, host(UInt32(0x02)))
        // IFA_CACHEINFO: deprecated (preferred for 0 s) and valid for ever, so that nothing of this machine's own uses it.
        body += attribute(6, host(UInt32(0)) + host(UInt32.max) + host(UInt32(0)) + host(UInt32(0)))
      }
    }
    // NLM_F_REQUEST | NLM_F_ACK, and NLM_F_CREATE | NLM_F_REPLACE.
    return message(change.rawValue, flags: change == .add ? 0x505 : 0x005, sequence: sequence, body)
  }

  /// Asks for all addresses (RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP).
  static func list(sequence: UInt32) -> [UInt8] {
    message(22, flags: 0x301, sequence: sequence, [UInt8](repeating: 0, count: 8))
  }

  /// What an answer of the kernel says.
  enum Answer: Equatable {
    /// NLMSG_ERROR: 0 or a positive errno.
    case result(Int32)
    /// NLMSG_DONE: the end of a list.
    case end
    case address(Found)
  }

  /// Reads a datagram of answers; what is not understood is left out.
  static func answers(_ bytes: [UInt8], to sequence: UInt32) -> [Answer] {
    var answers: [Answer] = []
    var rest = bytes[...]
    while rest.count >= 16 {
      let length = Int(load32(rest, 0))
      guard length >= 16, length <= rest.count else { break }
      let one = [UInt8](rest.prefix(length))
      rest = rest.dropFirst(min(rest.count, (length + 3) & ~3))
      guard load32(one[...], 8) == sequence else { continue }
      switch UInt16(one[4]) | UInt16(one[5]) << 8 {
      case 2 where length >= 20: answers.append(.result(0 &- Int32(bitPattern: load32(one[...], 16))))
      case 3: answers.append(.end)
      case 20: if let found = found(one) { answers.append(.address(found)) }
      default: break
      }
    }
    return answers
  }

  private static func found(_ message: [UInt8]) -> Found? {
    guard message.count >= 24 else { return nil }
    var attributes: [UInt16: [UInt8]] = [:]
    var rest = message[24...]
    while rest.count >= 4 {
      let header = load32(rest, 0)
      let length = Int(header & 0xFFFF)
      guard length >= 4, length <= rest.count else { break }
      attributes[UInt16(header >> 16)] = [UInt8](rest.dropFirst(4).prefix(length - 4))
      rest = rest.dropFirst(min(rest.count, (length + 3) & ~3))
    }
    // IPv6 has only IFA_ADDRESS; IPv4's IFA_ADDRESS is the far end of a point-to-point link.
    guard let bytes = attributes[2] ?? attributes[1], let address = NetworkAddress(bytes) else { return nil }
    return Found(
      address: address, prefix: Int(message[17]), index: load32(message[...], 20), isOurs: attributes[11] == [mark])
  }

  // MARK: Announcements

  /// Gratuitous ARP (RFC 5227 §3): request (1) and reply (2), for some believe only one of them.
  static func arp(_ address: NetworkAddress, hardware: [UInt8], operation: UInt8) -> [UInt8] {
    let target = operation == 1 ? [UInt8](repeating: 0, count: 6) : hardware
    // Ethernet (1), IPv4 (0x0800), lengths 6 and 4, operation, sender, target.
    return [0, 1, 8, 0, 6, 4, 0, operation] + hardware + address.bytes + target + address.bytes
  }

  /// Unsolicited neighbour advertisement (RFC 4861 §4.4, §7.2.6): type 136, override, and the target's link-layer address.
  /// The kernel fills in the checksum.
  static func advertisement(_ address: NetworkAddress, hardware: [UInt8]) -> [UInt8] {
    [136, 0, 0, 0, 0x20, 0, 0, 0] + address.bytes + [2, 1] + hardware
  }

  // MARK: Bytes

  private static func message(_ type: UInt16, flags: UInt16, sequence: UInt32, _ body: [UInt8]) -> [UInt8] {
    // struct nlmsghdr: length, type, flags, sequence, port (0: this socket's own).
    host(UInt32(16 + body.count)) + host(type) + host(flags) + host(sequence) + host(UInt32(0)) + body
  }

  private static func attribute(_ type: UInt16, _ value: [UInt8]) -> [UInt8] {
    let length = 4 + value.count
    return host(UInt16(length)) + host(type) + value + [UInt8](repeating: 0, count: -length & 3)
  }

  /// netlink speaks in the machine's own order; all that this runs on are little-endian.
  private static func host(_ value: some FixedWidthInteger) -> [UInt8] { withUnsafeBytes(of: value) { Array($0) } }

  private static func load32(_ bytes: ArraySlice<UInt8>, _ offset: Int) -> UInt32 {
    (0..<4).reduce(0) { $0 | UInt32(bytes[bytes.startIndex + offset + $1]) << (UInt32($1) * 8) }
  }
}
