import CSystem
import Discovery
import Glibc
import Synchronization
import Testing

@testable import Gateway

private func network(_ interface: String, _ text: String) -> NetworkInterfaces.Address {
  let address = try? ServiceAddress(parsing: text)
  return .init(
    interface: interface, address: address?.address ?? NetworkAddress([0, 0, 0, 0])!,
    prefixLength: address?.prefix ?? 0)
}

@Suite("Service addresses")
struct ServiceAddressTests {
  @Test(
    "An address has a prefix and may name its interface",
    arguments: ["192.0.2.10/24", "192.0.2.10/32%eth1", "2001:db8::10/64", "2001:db8::10/128%bond0.7"])
  func good(_ text: String) throws {
    #expect(try ServiceAddress(parsing: text).description == text)
  }

  @Test(
    "What can belong to no interface, or to every one, is refused",
    arguments: [
      "", "192.0.2.10", "192.0.2.10/0", "192.0.2.10/33", "2001:db8::1/129", "192.0.2/24", "127.0.0.1/8", "::1/128",
      "fe80::1/64", "169.254.1.1/16", "224.0.0.1/24", "0.0.0.0/8", "ff02::1/16", "192.0.2.10/24%", "192.0.2.10/24%a/b",
      "192.0.2.10/24%..", "192.0.2.10/24%0123456789abcdef", "192.0.2.10/24%a b", "/24", "%eth0",
    ])
  func bad(_ text: String) {
    #expect(throws: ValueError.self) { try ServiceAddress(parsing: text) }
  }

  @Test("The interface is the one that is told, or the one with the smallest network that has the address")
  func home() throws {
    let machine = NetworkInterfaces(addresses: [
      network("eth0", "10.0.0.1/8"), network("eth1", "10.1.0.1/16"), network("eth2", "10.2.0.1/16"),
      network("eth3", "10.1.0.9/32"), network("eth4", "2001:db8::1/64"),
    ])
    #expect(try ServiceAddress(parsing: "10.1.2.3/24").home(among: machine) == "eth1")
    #expect(try ServiceAddress(parsing: "10.9.2.3/24").home(among: machine) == "eth0")
    #expect(try ServiceAddress(parsing: "2001:db8::9/64").home(among: machine) == "eth4")
    #expect(try ServiceAddress(parsing: "2001:db8:1::9/64").home(among: machine) == nil)
    #expect(try ServiceAddress(parsing: "192.0.2.1/24").home(among: machine) == nil)
    #expect(try ServiceAddress(parsing: "192.0.2.1/24%eth0").home(among: machine) == "eth0")
    // Its own, left over somewhere, does not hold it there.
    #expect(try ServiceAddress(parsing: "10.1.0.1/24").home(among: machine) == "eth0")
  }

  @Test("Twice the same address, or too many, are problems of the settings")
  func settings() {
    let list = { (addresses: [String]) -> SettingsValue in
      ["pair": ["addresses": .array(addresses.map { .string($0) })]]
    }
    #expect(throws: SettingsProblems.self) { try SettingsReader.read(list(["10.0.0.1/8", "10.0.0.1/8%eth0"])) }
    #expect(throws: SettingsProblems.self) { try SettingsReader.read(list((1...33).map { "10.0.0.\($0)/8" })) }
    #expect(throws: SettingsProblems.self) { try SettingsReader.read(list(["10.0.0.1"])) }
    #expect(throws: Never.self) { try SettingsReader.read(list(["10.0.0.1/8", "10.0.0.2/8"])) }
    #expect(Settings().pair.isEnabled && Settings().pair.addresses.isEmpty)
    var off = Settings()
    off.pair.isEnabled = false
    off.pair.addresses = [ServiceAddress(address: NetworkAddress([10, 0, 0, 1])!, prefix: 8)]
    #expect(Settings.keysNeedingRestart(from: Settings(), to: off) == ["pair.enabled"])
  }
}

@Suite("Messages about addresses")
struct AddressMessagesTests {
  private let address = NetworkAddress([192, 0, 2, 10])!

