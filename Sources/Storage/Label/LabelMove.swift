import Glibc
import Wire

/// Moving the label area to a disk's new end, so that no crash leaves the old one in what initiators see.
///
/// The new area is written with a record of what must still be cleared, its labels last: they are the commit. Then the old
/// place is cleared, and the record replaced by an empty one before anybody may see the larger LUN: a clearing that came
/// later would take what initiators had written there. Whoever opens a disk calls `prepare` first.
extension LabelStore {
  /// Bytes to clear, in the payload of a record of the kind `move`: start(8) count(8); count 0: nothing.
  struct Clearing: Equatable {
    var start: UInt64
    var count: UInt64

    init(start: UInt64, count: UInt64) {
      self.start = start
      self.count = count
    }

    /// Where `old`'s area lies, up to that of `new`, which may overlap it.
    init(of old: Label, for new: Label) {
      start = old.exportedBytes
      count = min(LabelArea.byteCount, new.exportedBytes - old.exportedBytes)
    }

    init?(decoding bytes: [UInt8], of label: Label) {
      guard bytes.count == 16 else { return nil }
      start = bytes.span.bytes.be64(0)
      count = bytes.span.bytes.be64(8)
      // Never more than one area, and never outside what initiators see.
      guard count <= LabelArea.byteCount, start <= label.exportedBytes, count <= label.exportedBytes - start,
        start % LabelArea.alignment == 0, count % LabelArea.alignment == 0
      else { return nil }
    }

    func encode() -> [UInt8] {
      var bytes: [UInt8] = []
      bytes.append(be: start)
      bytes.append(be: count)
      return bytes
    }
  }

  /// Moves the area of a disk that has grown: `old` is its label as it is, `new` the same with the new size. When it
  /// returns 0 the old place is clear; else nothing of the grown part may be shown to initiators.
  /// - Returns: 0 or a negative errno.
  public static func move(_ old: Label, to new: Label, fd: Int32) -> Int32 {
    precondition(new.disk == old.disk && new.exportedBytes > old.exportedBytes)
    var carried: [Record] = []
    for kind in [.reservations, .owner, .sanitize] + LabelArea.Kind.leases {
      do throws(RecordError) {
        carried.append(try read(kind, fd: fd, diskBytes: old.diskBytes, disk: old.disk).record)
      } catch {
        guard error == .absent || error == .misplaced else { return -EIO }
      }
    }
    let code = initialize(new, carried: carried, clearing: Clearing(of: old, for: new), fd: fd)
    return code == 0 ? finishMove(new, fd: fd) : code
  }

  /// What must be done on a labelled disk before it is exported: what a crash left undone of a move or of the area's
  /// filling. Returns 0 or a negative errno; then the disk must not be exported.
  public static func prepare(_ label: Label, fd: Int32) -> Int32 {
    let code = finishMove(label, fd: fd)
    return code == 0 ? completeArea(label, fd: fd) : code
  }

  static func finishMove(_ label: Label, fd: Int32) -> Int32 {
    let pending: (record: Record, nextSlot: Int)
    do throws(RecordError) {
      pending = try read(.move, fd: fd, diskBytes: label.diskBytes, disk: label.disk)
    } catch {
      return error == .absent || error == .misplaced ? 0 : -EIO
    }
    guard let clearing = Clearing(decoding: pending.record.payload, of: label) else { return -EIO }
    guard clearing.count > 0 else { return 0 }
    let code = zero(fd: fd, offset: clearing.start, count: clearing.count)
    guard code == 0 else { return code }
    let done = Record(
      kind: .move, sequence: pending.record.sequence + 1, disk: label.disk,
      payload: Clearing(start: clearing.start, count: 0).encode())
    return write(done, slot: pending.nextSlot, fd: fd, diskBytes: label.diskBytes)
  }
}
