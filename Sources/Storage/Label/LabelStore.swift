import CSystem
import Glibc
import Wire

/// What the end of a disk says.
public enum LabelFinding: Equatable, Sendable {
  /// No label.
  case none
  case label(Label)
  /// Something of ours that cannot be read: never treated as blank. `isNewer`: because a newer version wrote it.
  case unreadable(String, isNewer: Bool = false)
}

/// Reading and writing records by plain system calls, from control threads only: labels when a disk comes, adoption, and
/// reservations at start. (Reservations under load are written through the shard's ring.)
public enum LabelStore {
  /// The label of the disk open as `fd`, `diskBytes` long.
  public static func readLabel(fd: Int32, diskBytes: UInt64) -> LabelFinding {
    guard diskBytes >= LabelArea.diskBytesMin else { return .none }
    do throws(RecordError) {
      let record = try read(.label, fd: fd, diskBytes: diskBytes, disk: nil).record
      guard let label = Label(decoding: record.payload), label.disk == record.disk else { throw .damaged }
      guard label.diskBytes / LabelArea.alignment == diskBytes / LabelArea.alignment else { throw .misplaced }
      return .label(label)
    } catch {
      switch error {
      case .absent: return .none
      case .damaged: return .unreadable("its label is damaged in both copies")
      case .misplaced: return .unreadable("its label was written for another size or disk")
      case .unknownVersion(let version):
        return .unreadable("its label was written by a newer gatewayd (format version \(version))", isNewer: true)
      }
    }
  }

  /// The same of a shared disk whose label was `former` when it was last seen. Where the disk has grown and its end says
  /// nothing, the label is still where it was: it moves when the node that has the disk gets to it.
  public static func readLabel(fd: Int32, diskBytes: UInt64, former: Label?) -> LabelFinding {
    let found = readLabel(fd: fd, diskBytes: diskBytes)
    guard let former, former.diskBytes / LabelArea.alignment < diskBytes / LabelArea.alignment else { return found }
    switch found {
    case .label: return found
    case .none: break
    // The new end may lie within the old area.
    case .unreadable: guard diskBytes - former.diskBytes < LabelArea.byteCount else { return found }
    }
    guard case .label(let old) = readLabel(fd: fd, diskBytes: former.diskBytes), old.disk == former.disk else {
      return found
    }
    return .label(old)
  }

  /// Whether the disk carries something of ours, readable or not.
  public static func isOurs(fd: Int32, diskBytes: UInt64) -> Bool { readLabel(fd: fd, diskBytes: diskBytes) != .none }

  /// Writes zeroes, by plain writes: also where something else was. Returns 0 or a negative errno.
  public static func zero(fd: Int32, offset: UInt64, count: UInt64) -> Int32 {
    let part = [UInt8](repeating: 0, count: 1 << 20)
    var done: UInt64 = 0
    while done < count {
      let length = min(UInt64(part.count), count - done)
      let bytes = length == UInt64(part.count) ? part : Array(part[..<Int(length)])
      let code = writeBytes(bytes, fd: fd, offset: offset + done)
      guard code == 0 else { return code }
      done += length
    }
    return 0
  }

  /// The newest valid record of a kind, and the slot that the next write goes to.
  public static func read(
    _ kind: LabelArea.Kind, fd: Int32, diskBytes: UInt64, disk: UUID?
  ) throws(RecordError) -> (record: Record, nextSlot: Int) {
    let slots = (0...1).map { slot in
      let offset = LabelArea.offset(of: kind, slot: slot, diskBytes: diskBytes)
      return readBytes(fd: fd, offset: offset, count: Int(kind.slotBytes))
    }
    do throws(RecordError) {
      return try Record.newest(slots.map { $0 ?? [] }, kind: kind, disk: disk)
    } catch {
      // What could not be read is not known to be absent: a disk must not be taken for a blank one because of it.
      throw error == .absent && slots.contains(nil) ? .damaged : error
    }
  }

  /// Writes a record to a slot and waits until it is on stable storage. Returns 0 or a negative errno.
  public static func write(_ record: Record, slot: Int, fd: Int32, diskBytes: UInt64) -> Int32 {
    writeBytes(
      record.encode(), fd: fd, offset: LabelArea.offset(of: record.kind, slot: slot, diskBytes: diskBytes))
  }

