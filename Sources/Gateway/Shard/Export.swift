import Glibc
import SCSI
import Storage
import Synchronization

/// A disk exported as a logical unit: what all shards share of it. Its descriptor closes when the last of them has let go.
public final class Export: Sendable {
  public let unit: LogicalUnit
  public let disk: Disk
  /// Bytes that initiators see, at the time it was opened.
  public let byteCount: UInt64
  let holds = RangeHolds()
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
  public init(unit: LogicalUnit, disk: Disk, label: Label?, byteCount: UInt64, sequence: UInt64 = 0, slot: Int = 0) {
    self.unit = unit
    self.disk = disk
    self.byteCount = byteCount
    records = Mutex(Records(label: label, sequence: sequence, slot: slot))
  }

  public var label: Label? { records.withLock { $0.label } }

  /// The disk has grown: writes the label and the reservations at its new end, then clears the place where they were, which
  /// becomes the initiators'. `label` has the new size. Returns 0 or a negative errno; then nothing has changed. -EBUSY: a
  /// reservation record is on its way to the old place.
  func moveLabel(to label: Label, fd: Int32, oldDiskBytes: UInt64) -> Int32 {
    let isMine = records.withLock { records in
      guard records.use == .nobody else { return false }
      records.use = .mover
      return true
    }
    guard isMine else { return -EBUSY }
    defer { records.withLock { $0.use = .nobody } }
    let old: Record?
    do throws(RecordError) {
      old = try LabelStore.read(.reservations, fd: fd, diskBytes: oldDiskBytes, disk: label.disk).record
    } catch {
      guard error == .absent || error == .misplaced else { return -EIO }
      old = nil
    }
    let code = LabelStore.initialize(label, reservations: old, fd: fd)
    guard code == 0 else { return code }
    records.withLock { records in
      records.label = label
      records.slot = 1
      records.sequence = old?.sequence ?? 1
    }
    let start = LabelArea.start(diskBytes: oldDiskBytes)
    let newStart = LabelArea.start(diskBytes: label.diskBytes)
    // The two areas may overlap; only what lies before the new one is cleared.
    return LabelStore.zero(fd: fd, offset: start, count: min(LabelArea.byteCount, newStart - start))
  }

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
