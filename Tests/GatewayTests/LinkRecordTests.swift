import Discovery
import Glibc
import HA
import Testing
import Wire

@testable import Gateway

private let ms: Instant = 1_000_000
private let cluster = UUID(random: [UInt8](repeating: 1, count: 16))
private let peerNode = UUID(random: [UInt8](repeating: 2, count: 16))

private func beat(_ sequence: UInt64, boot: UInt64 = 7, heard: UInt64 = 0) -> Heartbeat {
  Heartbeat(
    cluster: cluster, node: peerNode, bootID: boot, sequence: sequence, role: .passive, epoch: .none, name: "b",
    heardBoot: heard == 0 ? 0 : 99, heardSequence: heard)
}

/// `#expect` cannot hold a mutating call.
private func expect(_ wanted: Bool, _ found: Bool, at location: SourceLocation = #_sourceLocation) {
  #expect(found == wanted, sourceLocation: location)
}

@Suite("What is known of a link")
struct LinkRecordTests {
  private let peer: [UInt8] = [1, 2, 3]

  @Test(
    "A beat that is not believed is named all the same, or two nodes that were silent never believe each other again")
  func namesTheUnproven() {
    var record = LinkRecord(openedAt: 0)
    expect(true, record.take(beat(5), from: peer, byMulticast: false, sentAt: nil, at: 0))
    #expect(record.echo(at: 10_000 * ms) == (0, 0))
    record.note(unproven: beat(900), at: 10_000 * ms)
    record.note(unproven: beat(899), at: 10_001 * ms)
    #expect(record.echo(at: 10_010 * ms) == (7, 900))
    #expect(record.condition(at: 10_010 * ms) == .silent)
    #expect(record.echo(at: 11_000 * ms) == (0, 0))
  }

  @Test("A link is up only while both ways work")
  func bothWays() {
    var record = LinkRecord(openedAt: 0)
    #expect(record.condition(at: 0) == .neverHeard)
    expect(true, record.take(beat(1), from: peer, byMulticast: true, sentAt: nil, at: 1000 * ms))
    #expect(record.condition(at: 1000 * ms) == .oneWay)
    expect(true, record.take(beat(2), from: peer, byMulticast: false, sentAt: 1010 * ms, at: 1050 * ms))
    #expect(record.condition(at: 1050 * ms) == .up)
    #expect(record.deadline(at: 1050 * ms) == 1510 * ms)
    #expect(record.condition(at: 1510 * ms) == .oneWay)
    #expect(record.deadline(at: 1510 * ms) == 1550 * ms)
    #expect(record.condition(at: 1550 * ms) == .silent)
    #expect(record.deadline(at: 1550 * ms) == nil)
  }

  @Test("A peer that goes on beating and names an old beat of ours does not hear us any more")
  func staleEcho() {
    var record = LinkRecord(openedAt: 0)
    for number in 0..<20 as Range<UInt64> {
      _ = record.take(beat(number + 1), from: peer, byMulticast: false, sentAt: 10 * ms, at: (50 + number * 50) * ms)
    }
    #expect(record.condition(at: 1000 * ms) == .oneWay)
  }

  @Test("What goes out names the beat heard last, and none after a silence")
  func echo() {
    var record = LinkRecord(openedAt: 0)
    #expect(record.echo(at: 0) == (boot: 0, sequence: 0))
    _ = record.take(beat(41), from: peer, byMulticast: false, sentAt: nil, at: 100 * ms)
    #expect(record.echo(at: 599 * ms) == (boot: 7, sequence: 41))
    #expect(record.echo(at: 600 * ms) == (boot: 0, sequence: 0))
  }

  @Test("A copy and a beat that was overtaken are no news; a new boot begins anew")
  func news() {
    var record = LinkRecord(openedAt: 0)
    expect(true, record.take(beat(5), from: peer, byMulticast: false, sentAt: nil, at: 1))
    expect(false, record.take(beat(5), from: peer, byMulticast: true, sentAt: nil, at: 2))
    expect(false, record.take(beat(4), from: peer, byMulticast: false, sentAt: nil, at: 3))
    expect(true, record.take(beat(1, boot: 8), from: peer, byMulticast: false, sentAt: nil, at: 4))
    #expect(record.arrivals.received == 1)
  }

  @Test("The peer's address is where its newest beat came from")
  func address() {
    var record = LinkRecord(openedAt: 0)
    _ = record.take(beat(5), from: [1], byMulticast: false, sentAt: nil, at: 1)
    _ = record.take(beat(4), from: [2], byMulticast: false, sentAt: nil, at: 2)
    #expect(record.peer == [1])
    _ = record.take(beat(6), from: [3], byMulticast: false, sentAt: nil, at: 3)
    #expect(record.peer == [3])
  }

