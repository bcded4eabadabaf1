import CSystem
import Glibc
import Reactor

/// Completions that come from this thread rather than from the ring: of memory and null disks, and of faults.
public final class LocalCompletions {
  private var ready: UnsafeMutablePointer<Completion>
  private var capacity = 1024
  private var count = 0
  private var delayed: [(deadline: UInt64, completion: Completion)] = []

  public init() { ready = .allocate(capacity: capacity) }

  deinit { ready.deallocate() }

  @inline(__always)
  func append(_ token: Token, _ result: Int32) {
    if count == capacity { grow() }
    ready[count] = Completion(token: token, result: result, flags: 0)
    count += 1
  }

  func append(_ token: Token, _ result: Int32, at deadline: UInt64) {
    delayed.append((deadline, Completion(token: token, result: result, flags: 0)))
  }

  private func grow() {
    let larger = UnsafeMutablePointer<Completion>.allocate(capacity: capacity * 2)
    larger.update(from: ready, count: count)
    ready.deallocate()
    ready = larger
    capacity *= 2
  }

  public var isEmpty: Bool { count == 0 }

  /// When the next delayed completion is due (monotonic nanoseconds).
  public var nextDeadline: UInt64? { delayed.isEmpty ? nil : delayed.map(\.deadline).min() }

  /// Copies what is ready (up to `limit`) to `into`; what is due joins it first.
  public func take(into: UnsafeMutablePointer<Completion>, limit: Int, now: UInt64) -> Int {
    if !delayed.isEmpty {
      for entry in delayed where entry.deadline <= now { append(entry.completion.token, entry.completion.result) }
      delayed.removeAll { $0.deadline <= now }
    }
    guard count > 0 else { return 0 }
    let taken = min(count, limit)
    into.update(from: ready, count: taken)
    if taken < count { memmove(ready, ready + taken, (count - taken) * MemoryLayout<Completion>.stride) }
    count -= taken
    return taken
  }
}

/// A disk as one thread reaches it.
public final class DiskQueue {
  public let disk: Disk
  /// Where its bytes are, if they may be read and written there without a request: a disk in memory without fault rules.
  public let memory: UnsafeMutableRawPointer?
  private let ring: Ring
  private let local: LocalCompletions
  /// Fixed-file slot, or the plain descriptor.
  private let file: Int32
  private let isFixed: Bool
  private let slot: UInt32?
  private let discard: (_ byteCount: UInt64, _ offset: UInt64, _ token: Token) -> Bool

  /// - Parameters:
  ///   - slot: a free slot of the ring's fixed-file table, or nil.
  ///   - discard: has `Disk.discard` done on another thread, and gives this one its result with the token; false: it cannot.
  public init(
    disk: Disk, ring: Ring, local: LocalCompletions, slot: UInt32?,
    discard: @escaping (_ byteCount: UInt64, _ offset: UInt64, _ token: Token) -> Bool = { _, _, _ in false }
  ) {
    self.disk = disk
    self.discard = discard
    if case .memory(let base) = disk.backend, disk.faults == nil { memory = base } else { memory = nil }
    self.ring = ring
    self.local = local
    if let fd = disk.descriptor, let slot, ring.setFile(fd, slot: slot) {
      self.slot = slot
      file = Int32(slot)
      isFixed = true
    } else {
      self.slot = nil
      file = disk.descriptor ?? -1
      isFixed = false
    }
  }

  deinit {
    if let slot { _ = ring.setFile(-1, slot: slot) }
  }

  /// Starts a request; its completion carries `token` and the byte count (0 for those that move none), or a negative errno.
  /// - Parameters:
  ///   - offset: byte offset on the disk.
  ///   - base: memory to read into or write from; not used by requests that move no data.
  ///   - buffer: the fixed-buffer slot that `base` lies in.
  @inline(__always)
  public func submit(
    _ operation: DiskOperation, offset: UInt64, count: Int, base: UnsafeMutableRawPointer?, buffer: UInt16?,
    token: Token
  ) {
    if let faults = disk.faults, inject(faults, operation, offset: offset, count: count, base: base, token: token) {
      return
    }
    switch disk.backend {
    case .file:
      submitToRing(operation, offset: offset, count: count, base: base, buffer: buffer, token: token)
    case .memory(let memory):
      Self.perform(operation, memory + Int(offset), count, base)
      local.append(token, Self.moves(operation) ? Int32(count) : 0)
    case .null:
      if operation == .read, let base { memset(base, 0, count) }
      local.append(token, Self.moves(operation) ? Int32(count) : 0)
    }
  }

