import Glibc
import ISCSI
import Reactor
import Wire

/// The datamover of iSER (RFC 7145): Put_Data becomes RDMA WRITE, Get_Data RDMA READ, everything else a SEND with the iSER
/// header in front. Sans-I/O: completions in, work requests out through a `QueuePair`. It owns the memory that its queue pair
/// works with: receive buffers, staging for what it sends, and the buffers that it was given to send.
///
/// Invariants:
///   sendsFree + work requests posted and not completed = limits.sendsMax
///   readsUnderWay <= readsMax <= limits.readsMax
///   flights are in the order of their posting, which is that of their completion: a completion ends the unsignalled ones
///   before it, which nobody waits for
///   each receive slot is posted, in the owner's hands (between `accept` and `recycle`), or waits to be posted
///   a buffer is given back exactly once: at its completion, or by `discard`
public final class ISERMover: Mover {
  static let headerBytes = ISERMessage.headerBytes
  /// Bytes of a receive's data, and of a login's either way (RFC 7143 §13.12).
  public static let dataBytes = 8192
  /// Receives beyond the command window, for immediate commands, task management and pings.
  public static let immediateReceives = 16
  private static let headerStride = 128
  /// What is sent after login: headers and at most 128 bytes of data, as initiators have receives for.
  static let stageBytes = 256
  /// What waits at most before requests are no longer taken in.
  private static let queuedMax = 4096

  struct ReceiveSlot {
    var data: Buffer?
    var isPosted = false
  }

  /// Answers that nobody waits for are not signalled each: a completion costs a wake-up. At most so many, of so many bytes
  /// of data, wait for the next signalled one.
  static let unsignalledMax = 16
  static let unsignalledBytesMax = 128 << 10

  /// Work under way: one or two work requests, the last of which may be signalled.
  struct Flight {
    var buffer: Buffer?
    var notice: UInt32 = 0
    /// Target Transfer Tag of a Get_Data.
    var transferTag: UInt32 = 0
    var stage: Int32 = -1
    var workCount: UInt8 = 0
    var isSignalled = false
    var isRead = false
    /// The login's own staging is in use.
    var usesLoginStage = false
  }

  /// Something to send, in order.
  struct Outgoing {
    enum Kind {
      case send, write, writeAndSend
      /// Bytes as they are.
      case raw
      /// Nothing: its completion tells that of all before it.
      case mark
    }

    var kind: Kind
    /// Somebody waits for its completion.
    var wantsCompletion = false
    var header = BasicHeaderSegment()
    var data: [UInt8] = []
    var payload: UInt64 = 0
    var count: UInt32 = 0
    var buffer: Buffer?
    var notice: UInt32 = 0
    var remoteAddress: UInt64 = 0
    var remoteKey: UInt32 = 0
    var invalidates = false
    var invalidatedKey: UInt32 = 0
  }

  /// Data to fetch.
  struct Fetch {
    var destination: UInt64
    var count: UInt32
    var localKey: UInt32
    var remoteAddress: UInt64
    var remoteKey: UInt32
    var transferTag: UInt32
  }

  let queuePair: any QueuePair
  let keys: MemoryKeys
  let limits: QueuePairLimits
  private let sendID: WorkID
  private let receiveID: WorkID

  // Receives.
  private let headers: Buffer
  private(set) var slots: [ReceiveSlot] = []
  private(set) var unposted: [Int] = []
  /// What `postReceives` posts, kept for its memory.
  private var receives: [ReceiveWork] = []
  private var dataSegmentLengthMax = ISERMover.dataBytes
  /// The window that the receives were made for.
  private let windowMax: UInt32
  private var isFullFeature = false
  /// A message of the full-feature phase has come: there is no more Hello.
  private var hasHeard = false

