import CSystem
import Glibc
import SCSI
import Synchronization

/// What a request to a disk is. Offsets and counts are bytes, multiples of the disk's block.
public enum DiskOperation: UInt8, Sendable {
  case read
  case write
  /// A write that is on stable storage when it completes.
  case writeThrough
  case flush
  /// Deallocate: reads as zeroes afterwards.
  case deallocate
  /// Zeroes, with the space kept.
  case zero
  /// Deallocate, as a block device does that cannot say what is read afterwards.
  case discard
}

/// Why a disk could not be opened; `description` says what to do.
public struct DiskError: Error, Equatable, Sendable, CustomStringConvertible {
  public let path: String
  /// A positive errno, or 0 where `reason` says it all.
  public let code: Int32
  public let reason: String

  public init(path: String, code: Int32 = 0, reason: String) {
    self.path = path
    self.code = code
    self.reason = reason
  }

  public var description: String {
    code == 0 ? "\(path): \(reason)" : "\(path): \(reason): \(String(cString: strerror(code)))"
  }
}

/// A disk of any kind, open. Immutable but for what becomes of flushes; every shard has its own queue to it (`DiskQueue`).
public final class Disk: Sendable {
  enum Backend: @unchecked Sendable {
    /// A block device or file, through the ring.
    case file(Int32)
    /// Memory at this address, `byteCount` long, owned by the disk.
    case memory(UnsafeMutableRawPointer)
    /// Reads give zeroes, writes go nowhere.
    case null
  }

  let backend: Backend
  let faults: FaultRules?
  /// What the operator calls it: a path, or `memory:SIZE`.
  public let path: String
  /// Bytes of the whole disk, label area included, when it was opened.
  public let byteCount: UInt64
  public let facts: system_disk_facts
  public let isWritable: Bool
  /// A flush or a write-through failed: what was written before may be gone, so no later flush may claim success
  /// (Linux reports such a failure once).
  private let hasLostWrites = Atomic<Bool>(false)
  /// How many flushes are still to fail (`FaultRules`).
  private let failingFlushes: Atomic<Int>

  private init(
    backend: Backend, path: String, byteCount: UInt64, facts: system_disk_facts, isWritable: Bool, faults: FaultRules?
  ) {
    self.backend = backend
    self.path = path
    self.byteCount = byteCount
    self.facts = facts
    self.isWritable = isWritable
    self.faults = faults
    failingFlushes = Atomic(faults?.failingFlushes ?? 0)
  }

  deinit {
    switch backend {
    case .file(let fd): close(fd)
    case .memory(let base): munmap(base, Int(byteCount))
    case .null: break
    }
  }

  /// Opens a block device or regular file with O_DIRECT, block devices also with O_EXCL: one that is mounted or otherwise
  /// claimed is refused by the kernel itself.
  public static func open(path: String, writable: Bool = true) throws(DiskError) -> Disk {
    // First to see what it is, and for reading: when a writer closes a device udev tells of a change, which would make void
    // what is done with it meanwhile.
    let first = system_open_disk(path, 0, 0, 0)
    guard first >= 0 else { throw DiskError(path: path, code: -first, reason: "cannot be opened") }
    defer { close(first) }
    var facts = system_disk_facts()
    let code = system_disk_facts(first, &facts)
    guard code == 0 else {
      throw DiskError(path: path, code: -code, reason: "is neither a block device nor a regular file")
    }
    let fd = facts.is_block_device != 0 ? openExclusively(path, writable: writable) : openFile(path, writable: writable)
    guard fd >= 0 else {
      let how = facts.is_block_device != 0 ? "exclusively" : writable ? "for writing" : "again"
      throw DiskError(path: path, code: -fd, reason: "cannot be opened \(how)")
    }
    var again = system_disk_facts()
    guard system_disk_facts(fd, &again) == 0, again.device_number == facts.device_number else {
      close(fd)
      throw DiskError(path: path, reason: "changed while it was opened; try again")
    }
    if facts.is_block_device == 0, writable, !lock(fd) {
      let reason = errno
      close(fd)
      throw DiskError(path: path, code: reason, reason: "is in use by another process")
    }
    guard facts.logical_block_bytes == 512 || facts.logical_block_bytes == 4096 else {
      close(fd)
      throw DiskError(
        path: path, reason: "has blocks of \(facts.logical_block_bytes) bytes; 512 and 4096 are supported")
    }
    let bytes = system_disk_bytes(fd)
    guard bytes >= 0 else {
      close(fd)
      throw DiskError(path: path, code: Int32(-bytes), reason: "does not tell its size")
    }
    return Disk(
      backend: .file(fd), path: path, byteCount: UInt64(bytes), facts: facts,
      isWritable: writable && facts.is_read_only == 0, faults: nil)
  }

  private static func openFile(_ path: String, writable: Bool) -> Int32 {
    let fd = system_open_disk(path, writable ? 1 : 0, 0, 1)
    // tmpfs of Linux before 6.6, and some FUSE file systems, know no O_DIRECT: such a file goes through the page cache.
    return fd == -EINVAL ? system_open_disk(path, writable ? 1 : 0, 0, 0) : fd
  }

