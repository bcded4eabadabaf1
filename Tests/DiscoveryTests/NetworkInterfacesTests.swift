import Testing

@testable import Discovery

private func address(_ bytes: UInt8...) -> NetworkAddress { NetworkAddress(bytes) ?? NetworkAddress([0, 0, 0, 0])! }
private func v6(_ first: UInt8, _ second: UInt8, _ middle: UInt8 = 0, last: UInt8) -> NetworkAddress {
  NetworkAddress([first, second, 0, 0, 0, 0, 0, middle, 0, 0, 0, 0, 0, 0, 0, last])!
}
private func mapped(_ bytes: UInt8...) -> [UInt8] { [UInt8](repeating: 0, count: 10) + [0xff, 0xff] + bytes }

@Suite("Directly connected networks")
struct NetworkInterfacesTests {
  private let machine = NetworkInterfaces(addresses: [
    .init(interface: "lo", address: address(127, 0, 0, 1), prefixLength: 8, isLoopback: true),
    .init(interface: "eth0", address: address(10, 1, 2, 3), prefixLength: 20),
    .init(interface: "ppp0", address: address(172, 16, 0, 1), prefixLength: 32, peer: address(192, 168, 7, 7)),
    .init(interface: "tun0", address: address(9, 9, 9, 9), prefixLength: 0),
    .init(interface: "eth0", address: v6(0xfe, 0x80, last: 1), prefixLength: 64),
    .init(interface: "eth0", address: v6(0xfd, 0, 1, last: 1), prefixLength: 64),
    .init(interface: "eth1", address: address(10, 1, 2, 3), prefixLength: 20),
  ])

  @Test("An address within a prefix is on link to the bit, one outside is not")
  func prefix() {
    #expect(machine.isOnLink([10, 1, 15, 255]))
    #expect(machine.isOnLink([10, 1, 0, 1]))
    #expect(!machine.isOnLink([10, 1, 16, 0]))
    #expect(!machine.isOnLink([10, 0, 255, 255]))
    #expect(machine.isOnLink(v6(0xfd, 0, 1, last: 99)))
    #expect(!machine.isOnLink(v6(0xfd, 0, 2, last: 99)))
  }

  @Test("An IPv4-mapped address is the IPv4 address (RFC 4291 §2.5.5.2)")
  func ipv4Mapped() {
    #expect(machine.isOnLink(mapped(10, 1, 2, 9)))
    #expect(!machine.isOnLink(mapped(8, 8, 8, 8)))
    #expect(machine.isOnLink(mapped(127, 0, 0, 1)))
  }

  @Test("Loopback and IPv6 link-local are on link with no interface at all; IPv4 link-local is not")
  func linkLocal() {
    let bare = NetworkInterfaces(addresses: [])
    #expect(bare.isOnLink([127, 9, 9, 9]))
    #expect(bare.isOnLink(v6(0, 0, last: 1)))
    #expect(bare.isOnLink(v6(0xfe, 0xbf, last: 1)))
    #expect(!bare.isOnLink(v6(0xfe, 0xc0, last: 1)))
    #expect(!bare.isOnLink([169, 254, 1, 1]))
  }

  @Test("The far end of a point-to-point link is on link; a network of prefix length 0 connects nothing")
  func pointToPoint() {
    #expect(machine.isOnLink([192, 168, 7, 7]))
    #expect(!machine.isOnLink([192, 168, 7, 8]))
    #expect(machine.isOnLink([172, 16, 0, 1]))
    #expect(!machine.isOnLink([172, 16, 0, 2]))
    #expect(!machine.isOnLink([1, 1, 1, 1]))
  }

  @Test("Addresses that no host has, and bytes that are no address, are not on link")
  func unassignable() {
    for bytes: [UInt8] in [[0, 0, 0, 0], [224, 0, 0, 1], [255, 255, 255, 255], [], [10], [10, 1, 2, 3, 4]] {
      #expect(!machine.isOnLink(bytes))
    }
    #expect(!machine.isOnLink(v6(0xff, 2, last: 1)))
    #expect(!machine.isOnLink(v6(0, 0, last: 0)))
  }

  @Test("Portals: each address once, link-local last, loopback only where there is nothing else")
  func portals() {
    #expect(
      machine.portalAddresses.map(\.targetAddressText) == [
        "10.1.2.3", "172.16.0.1", "9.9.9.9", "[fd00:0:0:1::1]", "[fe80::1]",
      ])
    let lonely = NetworkInterfaces(addresses: [machine.addresses[0]])
    #expect(lonely.portalAddresses.map(\.description) == ["127.0.0.1"])
  }

  @Test("Socket addresses are read by family, and refused when cut short or of another family")
  func socketAddresses() {
    func parse(_ bytes: [UInt8]) -> NetworkAddress? { bytes.withUnsafeBytes { NetworkAddress(socketAddress: $0) } }
    // AF_INET is 2, AF_INET6 is 10, AF_UNIX is 1; the family is in the machine's own order.
    let inet = withUnsafeBytes(of: UInt16(2)) { Array($0) } + [0x0c, 0xbc, 192, 0, 2, 1]
    let inet6 = withUnsafeBytes(of: UInt16(10)) { Array($0) } + [0x0c, 0xbc, 0, 0, 0, 0] + mapped(192, 0, 2, 1)
    #expect(parse(inet) == address(192, 0, 2, 1))
    #expect(parse(inet6) == address(192, 0, 2, 1))
    for count in 0..<8 { #expect(parse(Array(inet.prefix(count))) == nil) }
    for count in 0..<24 { #expect(parse(Array(inet6.prefix(count))) == nil) }
    #expect(parse(withUnsafeBytes(of: UInt16(1)) { Array($0) } + mapped(1, 2, 3, 4)) == nil)
  }

  @Test("Each address of this machine is on link to itself, and there is a portal if there is an address")
  func thisMachine() throws {
    let interfaces = try NetworkInterfaces.read()
    for local in interfaces.addresses { #expect(interfaces.isOnLink(local.address)) }
    #expect(interfaces.portalAddresses.isEmpty == interfaces.addresses.isEmpty)
  }
}
