import Glibc
import HA
import SCSI
import Storage
import Synchronization
import Wire

/// A disk exported as a logical unit: what all shards share of it. Its descriptor closes when the last of them has let go.
public final class Export: Sendable {
  /// Tells it from every other, also from one that has gone and whose place in memory it has: a disk that goes and comes is
  /// another export.
  let serial: UInt64
  private static let serials = Atomic<UInt64>(0)
  public let unit: LogicalUnit
  public let disk: Disk
  /// Bytes that initiators see, at the time it was opened.
  public let byteCount: UInt64
  let holds = RangeHolds()
  let questions = FileQuestions()
  /// Another node may have the disk: it is served only when the pair says so.
  let isShared: Bool
  /// What keeps the other node off, if it is shared.
  let fence: SharedDisk.Fence
  /// The label, and where the next reservation record goes; no label: a disk without a label area (memory, null).
  private struct Records: Sendable {
    var label: Label?
    var sequence: UInt64
    var slot: Int
    /// Of the newest record on sanitizing, and the slot the next one goes to.
    var sanitize: (sequence: UInt64, slot: Int)
    /// The area is on its way to another place.
    var isMoving = false
    /// Records are being read again, and what a crash left undone may be finished.
    var isReloading = false
    /// Another node has moved the area: where records go is not known before they are read again.
    var isStale = false
    /// The disk is shared, and this node's to write to.
    var isAdmitted = false
    /// Records on their way to it.
    var writers = 0
  }
  private let records: Mutex<Records>
  /// Held while the pair does something at the disk, and while the label area moves: else a record might be written to the
  /// place where the area was, which is the initiators' then.
  private let area = Mutex<Void>(())

  /// - Parameters:
  ///   - sequence: of the newest reservation record on the disk; 0: none.
  ///   - slot: the slot the next one goes to.
  ///   - sanitize: the same of the records on sanitizing.
  ///   - isShared: the unit is suspended until the pair admits it.
  public init(
    unit: LogicalUnit, disk: Disk, label: Label?, byteCount: UInt64, sequence: UInt64 = 0, slot: Int = 0,
    sanitize: (sequence: UInt64, slot: Int) = (0, 0), isShared: Bool = false, fence: SharedDisk.Fence = .reservations
  ) {
    serial = Self.serials.add(1, ordering: .relaxed).newValue
    self.fence = fence
    self.unit = unit
    self.disk = disk
    self.byteCount = byteCount
    self.isShared = isShared
    if isShared { unit.setSuspended(true) }
    records = Mutex(Records(label: label, sequence: sequence, slot: slot, sanitize: sanitize))
  }

  public var label: Label? { records.withLock { $0.label } }

  /// Does something to records of the label area, by the label as it is now: it does not move meanwhile.
  func withLabelArea<Result: Sendable>(_ body: () -> Result) -> Result { area.withLock { _ in body() } }

  /// The disk has grown: its label area moves to its new end, and the place where it was, which becomes the initiators', is
  /// cleared. `label` has the new size. Returns 0 or a negative errno; then the LUN must not grow, and it may be tried
  /// again. -EBUSY: a record is on its way to the old place; -EACCES: the disk may be another node's.
  func moveLabel(to label: Label, fd: Int32) -> Int32 { withLabelArea { move(to: label, fd: fd) } }

