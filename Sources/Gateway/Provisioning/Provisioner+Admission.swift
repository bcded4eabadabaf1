import Discovery
import Glibc
import SCSI
import Storage
import Wire

/// How a disk becomes a LUN, under which number, and what becomes of those that do not. Everything that reads or writes the
/// disk happens without a lock, in its lane; what was claimed meanwhile is released by whoever claimed it.
extension Provisioner {
  private static let lunMax: UInt16 = 0x3FFF

  var knownBytes: [UInt64] { state.withLock { Array($0.knownBytes) } }

  func open(_ path: String, _ device: BlockDevice?) throws(DiskOpening.Refusal) -> DiskOpening {
    var opening = try access.open(path, device, knownBytes)
    opening.rule = rule(path, device)
    try judgeSharing(&opening)
    return opening
  }

  /// What the settings say of a disk's kind.
  func rule(_ path: String, _ device: BlockDevice?) -> Settings.DiskRule? {
    guard !options.settings.disks.isEmpty else { return nil }
    return options.settings.rule(for: [path] + (device.map(DiskChoice.names) ?? []))
  }

  // MARK: Entries

  /// Something begins with a disk: what began with it before counts no more. Its serial number.
  func begin(_ key: String, path: String, device: BlockDevice?) -> UInt64 {
    state.withLock { $0.begin(key, path: path, device: device) }
  }

  /// The same; nil while the disk is being adopted: what that writes is an event as well (udev watches for writers), and
  /// must not make its outcome void.
  func beginUnlessAdopting(_ device: BlockDevice) -> UInt64? {
    state.withLock { state in
      if state.adopting.contains(device.name) { return nil }
      return state.begin(device.name, path: device.path, device: device)
    }
  }

  func isCurrent(_ key: String, _ serial: UInt64) -> Bool {
    state.withLock { $0.entries[key]?.serialNumber == serial && !$0.isStopped }
  }

  /// Keeps what became of a disk, unless something newer began with it. Whether it was kept.
  @discardableResult
  func record(_ entry: Entry) -> Bool {
    state.withLock { state in
      guard state.entries[entry.key]?.serialNumber == entry.serialNumber, !state.isStopped else { return false }
      state.entries[entry.key] = entry
      return true
    }
  }

  func hold(_ key: String, path: String, device: BlockDevice?, _ refusal: DiskOpening.Refusal, serial: UInt64) {
    let isNews = state.withLock { $0.entries[key]?.reason != refusal.reason }
    let isKept = record(
      Entry(
        key: key, path: path, model: device?.model ?? "", serial: device?.serial ?? "",
        byteCount: device?.bytes ?? 0, device: device, verdict: refusal.isHeld ? .held : .refused,
        reason: refusal.reason, advice: refusal.advice, serialNumber: serial, former: refusal.former,
        waitsForPair: refusal.waitsForPair))
    if refusal.waitsForPair { return waitForPair(key, refusal.reason, isNews: isNews) }
    if isKept { Log.notice("\(path) is \(refusal.isHeld ? "held" : "refused"): \(refusal.reason)") }
  }

  private func entry(_ opening: DiskOpening, key: String, serial: UInt64) -> Entry {
    Entry(
      key: key, path: opening.disk.path, model: opening.device?.model ?? "", serial: opening.device?.serial ?? "",
      byteCount: opening.disk.byteCount, device: opening.device, verdict: .exported, serialNumber: serial)
  }

  // MARK: Numbers

  /// A LUN number that no disk of the cluster has or had; after the last one, the lowest that is free. It is claimed until
  /// `release`.
  func takeNumber(for key: String) throws(DiskOpening.Refusal) -> UInt16 {
    let number = state.withLock { state -> UInt16? in
      let taken = Set(state.entries.values.compactMap { $0.export?.unit.number }).union(state.numbers.values)
        .union(state.adopted.values.map(\.lun)).union(state.claims.values.map(\.lun))
      var number = state.nextLUN
      for _ in 0...Self.lunMax where taken.contains(number) { number = number < Self.lunMax ? number + 1 : 0 }
      guard !taken.contains(number) else { return nil }
      state.nextLUN = min(number + 1, Self.lunMax)
      state.claims[key] = Claim(lun: number)
      return number
    }
    guard let number else {
      throw DiskOpening.Refusal(isHeld: true, reason: "all \(Label.lunCount) LUN numbers of the cluster are taken")
    }
    return number
  }

