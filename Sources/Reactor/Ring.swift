import CSystem
import CURing
import Glibc

/// Why a ring could not be made; `description` is the one line that the daemon prints before it exits.
public struct RingError: Error, CustomStringConvertible {
  /// A positive errno.
  public let code: Int32

  public var description: String {
    switch code {
    case EPERM, ENOSYS, EACCES:
      """
      io_uring is not available to this process (\(String(cString: strerror(code)))): set `sysctl kernel.io_uring_disabled=0`, or allow \
      io_uring_setup in the container's or unit's system-call filter
      """
    case ENOMEM:
      "io_uring needs more locked memory: raise `ulimit -l` (LimitMEMLOCK= in the unit)"
    default:
      "io_uring_setup failed: \(String(cString: strerror(code)))"
    }
  }
}

/// The user data of a submission: what kind of operation it was, and which entry of which table it belongs to. The
/// generation makes a completion that comes late find nothing.
public struct Token: Equatable, Sendable {
  public var bits: UInt64

  @inlinable
  public init(bits: UInt64) { self.bits = bits }

  /// - Parameters:
  ///   - operation: the owner's own code, 1 to 255.
  ///   - generation: the entry's generation; 24 bits are kept.
  @inlinable
  public init(_ operation: UInt8, index: UInt32, generation: UInt32) {
    bits = UInt64(operation) << 56 | UInt64(generation & 0xFF_FFFF) << 32 | UInt64(index)
  }

  @inlinable public var operation: UInt8 { UInt8(truncatingIfNeeded: bits >> 56) }
  @inlinable public var generation: UInt32 { UInt32(truncatingIfNeeded: bits >> 32) & 0xFF_FFFF }
  @inlinable public var index: UInt32 { UInt32(truncatingIfNeeded: bits) }
}

/// One completion.
public struct Completion {
  public var token: Token
  /// The operation's result: a count, or a negative errno.
  public var result: Int32
  public var flags: UInt32

  @inlinable
  public init(token: Token, result: Int32, flags: UInt32) {
    self.token = token
    self.result = result
    self.flags = flags
  }

  /// More completions of the same multishot operation follow.
  @inlinable public var isContinued: Bool { flags & (1 << 1) != 0 }  // IORING_CQE_F_MORE

  /// After a receive the socket has more already.
  @inlinable public var leavesMore: Bool { flags & (1 << 2) != 0 }  // IORING_CQE_F_SOCK_NONEMPTY

  /// The provided buffer that a receive used.
  @inlinable public var providedBuffer: UInt16? {
    flags & 1 != 0 ? UInt16(truncatingIfNeeded: flags >> 16) : nil  // IORING_CQE_F_BUFFER
  }
}

/// One io_uring, owned by one thread: it is made, used and torn down there (IORING_SETUP_SINGLE_ISSUER). What the kernel
/// does not have is found out at `init` and avoided: nothing here fails later on Linux 6.1.
public final class Ring {
  /// Owned by this ring; at a fixed address, as liburing wants it.
  @usableFromInline let ring: UnsafeMutablePointer<io_uring>
  /// Whether completions are deferred to this thread's wait (Linux 6.1).
  public let defersTaskWork: Bool
  /// Whether the kernel says in shared memory that there is something to collect.
  private let tellsOfWork: Bool
  /// Slots of the fixed-file and fixed-buffer tables; 0 where the kernel refused to make one.
  public private(set) var fileSlots: UInt32 = 0
  public private(set) var bufferSlots: UInt32 = 0
  /// System calls made to submit or wait: for the benchmark's accounting.
  public private(set) var entries: UInt64 = 0

  /// - Parameters:
  ///   - entries: submission queue entries, a power of two.
  ///   - completions: completion queue entries, a power of two.
  public init(entries: UInt32, completions: UInt32) throws(RingError) {
    let ring = UnsafeMutablePointer<io_uring>.allocate(capacity: 1)
    ring.initialize(to: io_uring())
    let tells = UInt32(IORING_SETUP_TASKRUN_FLAG)
    let best = UInt32(IORING_SETUP_SINGLE_ISSUER) | UInt32(IORING_SETUP_DEFER_TASKRUN) | tells
    var code: Int32 = 0
    var deferring = false
    var tellsOfWork = false
    for flags in [best, UInt32(IORING_SETUP_COOP_TASKRUN) | tells, 0] {
      var parameters = io_uring_params()
      parameters.flags = flags | UInt32(IORING_SETUP_CQSIZE)
      parameters.cq_entries = completions
      code = io_uring_queue_init_params(entries, ring, &parameters)
      deferring = flags == best
      tellsOfWork = flags != 0
      if code != -EINVAL { break }
    }
    guard code == 0 else {
      // No property is set yet, so `deinit` will not run.
      ring.deallocate()
      throw RingError(code: -code)
    }
    self.ring = ring
    defersTaskWork = deferring
    self.tellsOfWork = tellsOfWork
    // A registered ring descriptor saves the look-up at each enter; without it everything still works.
    _ = io_uring_register_ring_fd(ring)
  }

