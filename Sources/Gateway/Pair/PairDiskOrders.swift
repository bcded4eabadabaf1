import Glibc
import HA
import SCSI
import Storage
import Synchronization
import Wire

/// The engine's orders in terms of a disk: reservations by the fence, records by cells of the label area. Called for one
/// disk by one thread at a time.
final class PairDiskOrders: Sendable {
  private struct Cells: Sendable {
    /// Its serial.
    var export: UInt64
    /// Of the label by which they were made: the area of a disk that has grown is at another place.
    var diskBytes: UInt64
    var owner: RecordCell
    var beat: RecordCell
    /// By place.
    var leases: [RecordCell]

    init(_ export: Export, _ label: Label) {
      self.export = export.serial
      diskBytes = label.diskBytes
      owner = RecordCell(.owner, on: export.disk, label: label)
      beat = RecordCell(.beat, on: export.disk, label: label)
      leases = LabelArea.Kind.leases.map { RecordCell($0, on: export.disk, label: label) }
    }
  }

  private let exports: @Sendable () -> [Export]
  private let log: PairLog
  /// Whether requests of this node may still be on their way to the disk.
  private let isBusy: @Sendable (Export) -> Bool
  private let cells = Mutex<[DiskID: Cells]>([:])
  /// Places of leases in which a record was found.
  private let leased = Mutex<[DiskID: Set<Int>]>([:])
  /// Disks of which the last look found that they are others' now.
  private let relabelled = Mutex<Set<DiskID>>([])

  init(
    exports: @escaping @Sendable () -> [Export], log: PairLog, isBusy: @escaping @Sendable (Export) -> Bool
  ) {
    self.exports = exports
    self.log = log
    self.isBusy = isBusy
  }

  func perform(_ disk: DiskID, _ order: DiskOrder) -> DiskAnswer {
    guard let export = exports().of(disk) else { return .failed(ENODEV) }
    return export.withLabelArea { perform(order, at: export) }
  }

  private func perform(_ order: DiskOrder, at export: Export) -> DiskAnswer {
    guard let label = Self.label(of: export) else { return .failed(ENODEV) }
    let begun = BootClock.now
    do throws(FenceFailure) {
      let answer: DiskAnswer
      if export.fence == .lease {
        answer = try performUnfenced(order, export, label)
      } else {
        guard let fence = Fence(export.disk, timeoutMilliseconds: 1000) else { return .failed(ENODEV) }
        answer = try perform(order, export, label, fence)
      }
      note(answer, label.disk, export)
      if answer != .relabelled {
        tell(order, export, answer == .failed(EBUSY) ? .failed(EBUSY) : nil, BootClock.now - begun)
      }
      return answer
    } catch {
      tell(order, export, error, BootClock.now - begun)
      switch error {
      case .conflict: return .conflict
      case .disturbed: return .disturbed
      case .failed(let code): return .failed(code)
      case .timedOut: return .timedOut
      }
    }
  }

  /// The label as it is now. That of a disk that has grown moves when the node that has the disk gets to it: what is written
  /// to the place of before would be in what initiators see.
  private static func label(of export: Export) -> Label? {
    guard let known = export.label, let fd = export.disk.descriptor else { return export.label }
    let bytes = export.disk.currentByteCount
    if bytes / LabelArea.alignment > known.diskBytes / LabelArea.alignment,
      case .label(let label) = LabelStore.readLabel(fd: fd, diskBytes: bytes), label.cluster == known.cluster
    {
      export.replace(label)
    }
    return export.label
  }

  private func perform(
    _ order: DiskOrder, _ export: Export, _ label: Label, _ fence: Fence
  ) throws(FenceFailure) -> DiskAnswer {
    switch order {
    case .survey: return try survey(export, label, fence)
    case .register(let key):
      // With a new key an old write would land that the fence has kept out.
      guard !isBusy(export) else { return .failed(EBUSY) }
      try fence.register(key.rawValue)
      forget(label.disk)
    case .reserve(let key): try fence.reserve(key.rawValue)
    case .preempt(let own, let victim): try fence.preempt(own: own.rawValue, victim: victim)
    case .unregister(let key): try fence.unregister(key.rawValue)
    case .writeOwner, .writeBeat, .enroll, .expel: try keep(order, export, label)
    case .settle, .writeLease, .resetUnit: throw .failed(EOPNOTSUPP)
    }
    return .done
  }

