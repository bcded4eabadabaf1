import Discovery
import HA
import Glibc
import Reactor
import SCSI
import Storage
import Wire
import Synchronization

/// Decides which disks are LUNs: takes what discovery sees and what `--disk` names, opens and labels what may be exported,
/// and publishes snapshots. It owns the numbering: a labelled disk keeps its LUN, a blank one gets a number that no other
/// disk of the cluster has or had.
///
/// What touches a disk runs in the disk's lane, without a lock: a disk that hangs keeps nobody waiting but those who ask for
/// it. What is known of the disks has one lock (`state`) that is never held over I/O. A lane's outcome counts only if the
/// disk's entry still has the serial number with which the work began (`begin`), and LUN number and identity are claimed
/// before they are used, so that two lanes never take the same.
final class Provisioner: Sendable {
  /// A disk that was seen, whatever became of it.
  struct Entry: Sendable {
    /// The sysfs name, or the text of `--disk`.
    var key: String
    var path: String
    var model = ""
    var serial = ""
    var byteCount: UInt64
    var device: BlockDevice?
    var verdict: DiskVerdict
    var reason = ""
    /// Of the reason, where discovery gave one.
    var code: Reason.Code?
    var advice: String?
    var export: Export?
    /// Of the event that is dealt with, so that the outcome of an older one is dropped.
    var serialNumber: UInt64 = 0
    /// Where a label is that is not at the disk's end.
    var former: DiskOpening.Former?
    /// It is held only until the pair has done something; asked again each second.
    var waitsForPair = false

    /// Of a loop device: what is attached to it.
    var attached: LoopWatch.Attached? {
      guard let device, device.kind == .loop else { return nil }
      return LoopWatch.Attached(name: key, sequence: device.diskSequence)
    }
  }

  /// What a lane is about to use.
  struct Claim: Equatable, Sendable {
    var lun: UInt16
    /// Of the label; nil: of a disk that has none yet, or never.
    var disk: UUID?
  }

  /// What a disk that was adopted whole is known as.
  struct Adopted: Equatable, Sendable {
    var uuid: UUID
    var lun: UInt16
  }

  struct State: Sendable {
    var entries: [String: Entry] = [:]
    var cluster: UUID?
    /// The cluster was made from the machine's id and nothing carries it yet: the first label that is found decides.
    var isClusterProvisional = false
    /// What this node may do with shared disks.
    var standing = PairStanding.undecided
    /// A thread looks after the disks that wait for the pair.
    var hasWaiting = false
    var pairKey: [UInt8] = []
    var nextLUN: UInt16 = 0
    /// LUN numbers of disks of this cluster that were seen since the start, present or not.
    var numbers: [UUID: UInt16] = [:]
    /// Disks adopted as they are (`--whole`), by their identity: kept in the state directory, for they have no label.
    var adopted: [String: Adopted] = [:]
    /// Sizes in bytes of the labelled disks that were seen, kept in the state directory: where labels may be of disks that
    /// grow while the gateway is off.
    var knownBytes: Set<UInt64> = []
    static let knownBytesMax = 1024
    /// By the disk's key.
    var claims: [String: Claim] = [:]
    /// The keys of disks that are being adopted.
    var adopting: Set<String> = []
    /// Events so far: the next entry's serial number.
    var events: UInt64 = 0
    var generation: UInt64 = 1
    var map = ExportMap([], generation: 0)
    var context: ShardContext?
    var settings: Settings.Discovery
    var problems: [String] = []
    /// Events of the enumeration at the start are kept until it is complete.
    var pending: [BlockDevice]? = []
    var isStopped = false
  }

  let options: RunOptions
  let registry: NexusRegistry
  let lanes = DiskLanes()
  /// Held while the state directory's file is replaced.
  let saving = Mutex<Void>(())
  let state: Mutex<State>
  let access: DiskAccess
  /// The labelled disks that were there at the start have their numbers.
  let firstRound = ReadyFlag()
  private let adoptMap: @Sendable (ExportMap) -> Void
  private let announce: @Sendable (UnitAttention, _ lun: UInt16?) -> Void
  /// Who is told of the shared disks and of a new target name.
  let pairHooks = Mutex(PairHooks())
  private let monitor = Mutex<DiskMonitor?>(nil)
  let loops = Mutex<LoopWatch?>(nil)
  let policy: DiscoveryPolicy
  /// Who this node is in a pair.
  let node: NodeIdentity

  init(
    options: RunOptions, registry: NexusRegistry, access: DiskAccess = .real,
    adopt: @escaping @Sendable (ExportMap) -> Void,
    announce: @escaping @Sendable (UnitAttention, _ lun: UInt16?) -> Void
  ) throws(StartError) {
    self.options = options
    self.registry = registry
    self.access = access
    adoptMap = adopt
    self.announce = announce
    policy = DiscoveryPolicy()
    state = Mutex(State(settings: options.settings.discovery))
    node = Identity.node(stateDirectory: options.stateDirectory)
    try loadState()
  }

  // MARK: What others ask

  var map: ExportMap { state.withLock { $0.map } }
  var problems: [String] { state.withLock { $0.problems } }
  var targetName: String { Identity.targetName(cluster: cluster) }

  /// The cluster: of the state directory, else of the first labelled disk, else of this machine.
  var cluster: UUID {
    state.withLock { state in
      if let cluster = state.cluster { return cluster }
      let cluster = Identity.machineCluster()
      state.cluster = cluster
      state.isClusterProvisional = true
      return cluster
    }
  }

