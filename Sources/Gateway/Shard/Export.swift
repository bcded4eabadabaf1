import Glibc
import HA
import SCSI
import Storage
import Synchronization
import Wire

/// A disk exported as a logical unit: what all shards share of it. Its descriptor closes when the last of them has let go.
public final class Export: Sendable {
  public let unit: LogicalUnit
  public let disk: Disk
  /// Bytes that initiators see, at the time it was opened.
  public let byteCount: UInt64
  let holds = RangeHolds()
  /// Another node may have the disk: it is served only when the pair says so.
  let isShared: Bool
  /// What keeps the other node off, if it is shared.
  let fence: SharedDisk.Fence
  /// The label, and where the next reservation record goes; no label: a disk without a label area (memory, null).
  private struct Records: Sendable {
    /// Who has the label area in hand.
    enum Use { case nobody, writer, mover }

    var label: Label?
    var sequence: UInt64
    var slot: Int
    var use = Use.nobody
  }
  private let records: Mutex<Records>

  /// - Parameters:
  ///   - sequence: of the newest reservation record on the disk; 0: none.
  ///   - slot: the slot the next one goes to.
  ///   - isShared: the unit is suspended until the pair admits it.
  public init(
    unit: LogicalUnit, disk: Disk, label: Label?, byteCount: UInt64, sequence: UInt64 = 0, slot: Int = 0,
    isShared: Bool = false, fence: SharedDisk.Fence = .reservations
  ) {
    self.fence = fence
    self.unit = unit
    self.disk = disk
    self.byteCount = byteCount
    self.isShared = isShared
    if isShared { unit.setSuspended(true) }
    records = Mutex(Records(label: label, sequence: sequence, slot: slot))
  }

  public var label: Label? { records.withLock { $0.label } }

  /// The disk has grown: its label area moves to its new end, and the place where it was, which becomes the initiators', is
  /// cleared. `label` has the new size. Returns 0 or a negative errno; then the LUN must not grow, and it may be tried
  /// again. -EBUSY: a reservation record is on its way to the old place.
  func moveLabel(to label: Label, fd: Int32) -> Int32 {
    let old = records.withLock { records -> Label? in
      guard records.use == .nobody, let old = records.label else { return nil }
      records.use = .mover
      return old
    }
    guard let old else { return -EBUSY }
    defer { records.withLock { $0.use = .nobody } }
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
    records.withLock { records in
      records.label = found
      (records.sequence, records.slot) = place
    }
    return code
  }

  /// Another node, or this one on its behalf, has changed what the label says of the nodes. Not while the label moves.
  func replace(_ label: Label) {
    records.withLock { records in
      guard records.use != .mover, records.label?.disk == label.disk, records.label?.diskBytes == label.diskBytes
      else { return }
      records.label = label
    }
  }

  /// Another node has had the disk: label and reservations are read again, and what a crash left undone is finished.
  /// Returns nil, or why the disk cannot be served.
  func reload(afterTakeover: Bool) -> String? {
    guard let fd = disk.descriptor, let old = label else { return nil }
    guard case .label(let label) = LabelStore.readLabel(fd: fd, diskBytes: old.diskBytes), label.disk == old.disk
    else { return "its label can no longer be read" }
    let code = LabelStore.prepare(label, fd: fd)
    guard code == 0 else { return "its label area could not be put in order: \(String(cString: strerror(-code)))" }
    do {
      let newest = try LabelStore.read(.reservations, fd: fd, diskBytes: label.diskBytes, disk: label.disk)
      let payload = newest.record.payload.isEmpty ? nil : newest.record.payload
      try unit.adopt(reservations: payload, afterTakeover: afterTakeover, blocks: unit.blocks)
      records.withLock { records in
        records.label = label
        (records.sequence, records.slot) = (newest.record.sequence, newest.nextSlot)
        records.use = .nobody
      }
      return nil
    } catch {
      return "its reservation record cannot be read (\(error))"
    }
  }

  /// Whether a reservation record is on its way to the disk.
  var isWritingRecord: Bool { records.withLock { $0.use == .writer } }

  enum ReservationPlace {
    /// A disk without a label area.
    case none
    /// The label is on its way to another place.
    case moving
    case write([UInt8], offset: UInt64)
  }

  /// The next reservation record as bytes to write, and where on the disk. There is one change at a time of a logical
  /// unit, so records never overtake each other. Ends with `endReservationRecord`.
  func beginReservationRecord(_ payload: [UInt8]) -> ReservationPlace {
    records.withLock { records in
      guard let label = records.label else { return .none }
      guard records.use != .mover else { return .moving }
      records.use = .writer
      let record = Record(
        kind: .reservations, sequence: records.sequence + 1, disk: label.disk, payload: payload)
      return .write(
        record.encode(), offset: LabelArea.offset(of: .reservations, slot: records.slot, diskBytes: label.diskBytes))
    }
  }

  /// The record is on the disk, or will never be.
  func endReservationRecord(isWritten: Bool) {
    records.withLock { records in
      guard records.use == .writer else { return }
      records.use = .nobody
      guard isWritten else { return }
      records.sequence += 1
      records.slot = 1 - records.slot
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
