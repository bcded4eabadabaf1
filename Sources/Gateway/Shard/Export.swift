import SCSI
import Storage
import Synchronization

/// A disk exported as a logical unit: what all shards share of it. Its descriptor closes when the last of them has let go.
public final class Export: Sendable {
  public let unit: LogicalUnit
  public let disk: Disk
  /// nil: a disk without a label area (memory, null).
  public let label: Label?
  /// Bytes that initiators see, at the time it was opened.
  public let byteCount: UInt64
  let holds = RangeHolds()
  /// Where the next reservation record goes.
  private let records: Mutex<(sequence: UInt64, slot: Int)>

  /// - Parameters:
  ///   - sequence: of the newest reservation record on the disk; 0: none.
  ///   - slot: the slot the next one goes to.
  public init(unit: LogicalUnit, disk: Disk, label: Label?, byteCount: UInt64, sequence: UInt64 = 0, slot: Int = 0) {
    self.unit = unit
    self.disk = disk
    self.label = label
    self.byteCount = byteCount
    records = Mutex((sequence, slot))
  }

  /// The next reservation record as bytes to write, and where on the disk; nil for a disk without a label area. There is
  /// one change at a time of a logical unit, so records never overtake each other.
  func nextReservationRecord(_ payload: [UInt8]) -> (bytes: [UInt8], offset: UInt64)? {
    guard let label else { return nil }
    return records.withLock { records in
      let record = Record(
        kind: .reservations, sequence: records.sequence + 1, disk: label.disk, payload: payload)
      return (
        record.encode(),
        LabelArea.offset(of: .reservations, slot: records.slot, diskBytes: label.diskBytes)
      )
    }
  }

  /// The record is on the disk.
  func didWriteReservationRecord() {
    records.withLock { records in
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