  // Sends.
  let loginStage: Buffer
  var isLoginStageFree = true
  var stage: Buffer?
  var freeStages: [Int32] = []
  var outgoing: [Outgoing] = []
  var outgoingHead = 0
  var fetches: [Fetch] = []
  var fetchHead = 0
  /// A circle: the oldest at `flightHead`.
  var flights: [Flight] = []
  var flightHead = 0
  var flightCount = 0
  var signalledCount = 0
  var unsignalledCount = 0
  var unsignalledBytes = 0
  var sendsFree: Int
  let pool: BufferPool
  /// RDMA READs under way at most: the queue pair's limit, or what a Hello lowered it to.
  var readsMax: Int
  var readsUnderWay = 0
  var chain: [SendWork] = []

  private var notices: [UInt32] = []
  private var unfinished: [UInt32] = []
  private var isTerminated = false
  private var postFailure: Int32 = 0

  /// - Parameters:
  ///   - connection, generation: whose completions they are, in `WorkID`.
  ///   - window: the most commands in flight that a session may get.
  /// - Returns: nil when the pool has no memory for a login.
  public init?(
    queuePair: any QueuePair, keys: MemoryKeys, connection: Int, generation: UInt32, window: UInt32, pool: BufferPool
  ) {
    let limits = queuePair.limits
    windowMax = UInt32(min(Int(window), limits.receivesMax - Self.immediateReceives - 1, 1024))
    let headerBytes = (Int(windowMax) + Self.immediateReceives + 1) * Self.headerStride
    guard let headers = pool.take(headerBytes) else { return nil }
    guard let loginStage = pool.take(Self.dataBytes + Self.headerBytes) else {
      pool.give(headers)
      return nil
    }
    guard let data = pool.take(Self.dataBytes) else {
      pool.give(headers)
      pool.give(loginStage)
      return nil
    }
    self.queuePair = queuePair
    self.keys = keys
    self.limits = limits
    self.pool = pool
    self.headers = headers
    self.loginStage = loginStage
    sendID = WorkID(isReceive: false, connection: connection, generation: generation, slot: 0)
    receiveID = WorkID(isReceive: true, connection: connection, generation: generation, slot: 0)
    sendsFree = limits.sendsMax
    readsMax = limits.readsMax
    // No entry of the send queue without one of these.
    flights = Array(repeating: Flight(), count: limits.sendsMax)
    slots = [ReceiveSlot(data: data)]
    unposted = [0]
    super.init(capabilities: .iser, name: "iser")
  }

  /// The fewest receives that a queue pair must have room for.
  public static let receivesMin = immediateReceives + 2

  public override var commandsMax: UInt32 { windowMax }

  /// A READ goes where the R2T's data would: as many as there are pieces may be under way for one command, and the initiator
  /// cannot tell (RFC 7145 §7.3.6).
  public override var requestsForDataMax: Int? { 8 }

  // MARK: Receives

  /// Posts the receives that wait for it. Returns false when that failed: the connection is at its end.
  @discardableResult
  public func postReceives() -> Bool {
    guard !unposted.isEmpty, !isTerminated, mayQueue else { return postFailure == 0 }
    for slot in unposted {
      slots[slot].isPosted = true
      let header = headers.base + slot * Self.headerStride
      let data = slots[slot].data!
      receives.append(
        ReceiveWork(
          id: receiveID.with(slot: slot), headerAddress: UInt64(UInt(bitPattern: header)),
          headerBytes: UInt32(Self.headerBytes), headerKey: keys[headers.chunk],
          dataAddress: UInt64(UInt(bitPattern: data.base)), dataBytes: UInt32(Self.dataBytes),
          dataKey: keys[data.chunk]))
    }
    unposted.removeAll(keepingCapacity: true)
    let code = receives.withUnsafeBufferPointer { queuePair.post($0) }
    receives.removeAll(keepingCapacity: true)
    if code != 0, postFailure == 0 { postFailure = code }
    return code == 0
  }

