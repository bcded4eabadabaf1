import Discovery
import Glibc
import HA
import Wire

/// The links that are open, and what came over them. Touched under one lock, by the links' thread and whoever asks.
struct LinkTable: Sendable {
  struct Link: Sendable {
    var address: NetworkAddress
    var socket: LinkSocket
    var record: LinkRecord
  }

  /// What is to be handed on.
  enum News: Equatable {
    case beat(Heartbeat, LinkID)
    case call(PeerCall)
  }

  private let identity: NodeIdentity
  private let port: UInt16
  private var cluster: UUID?
  private var key: [UInt8] = []
  private(set) var links: [LinkInterface: Link] = [:]
  private var failures: [LinkInterface: LinkSocketError] = [:]
  private var sent = SentBeats()
  private var boots = PeerBoots()
  /// The newest of our beats that a boot of the peer has named, over whatever link.
  private var named: (boot: UInt64, sequence: UInt64)?
  private var drops = LinkDrops()

  init(identity: NodeIdentity, port: UInt16) {
    self.identity = identity
    self.port = port
  }

  mutating func set(cluster: UUID, key: [UInt8]) {
    self.cluster = cluster
    self.key = key
  }

  // MARK: Interfaces

  /// Opens what is new, closes what is gone; what stays keeps its sockets.
  ///
  /// - Returns: Whether everything could be opened: if not, it is worth another attempt later.
  mutating func adopt(_ interfaces: LinkInterfaces, at now: Instant) -> Bool {
    links = links.filter { interfaces.links[$0.key] != nil }
    failures = [:]
    for (interface, address) in interfaces.links {
      if links[interface] != nil {
        links[interface]?.address = address
        continue
      }
      do throws(LinkSocketError) {
        let socket = try LinkSocket(interface, port: port)
        links[interface] = Link(address: address, socket: socket, record: LinkRecord(openedAt: now))
      } catch {
        failures[interface] = error
      }
    }
    return failures.isEmpty
  }

  // MARK: Beats

  /// Sends a beat over every link, each with what was heard over it. Without a key nothing goes out.
  mutating func send(_ beat: Heartbeat, at now: Instant) {
    guard cluster != nil else { return }
    sent.note(beat.sequence, at: now)
    for interface in links.keys {
      var beat = beat
      let echo = links[interface]?.record.echo(at: now) ?? (boot: 0, sequence: 0)
      beat.heardBoot = echo.boot
      beat.heardSequence = echo.sequence
      links[interface]?.send(HeartbeatCodec.encode(beat, key: key), at: now)
    }
  }

  /// Sends a message over every link to where the peer was heard.
  mutating func send(_ message: PeerMessage, at now: Instant) {
    guard let cluster else { return }
    let call = PeerCall(
      kind: message.kind, cluster: cluster, node: identity.node, bootID: identity.bootID, toBoot: message.toBoot,
      number: message.number, body: message.body)
    let bytes = call.encode(key: key)
    for (interface, link) in links {
      guard let peer = link.record.peer, link.record.condition(at: now) != .silent else { continue }
      if !link.socket.send(bytes, to: peer) { links[interface]?.record.sendFailures += 1 }
    }
  }

  /// Takes a datagram.
  ///
  /// - Returns: What it says, if it is to be handed on.
  mutating func take(
    _ bytes: [UInt8], from address: [UInt8], over interface: LinkInterface, byMulticast: Bool, at now: Instant
  ) -> News? {
    if PeerCall.isOne(bytes) {
      guard let call = authentic(bytes, PeerCall.decode), isPeers(call.cluster, call.node, call.bootID) else {
        return nil
      }
      return .call(call)
    }
    guard let beat = authentic(bytes, HeartbeatCodec.decode), isPeers(beat.cluster, beat.node, beat.bootID) else {
      return nil
    }
    // What names an old beat of ours waited somewhere: here, while this program stood still.
    let echoAt = beat.heardBoot == identity.bootID ? sent.time(of: beat.heardSequence) : nil
    let sentAt = echoAt.flatMap { now &- $0 < PeerBoots.graceNs ? $0 : nil }
    guard boots.admit(beat, sentAt: sentAt, at: now) else {
      drops.stale += 1
      links[interface]?.record.note(unproven: beat, at: now)
      return nil
    }
    let isNews = links[interface]?.record.take(
      beat, from: address, byMulticast: byMulticast, sentAt: sentAt, at: now)
    guard isNews == true else { return nil }
    return .beat(withNewestEcho(beat, isProof: sentAt != nil, at: now), interface.id)
  }

