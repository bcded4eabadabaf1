import Datamover
import Discovery
import Glibc
import ISCSI
import Reactor
import Synchronization

@testable import Gateway

/// An initiator over RDMA where there is no device: its queue pair is a script, whose completions it delivers on the thread
/// of the shard that it is attached to. Every wait has a bound of ten seconds.
final class RDMAInitiator: @unchecked Sendable {
  // Used by one test thread, and by the shard's while that waits for it.
  struct Failure: Error {
    var what: String
  }

  private final class Box<Value: Sendable>: Sendable {
    let value = Mutex<Value?>(nil)
    let flag = ReadyFlag()
  }

  let shard: ShardHandle
  let queuePair: ScriptedQueuePair
  private let ledger = ConnectionLedger()
  private(set) var name: (index: Int, generation: UInt32) = (-1, 0)
  private(set) var cmdSN: UInt32 = 1
  private var tag: UInt32 = 100
  private var nextKey: UInt32 = 0x900
  /// RDMA READs do not complete, nor what was posted after them.
  var holdsReads = false
  /// Nothing that was sent completes.
  var holdsAll = false
  /// The memory of each command, by its tag.
  private(set) var memory: [UInt32: ScriptedQueuePair.Region] = [:]
  /// Messages of the login, whose data may be long.
  private(set) var loginMessages = 0

  static let limits = QueuePairLimits(
    sendsMax: 320, receivesMax: 160, inlineBytesMax: 0, readsMax: 4, mayInvalidate: true)

  /// Attached to a shard, not logged in.
  init(_ shard: ShardHandle, limits: QueuePairLimits = RDMAInitiator.limits) throws {
    self.shard = shard
    queuePair = ScriptedQueuePair(limits)
    guard let address = NetworkAddress([127, 0, 0, 1]),
      let ticket = ledger.admit(address, limit: 1, isFull: false)?.ticket
    else { throw Failure(what: "no ticket") }
    let name = try onShard { [queuePair] shard -> [UInt64]? in
      let keys = MemoryKeys(chunks: shard.pool.chunksMax)
      for chunk in 0..<shard.pool.chunksMax { keys[UInt16(chunk)] = 0x4000 + UInt32(chunk) }
      let pool = shard.pool
      queuePair.isRegistered = { address, count, key in
        !pool.forEachOpenChunk { chunk, base in
          let start = UInt64(UInt(bitPattern: base))
          let isInside = address >= start && address + UInt64(count) <= start + UInt64(BufferPool.chunkBytes)
          return !(isInside && key == 0x4000 + UInt32(chunk))
        }
      }
      shard.handle.load.add(1, ordering: .relaxed)
      guard
        let connection = shard.attach(
          queuePair: queuePair, keys: keys, peer: "127.0.0.1:9", local: "127.0.0.1:3260", ticket: ticket)
      else { return nil }
      connection.iser!.postReceives()
      return [UInt64(connection.index), UInt64(connection.generation)]
    }
    guard let name else { throw Failure(what: "no memory for a connection") }
    self.name = (Int(name[0]), UInt32(name[1]))
  }

  // MARK: The shard's thread

  @discardableResult
  func onShard<Value: Sendable>(_ body: @escaping @Sendable (Shard) -> Value) throws -> Value {
    let box = Box<Value>()
    shard.post(
      .perform { shard in
        let value = body(shard)
        box.value.withLock { $0 = value }
        box.flag.set()
      })
    guard box.flag.wait(milliseconds: 10_000), let value = box.value.withLock({ $0 }) else {
      throw Failure(what: "the shard does not answer")
    }
    return value
  }

  /// Lets complete what may, and gives the completions to the shard.
  func pump() throws {
    try onShard { [self] shard in
      while !holdsAll, let head = queuePair.posted.first, !(holdsReads && head.operation == .read) {
        guard let completion = queuePair.completeSend() else { break }
        shard.completed(completion)
      }
    }
  }

  func wait(_ what: String, milliseconds: Int = 10_000, until isDone: () throws -> Bool) throws {
    for _ in 0..<milliseconds * 2 {
      try pump()
      if try isDone() { return }
      usleep(500)
    }
    throw Failure(what: "in vain for \(what)")
  }

  /// What waits in the send queue, and whether the connection has ended.
  func posted() throws -> [SendWork.Operation] { try onShard { [queuePair] _ in queuePair.posted.map(\.operation) } }
  func isEnded() throws -> Bool { try onShard { [queuePair] _ in queuePair.isTerminated } }
  func bytesInUse() throws -> Int { try onShard { $0.pool.bytesInUse } }

  /// Everything comes back in error, as when the cable is gone.
  func cut() throws {
    try onShard { [queuePair] shard in
      for completion in queuePair.flushAll() { shard.completed(completion) }
    }
  }

  // MARK: Messages

  func send(_ message: [UInt8]) throws {
    let isTaken = try onShard { [queuePair] shard in
      guard let completion = queuePair.deliver(message) else { return false }
      shard.completed(completion)
      return true
    }
    guard isTaken else { throw Failure(what: "no receive is posted") }
  }

  func takeTag() -> UInt32 {
    tag += 1
    return tag
  }

