/// A request for a send queue, in the terms of the verbs. What it points at lives until its completion, or until that of a
/// later signalled one.
public struct SendWork: Sendable {
  public enum Operation: UInt8, Sendable {
    case send
    /// SEND with Invalidate: `remoteKey` is the key to invalidate.
    case sendInvalidating
    case write
    case read
  }

  /// Comes back with the completion.
  public var id: UInt64
  public var operation: Operation
  public var isSignalled: Bool
  /// The data is copied when it is posted; no more than the queue pair's `inlineBytesMax`.
  public var isInline: Bool
  public var localAddress: UInt64
  public var byteCount: UInt32
  public var localKey: UInt32
  public var remoteAddress: UInt64
  public var remoteKey: UInt32
}

/// A request for a receive queue: headers of at most 76 bytes to one place, what follows to another.
public struct ReceiveWork: Sendable {
  public var id: UInt64
  public var headerAddress: UInt64
  public var headerBytes: UInt32
  public var headerKey: UInt32
  public var dataAddress: UInt64
  public var dataBytes: UInt32
  public var dataKey: UInt32
}

/// One completion.
public struct WorkCompletion: Sendable {
  public var id: UInt64
  /// 0: success; else the verbs' status.
  public var status: UInt32
  /// Bytes received; of receives that succeeded only.
  public var byteCount: UInt32

  public init(id: UInt64, status: UInt32, byteCount: UInt32) {
    self.id = id
    self.status = status
    self.byteCount = byteCount
  }

  /// What the work was that this is the end of.
  public var work: WorkID { WorkID(bits: id) }
}

/// The `id` of work: whose it is, and which of theirs. The generation makes a completion that comes late find nothing.
public struct WorkID: Equatable, Sendable {
  public var bits: UInt64

  public init(bits: UInt64) { self.bits = bits }

  /// - Parameters:
  ///   - connection: at most 65535.
  ///   - generation: 24 bits are kept.
  public init(isReceive: Bool, connection: Int, generation: UInt32, slot: Int) {
    bits =
      (isReceive ? 1 << 63 : 0) | UInt64(generation & 0xFF_FFFF) << 32 | UInt64(connection & 0xFFFF) << 16
      | UInt64(slot & 0xFFFF)
  }

  public var isReceive: Bool { bits >> 63 != 0 }
  public var generation: UInt32 { UInt32(truncatingIfNeeded: bits >> 32) & 0xFF_FFFF }
  public var connection: Int { Int(bits >> 16 & 0xFFFF) }
  public var slot: Int { Int(bits & 0xFFFF) }

  func with(slot: Int) -> UInt64 { bits & ~0xFFFF | UInt64(slot) }
}

/// What a queue pair and the connection over it can do.
public struct QueuePairLimits: Equatable, Sendable {
  /// Work requests that its queues hold.
  public var sendsMax: Int
  public var receivesMax: Int
  /// Bytes that may be sent inline; 0: none.
  public var inlineBytesMax: Int
  /// RDMA READs under way that the peer and our device allow.
  public var readsMax: Int
  /// The peer and our device both take SEND with Invalidate.
  public var mayInvalidate: Bool

  public init(sendsMax: Int, receivesMax: Int, inlineBytesMax: Int, readsMax: Int, mayInvalidate: Bool) {
    self.sendsMax = sendsMax
    self.receivesMax = receivesMax
    self.inlineBytesMax = inlineBytesMax
    self.readsMax = readsMax
    self.mayInvalidate = mayInvalidate
  }
}

/// The verbs under one iSER connection: the device's, or a test's script.
public protocol QueuePair: AnyObject {
  var limits: QueuePairLimits { get }
  /// Posts a chain in one call. Returns 0 or a negative errno: then the connection is at its end.
  func post(_ work: UnsafeBufferPointer<SendWork>) -> Int32
  func post(_ work: UnsafeBufferPointer<ReceiveWork>) -> Int32
  /// Tells the peer and ends the queue pair: afterwards the device touches no memory for it. Completions may still come.
  func terminate()
}

/// The local keys of an arena's chunks with one device. Whoever registers a chunk sets its key.
public final class MemoryKeys {
  private let keys: UnsafeMutablePointer<UInt32>
  private let count: Int

  public init(chunks: Int) {
    count = chunks
    keys = .allocate(capacity: chunks)
    keys.initialize(repeating: 0, count: chunks)
  }

  deinit { keys.deallocate() }

  public subscript(chunk: UInt16) -> UInt32 {
    get { keys[Int(chunk)] }
    set {
      precondition(Int(chunk) < count)
      keys[Int(chunk)] = newValue
    }
  }
}