  /// From now on snapshots reach the shards; the one they were made with may be old already.
  func publishFrom(_ context: ShardContext) {
    let map = state.withLock { state in
      state.context = context
      return state.map
    }
    adoptMap(map)
  }

  func reports() -> [DiskReport] {
    state.withLock { $0.entries.values.sorted { $0.path < $1.path } }.map { entry in
      DiskReport(
        // The drive's own serial, which is printed on it, before that of its LUN.
        path: entry.path, model: entry.model,
        serial: entry.serial.isEmpty ? entry.export?.unit.identity.serial ?? "" : entry.serial,
        sizeBytes: entry.byteCount, verdict: entry.verdict, lun: entry.export?.unit.number, reason: entry.reason,
        code: entry.code?.rawValue, advice: entry.advice)
    }
  }

  func logicalUnits(_ counters: [UInt16: IOCounters]) -> [LogicalUnitReport] {
    state.withLock { $0.entries.values.compactMap(\.export) }.sorted { $0.unit.number < $1.unit.number }.map { export in
      LogicalUnitReport(
        number: export.unit.number, naa: export.unit.identity.naa,
        sizeBytes: export.unit.blocks * UInt64(export.unit.traits.blockBytes),
        blockBytes: export.unit.traits.blockBytes, path: export.disk.path, serial: export.unit.identity.serial,
        state: Self.state(of: export.unit),
        counters: counters[export.unit.number] ?? IOCounters())
    }
  }

  private static func state(of unit: LogicalUnit) -> String {
    switch unit.sanitation {
    case .running: "sanitizing"
    case .failed: "sanitize failed"
    case .none: unit.traits.isReadOnly ? "read-only" : "online"
    }
  }

  // MARK: Start

  /// Opens the disks that were named, then looks for others. Returns when the disks that are there now are dealt with, or
  /// after a bound: a disk that does not answer must not keep the rest from being served.
  func start() throws(StartError) {
    try openNamed()
    guard options.discoversDisks else {
      state.withLock { $0.pending = nil }
      firstRound.set()
      return publish(changed: false)
    }
    let loops = LoopWatch { [weak self] device in self?.vanished(device.name, sequence: device.sequence) }
    loops.start()
    self.loops.withLock { $0 = loops }
    let monitor = DiskMonitor(policy: policy) { [weak self] event in self?.handle(event) }
    do throws(DiscoveryError) {
      try monitor.start()
      self.monitor.withLock { $0 = monitor }
      if !firstRound.wait(milliseconds: 5000) {
        note("looking for disks takes unusually long; those found later are exported then")
      }
    } catch {
      note("\(error): only the disks given by --disk are exported")
      state.withLock { $0.pending = nil }
      firstRound.set()
    }
    publish(changed: false)
  }

  func stop() {
    state.withLock { $0.isStopped = true }
    monitor.withLock { $0 }?.stop()
  }

  /// The initiators learn of a new capacity by the unit attention that the unit has raised, and at once by a message.
  func announceCapacity(of lun: UInt16) { announce(.capacityDataHasChanged, lun) }

  func note(_ problem: String) {
    Log.warning(problem)
    state.withLock { $0.problems.append(problem) }
  }

  // MARK: What the shards see

  /// Gives the shards a new snapshot; with `changed` the initiators are told that the LUNs have changed.
  func publish(changed: Bool) {
    let (map, isRunning) = state.withLock { state in
      state.generation += 1
      state.map = ExportMap(
        state.entries.values.compactMap(\.export).sorted { $0.unit.number < $1.unit.number },
        generation: state.generation)
      return (state.map, state.context != nil)
    }
    if isRunning {
      adoptMap(map)
      if changed { announce(.reportedLunsDataHasChanged, nil) }
    }
    pairHooks.withLock { $0.sharedDisksChanged }?()
  }

  /// The LUN of a disk ends: what it still has in hand runs out, new commands find no such LUN.
  func withdraw(_ key: String, reason: String) {
    let entry = state.withLock { state in
      let entry = state.entries[key]
      state.entries[key]?.export = nil
      return entry
    }
    end(entry, reason: reason)
  }

  /// The disk of an entry, which is in nobody's sight any more, is not served any more.
  func end(_ entry: Entry?, reason: String) {
    guard let entry, let export = entry.export else { return }
    if let attached = entry.attached { loops.withLock { $0 }?.remove(attached) }
    export.unit.markGone()
    Log.notice("LUN \(export.unit.number): \(export.disk.path) \(reason)")
    publish(changed: true)
  }
}

/// A flag that one thread sets and another waits for, with a bound.
final class ReadyFlag: Sendable {
  private let flag = Atomic<Bool>(false)

  func set() { flag.store(true, ordering: .releasing) }

  func wait(milliseconds: Int) -> Bool {
    for _ in 0..<milliseconds * 2 {
      if flag.load(ordering: .acquiring) { return true }
      usleep(500)
    }
    return flag.load(ordering: .acquiring)
  }
}

extension DiskSpecification {
  /// As it was written.
  var text: String {
    switch self {
    case .path(let path): path
    case .memory(let bytes): "memory:\(bytes)"
    case .null(let bytes): "null:\(bytes)"
    case .slow(let bytes, let milliseconds): "slow:\(bytes):\(milliseconds)"
    case .faulty(let bytes, let rules): "faulty:\(bytes):\(rules)"
    }
  }
}
