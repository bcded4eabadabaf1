import Glibc

/// On whose account buffers are: how much of the arena it has. It must outlive them.
open class BufferAccount {
  public final var heldBytes = 0

  public init() {}
}

/// A piece of the arena: page-aligned memory that io_uring may have registered. It has one owner at any time, who gives it
/// back to the pool it came from exactly once.
public struct Buffer {
  public let base: UnsafeMutableRawPointer
  /// Bytes that fit.
  public let capacity: Int
  /// Which chunk of its pool's arena it lies in.
  public let chunk: UInt16
  /// The fixed-buffer slot of its chunk; nil where the kernel did not register it.
  public let registered: UInt16?
  /// Not counted: the account stays as long as it holds something.
  fileprivate var account: Unmanaged<BufferAccount>?

  @usableFromInline
  init(base: UnsafeMutableRawPointer, capacity: Int, chunk: UInt16, registered: UInt16?) {
    self.base = base
    self.capacity = capacity
    self.chunk = chunk
    self.registered = registered
  }
}

/// One thread's arena: address space reserved at the start, cut into chunks of 1 MiB that are populated and registered with
/// the ring when load asks for them and given back when it goes, so that an idle gateway is small. A chunk serves one size
/// class at a time.
///
/// Invariants: chunks in use + chunks free = chunks in the arena; a chunk's `used` = its slots out; every free slot of a
/// chunk in use is on its list.
public final class BufferPool {
  public static let chunkBytes = 1 << 20
  /// Slot sizes, in bytes. A transfer larger than the last moves in pieces of it.
  public static let classes = [4096, 8192, 16384, 65536, 262_144]
  public static let pieceBytes = 262_144

  struct Chunk {
    var slotBytes = 0
    var used = 0
    /// The first free slot's offset + 1, the next one's stored in the slot; 0: none.
    var firstFree = 0
    var isRegistered = false
    /// Neighbours in its class's list of chunks with free slots; -1: none.
    var next: Int32 = -1
    var previous: Int32 = -1
  }

  private let ring: Ring
  private let arena: UnsafeMutableRawPointer
  private let chunks: UnsafeMutablePointer<Chunk>
  private let chunkCount: Int
  private var freeChunks: [UInt16]
  /// Chunks in use without a slot out: kept, but another class may have them. To populate and register one costs more than
  /// many transfers, so they go only when they have not been needed for a while: see `trim`.
  public private(set) var emptyChunks = 0
  /// The fewest of them since the last `trim`.
  private var unneededChunks = 0
  /// By class: the first chunk with a free slot, or -1.
  private let open: UnsafeMutablePointer<Int32>
  /// Bytes handed out now.
  public private(set) var bytesInUse = 0
  /// Something that was on an account came back; the owner resets it.
  public var hasReturned = false
  /// Set when `take` had nothing; the owner resets it when it has retried those who wait.
  public var isShort = false
  /// Told of each chunk that is opened, with its memory, for those who must register it; false: it cannot be used.
  public var chunkOpened: ((UInt16, UnsafeMutableRawPointer) -> Bool)?
  /// Told of each chunk that is closed, before its memory goes.
  public var chunkClosed: ((UInt16) -> Void)?

  /// - Parameter bytes: the most that the arena may ever take, rounded down to chunks; at least 4 MiB.
  public init(ring: Ring, bytes: Int) {
    self.ring = ring
    chunkCount = min(max(bytes / Self.chunkBytes, 4), Int(UInt16.max))
    let length = chunkCount * Self.chunkBytes
    arena = AddressSpace.reserve(length, for: "data buffers")
    chunks = .allocate(capacity: chunkCount)
    chunks.initialize(repeating: Chunk(), count: chunkCount)
    freeChunks = (0..<UInt16(chunkCount)).reversed()
    open = .allocate(capacity: Self.classes.count)
    open.initialize(repeating: -1, count: Self.classes.count)
  }

  deinit {
    munmap(arena, chunkCount * Self.chunkBytes)
    chunks.deallocate()
    open.deallocate()
  }

  /// Bytes of chunks that are populated now.
  public var bytesPopulated: Int { (chunkCount - freeChunks.count) * Self.chunkBytes }

  /// Bytes that may still be handed out, as far as they fit into chunks of their class.
  public var bytesFree: Int { chunkCount * Self.chunkBytes - bytesInUse }

  /// The class for `bytes`, by comparison rather than look-up: five classes.
  @inline(__always)
  private func classIndex(_ bytes: Int) -> Int {
    bytes <= 4096 ? 0 : bytes <= 8192 ? 1 : bytes <= 16384 ? 2 : bytes <= 65536 ? 3 : 4
  }

  /// A buffer of at least `bytes` (at most `pieceBytes`), or nil when the arena is full.
  public func take(_ bytes: Int) -> Buffer? {
    precondition(bytes <= Self.pieceBytes)
    let index = classIndex(bytes)
    if open[index] < 0, !openChunk(index) {
      isShort = true
      return nil
    }
    let number = Int(open[index])
    let chunk = chunks + number
    let offset = chunk.pointee.firstFree - 1
    let base = arena + number * Self.chunkBytes + offset
    chunk.pointee.firstFree = base.load(as: Int.self)
    if chunk.pointee.used == 0 {
      emptyChunks -= 1
      unneededChunks = min(unneededChunks, emptyChunks)
    }
    chunk.pointee.used += 1
    if chunk.pointee.firstFree == 0 { unlink(number, index) }
    bytesInUse += chunk.pointee.slotBytes
    return Buffer(
      base: base, capacity: chunk.pointee.slotBytes, chunk: UInt16(number),
      registered: chunk.pointee.isRegistered ? UInt16(number) : nil)
  }