  /// Writes the label area of a disk that has none: before the label its reservations (into slot 0), in place of those of
  /// whoever had the disk before: a label that is there has its reservations, if only an empty record, so that the first
  /// one written later may be torn and still leaves a valid one. Every other block becomes a `LabelBeacon`.
  /// - Parameters:
  ///   - carried: what the disk's former area had: reservations, who owns the disk, leases, whether it is being sanitized.
  ///   - clearing: what `finishMove` still has to do once the label is there.
  /// - Returns: 0 or a negative errno.
  static func initialize(
    _ label: Label, carried: [Record] = [], clearing: Clearing? = nil, fd: Int32
  ) -> Int32 {
    let beacon = LabelBeacon(start: label.exportedBytes, disk: label.disk)
    var first: [LabelArea.Kind: Record] = [
      .reservations: Record(kind: .reservations, sequence: 1, disk: label.disk, payload: [])
    ]
    for record in carried { first[record.kind] = record }
    if let clearing { first[.move] = Record(kind: .move, sequence: 1, disk: label.disk, payload: clearing.encode()) }
    var slots = ([.reservations, .move, .owner, .beat, .sanitize] + LabelArea.Kind.leases).map { kind in
      (kind, [first[kind]?.encode() ?? [], []])
    }
    slots.append(
      (
        .label,
        (0...1).map { slot in
          Record(kind: .label, sequence: UInt64(slot + 1), disk: label.disk, payload: label.encode()).encode()
        }
      ))
    for (kind, records) in slots {
      for slot in 0...1 {
        let bytes = beacon.pad(records[slot], to: Int(kind.slotBytes))
        let place = LabelArea.offset(of: kind, slot: slot, diskBytes: label.diskBytes)
        let code = writeBytes(bytes, fd: fd, offset: place)
        guard code == 0 else { return code }
      }
    }
    return fillGaps(label, fd: fd)
  }

  /// The same for a disk of this gateway's own, with no reservations yet. Returns 0 or a negative errno.
  public static func initialize(_ label: Label, fd: Int32) -> Int32 {
    initialize(label, carried: [], clearing: nil, fd: fd)
  }

  /// Takes the label off: both slots are zeroed. Returns 0 or a negative errno.
  public static func erase(fd: Int32, diskBytes: UInt64) -> Int32 {
    let zeroes = [UInt8](repeating: 0, count: Int(LabelArea.alignment))
    for slot in 0...1 {
      let code = writeBytes(zeroes, fd: fd, offset: LabelArea.offset(of: .label, slot: slot, diskBytes: diskBytes))
      guard code == 0 else { return code }
    }
    return 0
  }

  /// `count` bytes at `offset`, or nil on an error or a short read. Aligned inside, for O_DIRECT.
  static func readBytes(fd: Int32, offset: UInt64, count: Int) -> [UInt8]? {
    withAligned(count) { memory in
      var done = 0
      while done < count {
        let got = pread(fd, memory + done, count - done, off_t(offset) + off_t(done))
        if got < 0, errno == EINTR { continue }
        guard got > 0 else { return nil }
        done += got
      }
      return Array(UnsafeRawBufferPointer(start: memory, count: count))
    }
  }

  /// Writes all of `bytes` (a multiple of the alignment) and, unless told otherwise, flushes the disk. Returns 0 or a
  /// negative errno.
  public static func writeBytes(_ bytes: [UInt8], fd: Int32, offset: UInt64, flushes: Bool = true) -> Int32 {
    withAligned(bytes.count) { memory in
      bytes.withUnsafeBytes { memory.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
      var done = 0
      while done < bytes.count {
        let wrote = pwrite(fd, memory + done, bytes.count - done, off_t(offset) + off_t(done))
        if wrote < 0, errno == EINTR { continue }
        guard wrote > 0 else { return wrote < 0 ? -errno : -EIO }
        done += wrote
      }
      return !flushes || fdatasync(fd) == 0 ? 0 : -errno
    }
  }

  static func withAligned<Result>(_ count: Int, _ body: (UnsafeMutableRawPointer) -> Result) -> Result {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: max(count, 1), alignment: Int(LabelArea.alignment))
    defer { memory.deallocate() }
    return body(memory)
  }
}