  private func performUnfenced(
    _ order: DiskOrder, _ export: Export, _ label: Label
  ) throws(FenceFailure) -> DiskAnswer {
    switch order {
    case .survey:
      guard let records = try records(export, label, withLeases: true) else { return .relabelled }
      return .surveyed(Survey(records))
    case .settle:
      guard !isBusy(export) else { return .failed(EBUSY) }
      forget(label.disk)
    case .writeLease(let record, let place, let isDurable):
      try withCells(export, label) { (cells) throws(FenceFailure) in
        try cells.leases[place].write(record.encode(), isDurable: isDurable)
      }
    case .resetUnit: try UnitReset.perform(export.disk)
    case .writeOwner, .writeBeat, .enroll, .expel: try keep(order, export, label)
    case .register, .reserve, .preempt, .unregister: throw .failed(EOPNOTSUPP)
    }
    return .done
  }

  /// Records that every shared disk has.
  private func keep(_ order: DiskOrder, _ export: Export, _ label: Label) throws(FenceFailure) {
    switch order {
    case .writeOwner(let record):
      try withCells(export, label) { (cells) throws(FenceFailure) in try cells.owner.write(record.encode()) }
    case .writeBeat(let beat):
      try withCells(export, label) { (cells) throws(FenceFailure) in try cells.beat.write(beat.encode()) }
    case .enroll(let node, let name):
      export.replace(try LabelStore.enroll(Label.Node(id: node, name: name), on: export.disk, as: label))
    case .expel(let node): export.replace(try LabelStore.forget(node, on: export.disk, as: label))
    case .survey, .register, .reserve, .preempt, .unregister, .settle, .writeLease, .resetUnit: break
    }
  }

  /// Orders that change whose a disk is have a line each. What is done all the time has one only when it fails.
  private func tell(_ order: DiskOrder, _ export: Export, _ failure: FenceFailure?, _ nanoseconds: UInt64) {
    let (level, what) = Self.words(of: order)
    let subject = "pair: LUN \(export.unit.number) (\(export.disk.path)): \(what)"
    if let failure {
      // Of two that race one meets a conflict: the transition that follows says what it meant.
      log.tell(failure == .conflict ? .info : .warning, "\(subject): not done: \(Self.words(of: failure))")
    } else if let level {
      log.tell(level, "\(subject), in \(PairHistory.text(nanoseconds))", kind: subject)
    }
  }

  /// What an order is called, and how much it matters; nil: it is given all the time.
  private static func words(of order: DiskOrder) -> (LogLevel?, String) {
    switch order {
    case .survey: (nil, "look at keys and records")
    case .writeBeat: (nil, "beat")
    case .writeOwner(let record): (.debug, "owner record of epoch \(record.epoch)")
    case .register(let key): (.info, "key of epoch \(key.epoch) registered")
    case .reserve(let key): (.info, "reserved in epoch \(key.epoch)")
    case .preempt(let own, let victim):
      (.notice, "fenced in epoch \(own.epoch): \(words(ofKey: victim)) preempted, its commands aborted")
    case .unregister(let key): (.info, "key of epoch \(key.epoch) taken back")
    case .enroll(let node, let name): (.notice, "node \(name) (\(node)) entered into the label")
    case .expel(let node): (.notice, "node \(node) taken out of the label")
    case .settle: (nil, "wait for what is under way")
    case .writeLease(let record, _, _):
      (record.phase == .held ? nil : .debug, "lease of epoch \(record.epoch), \(record.phase)")
    case .resetUnit: (.notice, "reset")
    }
  }

  private static func words(of failure: FenceFailure) -> String {
    switch failure {
    case .conflict: "reservation conflict"
    case .disturbed: "a unit attention says that registrations may be gone"
    case .failed(let code): SystemError.text(code)
    case .timedOut: "no answer in time"
    }
  }

  private static func words(ofKey raw: UInt64) -> String {
    ReservationKey(rawValue: raw).map { "key of epoch \($0.epoch)" } ?? "key 0x\(String(raw, radix: 16))"
  }

  private func survey(_ export: Export, _ label: Label, _ fence: Fence) throws(FenceFailure) -> DiskAnswer {
    let state = try fence.readState()
    guard let records = try records(export, label, withLeases: false) else { return .relabelled }
    return .surveyed(Survey(records, keys: state.keys, holder: state.holder, isOurType: state.isOurType))
  }