  /// What a completed receive holds.
  public enum Message: Equatable {
    /// A PDU; its data segment of `header.dataSegmentLength` bytes is at `data`.
    case pdu(BasicHeaderSegment, AdvertisedBuffers)
    /// A Hello; the answer is queued.
    case hello
    /// A Hello without a version of ours; the answer that says so is queued, and the connection ends after it.
    case refusedHello
  }

  /// A receive has completed. The slot is the caller's until `recycle`.
  public func accept(slot: Int, byteCount: Int) throws(ISERFault) -> Message {
    guard slot < slots.count, slots[slot].isPosted, byteCount <= Self.headerBytes + Self.dataBytes else {
      throw .strayCompletion
    }
    slots[slot].isPosted = false
    let message = try ISERMessage(
      at: headers.base + slot * Self.headerStride, byteCount: byteCount, dataSegmentLengthMax: dataSegmentLengthMax)
    switch message {
    case .hello(let hello):
      return try answer(hello)
    case .control(let header, let advertised):
      if isFullFeature { hasHeard = true }
      return .pdu(header, advertised)
    }
  }

  /// RFC 7145 §5.1.3: answered with the READs that we keep to, or rejected.
  private func answer(_ hello: ISERHello) throws(ISERFault) -> Message {
    guard isFullFeature, !hasHeard else { throw .lateHello }
    hasHeard = true
    if hello.isOurs {
      guard hello.readsMax > 0 else { throw .noReads }
      readsMax = min(readsMax, Int(hello.readsMax))
    }
    var reply = Outgoing(kind: .raw)
    reply.data = hello.reply(readsMax: UInt16(clamping: readsMax))
    reply.wantsCompletion = true
    outgoing.append(reply)
    return hello.isOurs ? .hello : .refusedHello
  }

  /// The data segment of the PDU in a slot, after any additional headers.
  public func data(ofSlot slot: Int, _ header: BasicHeaderSegment) -> UnsafeMutableRawPointer {
    slots[slot].data!.base + header.additionalHeaderBytes
  }

  /// Takes the buffer with a slot's data, which begins at its start, for a buffer of the pool; nil when the pool has none.
  public func takeData(ofSlot slot: Int, pool: BufferPool) -> Buffer? {
    guard let fresh = pool.take(Self.dataBytes) else { return nil }
    let data = slots[slot].data
    slots[slot].data = fresh
    return data
  }

  /// The caller is done with a slot: it is posted again with the next `flush`.
  public func recycle(slot: Int) {
    guard !isTerminated else { return }
    unposted.append(slot)
  }

  /// Receives for the whole window, before the final Login Response goes out. They hold their memory as long as the session
  /// lasts: so they leave a quarter of the arena to data on its way.
  public override func enable(_ parameters: NegotiatedParameters, window: UInt32, pool: BufferPool) -> Bool {
    let wanted = Int(min(window, windowMax)) + Self.immediateReceives + 1
    let stageCount = min(wanted, limits.sendsMax, BufferPool.pieceBytes / Self.stageBytes)
    let bytes = stageCount * Self.stageBytes + (wanted - slots.count) * Self.dataBytes
    guard pool.bytesInUse + bytes <= pool.bytesMax / 4 * 3, let stage = pool.take(stageCount * Self.stageBytes) else {
      return false
    }
    self.stage = stage
    freeStages = (0..<Int32(stageCount)).reversed()
    while slots.count < wanted {
      guard let data = pool.take(Self.dataBytes) else { return false }
      unposted.append(slots.count)
      slots.append(ReceiveSlot(data: data))
    }
    dataSegmentLengthMax = min(Self.dataBytes, parameters.targetMaxRecvDataSegmentLength)
    isFullFeature = true
    return postReceives()
  }

  // MARK: Requests

  public override func sendControl(_ header: BasicHeaderSegment, data: [UInt8] = []) {
    var item = Outgoing(kind: .send, wantsCompletion: true, header: header, data: data)
    item.header.dataSegmentLength = data.count
    outgoing.append(item)
  }

