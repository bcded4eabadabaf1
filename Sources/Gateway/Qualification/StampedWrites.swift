import CSystem
import Glibc
import Storage
import Synchronization

/// Writers that keep a disk's queue full, each in a place of its own with a number that grows: so that afterwards it can be
/// told whether a write took effect that must not have.
final class StampedWrites: Sendable {
  struct Outcome: Equatable {
    /// The highest number whose write was acknowledged.
    var acknowledged: UInt64 = 0
    /// The errno that ended the writer; 0: it was stopped.
    var code: Int32 = 0
    var hasEnded = false
  }

  static let writers = 16
  static let bytesEach = 64 << 10
  /// Bytes that they write to, from the place on.
  static let byteCount = UInt64(writers * bytesEach)

  private let disk: Disk
  private let place: UInt64
  private let outcomes = Mutex([Outcome](repeating: Outcome(), count: writers))
  private let isStopped = Atomic<Bool>(false)

  /// - Parameter place: byte offset, a multiple of 4096.
  init(_ disk: Disk, at place: UInt64) {
    self.disk = disk
    self.place = place
  }

  /// Starts the writers; false if the system gives no threads.
  func start() -> Bool {
    for writer in 0..<Self.writers {
      guard ControlThread.start({ self.run(writer) }) else { return false }
    }
    return true
  }

  private func run(_ writer: Int) {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: Self.bytesEach, alignment: 4096)
    defer { memory.deallocate() }
    var number: UInt64 = 0
    var code: Int32 = 0
    while code == 0, !isStopped.load(ordering: .relaxed) {
      number += 1
      memory.initializeMemory(as: UInt64.self, repeating: number, count: Self.bytesEach / 8)
      code = StampedIO.write(disk, memory, Self.bytesEach, at: place + UInt64(writer * Self.bytesEach))
      let isDone = code == 0
      outcomes.withLock { if isDone { $0[writer].acknowledged = number } }
    }
    outcomes.withLock {
      $0[writer].code = code
      $0[writer].hasEnded = true
    }
  }

  /// Waits until every writer has had so many writes acknowledged, or has ended.
  func wait(untilAcknowledged count: UInt64, _ deadline: Deadline) -> Bool {
    Self.poll(deadline) { outcomes.withLock { $0.allSatisfy { $0.acknowledged >= count || $0.hasEnded } } }
  }

  /// Tells them to stop, unless they are to run into an error, and waits for their end.
  func finish(_ deadline: Deadline, stops: Bool = true) -> [Outcome]? {
    if stops { isStopped.store(true, ordering: .relaxed) }
    guard Self.poll(deadline, { outcomes.withLock { $0.allSatisfy(\.hasEnded) } }) else { return nil }
    return outcomes.withLock { $0 }
  }

  /// What lies in the writers' places, read through any path: the numbers at the start and at the end of each.
  static func read(_ disk: Disk, at place: UInt64) -> [[UInt64]]? {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: Int(byteCount), alignment: 4096)
    defer { memory.deallocate() }
    guard StampedIO.read(disk, memory, Int(byteCount), at: place) == 0 else { return nil }
    return (0..<writers).map { writer in
      let start = writer * bytesEach
      return [start, start + bytesEach - 8].map { memory.load(fromByteOffset: $0, as: UInt64.self) }
    }
  }

  private static func poll(_ deadline: Deadline, _ condition: () -> Bool) -> Bool {
    while !condition() {
      guard deadline.milliseconds > 0 else { return false }
      usleep(2000)
    }
    return true
  }
}

/// Plain reads and writes of aligned memory.
enum StampedIO {
  /// 0 or a positive errno.
  static func write(_ disk: Disk, _ memory: UnsafeMutableRawPointer, _ count: Int, at offset: UInt64) -> Int32 {
    transfer(count) { pwrite(disk.descriptor!, memory + $0, count - $0, off_t(offset) + off_t($0)) }
  }

  static func read(_ disk: Disk, _ memory: UnsafeMutableRawPointer, _ count: Int, at offset: UInt64) -> Int32 {
    transfer(count) { pread(disk.descriptor!, memory + $0, count - $0, off_t(offset) + off_t($0)) }
  }

  private static func transfer(_ count: Int, _ call: (Int) -> Int) -> Int32 {
    var done = 0
    while done < count {
      let moved = call(done)
      if moved < 0, errno == EINTR { continue }
      guard moved > 0 else { return moved < 0 ? errno : EIO }
      done += moved
    }
    return 0
  }

  /// Writes one block; 0 or a positive errno.
  static func write(_ disk: Disk, byte: UInt8, at offset: UInt64) -> Int32 {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
    defer { memory.deallocate() }
    memory.initializeMemory(as: UInt8.self, repeating: byte, count: 4096)
    return write(disk, memory, 4096, at: offset)
  }
}