  @Test("RTM_NEWADDR has the address twice and our mark (rtnetlink(7))")
  func add() {
    let wanted: [UInt8] = [
      52, 0, 0, 0, 20, 0, 0x05, 0x05, 7, 0, 0, 0, 0, 0, 0, 0,  // length, type, flags, sequence, port
      2, 24, 0, 0, 3, 0, 0, 0,  // AF_INET, prefix, flags, scope, index
      8, 0, 2, 0, 192, 0, 2, 10,  // IFA_LOCAL
      8, 0, 1, 0, 192, 0, 2, 10,  // IFA_ADDRESS
      5, 0, 11, 0, 0x67, 0, 0, 0,  // IFA_PROTO
    ]
    #expect(
      AddressMessages.change(.add, address, prefix: 24, index: 3, sequence: 7)
        == [UInt8(wanted.count)] + wanted.dropFirst())
  }

  @Test("The kernel's answers are read, whatever bytes come")
  func answers() {
    let refused: [UInt8] = [20, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]
    #expect(AddressMessages.answers(refused, to: 7) == [.result(1)])
    #expect(AddressMessages.answers(refused, to: 8) == [])
    var told = AddressMessages.change(.add, address, prefix: 24, index: 3, sequence: 7)
    #expect(
      AddressMessages.answers(told + refused, to: 7) == [
        .address(.init(address: address, prefix: 24, index: 3, isOurs: true)), .result(1),
      ])
    for length in 0..<told.count { _ = AddressMessages.answers(Array(told[..<length]), to: 7) }
    for place in told.indices {
      for value in [0, 1, 3, 0x7F, 0xFF] as [UInt8] {
        let old = told[place]
        told[place] = value
        _ = AddressMessages.answers(told, to: 7)
        told[place] = old
      }
    }
  }

  @Test("Gratuitous ARP names the address as sender and target (RFC 5227 §3)")
  func arp() {
    let hardware: [UInt8] = [2, 0, 0, 0, 0, 9]
    #expect(
      AddressMessages.arp(address, hardware: hardware, operation: 1)
        == [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 192, 0, 2, 10, 0, 0, 0, 0, 0, 0, 192, 0, 2, 10])
  }

  @Test("An unsolicited advertisement overrides, and has the link-layer address (RFC 4861 §4.4)")
  func advertisement() {
    let six = NetworkAddress([0x20, 1, 0xD, 0xB8] + [UInt8](repeating: 0, count: 11) + [9])!
    let bytes = AddressMessages.advertisement(six, hardware: [2, 0, 0, 0, 0, 9])
    #expect(bytes.count == 32 && bytes[0] == 136 && bytes[4] == 0x20)
    #expect(Array(bytes[8..<24]) == six.bytes && Array(bytes[24...]) == [2, 1, 2, 0, 0, 0, 0, 9])
  }
}

@Suite(
  "Service addresses on real interfaces", .serialized, .timeLimit(.minutes(2)),
  .enabled(if: NetworkNamespace.obstacle == nil, "needs network namespaces"))
struct ServiceAddressesTests {
  private let four = try! ServiceAddress(parsing: "10.99.0.50/24")
  private let six = try! ServiceAddress(parsing: "fd99::50/64")

  /// Two machines on a wire.
  private static func wire() throws -> (NetworkNamespace, NetworkNamespace) {
    let a = try #require(NetworkNamespace())
    let b = try #require(NetworkNamespace())
    #expect(a.connect("eth0", to: b, as: "eth0"))
    for (number, machine) in [(1, a), (2, b)] {
      #expect(machine.ip("address add 10.99.0.\(number)/24 dev eth0"))
      #expect(machine.ip("address add fd99::\(number)/64 dev eth0 nodad"))
    }
    return (a, b)
  }

  /// Runs on a thread in the namespace, and waits for its end.
  private func inside(_ namespace: NetworkNamespace, _ body: @escaping @Sendable () -> Void) {
    let gate = ThreadGate()
    ControlThread.start {
      namespace.enter()
      body()
      gate.open()
    }
    #expect(gate.wait(until: Deadline(seconds: 30)))
  }

  private func addresses(_ all: [ServiceAddress], in namespace: NetworkNamespace) -> ServiceAddresses {
    ServiceAddresses(all) { namespace.enter() }
  }

