import Glibc
import SCSI
import Storage
import Testing

@Suite("Opening disks")
struct DiskTests {
  private static func refusal(_ path: String, writable: Bool = true) -> DiskError? {
    do throws(DiskError) {
      _ = try Disk.open(path: path, writable: writable)
      return nil
    } catch { return error }
  }

  @Test("A file is opened with its size, in blocks of 512 bytes, and closed with the disk")
  func file() throws {
    let file = TemporaryFile(bytes: 20 << 20)
    let fd: Int32
    do {
      let disk = try Disk.open(path: file.path)
      fd = try #require(disk.descriptor)
      #expect(disk.byteCount == 20 << 20 && disk.currentByteCount == 20 << 20)
      #expect(disk.isWritable && disk.isRegularFile && disk.facts.logical_block_bytes == 512)
      #expect(ftruncate(file.fd, 30 << 20) == 0)
      #expect(disk.currentByteCount == 30 << 20 && disk.byteCount == 20 << 20)
    }
    #expect(Self.refusal(file.path) == nil, "the lock went with the disk (\(fd))")
  }

  @Test("What does not exist is said to be missing")
  func missing() {
    let error = Self.refusal("/var/tmp/gatewayd-test-nothing")
    #expect(error?.code == ENOENT && error?.description.contains("No such file") == true)
  }

  @Test("A directory, a pipe and a terminal are no disks")
  func kinds() {
    #expect(Self.refusal("/var/tmp")?.code == ENOTBLK)
    #expect(Self.refusal("/var/tmp", writable: false)?.reason == "is neither a block device nor a regular file")
    #expect(Self.refusal("/dev/null")?.reason == "is neither a block device nor a regular file")
  }

  @Test("A file that another process holds is refused after a while, and taken when it lets go in time")
  func locked() throws {
    let file = TemporaryFile(bytes: 1 << 20)
    #expect(flock(file.fd, LOCK_EX | LOCK_NB) == 0)
    let error = Self.refusal(file.path)
    #expect(error?.code == EWOULDBLOCK && error?.reason == "is in use by another process")
    // For reading only no lock is taken.
    #expect(Self.refusal(file.path, writable: false) == nil)
    #expect(flock(file.fd, LOCK_UN) == 0)
    #expect(Self.refusal(file.path) == nil)
  }

  @Test("A disk opened for reading is not writable")
  func readOnly() throws {
    let file = TemporaryFile(bytes: 1 << 20)
    #expect(try !Disk.open(path: file.path, writable: false).isWritable)
  }

  @Test("A disk in memory has whole pages")
  func memory() throws {
    #expect(try Disk.memory(byteCount: 1 << 20, path: "m").byteCount == 1 << 20)
    for bytes in [0, 1, 512, 4095, 1 << 46, 1 << 62] as [UInt64] {
      #expect(throws: DiskError.self) { try Disk.memory(byteCount: bytes, path: "m") }
    }
  }

  @Test("A file's holes are unmapped, and its data mapped, from anywhere to the next change (SBC-4 §5.20)")
  func mapping() throws {
    let file = TemporaryFile(bytes: 1 << 20)
    for start in [128 << 10, 512 << 10] { file.write([UInt8](repeating: 1, count: 64 << 10), at: UInt64(start)) }
    fsync(file.fd)
    let disk = try Disk.open(path: file.path)
    let limit: UInt64 = 1 << 20
    var extents: [(UInt64, Bool)] = []
    var offset: UInt64 = 0
    while offset < limit {
      let (count, isMapped) = disk.mapping(at: offset, limit: limit)
      try #require(count > 0)
      extents.append((count >> 10, isMapped))
      offset += count
    }
    #expect(offset == limit)
    #expect(extents.map(\.0) == [128, 64, 320, 64, 448] && extents.map(\.1) == [false, true, false, true, false])
    #expect(disk.mapping(at: 130 << 10, limit: 140 << 10) == (10 << 10, true))
    #expect(disk.mapping(at: 4096, limit: 8192) == (4096, false))
    #expect(disk.mapping(at: limit, limit: limit) == (0, true))
    #expect(disk.mapping(at: limit + 1, limit: limit) == (0, true))
    #expect(Disk.null(byteCount: limit, path: "null").mapping(at: 0, limit: limit) == (limit, true))
  }

  @Test("An errno of a disk has the meaning that initiators can act on")
  func failures() {
    #expect(Disk.failure(code: -ENODATA, lba: 7) == .medium(lba: 7))
    #expect(Disk.failure(code: -EIO, lba: 7) == .device(lba: 7))
    #expect(Disk.failure(code: -ENOLINK, lba: 7) == .unreachable)
    #expect(Disk.failure(code: -ENODEV, lba: 7) == .gone)
    #expect(Disk.failure(code: -EROFS, lba: 7) == .writeProtected)
    #expect(Disk.failure(code: -ENOSPC, lba: 7) == .noSpace)
    #expect(Disk.failure(code: -EINVAL, lba: 7) == .hardware)
  }
}
