import CSystem
import HA
import Reactor
import Synchronization
import Wire

/// The heartbeats' way to the peer and back: UDP over every interface that can carry it, IPv4 and IPv6 apart. Each such pair
/// of interface and family is a link (`eth0/4`), and up only while both ways work.
///
/// Nobody configures the peer. A link that does not hear it sends its beats to a link-local multicast group (239.255.71.87
/// and ff12::8747:4757, which no router passes on); whoever answers is spoken to by unicast from then on, and by multicast
/// now and then, for its address may change. Beats are authenticated with the pair's key. Without a key nothing is sent and
/// nothing believed.
///
/// It has a thread of its own, with real-time priority where that is allowed. Nothing there waits for a disk, a socket or a
/// lock that somebody holds for long, and what is called there must not either.
public final class PairLinks: Sendable {
  /// UDP; registered to iSCSI, which has no use for it over UDP. So a firewall has one number to know.
  public static let port: UInt16 = 3260

  public struct Options: Sendable {
    /// The group's, and this node's own except on loopback.
    public var port = PairLinks.port
    /// Loopback alone, where each node then has a port of its own: for two gateways on one machine, in tests.
    public var onLoopback = false
    /// Called first on the links' thread: tests enter a network namespace there.
    var onThread: @Sendable () -> Void = {}

    public init() {}
  }

  private let table: LinkTableLock
  private let inbox = Inbox<LinkLoop.Order>()
  private let options: Options
  private let handlers: LinkLoop.Handlers
  private let isStarted = Atomic(false)
  private let ended = ThreadGate()

  /// - Parameters:
  ///   - receive: called on the links' thread with each beat of the peer that is authentic, of now, and newer on its link than
  ///     the one before. The same beat comes once for each link that it came over; what it says it heard is the newest of our
  ///     beats that the peer has named over any link.
  ///   - receiveCall: called on the links' thread with each message of the peer that is authentic; each may come several times.
  ///   - linksChanged: called on the links' thread with the links that are up, sorted, whenever that changes; none at first.
  public init(
    identity: NodeIdentity, options: Options = Options(), receive: @escaping @Sendable (Heartbeat, LinkID) -> Void,
    receiveCall: @escaping @Sendable (PeerCall) -> Void = { _ in },
    linksChanged: @escaping @Sendable ([LinkID]) -> Void
  ) {
    table = LinkTableLock(LinkTable(identity: identity, port: options.port))
    self.options = options
    handlers = LinkLoop.Handlers(receive: receive, receiveCall: receiveCall, linksChanged: linksChanged)
  }

  /// Begins to listen. Once; sockets that cannot be had are problems of the report.
  /// - Returns: False if the system gives no thread.
  @discardableResult
  public func start() -> Bool {
    guard !isStarted.exchange(true, ordering: .acquiringAndReleasing) else { return true }
    let isRunning = ControlThread.start { [table, inbox, options, handlers, ended] in
      system_name_thread("links")
      options.onThread()
      table.note(priorityProblem: UrgentThread.begin())
      LinkLoop(table: table, inbox: inbox, onLoopback: options.onLoopback, handlers: handlers).run()
      ended.open()
    }
    if !isRunning { isStarted.store(false, ordering: .releasing) }
    return isRunning
  }

  /// Ends the thread and waits for it, for a second at most; nothing is called after that. Not from a handler.
  public func stop() {
    guard isStarted.load(ordering: .acquiring) else { return }
    inbox.post(.stop)
    if ended.wait(until: Deadline(seconds: 1)) { ended.open() }
  }

  /// The label was read, or another one counts now.
  public func set(cluster: UUID, key: [UInt8]) { table.withLock { $0.set(cluster: cluster, key: key) } }

  /// Sends a beat over every link; what was heard is filled in for each. Returns at once; nothing is sent without a key.
  public func send(_ beat: Heartbeat) { inbox.post(.send(beat)) }

  /// Sends a message once over every link that the peer is heard on. Returns at once.
  func send(_ message: PeerMessage) { inbox.post(.call(message)) }

  /// The links that are up, sorted.
  public var up: [LinkID] { table.withLock { $0.up(at: LinkClock.now()) } }

  /// Of all sockets, or of a link's.
  var descriptors: [Int32] { descriptors(of: nil) }
  func descriptors(of link: LinkID?) -> [Int32] {
    table.withLock { table in
      table.links.filter { link == nil || $0.key.id == link }.values.flatMap { [$0.socket.own, $0.socket.group] }
    }
  }

  public var report: LinksReport { table.report(at: LinkClock.now()) }
}
