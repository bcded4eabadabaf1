import CSystem
import Glibc
import Wire

/// A record of one kind on one labelled disk, read and written by one thread again and again. It remembers which slot is to
/// be written next, so that a write is one write; whoever may not have been the last to write says `forget` first.
///
/// Calls block as long as the disk does.
public struct RecordCell: Sendable {
  private let disk: Disk
  private let kind: LabelArea.Kind
  private let diskBytes: UInt64
  private let owner: UUID
  /// Sequence and slot of the next write; nil: the disk is read first.
  private var next: (sequence: UInt64, slot: Int)?

  /// - Parameter label: the disk's label; a cell is made anew when the disk has grown.
  public init(_ kind: LabelArea.Kind, on disk: Disk, label: Label) {
    self.kind = kind
    self.disk = disk
    diskBytes = label.diskBytes
    owner = label.disk
  }

  /// The payload of the newest valid record; nil: there is none. One read of both slots.
  /// - Throws: `failed(EBADMSG)` if both slots are damaged or of a newer format; else what the disk said.
  public mutating func read() throws(FenceFailure) -> [UInt8]? {
    next = nil
    guard let fd = disk.descriptor else { throw .failed(EOPNOTSUPP) }
    let slotBytes = Int(kind.slotBytes)
    let place = LabelArea.offset(of: kind, slot: 0, diskBytes: diskBytes)
    errno = 0
    let both = LabelStore.readBytes(fd: fd, offset: place, count: 2 * slotBytes)
    let code = errno
    do throws(RecordError) {
      let found =
        if let both {
          try Record.newest([Array(both[..<slotBytes]), Array(both[slotBytes...])], kind: kind, disk: owner)
        } else {
          // One block that cannot be read leaves the other slot.
          try LabelStore.read(kind, fd: fd, diskBytes: diskBytes, disk: owner)
        }
      next = (found.record.sequence + 1, found.nextSlot)
      return found.record.payload
    } catch {
      if both == nil { throw code == 0 ? .failed(EIO) : FenceFailure(errno: code) }
      switch error {
      // Another disk's record is what a copy of that disk left here.
      case .absent, .misplaced:
        next = (1, 0)
        return nil
      case .damaged, .unknownVersion: throw .failed(EBADMSG)
      }
    }
  }

  /// Writes a record. A beat need not outlive a loss of power, only be seen by the other node, and the disk shows to both
  /// what it has accepted: it is written without a flush, which would cost all who write to the disk five times a second.
  /// (RWF_DSYNC is no way around: for a block device the kernel sends a flush after it.) Every other kind is on stable
  /// storage when this returns, unless it is said not to need it.
  public mutating func write(_ payload: [UInt8], isDurable: Bool = true) throws(FenceFailure) {
    if next == nil { _ = try read() }
    guard let fd = disk.descriptor, let (sequence, slot) = next else { throw .failed(EOPNOTSUPP) }
    guard Record.headerBytes + payload.count <= Int(kind.slotBytes) else { throw .failed(EMSGSIZE) }
    let record = Record(kind: kind, sequence: sequence, disk: owner, payload: payload)
    let code = LabelStore.writeThrough(
      record.encode(), fd: fd, offset: LabelArea.offset(of: kind, slot: slot, diskBytes: diskBytes),
      isDurable: isDurable && kind != .beat)
    // After a failure the slot may have the record or not.
    next = code == 0 ? (sequence + 1, 1 - slot) : nil
    guard code == 0 else { throw FenceFailure(errno: -code) }
  }

  /// Somebody else may have written since: the next write reads first.
  public mutating func forget() { next = nil }
}

extension LabelStore {
  /// Writes all of `bytes`, a multiple of the alignment; `isDurable`: they are on stable storage when it returns. Returns 0
  /// or a negative errno.
  static func writeThrough(_ bytes: [UInt8], fd: Int32, offset: UInt64, isDurable: Bool) -> Int32 {
    guard isDurable else { return writeBytes(bytes, fd: fd, offset: offset, flushes: false) }
    return withAligned(bytes.count) { memory in
      bytes.withUnsafeBytes { memory.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
      var done = 0
      while done < bytes.count {
        let wrote = system_write_through(fd, memory + done, UInt64(bytes.count - done), Int64(offset) + Int64(done))
        if wrote == Int64(-EINTR) { continue }
        guard wrote > 0 else { return wrote < 0 ? Int32(wrote) : -EIO }
        done += Int(wrote)
      }
      return 0
    }
  }
}