  /// What is on the disk; nil: it is not this disk any more. Another gateway may have adopted it, or have taken it for blank at
  /// the same moment as this one.
  private func records(
    _ export: Export, _ label: Label, withLeases: Bool
  ) throws(FenceFailure) -> SharedDiskRecords? {
    let records: SharedDiskRecords
    do throws(FenceFailure) {
      records = try SharedDiskRecords.read(
        export.disk, former: label, withReservations: false, withLeases: withLeases)
    } catch {
      // The kernel has the same number for a block that cannot be read, and a disk that goes has no bytes.
      let bytes = export.disk.currentByteCount
      guard error == .failed(ENODATA), bytes >= label.diskBytes, let fd = export.disk.descriptor,
        LabelStore.readLabel(fd: fd, diskBytes: bytes, former: label) == .none
      else { throw error }
      return nil
    }
    guard records.label.disk == label.disk, records.label.cluster == label.cluster else { return nil }
    // The other node enters this one: so it learns which slot it has.
    export.replace(records.label)
    if withLeases, hasLost(records, label.disk) { throw .failed(EAGAIN) }
    return records
  }

  /// Whether a lease is not to be seen that was there before. A record never goes: the label area of a disk that has grown by
  /// little is on its way over the old one, and an empty place would mean that nobody has the disk.
  private func hasLost(_ records: SharedDiskRecords, _ disk: DiskID) -> Bool {
    let found = Set(records.leases.indices.filter { records.leases[$0] != nil })
    return leased.withLock { leased in
      guard found.isSuperset(of: leased[disk, default: []]) else { return true }
      leased[disk] = found
      return false
    }
  }

  private func note(_ answer: DiskAnswer, _ disk: DiskID, _ export: Export) {
    switch answer {
    case .relabelled:
      relabelled.withLock { _ = $0.insert(disk) }
      let subject = "pair: LUN \(export.unit.number) (\(export.disk.path))"
      log.tell(.error, "\(subject): \(Self.relabelledReason); nothing is written to it")
    case .surveyed: relabelled.withLock { _ = $0.remove(disk) }
    case .done, .conflict, .disturbed, .failed, .timedOut: break
    }
  }

  private static let relabelledReason = "its label is gone, or another gateway's"

  /// Why disks are not served though nothing failed.
  var problems: [DiskID: String] {
    relabelled.withLock { Dictionary(uniqueKeysWithValues: $0.map { ($0, Self.relabelledReason) }) }
  }

  private func withCells(
    _ export: Export, _ label: Label, _ body: (inout Cells) throws(FenceFailure) -> Void
  ) throws(FenceFailure) {
    var own = cells.withLock { cells -> Cells in
      if let known = cells[label.disk], known.export == export.serial, known.diskBytes == label.diskBytes {
        return known
      }
      return Cells(export, label)
    }
    // What is kept of a disk that has gone would keep its device open.
    defer { if exports().contains(where: { $0 === export }) { cells.withLock { $0[label.disk] = own } } }
    try body(&own)
  }

  /// Disks have come or gone.
  func exportsChanged() {
    let serials = Set(exports().map(\.serial))
    cells.withLock { cells in cells = cells.filter { serials.contains($0.value.export) } }
    let disks = Set(exports().compactMap { $0.label?.disk })
    relabelled.withLock { $0.formIntersection(disks) }
    leased.withLock { leased in leased = leased.filter { disks.contains($0.key) } }
  }

  /// Another node may have written since.
  private func forget(_ disk: DiskID) {
    cells.withLock { cells in
      cells[disk]?.owner.forget()
      cells[disk]?.beat.forget()
      for place in LabelArea.Kind.leases.indices { cells[disk]?.leases[place].forget() }
    }
  }
}

extension Survey {
  fileprivate init(
    _ records: SharedDiskRecords, keys: [UInt64] = [], holder: UInt64? = nil, isOurType: Bool = false
  ) {
    self.init(
      keys: keys, holder: holder, isOurType: isOurType, owner: records.owner.flatMap(OwnerRecord.init(decoding:)),
      beat: records.beat.flatMap(DiskBeat.init(decoding:)), nodes: records.label.nodes.map(\.id),
      leases: records.leases.map { $0.flatMap(LeaseRecord.init(decoding:)) })
  }
}