  /// Claims a number that a disk has; throws where another has it or is about to.
  /// - Parameter disk: the disk's identity if it has a label.
  func claim(_ lun: UInt16, disk: UUID?, key: String, path: String) throws(DiskOpening.Refusal) {
    try state.withLock { state throws(DiskOpening.Refusal) in
      let others =
        state.entries.values.filter { $0.key != key }.compactMap { $0.export.map { ($0.unit.number, $0.label?.disk) } }
        + state.claims.filter { $0.key != key }.map { ($0.value.lun, $0.value.disk) }
      if others.contains(where: { $0.0 == lun }) {
        let isCopy = disk != nil && others.contains { $0.1 == disk }
        throw DiskOpening.Refusal(
          isHeld: true,
          reason: isCopy
            ? "it is a copy of the disk that is LUN \(lun) already" : "another disk is LUN \(lun) already",
          advice: isCopy || disk == nil ? nil : DiskOpening.wipeAdvice(path))
      }
      state.claims[key] = Claim(lun: lun, disk: disk)
    }
  }

  func release(_ key: String) { state.withLock { $0.claims[key] = nil } }

  /// Claims what a label says: its cluster must be ours, its number and identity nobody else's.
  func claim(_ label: Label, key: String, path: String) throws(DiskOpening.Refusal) {
    let (isOurs, isRenamed) = state.withLock { state in
      let isFree = state.isClusterProvisional && state.entries.values.allSatisfy { $0.export == nil }
      let isRenamed = isFree && state.cluster != nil && state.cluster != label.cluster
      if state.cluster == nil || isFree {
        state.cluster = label.cluster
        state.pairKey = label.pairKey
      }
      guard state.cluster == label.cluster else { return (false, false) }
      state.isClusterProvisional = false
      if state.pairKey.isEmpty { state.pairKey = label.pairKey }
      return (true, isRenamed)
    }
    if isRenamed { pairHooks.withLock { $0.renamed }?() }
    guard isOurs else {
      throw DiskOpening.Refusal(
        isHeld: true, reason: "it belongs to another gateway (cluster \(label.cluster))",
        advice: DiskOpening.wipeAdvice(path))
    }
    try claim(label.lun, disk: label.disk, key: key, path: path)
  }

  // MARK: Admission

  /// Exports a labelled disk of this cluster under its own number.
  func admit(_ opening: DiskOpening, key: String, serial: UInt64) throws(DiskOpening.Refusal) {
    guard let label = opening.label else { return }
    try claim(label, key: key, path: opening.disk.path)
    defer { release(key) }
    state.withLock { state in
      state.numbers[label.disk] = label.lun
      state.nextLUN = min(max(state.nextLUN, label.nextLUN, label.lun + 1), Self.lunMax)
      if state.knownBytes.count < State.knownBytesMax { state.knownBytes.insert(label.diskBytes) }
    }
    let export = try opening.export(lun: label.lun, uuid: label.disk, registry: registry)
    try add(export, entry(opening, key: key, serial: serial))
    saveState()
  }

  /// Labels a blank disk and exports it.
  func label(_ opening: DiskOpening, key: String, serial: UInt64) throws(DiskOpening.Refusal) {
    // Its outcome would count for nothing: better no label, and no number taken, than one that nobody asks for any more.
    guard isCurrent(key, serial) else { throw .stale }
    var opening = opening
    let cluster = self.cluster
    let lun = try takeNumber(for: key)
    defer { release(key) }
    let new = state.withLock { state in
      if state.pairKey.isEmpty { state.pairKey = Identity.randomBytes(32) }
      state.isClusterProvisional = false
      return DiskOpening.NewLabel(
        cluster: cluster, lun: lun, nextLUN: state.nextLUN, pairKey: state.pairKey,
        // Who shares a disk is in its label before it serves it.
        nodes: opening.isShared ? [Label.Node(id: node.node, name: node.name)] : [])
    }
    try opening.write(new)
    try checkLabelStands(opening)
    Log.notice("\(opening.disk.path): blank, labelled as LUN \(lun)")
    try admit(opening, key: key, serial: serial)
  }

  func add(_ export: Export, _ entry: Entry) throws(DiskOpening.Refusal) {
    var entry = entry
    entry.export = export
    let other = state.withLock { state in
      state.entries.values.first { $0.key != entry.key && $0.export?.unit.number == export.unit.number }
    }
    if let other {
      throw DiskOpening.Refusal(isHeld: true, reason: "\(other.path) is LUN \(export.unit.number) already")
    }
    guard record(entry) else { throw .stale }
    if let attached = entry.attached { loops.withLock { $0 }?.add(path: entry.path, attached) }
    let bytes = ByteCount.describe(export.byteCount)
    Log.info("LUN \(export.unit.number): \(entry.path), \(bytes), naa.\(export.unit.identity.naa)")
  }
}

extension Provisioner.State {
  fileprivate mutating func begin(_ key: String, path: String, device: BlockDevice?) -> UInt64 {
    events += 1
    if entries[key] == nil {
      entries[key] = Provisioner.Entry(
        key: key, path: path, byteCount: device?.bytes ?? 0, device: device, verdict: .held,
        reason: "it is being examined")
    }
    entries[key]?.serialNumber = events
    return events
  }
}
