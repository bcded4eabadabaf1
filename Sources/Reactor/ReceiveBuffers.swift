import CURing
import Glibc

/// The buffers that receives choose from (a provided-buffer ring): shared by all connections of a thread, so that an idle
/// connection holds none. Owned by the thread's shard: no reference is counted for each receive.
public struct ReceiveBuffers: ~Copyable {
  /// Bytes of each buffer.
  public let byteCount: Int
  public let group: UInt16
  private let ring: Ring
  private let memory: UnsafeMutableRawPointer
  private let table: UnsafeMutablePointer<io_uring_buf_ring>
  private let tableBytes: Int
  private let count: Int
  private let mask: Int32

  /// - Parameters:
  ///   - count: how many, a power of two.
  ///   - byteCount: of each, a multiple of the page size.
  public init(ring: Ring, group: UInt16, count: Int, byteCount: Int) throws(RingError) {
    self.ring = ring
    self.group = group
    self.count = count
    self.byteCount = byteCount
    tableBytes = count * MemoryLayout<io_uring_buf>.stride
    mask = io_uring_buf_ring_mask(UInt32(count))
    guard
      let memory = mmap(nil, count * byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
      memory != MAP_FAILED,
      let base = mmap(nil, tableBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
      base != MAP_FAILED
    else { throw RingError(code: ENOMEM) }
    var registration = io_uring_buf_reg()
    registration.ring_addr = UInt64(UInt(bitPattern: base))
    registration.ring_entries = UInt32(count)
    registration.bgid = group
    let code = io_uring_register_buf_ring(ring.ring, &registration, 0)
    guard code == 0 else {
      // Two properties are not set yet, so `deinit` will not run.
      munmap(memory, count * byteCount)
      munmap(base, tableBytes)
      throw RingError(code: -code)
    }
    self.memory = memory
    table = base.assumingMemoryBound(to: io_uring_buf_ring.self)
    io_uring_buf_ring_init(table)
    for index in 0..<count { add(UInt16(index), at: index) }
    io_uring_buf_ring_advance(table, Int32(count))
  }

  deinit {
    io_uring_unregister_buf_ring(ring.ring, Int32(group))
    munmap(memory, count * byteCount)
    munmap(table, tableBytes)
  }

  /// The memory of buffer `index`, filled from its start.
  @inlinable
  public func base(_ index: UInt16) -> UnsafeRawPointer { memoryAt(index) }

  @usableFromInline
  func memoryAt(_ index: UInt16) -> UnsafeRawPointer { UnsafeRawPointer(memory) + Int(index) * byteCount }

  /// Gives buffer `index` back to the kernel.
  public func recycle(_ index: UInt16) {
    add(index, at: 0)
    io_uring_buf_ring_advance(table, 1)
  }

  private func add(_ index: UInt16, at offset: Int) {
    io_uring_buf_ring_add(
      table, memory + Int(index) * byteCount, UInt32(byteCount), index, mask, Int32(offset))
  }
}
