import CSystem
import Glibc
import HA
import Synchronization
import Testing
import Wire

@testable import Gateway

private let cluster = UUID(random: [UInt8](repeating: 1, count: 16))
private let key = [UInt8](repeating: 0x5A, count: 32)

/// A node of a test: its links, beating each 20 ms until it is stopped, and what came over them.
private final class Node: Sendable {
  struct Seen: Sendable {
    var beats: [LinkID: [Heartbeat]] = [:]
    var changes: [[LinkID]] = []
  }

  let identity: NodeIdentity
  let links: PairLinks
  let port: UInt16
  private let seen: Locked<Seen>
  private let calls = Locked<PeerCalls?>(nil)
  private let isStopped = Atomic(false)

  init(_ number: UInt8, port: UInt16, boot: UInt64 = 0, in namespace: NetworkNamespace? = nil, key: [UInt8]? = key) {
    let seen = Locked(Seen())
    var options = PairLinks.Options()
    options.port = port
    options.onLoopback = namespace == nil
    options.onThread = { namespace?.enter() }
    identity = NodeIdentity(
      node: UUID(random: [UInt8](repeating: number, count: 16)), bootID: boot == 0 ? UInt64(number) : boot,
      name: "node\(number)")
    let calls = calls
    links = PairLinks(
      identity: identity, options: options,
      receive: { beat, link in seen.with { $0.beats[link, default: []].append(beat) } },
      receiveCall: { call in calls.with { $0 }?.take(call) },
      linksChanged: { links in seen.with { $0.changes.append(links) } })
    self.port = port
    self.seen = seen
    if let key { links.set(cluster: cluster, key: key) }
    #expect(links.start())
  }

  var now: Seen { seen.with { $0 } }

  func beat(_ sequence: UInt64) -> Heartbeat {
    Heartbeat(
      cluster: cluster, node: identity.node, bootID: identity.bootID, sequence: sequence, role: .passive, epoch: .none,
      name: identity.name)
  }

  /// Questions to a node, and answers to its own.
  func call(_ peerBoot: UInt64, handler: @escaping PeerCalls.Handler) -> PeerCalls {
    let made = PeerCalls(
      bootID: identity.bootID, send: { [weak self] in self?.links.send($0) }, peerBoot: { peerBoot }, handler: handler)
    calls.with { $0 = made }
    return made
  }

  func beginBeating() {
    ControlThread.start { [self] in
      var sequence: UInt64 = 0
      while !isStopped.load(ordering: .relaxed) {
        sequence += 1
        links.send(beat(sequence))
        usleep(20_000)
      }
    }
  }

  func stop() {
    isStopped.store(true, ordering: .relaxed)
    links.stop()
  }

  /// Has the kernel drop everything that comes to its sockets: the way to this node is cut, the way from it is not.
  func deafen(_ isDeaf: Bool, link: LinkID? = nil) {
    // A classic filter (linux/filter.h) of one instruction, "return 0 bytes": code, jumps, operand.
    let instruction: [UInt16] = [0x06, 0, 0, 0]
    instruction.withUnsafeBytes { instruction in
      // struct sock_fprog: the count, padded, and the pointer.
      var program: (UInt64, UnsafeRawPointer?) = (1, instruction.baseAddress)
      for descriptor in links.descriptors(of: link) {
        let name = isDeaf ? SO_ATTACH_FILTER : SO_DETACH_FILTER
        #expect(setsockopt(descriptor, SOL_SOCKET, name, &program, 16) == 0)
      }
    }
  }
}

/// A value that several threads see.
private final class Locked<Value: Sendable>: Sendable {
  private let value: Mutex<Value>
  init(_ value: Value) { self.value = Mutex(value) }
  func with<Result: Sendable>(_ body: (inout Value) -> Result) -> Result { value.withLock { body(&$0) } }
}

private func stop(_ nodes: Node...) { for node in nodes { node.stop() } }

private func until(_ what: String, seconds: Double = 20, _ condition: () -> Bool) {
  let end = LinkClock.now() + UInt64(seconds * 1e9)
  while !condition() {
    guard LinkClock.now() < end else {
      Issue.record("\(what): not within \(seconds) s")
      return
    }
    usleep(5000)
  }
}

/// A port that nobody else has in this run of tests.
private func freshPort() -> UInt16 {
  var random: UInt16 = 0
  system_random(&random, 2)
  return 20_000 + random % 10_000
}

@Suite("Links of a pair, over loopback", .timeLimit(.minutes(2)))
struct PairLinksTests {
  private let lo = LinkID("lo/4")

