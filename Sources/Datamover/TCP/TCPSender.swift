import Glibc
import ISCSI
import Reactor
import Wire

/// One message on its way: the headers, the vectors that point at them and at payloads, and what is freed afterwards. Kept
/// by the thread and lent to a connection only while it sends, so that an idle connection holds none.
public final class SendBatch {
  static let vectorsMax = 512
  static let scratchBytes = 24 << 10
  /// A message is closed when it carries this much.
  var payloadBytesMax = SendBatches.payloadBytesMaxAlone

  let vectors: UnsafeMutablePointer<iovec>
  let scratch: UnsafeMutableRawPointer
  let message: UnsafeMutablePointer<msghdr>
  var vectorCount = 0
  var scratchUsed = 0
  var payloadBytes = 0
  var totalBytes = 0
  /// Given back when the message is sent.
  var buffers: [Buffer] = []
  /// Copies of control payloads, freed when the message is sent.
  var owned: [UnsafeMutableRawPointer] = []
  /// Owners that want to hear of it.
  var notices: [UInt32] = []
  /// Whose memory it sends from, and how many Put_Datas of each.
  var loans: [(lender: Unmanaged<Lender>, count: Int)] = []

  init() {
    vectors = .allocate(capacity: Self.vectorsMax)
    scratch = .allocate(byteCount: Self.scratchBytes, alignment: 8)
    message = .allocate(capacity: 1)
    message.initialize(to: msghdr())
    buffers.reserveCapacity(128)
  }

  deinit {
    vectors.deallocate()
    scratch.deallocate()
    message.deallocate()
  }

  func reset() {
    vectorCount = 0
    scratchUsed = 0
    payloadBytes = 0
    totalBytes = 0
    buffers.removeAll(keepingCapacity: true)
    notices.removeAll(keepingCapacity: true)
    loans.removeAll(keepingCapacity: true)
  }

  func addLoan(_ lender: Unmanaged<Lender>) {
    if let last = loans.indices.last, loans[last].lender.toOpaque() == lender.toOpaque() {
      loans[last].count += 1
    } else {
      loans.append((lender, 1))
    }
  }

  func giveBackLoans() {
    for loan in loans { loan.lender._withUnsafeGuaranteedRef { $0.lent -= loan.count } }
  }

  func freeOwned() {
    for memory in owned { memory.deallocate() }
    owned.removeAll(keepingCapacity: true)
  }

  /// Room for a header with digest, a payload, padding and digest.
  var hasRoom: Bool {
    vectorCount + 3 <= Self.vectorsMax && scratchUsed + 64 <= Self.scratchBytes && payloadBytes < payloadBytesMax
  }

  func add(_ base: UnsafeRawPointer, _ count: Int) {
    guard count > 0 else { return }
    totalBytes += count
    if vectorCount > 0 {
      let last = vectors + (vectorCount - 1)
      if last.pointee.iov_base + last.pointee.iov_len == UnsafeMutableRawPointer(mutating: base) {
        last.pointee.iov_len += count
        return
      }
    }
    vectors[vectorCount] = iovec(iov_base: UnsafeMutableRawPointer(mutating: base), iov_len: count)
    vectorCount += 1
  }

  /// Adds a PDU: header with StatSN and window already in it, then payload, padding, digests.
  /// - Parameter digest: that of the payload without its padding, if it is known already.
  func add(
    _ header: BasicHeaderSegment, payload: UnsafeRawPointer?, count: Int, headerDigest: Bool, dataDigest: Bool,
    digest: UInt32? = nil
  ) {
    let start = scratch + scratchUsed
    header.store(at: start)
    var headerBytes = 48
    if headerDigest {
      start.storeBytes(of: CRC32C.of(start, count: 48).littleEndian, toByteOffset: 48, as: UInt32.self)
      headerBytes += 4
    }
    scratchUsed += headerBytes
    add(start, headerBytes)
    guard let payload, count > 0 else { return }
    add(payload, count)
    payloadBytes += count
    let padding = -count & 3
    let trailerBytes = padding + (dataDigest ? 4 : 0)
    guard trailerBytes > 0 else { return }
    let trailer = scratch + scratchUsed
    memset(trailer, 0, padding)
    if dataDigest {
      let crc = CRC32C.of(trailer, count: padding, continuing: digest ?? CRC32C.of(payload, count: count))
      trailer.storeBytes(of: crc.littleEndian, toByteOffset: padding, as: UInt32.self)
    }
    scratchUsed += trailerBytes
    add(trailer, trailerBytes)
  }
}