  @Test("A link looks for the peer with each beat at first, later each second, for it may be alone for ever")
  func search() {
    var record = LinkRecord(openedAt: 0)
    var count = 0
    for number in 0..<100 as Range<UInt64> where record.destinations(at: number * 50 * ms).group { count += 1 }
    #expect(count == 100)
    for number in 100..<500 as Range<UInt64> where record.destinations(at: number * 50 * ms).group { count += 1 }
    #expect(count == 120)
  }

  @Test("A peer that is heard is spoken to alone, and every 5 s through the group; one that fell silent is looked for")
  func unicast() {
    var record = LinkRecord(openedAt: 0)
    var groups = 0
    for number in 1...200 as ClosedRange<UInt64> {
      _ = record.take(beat(number), from: peer, byMulticast: false, sentAt: nil, at: number * 50 * ms)
      let destinations = record.destinations(at: number * 50 * ms)
      #expect(destinations.peer == peer)
      groups += destinations.group ? 1 : 0
    }
    #expect(groups == 2)
    for number in 210...250 as ClosedRange<UInt64> where record.destinations(at: number * 50 * ms).group { groups += 1 }
    #expect((12...14).contains(groups))
    #expect(record.destinations(at: 69_000 * ms).peer == peer)
    #expect(record.destinations(at: 71_000 * ms).peer == nil)
  }
}

@Suite("Counts of a link")
struct LinkArrivalsTests {
  @Test("Lost, late and double beats are told apart")
  func counts() {
    var arrivals = LinkArrivals()
    for (index, sequence) in ([10, 11, 14, 12, 12, 15, 3] as [UInt64]).enumerated() {
      arrivals.take(sequence, at: UInt64(index) * 50 * ms)
    }
    #expect(arrivals.received == 7)
    #expect(arrivals.lost == 0)  // 13 is; 3 was before our time and makes up for it
    #expect(arrivals.late == 2)
    #expect(arrivals.duplicates == 1)
  }

  @Test("An even beat has no jitter; an uneven one has")
  func jitter() {
    var even = LinkArrivals()
    var uneven = LinkArrivals()
    for number in 1...200 as ClosedRange<UInt64> {
      even.take(number, at: number * 50 * ms)
      uneven.take(number, at: number * 50 * ms + number % 2 * 20 * ms)
    }
    #expect(even.jitterNs == 0)
    #expect((30 * ms...40 * ms).contains(uneven.jitterNs))
    #expect(even.longestGap(at: 10_000 * ms) == 50 * ms)
    #expect(uneven.longestGap(at: 10_000 * ms) == 70 * ms)
    #expect(even.longestGap(at: 300_000 * ms) == 0)
  }

  @Test("A sequence number beyond any outage is not counted as so many losses")
  func jump() {
    var arrivals = LinkArrivals()
    arrivals.take(1, at: 0)
    arrivals.take(.max, at: 1)
    #expect(arrivals.lost == 0)
    arrivals.take(0, at: 2)
    #expect(arrivals.duplicates == 1)
  }
}

@Suite("Which boots of the peer are believed")
struct PeerBootsTests {
  @Test("A boot without proof is believed for 3 s, one that proves itself for as long as it does")
  func grace() {
    var boots = PeerBoots()
    expect(true, boots.admit(beat(1), sentAt: nil, at: 100 * ms))
    expect(true, boots.admit(beat(2), sentAt: nil, at: 3099 * ms))
    expect(false, boots.admit(beat(3), sentAt: nil, at: 3100 * ms))
    expect(true, boots.admit(beat(4), sentAt: 3100 * ms, at: 3150 * ms))
    expect(true, boots.admit(beat(5), sentAt: nil, at: 6149 * ms))
    expect(false, boots.admit(beat(6), sentAt: nil, at: 6150 * ms))
  }

  @Test("Recorded beats of an older boot change nothing beside a living one")
  func replay() {
    var boots = PeerBoots()
    expect(true, boots.admit(beat(1, boot: 8), sentAt: 10 * ms, at: 20 * ms))
    expect(false, boots.admit(beat(900, boot: 7), sentAt: nil, at: 30 * ms))
  }

  @Test("A new boot takes over with its first proof, and what the old one left on the way is dropped")
  func restart() {
    var boots = PeerBoots()
    expect(true, boots.admit(beat(1, boot: 7), sentAt: 10 * ms, at: 20 * ms))
    expect(false, boots.admit(beat(1, boot: 8), sentAt: nil, at: 500 * ms))
    expect(true, boots.admit(beat(900, boot: 7), sentAt: 400 * ms, at: 510 * ms))
    expect(true, boots.admit(beat(2, boot: 8), sentAt: 520 * ms, at: 550 * ms))
    expect(false, boots.admit(beat(901, boot: 7), sentAt: 450 * ms, at: 560 * ms))
    expect(true, boots.admit(beat(3, boot: 8), sentAt: 560 * ms, at: 600 * ms))
  }

  @Test("Any number of strange boots do not push out the living one")
  func flood() {
    var boots = PeerBoots()
    expect(true, boots.admit(beat(1, boot: 7), sentAt: 10 * ms, at: 20 * ms))
    for boot in 100..<200 as Range<UInt64> {
      expect(false, boots.admit(beat(1, boot: boot), sentAt: nil, at: 30 * ms))
    }
    expect(true, boots.admit(beat(2, boot: 7), sentAt: nil, at: 40 * ms))
  }