  private func pair() -> (Node, Node) {
    let port = freshPort()
    return (Node(1, port: port), Node(2, port: port))
  }

  private func meet(_ nodes: (Node, Node)) {
    nodes.0.beginBeating()
    nodes.1.beginBeating()
    until("both are up") { nodes.0.links.up == [lo] && nodes.1.links.up == [lo] }
  }

  @Test("Two nodes that have the key find each other, and hear each beat once for each link")
  func meeting() {
    let (a, b) = pair()
    defer { stop(a, b) }
    meet((a, b))
    until("beats come") { (a.now.beats[lo]?.count ?? 0) > 20 && (b.now.beats[lo]?.count ?? 0) > 20 }
    let beats = b.now.beats[lo] ?? []
    #expect(beats.map(\.sequence) == beats.map(\.sequence).sorted())
    #expect(Set(beats.map(\.sequence)).count == beats.count)
    #expect(beats.last?.heardBoot == 2)
    #expect(a.now.changes == [[lo]])
    let report = a.links.report
    #expect(report.links.map(\.name) == ["lo/4"])
    #expect(report.links.first?.condition == "up")
    #expect(report.links.first?.peerAddress != nil)
    #expect(report.links.first?.lost == 0)
    #expect(report.links.first?.answerNs ?? 0 > 0)
  }

  @Test("A node without the key sends nothing and believes nothing; once it has it, the link comes up")
  func lateKey() {
    let port = freshPort()
    let a = Node(1, port: port)
    let b = Node(2, port: port, key: nil)
    defer { stop(a, b) }
    a.beginBeating()
    b.beginBeating()
    until("b drops") { b.links.report.drops.noKey > 3 }
    #expect(b.now.beats.isEmpty)
    #expect(b.links.report.links.first?.sent == 0)
    b.links.set(cluster: cluster, key: key)
    until("both are up") { a.links.up == [lo] && b.links.up == [lo] }
  }

  @Test("Another key is another cluster: nothing of it is believed")
  func otherKey() {
    let port = freshPort()
    let a = Node(1, port: port)
    let b = Node(2, port: port, key: [UInt8](repeating: 1, count: 32))
    defer { stop(a, b) }
    a.beginBeating()
    b.beginBeating()
    until("both drop") { a.links.report.drops.notAuthentic > 3 && b.links.report.drops.notAuthentic > 3 }
    #expect(a.now.beats.isEmpty && b.now.beats.isEmpty)
    #expect(a.links.up.isEmpty)
  }

  @Test("A link that works one way only is down on both sides, and up again when the other way works")
  func oneWay() {
    let (a, b) = pair()
    defer { stop(a, b) }
    meet((a, b))
    b.deafen(true)
    until("both are down") { a.links.up.isEmpty && b.links.up.isEmpty }
    // Its last proof and its last beat end one after the other.
    until("b hears nothing") { b.links.report.links.first?.condition == "silent" }
    #expect(a.links.report.links.first?.condition == "one way")
    #expect(b.links.report.links.first?.condition == "silent")
    let count = a.now.beats[lo]?.count ?? 0
    until("a still hears b") { (a.now.beats[lo]?.count ?? 0) > count + 5 }
    #expect(a.now.changes == [[lo], []])
    b.deafen(false)
    until("both are up") { a.links.up == [lo] && b.links.up == [lo] }
  }

  @Test("Beats that are sent again, strangers' datagrams and our own change nothing, and each is counted")
  func hostile() throws {
    let (a, b) = pair()
    defer { stop(a, b) }
    meet((a, b))
    let attacker = try #require(Attacker(port: a.port))
    // An old boot of b, recorded when a had another one too.
    var old = b.beat(1_000_000)
    old.bootID = 77
    attacker.send(HeartbeatCodec.encode(old, key: key))
    until("it is stale") { a.links.report.drops.stale >= 1 && b.links.report.drops.sameNode >= 1 }
    attacker.send(HeartbeatCodec.encode(b.beat(1), key: key))
    attacker.send(HeartbeatCodec.encode(a.beat(1), key: key))
    until("it is its own") { a.links.report.drops.own >= 1 }
    var foreign = b.beat(2_000_000)
    foreign.cluster = UUID(random: [UInt8](repeating: 9, count: 16))
    attacker.send(HeartbeatCodec.encode(foreign, key: key))
    until("it is of another cluster") { a.links.report.drops.otherCluster == 1 }
    var tampered = HeartbeatCodec.encode(b.beat(3_000_000), key: key)
    tampered[20] ^= 1
    attacker.send(tampered)
    until("it is not authentic") { a.links.report.drops.notAuthentic == 1 }
    for length in [0, 1, 3, 4, 87, 103, 104, 1232, 9000] { attacker.send([UInt8](repeating: 0xFF, count: length)) }
    until("they are foreign") { a.links.report.drops.foreign == 9 }
    let beats = a.now.beats[lo] ?? []
    #expect(!beats.contains { $0.sequence >= 1_000_000 || $0.bootID == 77 })
    #expect(a.links.up == [lo] && b.links.up == [lo])
    #expect(a.now.changes == [[lo]])
  }