  private func move(to label: Label, fd: Int32) -> Int32 {
    var old: Label?
    let refusal = records.withLock { records -> Int32 in
      // From here on it counts as a write that is under way, and the pair gives no disk up before those are over.
      guard !isShared || records.isAdmitted else { return -EACCES }
      guard !records.isMoving, !records.isReloading, records.writers == 0, records.label != nil else { return -EBUSY }
      records.isMoving = true
      old = records.label
      return 0
    }
    guard refusal == 0, let old else { return refusal }
    defer { records.withLock { $0.isMoving = false } }
    // It has moved already where a former attempt could not clear the old place, or where the size grew by less than a
    // block of the area.
    let code =
      label.exportedBytes > old.exportedBytes
      ? LabelStore.move(old, to: label, fd: fd) : LabelStore.prepare(old, fd: fd)
    // Whether or not it came to its end: where the label is now is what the disk says.
    guard case .label(let found) = LabelStore.readLabel(fd: fd, diskBytes: label.diskBytes) else {
      return code == 0 ? -EIO : code
    }
    let place: (sequence: UInt64, slot: Int)
    do throws(RecordError) {
      let newest = try LabelStore.read(.reservations, fd: fd, diskBytes: label.diskBytes, disk: label.disk)
      place = (newest.record.sequence, newest.nextSlot)
    } catch { return -EIO }
    let sanitize = LabelStore.readSanitize(fd: fd, label: found)
    records.withLock { records in
      records.label = found
      (records.sequence, records.slot) = place
      records.sanitize = sanitize.place
      records.isStale = false
    }
    return code
  }

  /// Whether the pair lets this node write to the disk.
  var isAdmitted: Bool { records.withLock { $0.isAdmitted } }

  /// The pair lets this node write to the disk, or not any more.
  func setAdmitted(_ isAdmitted: Bool) { records.withLock { $0.isAdmitted = isAdmitted } }

  /// Another node, or this one on its behalf, has changed what the label says of the nodes, or has moved it on a disk that
  /// has grown: then all paths tell the new size. Not while the label moves.
  func replace(_ label: Label) {
    let hasMoved = records.withLock { records -> Bool in
      guard !records.isMoving, let old = records.label, old.disk == label.disk else { return false }
      records.label = label
      guard old.diskBytes != label.diskBytes else { return false }
      records.isStale = true
      return true
    }
    if hasMoved { resize(by: label) }
  }

  private func resize(by label: Label) {
    let blocks = label.exportedBytes / UInt64(unit.traits.blockBytes)
    if blocks != unit.blocks { unit.resize(toBlocks: blocks) }
  }

  /// Another node has had the disk: label and reservations are read again, and what a crash left undone is finished. The
  /// unit has the size that the label says: the disk may have grown meanwhile.
  /// Returns nil, or why the disk cannot be served.
  func reload(afterTakeover: Bool) -> String? {
    guard let fd = disk.descriptor, let old = label else { return nil }
    guard !records.withLock({ $0.isMoving }) else { return "its label area is on its way to another place" }
    guard case .label(let label) = LabelStore.readLabel(fd: fd, diskBytes: disk.currentByteCount, former: old),
      label.disk == old.disk
    else { return "its label can no longer be read" }
    let code = LabelStore.prepare(label, fd: fd)
    guard code == 0 else { return "its label area could not be put in order: \(String(cString: strerror(-code)))" }
    do {
      var newest = try LabelStore.read(.reservations, fd: fd, diskBytes: label.diskBytes, disk: label.disk)
      let payload = newest.record.payload.isEmpty ? nil : newest.record.payload
      try unit.adopt(reservations: payload, afterTakeover: afterTakeover, blocks: unit.blocks)
      let inForce = unit.reservationRecord
      if !afterTakeover, let payload, payload != inForce {
        // What a loss of power has ended must not come back with the next takeover, which takes all that the record says.
        newest.record.sequence += 1
        newest.record.payload = inForce
        let code = LabelStore.write(newest.record, slot: newest.nextSlot, fd: fd, diskBytes: label.diskBytes)
        guard code == 0 else { return "its reservation record cannot be written: \(String(cString: strerror(-code)))" }
        newest.nextSlot = 1 - newest.nextSlot
      }
      resize(by: label)
      let sanitize = LabelStore.readSanitize(fd: fd, label: label)
      unit.adopt(SanitizeRecord(decoding: sanitize.payload).sanitation)
      records.withLock { records in
        records.label = label
        (records.sequence, records.slot) = (newest.record.sequence, newest.nextSlot)
        records.sanitize = sanitize.place
        records.isStale = false
        records.writers = 0
      }
      return nil
    } catch {
      return "its reservation record cannot be read (\(error))"
    }
  }