  /// As `take`, on an account until it is given back.
  @inline(__always)
  public func take(_ bytes: Int, for account: BufferAccount) -> Buffer? {
    guard var buffer = take(bytes) else { return nil }
    charge(&buffer, to: account)
    return buffer
  }

  /// Puts a buffer that is on nobody's account on this one.
  @inline(__always)
  public func charge(_ buffer: inout Buffer, to account: BufferAccount) {
    precondition(buffer.account == nil, "a buffer on two accounts")
    buffer.account = Unmanaged.passUnretained(account)
    account.heldBytes += buffer.capacity
  }

  /// Takes a buffer from its account, if it is on one, and puts it on this one.
  public func move(_ buffer: inout Buffer, to account: BufferAccount) {
    if let former = buffer.account {
      former._withUnsafeGuaranteedRef { $0.heldBytes -= buffer.capacity }
      hasReturned = true
    }
    buffer.account = nil
    charge(&buffer, to: account)
  }

  /// Takes `buffer` back.
  public func give(_ buffer: Buffer) {
    if let account = buffer.account {
      account._withUnsafeGuaranteedRef { $0.heldBytes -= buffer.capacity }
      hasReturned = true
    }
    let number = Int(buffer.chunk)
    let chunk = chunks + number
    let offset = buffer.base - (arena + number * Self.chunkBytes)
    precondition(chunk.pointee.used > 0 && offset >= 0 && offset < Self.chunkBytes, "not a buffer of this pool")
    #if DEBUG
      // Poison: whoever still reads it sees that it is not theirs.
      memset(buffer.base, 0xDB, buffer.capacity)
    #endif
    let index = classIndex(chunk.pointee.slotBytes)
    let wasFull = chunk.pointee.firstFree == 0
    buffer.base.storeBytes(of: chunk.pointee.firstFree, as: Int.self)
    chunk.pointee.firstFree = offset + 1
    chunk.pointee.used -= 1
    bytesInUse -= chunk.pointee.slotBytes
    if wasFull { link(number, index) }
    if chunk.pointee.used == 0 { emptyChunks += 1 }
  }

  /// Releases as many empty chunks as have been empty at every moment since the last call. Called once in a while as long as
  /// there are any.
  public func trim() {
    release(unneededChunks)
    unneededChunks = emptyChunks
  }

  /// Calls `body` with each chunk that is open, until it says false. Returns whether it never did.
  public func forEachOpenChunk(_ body: (UInt16, UnsafeMutableRawPointer) -> Bool) -> Bool {
    for number in 0..<chunkCount where chunks[number].slotBytes > 0 {
      guard body(UInt16(number), arena + number * Self.chunkBytes) else { return false }
    }
    return true
  }

  /// The most that the arena may take, in bytes.
  public var bytesMax: Int { chunkCount * Self.chunkBytes }

  /// Chunks of the arena, open or not.
  public var chunksMax: Int { chunkCount }

  /// Releases the chunks that nobody uses.
  public func shrink() { release(emptyChunks) }

  private func release(_ count: Int) {
    var left = count
    for index in Self.classes.indices {
      var number = open[index]
      while number >= 0, left > 0 {
        let next = chunks[Int(number)].next
        if chunks[Int(number)].used == 0 {
          closeChunk(Int(number), index)
          left -= 1
        }
        number = next
      }
    }
  }

  private func openChunk(_ index: Int) -> Bool {
    // What one class keeps for later is no reason to refuse another.
    if freeChunks.isEmpty, emptyChunks > 0 { shrink() }
    guard let number = freeChunks.popLast() else { return false }
    let base = arena + Int(number) * Self.chunkBytes
    if let chunkOpened, !chunkOpened(number, base) {
      freeChunks.append(number)
      return false
    }
    let slotBytes = Self.classes[index]
    var chunk = Chunk(slotBytes: slotBytes)
    // The list in address order: the first slot first.
    var offset = Self.chunkBytes - slotBytes
    while offset >= 0 {
      (base + offset).storeBytes(of: chunk.firstFree, as: Int.self)
      chunk.firstFree = offset + 1
      offset -= slotBytes
    }
    chunk.isRegistered = ring.setBuffer(base, count: Self.chunkBytes, slot: UInt32(number))
    chunks[Int(number)] = chunk
    emptyChunks += 1
    link(Int(number), index)
    return true
  }

  private func closeChunk(_ number: Int, _ index: Int) {
    unlink(number, index)
    emptyChunks -= 1
    unneededChunks = min(unneededChunks, emptyChunks)
    chunkClosed?(UInt16(number))
    if chunks[number].isRegistered { _ = ring.setBuffer(nil, count: 0, slot: UInt32(number)) }
    madvise(arena + number * Self.chunkBytes, Self.chunkBytes, MADV_DONTNEED)
    chunks[number] = Chunk()
    freeChunks.append(UInt16(number))
  }

  private func link(_ number: Int, _ index: Int) {
    chunks[number].next = open[index]
    chunks[number].previous = -1
    if open[index] >= 0 { chunks[Int(open[index])].previous = Int32(number) }
    open[index] = Int32(number)
  }

  private func unlink(_ number: Int, _ index: Int) {
    let chunk = chunks[number]
    if chunk.previous >= 0 { chunks[Int(chunk.previous)].next = chunk.next } else { open[index] = chunk.next }
    if chunk.next >= 0 { chunks[Int(chunk.next)].previous = chunk.previous }
    chunks[number].next = -1
    chunks[number].previous = -1
  }
}