  /// The answers that were not signalled complete only with a later one.
  public override func finishSending() {
    let isTold = outgoingHead < outgoing.count ? outgoing[outgoing.count - 1].wantsCompletion : unsignalledCount == 0
    if !isTold { outgoing.append(Outgoing(kind: .mark, wantsCompletion: true)) }
  }

  public override func sendResponse(_ header: BasicHeaderSegment, data: [UInt8] = [], advertised: AdvertisedBuffers) {
    var item = Outgoing(kind: .send, header: header, data: data)
    item.header.dataSegmentLength = data.count
    setInvalidation(&item, advertised)
    outgoing.append(item)
  }

  /// One key, the command's own, and that of the read where there are two (RFC 7145 §7.3.2).
  private func setInvalidation(_ item: inout Outgoing, _ advertised: AdvertisedBuffers) {
    guard limits.mayInvalidate, advertised.hasRead || advertised.hasWrite else { return }
    item.invalidates = true
    item.invalidatedKey = advertised.hasRead ? advertised.readSTag : advertised.writeSTag
  }

  /// RDMA WRITE; with status, the SCSI Response chained to it, since a SEND arrives after the WRITEs before it.
  public override func putData(
    _ header: BasicHeaderSegment, payload: UnsafeRawPointer, count: Int, offset: UInt32, dataSN: UInt32, isLast: Bool,
    buffer: Buffer?, notice: UInt32, advertised: AdvertisedBuffers
  ) -> UInt32 {
    precondition(advertised.hasRead && buffer != nil, "data for a command without a buffer")
    var item = Outgoing(kind: .write, header: header)
    item.payload = UInt64(UInt(bitPattern: payload))
    item.count = UInt32(count)
    item.buffer = buffer
    item.notice = notice
    item.wantsCompletion = notice != 0
    item.remoteAddress = advertised.readVA + UInt64(offset)
    item.remoteKey = advertised.readSTag
    // S: the status goes with it (RFC 7143 §11.7.3), here as a SCSI Response, whose residual bits are the same.
    if header.flags & 0x01 != 0 {
      item.kind = .writeAndSend
      item.header = BasicHeaderSegment(
        .scsiResponse, flags: 0x80 | header.flags & 0x06, initiatorTaskTag: header.initiatorTaskTag)
      item.header.word0 |= UInt32(header.byte3)
      item.header.statSN = header.statSN
      item.header.word9 = dataSN &+ 1
      item.header.word11 = header.word11
      setInvalidation(&item, advertised)
    }
    outgoing.append(item)
    return dataSN &+ 1
  }

  /// RDMA READ. The advertised address is that of the first byte that did not come with the command.
  public override func getData(
    _ readyToTransfer: BasicHeaderSegment, into destination: UnsafeMutableRawPointer, buffer: Buffer,
    advertised: AdvertisedBuffers, unsolicitedBytes: UInt32
  ) -> Bool {
    precondition(advertised.hasWrite && readyToTransfer.bufferOffset >= unsolicitedBytes, "no buffer to read from")
    fetches.append(
      Fetch(
        destination: UInt64(UInt(bitPattern: destination)), count: readyToTransfer.word11,
        localKey: keys[buffer.chunk],
        remoteAddress: advertised.writeVA + UInt64(readyToTransfer.bufferOffset - unsolicitedBytes),
        remoteKey: advertised.writeSTag, transferTag: readyToTransfer.targetTransferTag))
    return true
  }

  // MARK: Completions

  /// What has come of work that was posted.
  public enum Outcome: Equatable {
    /// It is sent; 0: nobody wants to hear.
    case sent(notice: UInt32)
    /// Data_Completion_Notify: the data of the Get_Data with this Target Transfer Tag is there.
    case arrived(transferTag: UInt32)
  }

