import CSystem
import Datamover
import Discovery
import Glibc
import HA
import ISCSI
import Reactor
import SCSI
import Synchronization

/// What a shard is told from outside.
enum ShardMessage: Sendable {
  /// A connection to serve, already accepted and let in.
  case connection(fd: Int32, peer: String, local: String, ticket: ConnectionTicket)
  /// The same over RDMA: let in, not yet accepted.
  case verbsConnection(VerbsRequest, peer: String, local: String, ticket: ConnectionTicket)
  case adopt(ExportMap)
  case configure(ShardConfiguration)
  /// Something to be done on the shard's thread.
  case perform(@Sendable (Shard) -> Void)
}

/// Settings as the shards need them: an immutable snapshot.
struct ShardConfiguration: Sendable {
  var target: TargetConfiguration
  var deviceServer: DeviceServer
  var sessionsMax: Int
  var queueDepth: UInt32
  var loginTimeoutNs: UInt64
  /// 0: never.
  var nopIntervalNs: UInt64
  /// 0: none.
  var ioDeadlineNs: UInt64
  /// How long a shard goes on asking an RDMA device for completions before it sleeps; 0: it sleeps at once.
  var pollNs: UInt64 = 0
  /// Which node of a pair this is: it has the ports of this slot.
  var slot = NodeSlot.first
  /// False: it is not known yet which ports are this node's, so connections wait.
  var takesLogins = true
}

/// A SCSI target port as initiators see it: one for each transport, so that ALUA can tell which to prefer.
struct TargetPort: Equatable, Sendable {
  /// TARGET PORT GROUP.
  var group: UInt16
  /// RELATIVE TARGET PORT IDENTIFIER.
  var relativeIdentifier: UInt16

  private init(number: UInt16) {
    group = number
    relativeIdentifier = number
  }

  /// Each node of a pair has two.
  static func tcp(_ slot: NodeSlot) -> TargetPort { TargetPort(number: UInt16(slot.rawValue) * 2 + 1) }
  static func iser(_ slot: NodeSlot) -> TargetPort { TargetPort(number: UInt16(slot.rawValue) * 2 + 2) }
}

/// Who has which ports, in which state: what REPORT TARGET PORT GROUPS answers on both nodes of a pair.
struct PortGroupState: Equatable, Sendable {
  var slot = NodeSlot.first
  /// Ports over RDMA are there, on this node and on its peer.
  var hasRDMA = false
  var peerHasRDMA = false
  /// This node has a peer, with ports of its own.
  var isPaired = false
  var isActive = true
  /// Initiators may have the pair switch over.
  var isExplicit = false

  /// The groups. With RDMA on a node its port is preferred; without it TCP's is as good as any. The passive node's are in
  /// standby.
  var groups: TargetPortGroups {
    let own = Self.groups(slot, hasRDMA: hasRDMA, isActive: isActive)
    guard isPaired else { return TargetPortGroups(own) }
    let others = Self.groups(slot.other, hasRDMA: peerHasRDMA, isActive: !isActive)
    return TargetPortGroups(
      slot == .first ? own + others : others + own, own: Set(own.map(\.id)), isExplicit: isExplicit)
  }

  private static func groups(_ slot: NodeSlot, hasRDMA: Bool, isActive: Bool) -> [TargetPortGroups.Group] {
    func group(_ port: TargetPort, _ state: AsymmetricAccessState) -> TargetPortGroups.Group {
      TargetPortGroups.Group(
        id: port.group, state: isActive ? state : .standby, relativeTargetPorts: [port.relativeIdentifier])
    }
    return hasRDMA
      ? [group(.iser(slot), .activeOptimized), group(.tcp(slot), .activeNonOptimized)]
      : [group(.tcp(slot), .activeOptimized)]
  }
}

/// A shard as other threads see it.
final class ShardHandle: Sendable {
  let index: Int
  let inbox = Inbox<ShardMessage>()
  /// Connections it has or was given.
  let load = Atomic<Int>(0)

