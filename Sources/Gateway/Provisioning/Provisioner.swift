import Discovery
import Glibc
import Reactor
import SCSI
import Storage
import Synchronization

/// Decides which disks are LUNs: takes what discovery sees and what `--disk` names, opens and labels what may be exported,
/// and publishes snapshots. It owns the numbering: a labelled disk keeps its LUN, a blank one gets a number that no other
/// disk of the cluster has or had.
///
/// Everything that touches a disk runs on a control thread, one change at a time (`work`); what reports read has a lock of
/// its own (`state`), so that a slow disk never keeps a report waiting.
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
    var advice: String?
    var export: Export?
    /// Grows with each event, so that the outcome of an older examination is dropped.
    var serialNumber: UInt64 = 0
  }

  /// What a disk that was adopted whole is known as.
  struct Adopted: Equatable, Sendable {
    var uuid: UUID
    var lun: UInt16
  }

  struct State: Sendable {
    var entries: [String: Entry] = [:]
    var cluster: UUID?
    var pairKey: [UInt8] = []
    var nextLUN: UInt16 = 0
    /// LUN numbers of disks of this cluster that were seen since the start, present or not.
    var numbers: [UUID: UInt16] = [:]
    /// Disks adopted as they are (`--whole`), by their identity: kept in the state directory, for they have no label.
    var adopted: [String: Adopted] = [:]
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
  let work = Mutex<Void>(())
  let state: Mutex<State>
  private let adoptMap: @Sendable (ExportMap) -> Void
  private let announce: @Sendable (UnitAttention) -> Void
  private let monitor = Mutex<DiskMonitor?>(nil)
  private let loops = Mutex<LoopWatch?>(nil)
  let policy: DiscoveryPolicy

  init(
    options: RunOptions, registry: NexusRegistry, adopt: @escaping @Sendable (ExportMap) -> Void,
    announce: @escaping @Sendable (UnitAttention) -> Void
  ) throws(StartError) {
    self.options = options
    self.registry = registry
    adoptMap = adopt
    self.announce = announce
    policy = DiscoveryPolicy()
    state = Mutex(State(settings: options.settings.discovery))
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
      return cluster
    }
  }

  func set(_ settings: Settings.Discovery) { state.withLock { $0.settings = settings } }

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
        advice: entry.advice)
    }
  }

  func logicalUnits(_ counters: [UInt16: IOCounters]) -> [LogicalUnitReport] {
    state.withLock { $0.entries.values.compactMap(\.export) }.sorted { $0.unit.number < $1.unit.number }.map { export in
      LogicalUnitReport(
        number: export.unit.number, naa: export.unit.identity.naa,
        sizeBytes: export.unit.blocks * UInt64(export.unit.traits.blockBytes),
        blockBytes: export.unit.traits.blockBytes, path: export.disk.path, serial: export.unit.identity.serial,
        state: export.unit.traits.isReadOnly ? "read-only" : "online",
        counters: counters[export.unit.number] ?? IOCounters())
    }
  }

  // MARK: Start

  /// Opens the disks that were named, then looks for others. Returns when the disks that are there now are dealt with, or
  /// after a bound: a disk that does not answer must not keep the rest from being served.
  func start() throws(StartError) {
    try openNamed()
    guard options.discoversDisks else {
      state.withLock { $0.pending = nil }
      return publish(changed: false)
    }
    let loops = LoopWatch { [weak self] name in self?.vanished(name: name) }
    loops.start()
    self.loops.withLock { $0 = loops }
    let ready = ReadyFlag()
    let monitor = DiskMonitor(policy: policy) { [weak self] event in
      self?.handle(event)
      if case .enumerated = event { ready.set() }
    }
    do throws(DiscoveryError) {
      try monitor.start()
      self.monitor.withLock { $0 = monitor }
      if !ready.wait(milliseconds: 5000) {
        note("looking for disks takes unusually long; those found later are exported then")
      }
    } catch {
      note("\(error): only the disks given by --disk are exported")
      state.withLock { $0.pending = nil }
    }
    publish(changed: false)
  }

  func stop() {
    state.withLock { $0.isStopped = true }
    monitor.withLock { $0 }?.stop()
  }

  /// The initiators learn of a new capacity by the unit attention that the unit has raised, and at once by a message.
  func announceCapacity() { announce(.capacityDataHasChanged) }

  func note(_ problem: String) {
    Log.warning(problem)
    state.withLock { $0.problems.append(problem) }
  }

  // MARK: Named disks

  private func openNamed() throws(StartError) {
    // Labelled disks first: their numbers are theirs.
    var blank: [(Int, DiskOpening)] = []
    for (position, specification) in options.disks.enumerated() {
      guard case .path(let path) = specification else { continue }
      do throws(DiskOpening.Refusal) {
        let opening = try DiskOpening(path: path, device: Self.blockDevice(path))
        if opening.label == nil {
          try opening.checkBlank()
          blank.append((position, opening))
        } else {
          try admit(opening, key: Self.key(path))
        }
      } catch {
        guard error.isHeld else { throw StartError("--disk \(path): \(error.reason)") }
        hold(path: path, device: Self.blockDevice(path), error)
      }
    }
    for (position, specification) in options.disks.enumerated() {
      switch specification {
      case .path(let path):
        guard let opening = blank.first(where: { $0.0 == position })?.1 else { continue }
        do throws(DiskOpening.Refusal) {
          try label(opening, key: Self.key(path))
        } catch {
          guard error.isHeld else { throw StartError("--disk \(path): \(error.reason)") }
          hold(path: path, device: Self.blockDevice(path), error)
        }
      case .memory, .null, .slow, .faulty:
        try openSynthetic(specification, position)
      }
    }
  }

  private func openSynthetic(_ specification: DiskSpecification, _ position: Int) throws(StartError) {
    let disk: Disk
    let key = "\(specification.text)#\(position)"
    do throws(DiskError) {
      switch specification {
      case .path: return
      case .memory(let bytes): disk = try Disk.memory(byteCount: bytes, path: specification.text)
      case .null(let bytes): disk = Disk.null(byteCount: bytes, path: specification.text)
      case .slow(let bytes, let milliseconds):
        disk = try Disk.memory(byteCount: bytes, path: specification.text, faults: .slow(milliseconds: milliseconds))
      case .faulty(let bytes, let rules):
        guard let faults = FaultRules(rules) else {
          throw DiskError(
            path: specification.text,
            reason:
              "rules are medium=LBA+COUNT, hang=LBA+COUNT, slow=LBA+COUNT:MS, gone, flush-error, joined by commas")
        }
        disk = try Disk.memory(byteCount: bytes, path: specification.text, faults: faults)
      }
    } catch {
      throw StartError("--disk \(error.description)")
    }
    var traits = DiskOpening.traits(disk, persistsReservations: false)
    if case .null = specification { traits.isThin = false } else { traits.isThin = true }
    let uuid = Identity.derivedUUID("\(cluster) \(key)")
    let unit: LogicalUnit
    guard let number = takeNumber() else {
      throw StartError("--disk \(specification.text): \(DiskOpening.Refusal.numbersTaken.reason)")
    }
    do throws(ReservationRecordError) {
      unit = try LogicalUnit(
        number: number, identity: DiskOpening.identity(uuid), traits: traits,
        blocks: disk.byteCount / UInt64(traits.blockBytes), registry: registry)
    } catch {
      throw StartError("--disk \(specification.text): \(error)")
    }
    add(
      Export(unit: unit, disk: disk, label: nil, byteCount: disk.byteCount),
      Entry(key: key, path: specification.text, byteCount: disk.byteCount, verdict: .exported))
  }

  static func key(_ path: String) -> String {
    guard let real = realpath(path, nil) else { return path }
    defer { free(real) }
    let text = String(cString: real)
    return text.hasPrefix("/dev/") ? String(text.dropFirst(5)) : text
  }

  static func blockDevice(_ path: String) -> BlockDevice? {
    let name = key(path)
    return name.hasPrefix("/") ? nil : BlockDeviceReader().read(name)
  }

  // MARK: Admission

  /// Exports a labelled disk of this cluster under its own number.
  func admit(_ opening: DiskOpening, key: String) throws(DiskOpening.Refusal) {
    guard let label = opening.label else { return }
    try state.withLock { state throws(DiskOpening.Refusal) in
      if state.cluster == nil {
        state.cluster = label.cluster
        state.pairKey = label.pairKey
      }
      guard state.cluster == label.cluster else {
        throw DiskOpening.Refusal(
          isHeld: true, reason: "it belongs to another gateway (cluster \(label.cluster))",
          advice: "gatewayd disks adopt \(opening.disk.path) --wipe (discards what is on it)")
      }
      if state.pairKey.isEmpty { state.pairKey = label.pairKey }
      let others = state.entries.values.filter { $0.key != key }.compactMap(\.export)
      if others.contains(where: { $0.unit.number == label.lun }) {
        let isCopy = others.contains { $0.label?.disk == label.disk }
        throw DiskOpening.Refusal(
          isHeld: true,
          reason: isCopy
            ? "it is a copy of the disk that is LUN \(label.lun) already" : "another disk is LUN \(label.lun) already",
          advice: isCopy ? nil : "gatewayd disks adopt \(opening.disk.path) --wipe (discards what is on it)")
      }
      state.numbers[label.disk] = label.lun
      state.nextLUN = min(max(state.nextLUN, label.nextLUN, label.lun + 1), Self.lunMax)
    }
    let export = try opening.export(lun: label.lun, uuid: label.disk, registry: registry)
    add(export, entry(opening, key: key))
    saveState()
  }

  /// Labels a blank disk and exports it.
  func label(_ opening: DiskOpening, key: String) throws(DiskOpening.Refusal) {
    var opening = opening
    let cluster = self.cluster
    guard let lun = takeNumber() else { throw .numbersTaken }
    let new = state.withLock { state in
      if state.pairKey.isEmpty { state.pairKey = Identity.randomBytes(32) }
      return DiskOpening.NewLabel(cluster: cluster, lun: lun, nextLUN: state.nextLUN, pairKey: state.pairKey)
    }
    try opening.write(new)
    Log.notice("\(opening.disk.path): blank, labelled as LUN \(lun)")
    try admit(opening, key: key)
  }

  private func entry(_ opening: DiskOpening, key: String) -> Entry {
    Entry(
      key: key, path: opening.disk.path, model: opening.device?.model ?? "", serial: opening.device?.serial ?? "",
      byteCount: opening.disk.byteCount, device: opening.device, verdict: .exported)
  }

  private static let lunMax: UInt16 = 0x3FFF

  /// A LUN number that no disk of the cluster has or had; after the last one, the lowest that is free; nil: all are taken.
  func takeNumber() -> UInt16? {
    state.withLock { state in
      let taken = Set(state.entries.values.compactMap { $0.export?.unit.number }).union(state.numbers.values)
        .union(state.adopted.values.map(\.lun))
      var number = state.nextLUN
      for _ in 0...Self.lunMax where taken.contains(number) { number = number < Self.lunMax ? number + 1 : 0 }
      guard !taken.contains(number) else { return nil }
      state.nextLUN = min(number + 1, Self.lunMax)
      return number
    }
  }

  func add(_ export: Export, _ entry: Entry) {
    var entry = entry
    entry.export = export
    state.withLock { state in
      entry.serialNumber = (state.entries[entry.key]?.serialNumber ?? 0) + 1
      state.entries[entry.key] = entry
    }
    if entry.device?.kind == .loop { loops.withLock { $0 }?.add(path: entry.path, name: entry.key) }
    let bytes = ByteCount.describe(export.byteCount)
    Log.info("LUN \(export.unit.number): \(entry.path), \(bytes), naa.\(export.unit.identity.naa)")
  }

  func hold(path: String, device: BlockDevice?, _ refusal: DiskOpening.Refusal) {
    let bytes = device?.bytes ?? 0
    Log.notice("\(path) is \(refusal.isHeld ? "held" : "refused"): \(refusal.reason)")
    let key = device?.name ?? Self.key(path)
    state.withLock { state in
      let serial = (state.entries[key]?.serialNumber ?? 0) + 1
      state.entries[key] = Entry(
        key: key, path: path, model: device?.model ?? "", serial: device?.serial ?? "", byteCount: bytes,
        device: device, verdict: refusal.isHeld ? .held : .refused, reason: refusal.reason, advice: refusal.advice,
        serialNumber: serial)
    }
  }

  /// Gives the shards a new snapshot; with `changed` the initiators are told that the LUNs have changed.
  func publish(changed: Bool) {
    let (map, isRunning) = state.withLock { state in
      state.generation += 1
      state.map = ExportMap(
        state.entries.values.compactMap(\.export).sorted { $0.unit.number < $1.unit.number },
        generation: state.generation)
      return (state.map, state.context != nil)
    }
    guard isRunning else { return }
    adoptMap(map)
    if changed { announce(.reportedLunsDataHasChanged) }
  }

  /// The LUN of a disk ends: what it still has in hand runs out, new commands find no such LUN.
  func withdraw(_ key: String, reason: String) -> Bool {
    let export = state.withLock { state in
      let export = state.entries[key]?.export
      state.entries[key]?.export = nil
      return export
    }
    guard let export else { return false }
    loops.withLock { $0 }?.remove(name: key)
    export.unit.markGone()
    Log.notice("LUN \(export.unit.number): \(export.disk.path) \(reason)")
    publish(changed: true)
    return true
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