/// The batches of a thread.
public final class SendBatches {
  /// What a message carries of payload at most: so that one connection does not hold the loop while others wait.
  static let payloadBytesMaxAlone = 1 << 20
  static let payloadBytesMaxShared = 256 << 10

  private var free: [SendBatch] = []
  /// Whether the thread serves several connections.
  public var isShared = false

  public init() {}

  func take() -> SendBatch {
    let batch = free.popLast() ?? SendBatch()
    batch.payloadBytesMax = isShared ? Self.payloadBytesMaxShared : Self.payloadBytesMaxAlone
    return batch
  }

  func give(_ batch: SendBatch) {
    batch.reset()
    if free.count < 64 { free.append(batch) }
  }
}

/// What a connection has to send: control PDUs and runs of data in the order given, cut into PDUs and put into one message a
/// turn of the loop, one message in flight at a time.
public struct TCPSender: ~Copyable {
  struct Item {
    var header: BasicHeaderSegment
    var payload: UnsafeRawPointer?
    var count: Int
    var buffer: Buffer?
    /// Told when the item is sent; 0: nobody.
    var notice: UInt32
    /// Bytes of the payload already cut, for runs of data, and the most of one PDU: as it was when the run was numbered.
    var cut: Int = 0
    var segmentBytes: Int = 0
    /// Of the whole payload, where it was computed as that was copied and is for one PDU.
    var digest: UInt32?
    /// A run of Data-In rather than one PDU.
    var isRun: Bool
    var statusFlags: UInt32 = 0
    /// Control payloads are copied to memory of their own.
    var ownsPayload = false
    /// Not counted: it stays as long as something of it is lent.
    var lender: Unmanaged<Lender>?
  }

  private var items: [Item] = []
  private var head = 0
  private var notices: [UInt32] = []
  /// Bytes of control payloads that wait.
  private var ownedBytes = 0
  /// The message in flight.
  private var batch: SendBatch?
  private let fd: Int32
  private let token: Token
  public var headerDigest = false
  public var dataDigest = false
  /// The initiator's MaxRecvDataSegmentLength, and MaxBurstLength: a run of data is cut at both.
  public var segmentBytesMax = 8192
  public var burstBytesMax = 262_144

  public init(fd: Int32, token: Token) {
    self.fd = fd
    self.token = token
  }

  /// What waits at most before nothing more is received: requests whose answers are not taken would pile up without bound.
  private static let itemsMax = 4096
  private static let ownedBytesMax = 1 << 20

  /// Whether more requests may be received.
  public var mayQueue: Bool { items.count - head < Self.itemsMax && ownedBytes < Self.ownedBytesMax }
  public var isInFlight: Bool { batch != nil }
  public var hasWaiting: Bool { head < items.count }
  public var isIdle: Bool { batch == nil && head >= items.count }