  @Test("A flood of datagrams does not take a link down")
  func flood() throws {
    let (a, b) = pair()
    defer { stop(a, b) }
    meet((a, b))
    let attacker = try #require(Attacker(port: a.port))
    let garbage = [UInt8](repeating: 0xEE, count: 200)
    let end = LinkClock.now() + 1_500_000_000
    while LinkClock.now() < end { for _ in 0..<20 { attacker.send(garbage) } }
    #expect(a.links.report.drops.foreign > 100)
    #expect(a.links.up == [lo])
    #expect(b.links.up == [lo])
  }

  @Test("A peer that was started anew is believed at once, and counted anew")
  func restart() {
    let (a, b) = pair()
    defer { a.stop() }
    meet((a, b))
    b.stop()
    let next = Node(2, port: a.port, boot: 22)
    defer { next.stop() }
    next.beginBeating()
    until("the new boot is heard") { a.now.beats[lo]?.last?.bootID == 22 }
    until("both are up") { a.links.up == [lo] && next.links.up == [lo] }
    #expect(a.links.report.links.first?.lost == 0)
  }

  @Test("After the stop nothing is called, and the sockets are closed")
  func stopping() {
    let (a, b) = pair()
    defer { b.stop() }
    meet((a, b))
    a.stop()
    #expect(a.now.changes.last == [])
    #expect(a.links.descriptors.isEmpty)
    let count = a.now.beats[lo]?.count
    usleep(100_000)
    #expect(a.now.beats[lo]?.count == count)
    a.stop()
  }
}

/// Sends to the group of a port over loopback.
private final class Attacker {
  private let socket: LinkSocket

  init?(port: UInt16) {
    let link = LinkInterface(interface: "lo", index: if_nametoindex("lo"), isIPv6: false, isLoopback: true)
    guard let socket = try? LinkSocket(link, port: port) else { return nil }
    self.socket = socket
  }

  func send(_ bytes: [UInt8]) { _ = socket.sendToGroup(bytes) }
}

@Suite(
  "Links of a pair, over real interfaces", .serialized, .timeLimit(.minutes(2)),
  .enabled(if: NetworkNamespace.obstacle == nil, "needs network namespaces"))
struct PairLinksInterfacesTests {
  private static func wired(_ count: Int) throws -> (NetworkNamespace, NetworkNamespace) {
    let a = try #require(NetworkNamespace())
    let b = try #require(NetworkNamespace())
    for number in 0..<count {
      #expect(a.connect("eth\(number)", to: b, as: "eth\(number)"))
      #expect(a.ip("address add 10.99.\(number).1/24 dev eth\(number)"))
      #expect(b.ip("address add 10.99.\(number).2/24 dev eth\(number)"))
    }
    return (a, b)
  }

  /// Two nodes in these namespaces, wired so often, that beat.
  private static func beating(_ count: Int) throws -> (
    a: Node, b: Node, left: NetworkNamespace, right: NetworkNamespace
  ) {
    let (left, right) = try wired(count)
    let nodes = (Node(1, port: PairLinks.port, in: left), Node(2, port: PairLinks.port, in: right))
    nodes.0.beginBeating()
    nodes.1.beginBeating()
    return (nodes.0, nodes.1, left, right)
  }

  private static func names(_ names: String...) -> [LinkID] { names.map { LinkID($0) } }

  @Test("Every interface is a link, IPv4 and IPv6 apart, and beats go to the port and address of the peer")
  func allLinks() throws {
    let (a, b, _, _) = try Self.beating(2)
    defer { stop(a, b) }
    let all = Self.names("eth0/4", "eth0/6", "eth1/4", "eth1/6")
    until("all are up") { a.links.up == all && b.links.up == all }
    let report = a.links.report
    #expect(report.links[0].localAddress == "10.99.0.1")
    #expect(report.links[0].peerAddress == "10.99.0.2:3260")
    #expect(report.links[1].peerAddress?.hasPrefix("[fe80::") == true)
    #expect(report.problems == [])
  }