  @Test("The addresses are there after take, without a check for others, and gone after drop")
  func takeAndDrop() throws {
    let (a, _) = try Self.wire()
    let service = addresses([four, six], in: a)
    inside(a) { #expect(service.take() == []) }
    let shown = a.show("address show dev eth0")
    #expect(shown.contains("inet 10.99.0.50/24"))
    #expect(shown.contains("inet6 fd99::50/64"))
    #expect(
      !shown.contains("tentative")
        || !shown.split(separator: "\n").contains { $0.contains("::50") && $0.contains("tentative") })
    #expect(service.report.map(\.interface) == ["eth0", "eth0"])
    inside(a) { #expect(service.drop() == []) }
    #expect(!a.show("address show dev eth0").contains("50/"))
    #expect(service.report.map(\.interface) == [nil, nil])
    inside(a) { #expect(service.drop() == []) }
  }

  @Test("A neighbour that knew another owner follows to the one that took the address")
  func takeover() throws {
    let (a, b) = try Self.wire()
    // The neighbour has stale entries of the former owner.
    for address in ["10.99.0.50", "fd99::50"] {
      #expect(b.ip("neighbour add \(address) lladdr 02:00:00:00:00:99 dev eth0 nud stale"))
    }
    let service = addresses([four, six], in: a)
    inside(a) { #expect(service.take() == []) }
    let hardware = a.show("-br link show eth0").split(separator: " ").dropFirst(2).first.map(String.init) ?? "?"
    let end = LinkClock.now() + 15_000_000_000
    var shown = ""
    repeat {
      usleep(100_000)
      shown = b.show("neighbour show dev eth0")
    } while LinkClock.now() < end && shown.contains("02:00:00:00:00:99")
    #expect(shown.contains("10.99.0.50 lladdr \(hardware)"), "\(shown)")
    #expect(shown.contains("fd99::50 lladdr \(hardware)"), "\(shown)")
    inside(a) { #expect(service.drop() == []) }
    #expect(service.report.allSatisfy { $0.problem == nil })
  }

  @Test("What a crash left behind is dropped at the next start, and nothing else is")
  func leftovers() throws {
    let (a, _) = try Self.wire()
    let crashed = addresses([four, six], in: a)
    inside(a) { #expect(crashed.take() == []) }
    let next = addresses([], in: a)
    inside(a) { #expect(next.dropLeftovers() == []) }
    let shown = a.show("address show dev eth0")
    #expect(!shown.contains("50/"))
    #expect(shown.contains("inet 10.99.0.1/24") && shown.contains("inet6 fd99::1/64"))
  }

  @Test("An address of the machine's own is not taken, and an address without a network needs an interface")
  func refused() throws {
    let (a, _) = try Self.wire()
    let own = try ServiceAddress(parsing: "10.99.0.1/24%eth0")
    let homeless = try ServiceAddress(parsing: "192.0.2.1/24")
    let nowhere = try ServiceAddress(parsing: "192.0.2.2/24%eth9")
    let service = addresses([own, homeless, nowhere, four], in: a)
    inside(a) {
      let problems = service.take()
      #expect(problems.count == 3)
      #expect(problems.contains { $0.contains("own address") })
      #expect(problems.contains { $0.contains("%INTERFACE") })
      #expect(problems.contains { $0.contains("no interface eth9") })
      _ = service.drop()
    }
    #expect(a.show("address show dev eth0").contains("inet 10.99.0.1/24"))
    #expect(service.report.last?.interface == nil)
  }

  @Test("Other settings move what is held")
  func changed() throws {
    let (a, _) = try Self.wire()
    let service = addresses([four], in: a)
    let other = try ServiceAddress(parsing: "10.99.0.60/24")
    let six = six
    inside(a) {
      _ = service.take()
      service.set([other, six])
    }
    let shown = a.show("address show dev eth0")
    #expect(!shown.contains("10.99.0.50/") && shown.contains("10.99.0.60/") && shown.contains("fd99::50/"))
    inside(a) { _ = service.drop() }
    #expect(service.report.map(\.interface) == [nil, nil])
  }
}