  /// The answer to a tag.
  func answer(_ tag: UInt32, milliseconds: Int = 10_000) throws -> ScriptedQueuePair.Message {
    var found: ScriptedQueuePair.Message?
    try wait("an answer to \(tag)", milliseconds: milliseconds) {
      found = try onShard { [queuePair] _ in
        queuePair.messages.last { $0.bytes.count >= 76 && $0.header.initiatorTaskTag == tag }
      }
      return found != nil
    }
    return found!
  }

  func loginRequest(_ target: String, _ name: String, _ more: [String] = []) -> [UInt8] {
    var header = BasicHeaderSegment(Opcode(rawValue: 0x43), flags: 0x87, initiatorTaskTag: takeTag())
    header.word2 = 0x8000_0000
    header.word6 = cmdSN
    let keys =
      [
        "InitiatorName=\(name)", "TargetName=\(target)", "SessionType=Normal", "RDMAExtensions=Yes", "InitialR2T=No",
        "ImmediateData=Yes", "MaxBurstLength=16776192", "FirstBurstLength=262144",
        "InitiatorRecvDataSegmentLength=262144", "TargetRecvDataSegmentLength=8192",
      ] + more
    return controlMessage(header, data: Array(keys.joined(separator: "\0").utf8) + [0])
  }

  /// Logs in with one request; the answer.
  @discardableResult
  func login(_ target: String, _ name: String) throws -> ScriptedQueuePair.Message {
    try send(loginRequest(target, name))
    let answer = try answer(tag)
    loginMessages = try onShard { [queuePair] _ in queuePair.messages.count }
    return answer
  }

  /// A request with a CmdSN of its own unless it is immediate.
  func request(_ opcode: UInt8, flags: UInt8 = 0x80, isImmediate: Bool = false) -> BasicHeaderSegment {
    var header = BasicHeaderSegment(
      Opcode(rawValue: opcode | (isImmediate ? 0x40 : 0)), flags: flags, initiatorTaskTag: takeTag())
    header.word5 = BasicHeaderSegment.reservedTag
    header.word6 = cmdSN
    if !isImmediate { cmdSN &+= 1 }
    return header
  }

  /// Sends a SCSI Command; the first `immediate` bytes to write come with it, the rest is to be fetched. Its tag.
  func post(
    _ cdb: [UInt8], lun: UInt8 = 0, write: [UInt8] = [], immediate: Int = 0, read expected: Int = 0,
    isFinal: Bool = true
  ) throws -> UInt32 {
    var header = request(0x01, flags: (isFinal ? 0x80 : 0) | (write.isEmpty ? 0 : 0x20) | (expected > 0 ? 0x40 : 0))
    header.lun = UInt64(lun) << 48
    header.word5 = UInt32(max(write.count, expected))
    let words = (cdb + [UInt8](repeating: 0, count: 16 - cdb.count)).withUnsafeBytes { bytes in
      (0..<4).map { UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: $0 * 4, as: UInt32.self)) }
    }
    (header.word8, header.word9, header.word10, header.word11) = (words[0], words[1], words[2], words[3])
    nextKey += 1
    let place = (key: nextKey, address: UInt64(nextKey) << 24)
    let hasPlace = expected > 0 || write.count > immediate
    if hasPlace {
      let region = ScriptedQueuePair.Region(
        base: place.address,
        bytes: expected > 0 ? [UInt8](repeating: 0xEE, count: expected) : Array(write[immediate...]),
        mayRead: expected == 0, mayWrite: expected > 0)
      memory[header.initiatorTaskTag] = region
      queuePair.regions[place.key] = region
    }
    try send(
      controlMessage(
        header, data: Array(write.prefix(immediate)), read: expected > 0 ? place : nil,
        write: expected == 0 && hasPlace ? place : nil))
    return header.initiatorTaskTag
  }

  func ready() throws {
    for _ in 0..<8 {
      let answer = try answer(try post([0, 0, 0, 0, 0, 0]))
      if answer.header.byte3 == 0 { return }
    }
    throw Failure(what: "never ready")
  }

  static func cdb(_ operation: UInt8, _ block: UInt32, _ count: Int) -> [UInt8] {
    let place = withUnsafeBytes(of: block.bigEndian) { Array($0) }
    return [operation, 0] + place + [0, UInt8((count / 512) >> 8), UInt8((count / 512) & 0xFF), 0]
  }

  func postWrite(_ bytes: [UInt8], block: UInt32, immediate: Int = 0) throws -> UInt32 {
    try post(Self.cdb(0x2A, block, bytes.count), write: bytes, immediate: immediate)
  }

  /// WRITE (10); its status.
  func write(_ bytes: [UInt8], block: UInt32, immediate: Int = 0) throws -> UInt8 {
    try answer(try postWrite(bytes, block: block, immediate: immediate)).header.byte3
  }

  /// READ (10); its status and what came.
  func read(_ count: Int, block: UInt32) throws -> (status: UInt8, data: [UInt8]) {
    let tag = try post(Self.cdb(0x28, block, count), read: count)
    let status = try answer(tag).header.byte3
    return (status, memory[tag]!.bytes)
  }

  /// A task management request about a command (or none) of LUN 0; its tag.
  func manage(_ function: UInt8, about referenced: UInt32 = BasicHeaderSegment.reservedTag) throws -> UInt32 {
    var header = request(0x02, flags: 0x80 | function, isImmediate: true)
    header.word5 = referenced
    try send(controlMessage(header))
    return header.initiatorTaskTag
  }
}