  init(index: Int) { self.index = index }

  func post(_ message: ShardMessage) { inbox.post(message) }
}

/// What all shards share. Everything in it is immutable or locked, and none of it is on the warm path.
final class ShardContext: Sendable {
  let handles: [ShardHandle]
  let sessions = SessionTable()
  let registry: NexusRegistry
  /// The most that a shard's arena may take, in bytes.
  let arenaBytes: Int

  /// A disk has refused a request because another node has it.
  let conflict = Mutex<(@Sendable (Export) -> Void)?>(nil)

  /// When the pair's engine last had its say (`BootClock`); 0: there is no pair.
  let pulse = Atomic<UInt64>(0)

  /// Has the pair switch over, and says whether that came to be.
  let switchover = Mutex<(@Sendable (@escaping @Sendable (Bool) -> Void) -> Void)?>(nil)

  /// Has the other node of the pair carry out a command on reservations; nil: it is not known what became of it.
  typealias Forward =
    @Sendable (LogicalUnit, NexusIdentity, CDB, [UInt8], @escaping @Sendable (PeerOutcome?) -> Void) -> Void
  let forward = Mutex<Forward?>(nil)

  private let running: Atomic<Int>

  /// Shards whose loop has not ended.
  var runningShards: Int { running.load(ordering: .acquiring) }
  func shardEnded() { running.subtract(1, ordering: .releasing) }

  init(shards: Int, registry: NexusRegistry, arenaBytes: Int) {
    handles = (0..<shards).map(ShardHandle.init)
    running = Atomic(shards)
    self.registry = registry
    self.arenaBytes = arenaBytes
  }

  /// What every shard gives, in the order in which they come to it: each has then taken everything that it was told before.
  /// Fewer than there are shards, if one hangs: they are waited for `ns` at most.
  func collect<Value: Sendable>(within ns: UInt64, _ body: @escaping @Sendable (Shard) -> Value) -> [Value] {
    let box = Box<Value>()
    for handle in handles {
      handle.post(
        .perform { shard in
          let value = body(shard)
          box.values.withLock { $0.append(value) }
        })
    }
    let deadline = system_monotonic_ns() + ns
    while true {
      let values = box.values.withLock { $0 }
      if values.count == handles.count || system_monotonic_ns() >= deadline { return values }
      usleep(200)
    }
  }

  private final class Box<Value: Sendable>: Sendable {
    let values = Mutex<[Value]>([])
  }

  /// The sum of what every shard gives; nil: not all have answered.
  func sum(within ns: UInt64, _ body: @escaping @Sendable (Shard) -> Int) -> Int? {
    let values = collect(within: ns, body)
    return values.count == handles.count ? values.reduce(0, +) : nil
  }

  /// Ends what these nexuses have under way to a unit, then runs `done` on shard `origin`.
  func abortCommands(
    of nexuses: [NexusIdentity], to unit: LogicalUnit, origin: Int, then done: @escaping @Sendable (Shard) -> Void
  ) {
    let identities = Set(nexuses)
    onEveryShard(
      origin: origin,
      { shard, done in
        shard.abort(done: done) { shard, command, connection in
          guard let nexus = connection.nexus, identities.contains(nexus.identity) else { return false }
          return shard.unit(of: command) === unit
        }
      }, then: done)
  }

  /// Runs `body` on every shard, then `done` on shard `origin`. `body` calls what it is given when it has finished.
  func onEveryShard(
    origin: Int, _ body: @escaping @Sendable (Shard, @escaping @Sendable () -> Void) -> Void,
    then done: @escaping @Sendable (Shard) -> Void
  ) {
    let missing = Countdown(handles.count)
    let home = handles[origin]
    for handle in handles {
      handle.post(
        .perform { shard in
          body(shard) { if missing.isLast() { home.post(.perform(done)) } }
        })
    }
  }
}