  @Test("An interface that is taken down or away is no link any more, and one that comes is")
  func comingAndGoing() throws {
    let (a, b, left, right) = try Self.beating(2)
    defer { stop(a, b) }
    until("all are up") { a.links.up.count == 4 && b.links.up.count == 4 }
    // The cable is pulled on the other side: no carrier here.
    #expect(right.ip("link set eth1 down"))
    until("only eth0 is left") { a.links.up == Self.names("eth0/4", "eth0/6") }
    // The kernel may take a second to tell of a carrier; silence is noticed before.
    until("eth1 is no link") { a.links.report.links.map(\.name) == ["eth0/4", "eth0/6"] }
    #expect(right.ip("link set eth1 up"))
    until("all are up again") { a.links.up.count == 4 && b.links.up.count == 4 }
    #expect(left.ip("link delete eth0"))
    until("only eth1 is left") { b.links.up == Self.names("eth1/4", "eth1/6") }
    #expect(left.connect("eth2", to: right, as: "eth2"))
    until("eth2 is a link, with IPv6 alone") { b.links.up == Self.names("eth1/4", "eth1/6", "eth2/6") }
  }

  @Test("A beat over a link that works one way says that the peer hears us over the other")
  func oneWayLink() throws {
    let (a, b, _, _) = try Self.beating(1)
    defer { stop(a, b) }
    until("both are up") { a.links.up.count == 2 && b.links.up.count == 2 }
    // What a sends over IPv4 does not come to b any more.
    b.deafen(true, link: LinkID("eth0/4"))
    until("a sees it") { a.links.up == Self.names("eth0/6") }
    let before = a.now.beats[LinkID("eth0/4")]?.count ?? 0
    until("a hears b over it") { (a.now.beats[LinkID("eth0/4")]?.count ?? 0) > before + 10 }
    let heard = a.now.beats[LinkID("eth0/4")]?.suffix(5).map(\.heardBoot) ?? []
    #expect(heard == [UInt64](repeating: 1, count: 5))
  }

  @Test("Two networks on one wire: IPv4 has no way to the peer's address, and finds it through the group all the same")
  func strangeNetworks() throws {
    let a = try #require(NetworkNamespace())
    let b = try #require(NetworkNamespace())
    #expect(a.connect("eth0", to: b, as: "eth0"))
    #expect(a.ip("address add 10.99.0.1/24 dev eth0"))
    #expect(b.ip("address add 10.98.0.1/24 dev eth0"))
    let left = Node(1, port: PairLinks.port, in: a)
    let right = Node(2, port: PairLinks.port, in: b)
    defer { stop(left, right) }
    left.beginBeating()
    right.beginBeating()
    until("IPv6 is up") { left.links.up.contains(LinkID("eth0/6")) }
  }

  @Test("A question is answered, carried out once though it comes several times, and not by another start of the node")
  func calls() {
    let port = freshPort()
    let (a, b) = (Node(1, port: port), Node(2, port: port))
    defer { stop(a, b) }
    let carriedOut = Locked(0)
    let asking = a.call(2) { _ in nil }
    _ = b.call(1) { question in
      carriedOut.with { $0 += 1 }
      // Longer than it takes to be asked again.
      usleep(250_000)
      return question.isEmpty ? nil : question.reversed()
    }
    a.beginBeating()
    b.beginBeating()
    until("they hear each other") { !a.links.up.isEmpty && !b.links.up.isEmpty }
    let answers = Locked<[[UInt8]?]>([])
    let long = [UInt8](repeating: 7, count: 20_000) + [9]
    asking.ask([1, 2, 3], within: 10_000_000_000) { answer in answers.with { $0.append(answer) } }
    asking.ask(long, within: 10_000_000_000) { answer in answers.with { $0.append(answer) } }
    until("both are answered") { answers.with(\.count) == 2 }
    #expect(answers.with { $0 } == [[3, 2, 1], long.reversed()])
    #expect(carriedOut.with { $0 } == 2)
    asking.ask([], within: 300_000_000) { answer in answers.with { $0.append(answer) } }
    until("it is given up") { answers.with(\.count) == 3 }
    let stranger = a.call(3) { _ in nil }
    stranger.ask([1], within: 300_000_000) { answer in answers.with { $0.append(answer) } }
    until("that too") { answers.with(\.count) == 4 }
    #expect(answers.with { $0.suffix(2) } == [nil, nil])
    #expect(carriedOut.with { $0 } == 3)
  }
}