  /// Queues one PDU. `header` needs StatSN and DataSegmentLength is set from `data`.
  public mutating func enqueue(_ header: BasicHeaderSegment, data: [UInt8] = []) {
    var item = Item(header: header, payload: nil, count: data.count, buffer: nil, notice: 0, isRun: false)
    item.header.dataSegmentLength = data.count
    if !data.isEmpty {
      let copy = UnsafeMutableRawPointer.allocate(byteCount: data.count, alignment: 8)
      data.withUnsafeBytes { copy.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
      item.payload = UnsafeRawPointer(copy)
      item.ownsPayload = true
      ownedBytes += data.count
    }
    items.append(item)
  }

  /// Queues Data-In for `count` bytes at `payload` that lie at `offset` of the command's transfer.
  /// - Parameters:
  ///   - header: `.dataIn`, with status added if this is the last run of a command that ends well.
  ///   - dataSN: of the first PDU of the run.
  ///   - isLast: the run ends the transfer: its last PDU has F.
  ///   - buffer: given back to the pool once sent.
  /// - Returns: the DataSN after the run.
  public mutating func enqueueRun(
    _ header: BasicHeaderSegment, payload: UnsafeRawPointer, count: Int, offset: UInt32, dataSN: UInt32, isLast: Bool,
    buffer: Buffer?, notice: UInt32
  ) -> UInt32 {
    var item = Item(header: header, payload: payload, count: count, buffer: buffer, notice: notice, isRun: true)
    // Byte 1 and the status go only on the last PDU.
    item.statusFlags = header.word0 & 0x00FF_00FF | (isLast ? 0x0080_0000 : 0)
    item.header.word0 &= 0xFF00_FF00
    item.header.bufferOffset = offset
    item.header.dataSN = dataSN
    item.segmentBytes = segmentBytesMax & ~3
    let segmentBytes = item.segmentBytes
    items.append(item)
    if count <= segmentBytes, Int(offset) % burst + count <= burst { return dataSN &+ 1 }
    var pdus: UInt32 = 0
    var done = 0
    while done < count {
      done += cutLength(at: Int(offset) + done, left: count - done, segmentBytes)
      pdus += 1
    }
    return dataSN &+ pdus
  }

  /// Queues Data-In with status for a whole transfer, sent from the lender's memory.
  public mutating func enqueueLent(
    _ header: BasicHeaderSegment, payload: UnsafeRawPointer, count: Int, lender: Lender
  ) {
    _ = enqueueRun(
      header, payload: payload, count: count, offset: 0, dataSN: 0, isLast: true, buffer: nil, notice: 0)
    items[items.count - 1].lender = Unmanaged.passUnretained(lender)
    lender.lent += 1
  }

  /// Queues Data-In with status for a whole transfer that is copied into `buffer`: in one pass with its digest, where one
  /// PDU takes it.
  public mutating func enqueueCopied(
    _ header: BasicHeaderSegment, payload: UnsafeRawPointer, count: Int, buffer: Buffer
  ) {
    var digest: UInt32?
    if dataDigest, count <= min(segmentBytesMax & ~3, burst) {
      digest = CRC32C.copy(payload, to: buffer.base, count: count)
    } else {
      buffer.base.copyMemory(from: payload, byteCount: count)
    }
    _ = enqueueRun(
      header, payload: UnsafeRawPointer(buffer.base), count: count, offset: 0, dataSN: 0, isLast: true, buffer: buffer,
      notice: 0)
    items[items.count - 1].digest = digest
  }

  /// Whether something lent by this one is not sent yet.
  public func borrows(from lender: Lender) -> Bool {
    let lender = Unmanaged.passUnretained(lender).toOpaque()
    return items[head...].contains { $0.lender?.toOpaque() == lender }
      || batch?.loans.contains { $0.lender.toOpaque() == lender } ?? false
  }

  private var burst: Int { burstBytesMax & ~3 }

  /// Length of the PDU at a transfer offset: no more than the initiator takes, not over the end of a burst.
  private func cutLength(at offset: Int, left: Int, _ segmentBytes: Int) -> Int {
    min(left, segmentBytes, burst - offset % burst)
  }

  /// Puts what is queued into a message and submits it, unless one is in flight.
  public mutating func flush(ring: Ring, batches: SendBatches, expCmdSN: UInt32, maxCmdSN: UInt32) {
    guard batch == nil, head < items.count else { return }
    let batch = batches.take()
    while head < items.count, batch.hasRoom {
      items[head].header.expCmdSN = expCmdSN
      items[head].header.maxCmdSN = maxCmdSN
      if items[head].isRun {
        guard addRun(to: batch) else { break }
      } else {
        let item = items[head]
        batch.add(
          item.header, payload: item.payload, count: item.count, headerDigest: headerDigest, dataDigest: dataDigest)
      }
      finishItem(batch)
    }
    if head == items.count {
      items.removeAll(keepingCapacity: true)
      head = 0
    } else if head > 256 {
      items.removeFirst(head)
      head = 0
    }
    batch.message.pointee.msg_iov = batch.vectors
    batch.message.pointee.msg_iovlen = batch.vectorCount
    self.batch = batch
    ring.send(fd, message: batch.message, token: token)
  }

  /// Cuts as much of the run at the head as fits; true when it is all in.
  private mutating func addRun(to batch: SendBatch) -> Bool {
    var header = items[head].header
    let count = items[head].count
    let start = header.bufferOffset
    while items[head].cut < count {
      guard batch.hasRoom else { return false }
      let cut = items[head].cut
      let length = cutLength(at: Int(start) + cut, left: count - cut, items[head].segmentBytes)
      header.bufferOffset = start + UInt32(cut)
      header.dataSegmentLength = length
      header.dataSN = items[head].header.dataSN
      if cut + length == count { header.word0 |= items[head].statusFlags }
      // F ends each sequence, also where a run of the transfer ends with it (RFC 7143 §11.7.1, §13.13).
      if (Int(start) + cut + length) % burst == 0 { header.word0 |= 0x0080_0000 }
      // StatSN is there only with status (RFC 7143 §11.7.4).
      let hasStatus = header.word0 & 0x0001_0000 != 0
      var sent = header
      if !hasStatus { sent.statSN = 0 }
      if !hasStatus { sent.word11 = 0 }
      batch.add(
        sent, payload: items[head].payload! + cut, count: length, headerDigest: headerDigest, dataDigest: dataDigest,
        digest: items[head].digest)
      header.word0 &= 0xFF00_FF00
      items[head].header.dataSN &+= 1
      items[head].cut += length
    }
    return true
  }

  private mutating func finishItem(_ batch: SendBatch) {
    let item = items[head]
    head += 1
    if let buffer = item.buffer { batch.buffers.append(buffer) }
    if item.notice != 0 { batch.notices.append(item.notice) }
    if let lender = item.lender { batch.addLoan(lender) }
    if item.ownsPayload {
      batch.owned.append(UnsafeMutableRawPointer(mutating: item.payload!))
      ownedBytes -= item.count
    }
  }

  /// The message in flight is done: gives its buffers back and adds its notices to `notices`.
  /// - Returns: whether all of it was sent.
  public mutating func complete(result: Int32, pool: BufferPool, batches: SendBatches) -> Bool {
    guard let batch else { return false }
    self.batch = nil
    let isWhole = Int(result) == batch.totalBytes
    for buffer in batch.buffers { pool.give(buffer) }
    batch.freeOwned()
    batch.giveBackLoans()
    if !batch.notices.isEmpty { notices += batch.notices }
    batches.give(batch)
    return isWhole
  }

  /// The notices of all that is done with since the last call.
  public mutating func takeNotices() -> [UInt32] {
    guard !notices.isEmpty else { return [] }
    let taken = notices
    notices = []
    return taken
  }

  /// Drops what waits, giving its buffers back and noting its notices: the connection ends. Not while a message is in
  /// flight.
  public mutating func discard(pool: BufferPool) {
    precondition(batch == nil)
    for item in items[head...] {
      if let buffer = item.buffer { pool.give(buffer) }
      if item.notice != 0 { notices.append(item.notice) }
      if let lender = item.lender { lender._withUnsafeGuaranteedRef { $0.lent -= 1 } }
      if item.ownsPayload { UnsafeMutableRawPointer(mutating: item.payload!).deallocate() }
    }
    items.removeAll()
    head = 0
  }
}