  deinit {
    io_uring_queue_exit(ring)
    ring.deallocate()
  }

  /// Makes the tables of fixed files and fixed buffers, both empty.
  public func makeTables(files: UInt32, buffers: UInt32) {
    if io_uring_register_files_sparse(ring, files) == 0 { fileSlots = files }
    if io_uring_register_buffers_sparse(ring, buffers) == 0 { bufferSlots = buffers }
  }

  /// Puts `descriptor` (or -1: nothing) into the fixed-file slot; false if the kernel refuses.
  public func setFile(_ descriptor: Int32, slot: UInt32) -> Bool {
    var descriptor = descriptor
    return slot < fileSlots && io_uring_register_files_update(ring, slot, &descriptor, 1) == 1
  }

  /// Registers (or with a count of 0 releases) the memory of a fixed-buffer slot; false if the kernel refuses, mostly for
  /// want of locked memory.
  public func setBuffer(_ base: UnsafeMutableRawPointer?, count: Int, slot: UInt32) -> Bool {
    var vector = iovec(iov_base: base, iov_len: count)
    var tag: UInt64 = 0
    return slot < bufferSlots && io_uring_register_buffers_update_tag(ring, slot, &vector, &tag, 1) == 1
  }

  /// A cleared submission entry. When the queue is full, what is in it is submitted first.
  @inlinable
  public func entry(_ token: Token) -> UnsafeMutablePointer<io_uring_sqe> {
    while true {
      if let entry = io_uring_get_sqe(ring) {
        entry.pointee.user_data = token.bits
        return entry
      }
      flush()
    }
  }

  /// Submits what is queued without waiting.
  @usableFromInline
  func flush() {
    entries &+= 1
    _ = io_uring_submit(ring)
  }

  /// Submits what is queued and waits for at least one completion, or until `deadline` (monotonic nanoseconds; nil: for
  /// ever). Returns early on signals.
  public func submitAndWait(until deadline: UInt64?) {
    entries &+= 1
    guard let deadline else {
      _ = io_uring_submit_and_wait(ring, 1)
      return
    }
    let now = system_monotonic_ns()
    let left = deadline > now ? deadline - now : 0
    var time = __kernel_timespec(tv_sec: Int64(left / 1_000_000_000), tv_nsec: Int64(left % 1_000_000_000))
    var first: UnsafeMutablePointer<io_uring_cqe>?
    _ = io_uring_submit_and_wait_timeout(ring, &first, left == 0 ? 0 : 1, &time, nil)
  }

  /// Submits what is queued and collects what is complete, without sleeping.
  public func poll() {
    entries &+= 1
    _ = io_uring_submit_and_get_events(ring)
  }

  /// Whether `poll` would find or submit anything, as far as it can be told without a system call.
  public var hasWork: Bool {
    guard tellsOfWork, io_uring_sq_ready(ring) == 0, io_uring_cq_ready(ring) == 0 else { return true }
    let signs = UInt32(IORING_SQ_TASKRUN) | UInt32(IORING_SQ_CQ_OVERFLOW)
    return system_load_acquire(ring.pointee.sq.kflags) & signs != 0
  }

  /// Copies up to `limit` completions to `into` and hands their places back to the kernel. Returns how many.
  @inlinable
  public func takeCompletions(into: UnsafeMutablePointer<Completion>, limit: Int) -> Int {
    var taken = 0
    var head: UInt32 = ring.pointee.cq.khead.pointee
    let mask = ring.pointee.cq.ring_mask
    // A load that acquires: the kernel publishes entries by storing the tail.
    let tail = io_uring_cq_ready(ring) &+ head
    while head != tail, taken < limit {
      let cqe = ring.pointee.cq.cqes[Int(head & mask)]
      into[taken] = Completion(token: Token(bits: cqe.user_data), result: cqe.res, flags: cqe.flags)
      taken += 1
      head &+= 1
    }
    if taken > 0 { io_uring_cq_advance(ring, UInt32(taken)) }
    return taken
  }
}
