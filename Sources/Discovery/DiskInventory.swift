/// The disks that are there, and what a fresh look at one of them means. Pure: the monitor reads, this compares.
struct DiskInventory {
  private(set) var disks: [String: BlockDevice] = [:]

  /// What becomes of one disk.
  ///
  /// - Parameters:
  ///   - fresh: what was read just now; nil if it is gone or has no medium.
  ///   - isTouched: whether an event of the disk's own said "change": then it is told even if every fact is as it was,
  ///     for its contents may be others.
  mutating func update(_ name: String, to fresh: BlockDevice?, isTouched: Bool) -> [DiskEvent] {
    let known = disks[name]
    disks[name] = fresh
    switch (known, fresh) {
    case (nil, nil): return []
    case (nil, let fresh?): return [.appeared(fresh)]
    case (let known?, nil): return [.vanished(name: name, last: known)]
    case (let known?, let fresh?):
      // The name is the same, the disk is another.
      if known.number != fresh.number || known.diskSequence != fresh.diskSequence || known.wwid != fresh.wwid {
        return [.vanished(name: name, last: known), .appeared(fresh)]
      }
      return isTouched || known != fresh ? [.changed(fresh)] : []
    }
  }

  /// Everything anew, after events were lost. What went is told first.
  mutating func reconcile(with all: [BlockDevice]) -> [DiskEvent] {
    let present = Set(all.map(\.name))
    var events: [DiskEvent] = []
    for name in disks.keys.filter({ !present.contains($0) }).sorted() {
      events += update(name, to: nil, isTouched: false)
    }
    for device in all { events += update(device.name, to: device, isTouched: false) }
    return events
  }

  /// Reads again each disk that events named, and those beneath it: building on a disk, or letting go of it, makes no
  /// event of the disk's own.
  ///
  /// - Parameter touched: the names, and whether one of the events was the disk's own "change".
  mutating func update(_ touched: [String: Bool], read: (String) -> BlockDevice?) -> [DiskEvent] {
    var events: [DiskEvent] = []
    var beneath: Set<String> = []
    for (name, isTouched) in touched.sorted(by: { $0.key < $1.key }) {
      beneath.formUnion(disks[name]?.slaves ?? [])
      events += update(name, to: read(name), isTouched: isTouched)
      beneath.formUnion(disks[name]?.slaves ?? [])
    }
    for name in disksBeneath(beneath).subtracting(touched.keys).sorted() {
      events += update(name, to: read(name), isTouched: false)
    }
    return events
  }

  /// The known disks among the names, and those whose partitions are.
  private func disksBeneath(_ names: Set<String>) -> Set<String> {
    guard !names.isEmpty else { return [] }
    return Set(
      disks.values.filter { disk in
        names.contains(disk.name) || disk.partitions.contains { names.contains($0.name) }
      }.map(\.name))
  }
}