  /// Whether a record, or the whole area, is on its way to the disk.
  var isWritingRecord: Bool { records.withLock { $0.writers > 0 || $0.isMoving } }

  /// Whether `reload` is under way: it may write.
  var isReloading: Bool { records.withLock { $0.isReloading } }
  func setReloading(_ isReloading: Bool) { records.withLock { $0.isReloading = isReloading } }

  enum RecordPlace {
    /// A disk without a label area.
    case none
    /// The label is on its way to another place.
    case moving
    case write([UInt8], offset: UInt64)
  }

  /// The next reservation record as bytes to write, and where on the disk. There is one change at a time of a logical
  /// unit, so records never overtake each other. Ends with `endReservationRecord`.
  func beginReservationRecord(_ payload: [UInt8]) -> RecordPlace {
    records.withLock { records in
      guard let label = records.label else { return .none }
      guard !records.isMoving, !records.isStale else { return .moving }
      records.writers += 1
      let record = Record(
        kind: .reservations, sequence: records.sequence + 1, disk: label.disk, payload: payload)
      return .write(
        record.encode(), offset: LabelArea.offset(of: .reservations, slot: records.slot, diskBytes: label.diskBytes))
    }
  }

  /// The record is on the disk, or will never be.
  func endReservationRecord(isWritten: Bool) {
    records.withLock { records in
      guard records.writers > 0 else { return }
      records.writers -= 1
      guard isWritten else { return }
      records.sequence += 1
      records.slot = 1 - records.slot
    }
  }

  /// The same for whether the disk is being sanitized. There is one such operation of a logical unit at a time.
  func beginSanitizeRecord(_ payload: [UInt8]) -> RecordPlace {
    records.withLock { records in
      guard let label = records.label else { return .none }
      guard !records.isMoving, !records.isStale else { return .moving }
      records.writers += 1
      let record = Record(
        kind: .sanitize, sequence: records.sanitize.sequence + 1, disk: label.disk, payload: payload)
      let slot = records.sanitize.slot
      return .write(
        record.encode(), offset: LabelArea.offset(of: .sanitize, slot: slot, diskBytes: label.diskBytes))
    }
  }

  func endSanitizeRecord(isWritten: Bool) {
    records.withLock { records in
      guard records.writers > 0 else { return }
      records.writers -= 1
      guard isWritten else { return }
      records.sanitize.sequence += 1
      records.sanitize.slot = 1 - records.sanitize.slot
    }
  }
}

extension LabelStore {
  /// What is said of a sanitize operation, and where the next record goes. There is nothing on most disks. Records that are
  /// damaged in both slots were never acknowledged: the first is written before anything is erased. One of a newer version is
  /// taken for one of an operation that was begun.
  static func readSanitize(fd: Int32, label: Label) -> (payload: [UInt8], place: (sequence: UInt64, slot: Int)) {
    do throws(RecordError) {
      let newest = try read(.sanitize, fd: fd, diskBytes: label.diskBytes, disk: label.disk)
      return (newest.record.payload, (newest.record.sequence, newest.nextSlot))
    } catch {
      if case .unknownVersion = error { return ([1, 0], (0, 0)) }
      return ([0, 0], (0, 0))
    }
  }
}

extension [Export] {
  /// The one whose label has this name.
  func of(_ disk: UUID) -> Export? { first { $0.label?.disk == disk } }
}

/// The exports of the gateway: an immutable snapshot that each shard adopts between batches.
public final class ExportMap: Sendable {
  public let exports: [Export]
  public let units: LogicalUnitMap
  public let generation: UInt64

  public init(_ exports: [Export], generation: UInt64) {
    self.exports = exports
    self.generation = generation
    units = LogicalUnitMap(exports.map(\.unit))
  }
}