  /// As with `lock`: a killed predecessor may still hold it for a moment.
  private static func openExclusively(_ path: String, writable: Bool) -> Int32 {
    var fd: Int32 = -EBUSY
    for _ in 0..<50 {
      fd = system_open_disk(path, writable ? 1 : 0, 1, 1)
      guard fd == -EBUSY else { break }
      usleep(30_000)
    }
    return fd
  }

  /// Takes the lock of a regular file. The rings of a process that was killed let go of its files a moment after it is gone,
  /// so a lock that is held is tried for a while.
  private static func lock(_ fd: Int32) -> Bool {
    for _ in 0..<100 {
      if flock(fd, LOCK_EX | LOCK_NB) == 0 { return true }
      guard errno == EWOULDBLOCK else { return false }
      usleep(30_000)
    }
    return false
  }

  /// A disk in memory: lost with the process.
  public static func memory(byteCount: UInt64, path: String, faults: FaultRules? = nil) throws(DiskError) -> Disk {
    guard byteCount > 0, byteCount % 4096 == 0, byteCount < 1 << 46,
      let base = mmap(
        nil, Int(byteCount), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
      base != MAP_FAILED
    else { throw DiskError(path: path, reason: "no such amount of memory; give a multiple of 4096 bytes") }
    // Random reads of small pages wait for address translation more than for the data. Refused: no harm.
    madvise(base, Int(byteCount), MADV_HUGEPAGE)
    return Disk(
      backend: .memory(base), path: path, byteCount: byteCount, facts: Self.synthetic, isWritable: true, faults: faults)
  }

  /// A disk that forgets: for measuring everything but the disk.
  public static func null(byteCount: UInt64, path: String) -> Disk {
    Disk(backend: .null, path: path, byteCount: byteCount, facts: Self.synthetic, isWritable: true, faults: nil)
  }

  private static var synthetic: system_disk_facts {
    var facts = system_disk_facts()
    facts.logical_block_bytes = 512
    facts.physical_block_bytes = 4096
    return facts
  }

  /// The descriptor of a block device or file.
  public var descriptor: Int32? {
    if case .file(let fd) = backend { fd } else { nil }
  }

  /// The device's or file's size now, in bytes.
  public var currentByteCount: UInt64 {
    guard let fd = descriptor else { return byteCount }
    return UInt64(max(system_disk_bytes(fd), 0))
  }

  /// Whether it is a regular file: then holes tell what is deallocated.
  public var isRegularFile: Bool { descriptor != nil && facts.is_block_device == 0 }

  /// What a regular file takes of its file system, and what is left there, in bytes; nil: it is none.
  public var space: (used: UInt64, available: UInt64)? {
    guard isRegularFile, let fd = descriptor else { return nil }
    var file = stat()
    var system = statvfs()
    guard fstat(fd, &file) == 0, fstatvfs(fd, &system) == 0 else { return nil }
    return (UInt64(max(file.st_blocks, 0)) * 512, UInt64(system.f_bavail) * UInt64(system.f_frsize))
  }

  /// Has a block device deallocate these bytes, as far as its granularity goes; what is read there afterwards is not known.
  /// Waits for the device. 0, or a negative errno.
  public func discard(_ byteCount: UInt64, at offset: UInt64) -> Int32 {
    guard let fd = descriptor else { return -EOPNOTSUPP }
    return system_discard(fd, offset, byteCount)
  }

  /// Whether the rules have this flush fail.
  func failsFlush() -> Bool {
    failingFlushes.load(ordering: .relaxed) > 0 && failingFlushes.subtract(1, ordering: .relaxed).oldValue > 0
  }

  func noteLostWrites() { hasLostWrites.store(true, ordering: .relaxed) }

  var mayClaimStable: Bool { !hasLostWrites.load(ordering: .relaxed) }

  /// The extent that starts at byte `offset`, and whether it is mapped. Everything is, where the disk cannot tell.
  public func mapping(at offset: UInt64, limit: UInt64) -> (byteCount: UInt64, isMapped: Bool) {
    guard isRegularFile, let fd = descriptor, offset < limit else { return (limit - min(offset, limit), true) }
    let data = system_seek_data(fd, Int64(offset))
    if data == Int64(-ENXIO) { return (limit - offset, false) }
    guard data >= 0 else { return (limit - offset, true) }
    if UInt64(data) > offset { return (min(UInt64(data), limit) - offset, false) }
    let hole = system_seek_hole(fd, Int64(offset))
    guard hole > Int64(offset) else { return (limit - offset, true) }
    return (min(UInt64(hole), limit) - offset, true)
  }

  /// What a negative errno of this disk means to the SCSI side.
  public static func failure(code: Int32, lba: UInt64) -> MediumFailure {
    switch -code {
    case EILSEQ, ENODATA, EREMOTEIO: .medium(lba: lba)
    case EIO: .device(lba: lba)
    case ENOLINK, ETIMEDOUT: .unreachable
    case ENODEV, ENXIO, ENOMEDIUM, ESHUTDOWN: .gone
    case EROFS, EPERM, EACCES: .writeProtected
    case ENOSPC, EDQUOT: .noSpace
    default: .hardware
    }
  }
}