  /// Work that was posted has completed, and with it the unsignalled work before it.
  public func completed(slot: Int, pool: BufferPool) throws(ISERFault) -> Outcome {
    let distance = slot >= flightHead ? slot - flightHead : slot + flights.count - flightHead
    guard slot < flights.count, distance < flightCount, flights[slot].isSignalled else { throw .strayCompletion }
    for _ in 0..<distance {
      // Completions come in the order of the posting: nothing that somebody waits for can lie before it.
      guard !flights[flightHead].isSignalled else { throw .strayCompletion }
      endFlight(pool)
    }
    let flight = endFlight(pool)
    return flight.isRead ? .arrived(transferTag: flight.transferTag) : .sent(notice: flight.notice)
  }

  /// Ends the oldest flight and returns it.
  @discardableResult
  private func endFlight(_ pool: BufferPool) -> Flight {
    let flight = flights[flightHead]
    flights[flightHead] = Flight()
    flightHead = flightHead + 1 == flights.count ? 0 : flightHead + 1
    flightCount -= 1
    sendsFree += Int(flight.workCount)
    if flight.stage >= 0 { freeStages.append(flight.stage) }
    if flight.usesLoginStage { isLoginStageFree = true }
    if flight.isRead { readsUnderWay -= 1 }
    if flight.isSignalled { signalledCount -= 1 }
    if let buffer = flight.buffer { pool.give(buffer) }
    return flight
  }

  public override func takeNotices() -> [UInt32] {
    guard !notices.isEmpty else { return [] }
    defer { notices = [] }
    return notices
  }

  public override func takeUnfinished() -> [UInt32] {
    defer { unfinished = [] }
    return unfinished
  }

  // MARK: Out

  public override func flush(ring: Ring, batches: SendBatches, expCmdSN: UInt32, maxCmdSN: UInt32) {
    flush(expCmdSN: expCmdSN, maxCmdSN: maxCmdSN)
  }

  /// Posts receives, then everything that the send queue has room for, in one chain.
  public func flush(expCmdSN: UInt32, maxCmdSN: UInt32) {
    guard !isTerminated, postFailure == 0 else { return }
    // The receive that an answer makes room for must be there before the answer.
    postReceives()
    appendOutgoing(id: sendID, expCmdSN: expCmdSN, maxCmdSN: maxCmdSN)
    appendFetches(id: sendID)
    // What was held back while too much waited.
    postReceives()
    guard !chain.isEmpty else { return }
    let code = chain.withUnsafeBufferPointer { queuePair.post($0) }
    chain.removeAll(keepingCapacity: true)
    if code != 0, postFailure == 0 { postFailure = code }
  }

  // MARK: The end

  public override func terminate() {
    guard !isTerminated else { return }
    isTerminated = true
    queuePair.terminate()
  }

  public override func discard(pool: BufferPool) {
    precondition(isTerminated)
    while flightCount > 0 {
      let flight = endFlight(pool)
      if flight.notice != 0 { notices.append(flight.notice) }
      if flight.isRead { unfinished.append(flight.transferTag) }
    }
    for item in outgoing[outgoingHead...] {
      if let buffer = item.buffer { pool.give(buffer) }
      if item.notice != 0 { notices.append(item.notice) }
    }
    for fetch in fetches[fetchHead...] { unfinished.append(fetch.transferTag) }
    outgoing = []
    outgoingHead = 0
    fetches = []
    fetchHead = 0
  }

  public override func release(pool: BufferPool) {
    precondition(isTerminated)
    for slot in slots.indices {
      if let data = slots[slot].data { pool.give(data) }
      slots[slot].data = nil
    }
    slots = []
    unposted = []
    pool.give(headers)
    pool.give(loginStage)
    if let stage { pool.give(stage) }
    stage = nil
  }

  // MARK: State

  public override var failure: Int32 { postFailure }
  public override var mayQueue: Bool { outgoing.count - outgoingHead < Self.queuedMax }
  public override var isInFlight: Bool { signalledCount > 0 }
  public override var hasWaiting: Bool { outgoingHead < outgoing.count || fetchHead < fetches.count }
  public override var isQuiet: Bool { isTerminated }
}