  @Test("Beats that waited while this program stood still are dropped")
  func frozen() {
    let key = [UInt8](repeating: 3, count: 32)
    let me = NodeIdentity(node: UUID(random: [UInt8](repeating: 4, count: 16)), bootID: 99, name: "a")
    let link = LinkInterface(interface: "eth0", index: 2, isIPv6: false, isLoopback: false)
    var table = LinkTable(identity: me, port: 1)
    table.set(cluster: cluster, key: key)
    table.send(beat(5), at: 1000 * ms)
    let waiting = HeartbeatCodec.encode(beat(1, heard: 5), key: key)
    _ = table.take(waiting, from: [], over: link, byMulticast: false, at: 1100 * ms)
    _ = table.take(waiting, from: [], over: link, byMulticast: false, at: 4000 * ms)
    #expect(table.report(at: 0).drops.stale == 0)
    _ = table.take(waiting, from: [], over: link, byMulticast: false, at: 4100 * ms)
    #expect(table.report(at: 0).drops.stale == 1)
  }

  @Test("Only one of our latest 64 beats is a proof")
  func sentBeats() {
    var sent = SentBeats()
    #expect(sent.time(of: 0) == nil)
    for number in 1...100 as ClosedRange<UInt64> { sent.note(number, at: number * ms) }
    #expect(sent.time(of: 100) == 100 * ms)
    #expect(sent.time(of: 37) == 37 * ms)
    #expect(sent.time(of: 36) == nil)
    #expect(sent.time(of: 101) == nil)
    #expect(sent.time(of: .max) == nil)
  }
}

@Suite("Which interfaces carry beats")
struct LinkInterfacesTests {
  private static let good = UInt32(IFF_UP) | UInt32(IFF_RUNNING) | UInt32(IFF_MULTICAST)

  private func entry(_ name: String, _ index: UInt32, _ address: [UInt8], flags: UInt32 = good) -> LinkInterfaces.Entry
  {
    LinkInterfaces.Entry(interface: name, index: index, flags: flags, address: NetworkAddress(address)!)
  }

  @Test("IPv4 and IPv6 of an interface are two links, whatever number of addresses it has")
  func families() {
    let linkLocal: [UInt8] = [0xFE, 0x80] + [UInt8](repeating: 0, count: 13) + [1]
    let global: [UInt8] = [0xFD, 0] + [UInt8](repeating: 0, count: 13) + [1]
    let found = LinkInterfaces(
      [
        entry("eth0", 2, [10, 0, 0, 1]), entry("eth0", 2, [10, 0, 0, 9]), entry("eth0", 2, global),
        entry("eth0", 2, linkLocal),
      ], onLoopback: false)
    #expect(Set(found.links.keys.map(\.id.name)) == ["eth0/4", "eth0/6"])
    #expect(Set(found.links.values.map(\.description)) == ["10.0.0.1", "fe80::1"])
  }

  @Test("No carrier, no multicast, down, or loopback: no link")
  func unusable() {
    let found = LinkInterfaces(
      [
        entry("down", 2, [10, 0, 0, 1], flags: UInt32(IFF_RUNNING) | UInt32(IFF_MULTICAST)),
        entry("dark", 3, [10, 0, 0, 1], flags: UInt32(IFF_UP) | UInt32(IFF_MULTICAST)),
        entry("tun", 4, [10, 0, 0, 1], flags: UInt32(IFF_UP) | UInt32(IFF_RUNNING)),
        entry("lo", 1, [127, 0, 0, 1], flags: UInt32(IFF_UP) | UInt32(IFF_RUNNING) | UInt32(IFF_LOOPBACK)),
      ], onLoopback: false)
    #expect(found.links.isEmpty)
  }

  @Test("No more than 32 links, however many interfaces containers make")
  func many() {
    let found = LinkInterfaces((1...100).map { entry("veth\($0)", $0, [10, 0, 0, 1]) }, onLoopback: false)
    #expect(found.links.count == 32)
  }
}

@Suite("The links' thread")
struct UrgentThreadTests {
  @Test("Only what is mapped from files and never written is kept in memory")
  func parts() {
    let part = UrgentThread.programPart("7f12a000-7f13b000 r-xp 00000000 08:01 1234    /usr/bin/gatewayd\n")
    #expect(part?.start == 0x7F12_A000)
    #expect(part?.end == 0x7F13_B000)
    #expect(UrgentThread.programPart("7f12a000-7f13b000 rw-p 00000000 08:01 1234    /usr/bin/gatewayd\n") == nil)
    #expect(UrgentThread.programPart("7f12a000-7f13b000 r-xp 00000000 00:00 0       [vdso]\n") == nil)
    #expect(UrgentThread.programPart("nonsense") == nil)
  }
}