  /// A copy says what the peer heard over its own link, and that is the link's business. Whoever it is handed to wants to know
  /// whether the peer hears this node at all: of several copies the first counts, and its link may be one-way.
  private mutating func withNewestEcho(_ beat: Heartbeat, isProof: Bool, at now: Instant) -> Heartbeat {
    let known = named.flatMap { $0.boot == beat.bootID ? $0.sequence : nil } ?? 0
    let newest = isProof ? max(known, beat.heardSequence) : known
    named = (beat.bootID, newest)
    guard let sentAt = sent.time(of: newest), now &- sentAt < LinkRecord.patienceNs else { return beat }
    var beat = beat
    beat.heardBoot = identity.bootID
    beat.heardSequence = newest
    return beat
  }

  private mutating func authentic<Message>(
    _ bytes: [UInt8], _ decode: (_ bytes: [UInt8], _ key: [UInt8]) throws(HeartbeatFault) -> Message
  ) -> Message? {
    guard cluster != nil else {
      drops.noKey += 1
      return nil
    }
    do throws(HeartbeatFault) { return try decode(bytes, key) } catch {
      switch error {
      case .foreign, .unknownVersion: drops.foreign += 1
      case .notAuthentic: drops.notAuthentic += 1
      case .malformed: drops.malformed += 1
      }
      return nil
    }
  }

  private mutating func isPeers(_ cluster: UUID, _ node: UUID, _ bootID: UInt64) -> Bool {
    if cluster != self.cluster {
      drops.otherCluster += 1
    } else if node != identity.node {
      return true
    } else if bootID == identity.bootID {
      drops.own += 1
    } else {
      drops.sameNode += 1
    }
    return false
  }

  // MARK: How they are

  /// The links that work both ways, by name.
  func up(at now: Instant) -> [LinkID] {
    links.filter { $0.value.record.condition(at: now) == .up }.map(\.key.id).sorted { $0.name < $1.name }
  }

  /// When a link may turn worse without anything coming.
  func deadline(at now: Instant) -> Instant? { links.values.compactMap { $0.record.deadline(at: now) }.min() }

  func report(at now: Instant) -> LinksReport {
    let reports = links.map { LinkReport($0.key, $0.value, at: now) }
    let problems = failures.map { "\($0.key.id): no socket (\($0.value.text))" }
    return LinksReport(
      links: reports.sorted { $0.name < $1.name }, drops: drops, priorityProblem: nil, problems: problems.sorted())
  }
}

extension LinkTable.Link {
  fileprivate mutating func send(_ bytes: [UInt8], at now: Instant) {
    var (peer, group) = record.destinations(at: now)
    if let peer, !count(socket.send(bytes, to: peer)) {
      // Its address may be of a network that is not connected any more.
      group = true
    }
    if group { _ = count(socket.sendToGroup(bytes)) }
  }

  private mutating func count(_ isSent: Bool) -> Bool {
    if isSent { record.sent += 1 } else { record.sendFailures += 1 }
    return isSent
  }
}

extension LinkReport {
  fileprivate init(_ interface: LinkInterface, _ link: LinkTable.Link, at now: Instant) {
    let record = link.record
    let arrivals = record.arrivals
    self.init(
      name: interface.id.name, condition: record.condition(at: now).rawValue, localAddress: "\(link.address)",
      peerAddress: record.peer.map(LinkSocket.text), lastHeardNs: record.lastHeard(at: now), sent: record.sent,
      sendFailures: record.sendFailures, received: arrivals.received, lost: arrivals.lost,
      duplicates: arrivals.duplicates, late: arrivals.late, jitterNs: arrivals.jitterNs,
      longestGapNs: arrivals.longestGap(at: now), answerNs: arrivals.answerNs)
  }
}