  private static func moves(_ operation: DiskOperation) -> Bool {
    switch operation {
    case .read, .write, .writeThrough: true
    case .flush, .deallocate, .zero, .discard: false
    }
  }

  private func submitToRing(
    _ operation: DiskOperation, offset: UInt64, count: Int, base: UnsafeMutableRawPointer?, buffer: UInt16?,
    token: Token
  ) {
    switch operation {
    case .read:
      ring.readFile(file, fixed: isFixed, into: base!, count: count, offset: offset, buffer: buffer, token: token)
    case .write, .writeThrough:
      if operation == .writeThrough, !disk.mayClaimStable { return local.append(token, -ENOTRECOVERABLE) }
      ring.writeFile(
        file, fixed: isFixed, from: base!, count: count, offset: offset, buffer: buffer,
        writeFlags: operation == .writeThrough ? system_rwf_dsync : 0, token: token)
    case .flush:
      if !disk.mayClaimStable { return local.append(token, -ENOTRECOVERABLE) }
      ring.flushFile(file, fixed: isFixed, token: token)
    case .deallocate:
      ring.allocateFile(
        file, fixed: isFixed, mode: system_falloc_deallocate, offset: offset, count: UInt64(count), token: token)
    case .zero:
      ring.allocateFile(
        file, fixed: isFixed, mode: system_falloc_zero, offset: offset, count: UInt64(count), token: token)
    case .discard:
      // Kernels before 6.12 have it as an ioctl alone, which waits for the device.
      if !discard(UInt64(count), offset, token) { local.append(token, -EOPNOTSUPP) }
    }
  }

  /// What the result of a flush or a write-through counts as, so that a failure is never followed by a silent success, not
  /// even of one that was under way: the kernel may have told only one of them.
  /// - Parameter isFlush: else it is a write, which may also be refused before anything is lost.
  public func stableResult(_ result: Int32, isFlush: Bool) -> Int32 {
    guard result < 0 else { return disk.mayClaimStable ? result : -ENOTRECOVERABLE }
    switch -result {
    // EBADE: another node has the disk. It has what was written before, and flushes it.
    case ECANCELED, EINVAL, ENOTRECOVERABLE, EBADE: return result
    case ENOSPC, EDQUOT, EROFS, EPERM, EACCES, EAGAIN, ENOMEM: if !isFlush { return result }
    default: break
    }
    disk.noteLostWrites()
    return result
  }

  private static func perform(
    _ operation: DiskOperation, _ memory: UnsafeMutableRawPointer, _ count: Int, _ base: UnsafeMutableRawPointer?
  ) {
    switch operation {
    case .read: memcpy(base!, memory, count)
    case .write, .writeThrough: memcpy(memory, base!, count)
    case .flush: break
    case .deallocate, .zero, .discard: clear(memory, count)
    }
  }

  /// Zeroes memory, giving whole pages back to the system.
  private static func clear(_ memory: UnsafeMutableRawPointer, _ count: Int) {
    let start = UInt(bitPattern: memory)
    let first = (start + 4095) & ~4095
    let last = (start + UInt(count)) & ~4095
    guard last > first else {
      memset(memory, 0, count)
      return
    }
    memset(memory, 0, Int(first - start))
    madvise(memory + Int(first - start), Int(last - first), MADV_DONTNEED)
    memset(memory + Int(last - start), 0, Int(start + UInt(count) - last))
  }

  /// Applies the fault rules to a memory disk; true if the request has been dealt with.
  private func inject(
    _ faults: FaultRules, _ operation: DiskOperation, offset: UInt64, count: Int, base: UnsafeMutableRawPointer?,
    token: Token
  ) -> Bool {
    if faults.isGone {
      local.append(token, -ENODEV)
      return true
    }
    if operation == .flush {
      guard disk.failsFlush() else { return false }
      local.append(token, -EIO)
      return true
    }
    switch faults.effect(offset: offset, count: UInt64(count)) {
    case nil: return false
    case .medium: local.append(token, -EIO)
    case .short:
      guard case .memory(let memory) = disk.backend else { return false }
      let half = count / 1024 * 512
      Self.perform(operation, memory + Int(offset), half, base)
      local.append(token, Self.moves(operation) ? Int32(half) : 0)
    case .hang: local.append(token, 0, at: .max)
    case .slow(let milliseconds):
      guard case .memory(let memory) = disk.backend else { return false }
      Self.perform(operation, memory + Int(offset), count, base)
      let deadline = system_monotonic_ns() + UInt64(milliseconds) * 1_000_000
      local.append(token, Self.moves(operation) ? Int32(count) : 0, at: deadline)
    }
    return true
  }
}