/// Tells the last of several apart.
final class Countdown: Sendable {
  private let left: Atomic<Int>

  init(_ count: Int) { left = Atomic(count) }

  func isLast() -> Bool { left.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 }
}

/// The sessions of the target, over all shards: who holds which TSIH, and which session a login reinstates.
final class SessionTable: Sendable {
  /// What makes two logins the same session (RFC 7143 §6.3.5).
  struct Key: Hashable, Sendable {
    var initiatorName: InitiatorName
    var isid: UInt64
    var portalGroupTag: UInt16
  }

  struct Entry: Sendable {
    var key: Key?
    var tsih: UInt16
    var shard: Int
    var connection: Int
    var generation: UInt32
    /// Its own among all that ever were: the older, the less.
    var number: UInt64
    /// A discovery session that gives way already.
    var isEnding = false
  }

  enum Claim: Sendable {
    case granted(tsih: UInt16)
    /// This session must end first.
    case occupied(Entry)
    case full
  }

  private struct State {
    var entries: [UInt16: Entry] = [:]
    var byKey: [Key: UInt16] = [:]
    var nextTSIH: UInt16 = 1
    var nextNumber: UInt64 = 0
    /// Hashes of the I_T nexuses that there were.
    var known: Set<Int> = []
  }

  private let state = Mutex(State())

  var count: Int { state.withLock { $0.entries.count } }

  /// The session of this TSIH.
  func entry(tsih: UInt16) -> Entry? { state.withLock { $0.entries[tsih] } }

  private static let discoverySessionsMax = 64

  /// Takes a TSIH for a session. A discovery session has no key: there may be several of an initiator.
  func claim(_ key: Key?, shard: Int, connection: Int, generation: UInt32, sessionsMax: Int) -> Claim {
    state.withLock { state in
      if let key, let tsih = state.byKey[key], let entry = state.entries[tsih] { return .occupied(entry) }
      // Discovery asks for no right, so it has places of its own: who takes them all keeps nobody from a target, nor, for
      // the oldest gives way, from discovery.
      if key == nil {
        if state.entries.count - state.byKey.count >= Self.discoverySessionsMax,
          let oldest = state.entries.values.filter({ $0.key == nil && !$0.isEnding }).min(by: { $0.number < $1.number })
        {
          // Each of several that come at once has one of its own to wait for.
          state.entries[oldest.tsih]?.isEnding = true
          return .occupied(oldest)
        }
      } else if state.byKey.count >= min(sessionsMax, 65000) {
        return .full
      }
      // 0 is not a TSIH (RFC 7143 §11.12.6).
      while state.nextTSIH == 0 || state.entries[state.nextTSIH] != nil { state.nextTSIH &+= 1 }
      let tsih = state.nextTSIH
      state.nextTSIH &+= 1
      state.entries[tsih] = Entry(
        key: key, tsih: tsih, shard: shard, connection: connection, generation: generation,
        number: state.nextNumber)
      state.nextNumber += 1
      if let key { state.byKey[key] = tsih }
      return .granted(tsih: tsih)
    }
  }

  private static let knownMax = 4096

  /// Whether there was a session of this nexus since the start, as far as that is remembered; from now on there was.
  func remember(_ nexus: NexusIdentity) -> Bool {
    state.withLock { state in
      if state.known.contains(nexus.hashValue) { return true }
      if state.known.count < Self.knownMax { state.known.insert(nexus.hashValue) }
      return false
    }
  }

  /// The target has been reset: whoever comes learns of that, also who was not there.
  func forgetNexuses() { state.withLock { $0.known = [] } }

  func release(tsih: UInt16) {
    state.withLock { state in
      guard let entry = state.entries.removeValue(forKey: tsih) else { return }
      if let key = entry.key, state.byKey[key] == tsih { state.byKey[key] = nil }
    }
  }
}
