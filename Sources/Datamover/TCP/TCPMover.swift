import CSystem
import Glibc
import ISCSI
import Reactor

/// The datamover of TCP: Put_Data becomes Data-In PDUs, Get_Data an R2T whose Data-Out PDUs the owner places. It owns the
/// socket; the owner's ring receives from it.
public final class TCPMover: Mover {
  public let fd: Int32
  private var receiver: TCPReceiver
  private var sender: TCPSender
  /// The ring has a receive for it.
  public var isReceiving = false
  /// Its last receive took all that there was.
  public var isDrained = false
  /// How many of the next receives get a large buffer.
  public var largeReceives = 0
  /// Its last receive found no buffer.
  public var isStarved = false

  /// - Parameter token: of the completions of its sends.
  public init(fd: Int32, token: Token) {
    self.fd = fd
    receiver = TCPReceiver(dataSegmentLengthMax: LoginMachine.segmentByteCountMax)
    sender = TCPSender(fd: fd, token: token)
    super.init(capabilities: .tcp, name: "tcp")
  }

  // MARK: In

  /// The PDU at hand.
  public var header: BasicHeaderSegment { receiver.header }
  public func next(_ input: inout UnsafeRawBufferPointer) -> TCPReceiver.Event { receiver.next(&input) }
  public func segment(in input: UnsafeRawBufferPointer) -> UnsafeRawPointer? { receiver.segment(in: input) }
  public func place(at base: UnsafeMutableRawPointer?) { receiver.place(at: base) }
  public func directPlace(minimum: Int) -> UnsafeMutableRawBufferPointer? { receiver.directPlace(minimum: minimum) }
  public func didReceive(count: Int) { receiver.didReceive(count: count) }

  // MARK: Out

  public override func sendControl(_ header: BasicHeaderSegment, data: [UInt8] = []) {
    sender.enqueue(header, data: data)
  }

  public override func putData(
    _ header: BasicHeaderSegment, payload: UnsafeRawPointer, count: Int, offset: UInt32, dataSN: UInt32, isLast: Bool,
    buffer: Buffer?, notice: UInt32, advertised: AdvertisedBuffers
  ) -> UInt32 {
    sender.enqueueRun(
      header, payload: payload, count: count, offset: offset, dataSN: dataSN, isLast: isLast, buffer: buffer,
      notice: notice)
  }

  /// A digest would be that of what the memory held before.
  public override var borrowing: Borrowing { sender.dataDigest ? .byCopy : .inPlace }

  public override func lendData(_ header: BasicHeaderSegment, payload: UnsafeRawPointer, count: Int, lender: Lender) {
    sender.enqueueLent(header, payload: payload, count: count, lender: lender)
  }

  public override func copyData(
    _ header: BasicHeaderSegment, payload: UnsafeRawPointer, count: Int, into buffer: Buffer
  ) {
    sender.enqueueCopied(header, payload: payload, count: count, buffer: buffer)
  }

  public override func borrows(from lender: Lender) -> Bool { sender.borrows(from: lender) }

  public override func getData(
    _ readyToTransfer: BasicHeaderSegment, into destination: UnsafeMutableRawPointer, buffer: Buffer,
    advertised: AdvertisedBuffers, unsolicitedBytes: UInt32
  ) -> Bool {
    sender.enqueue(readyToTransfer)
    return false
  }

  public override func enable(_ parameters: NegotiatedParameters, window: UInt32, pool: BufferPool) -> Bool {
    receiver.dataSegmentLengthMax = parameters.targetMaxRecvDataSegmentLength
    receiver.headerDigest = parameters.headerDigest
    receiver.dataDigest = parameters.dataDigest
    sender.segmentBytesMax = parameters.maxRecvDataSegmentLength
    sender.burstBytesMax = parameters.maxBurstLength
    return true
  }

  /// Digests begin with the first PDU of the full feature phase in either direction (RFC 7143 §6.1).
  public override func beginFullFeature(_ parameters: NegotiatedParameters) {
    sender.headerDigest = parameters.headerDigest
    sender.dataDigest = parameters.dataDigest
  }

  public override func setMaxRecvDataSegmentLength(_ bytes: Int) { sender.segmentBytesMax = bytes }

  public override func flush(ring: Ring, batches: SendBatches, expCmdSN: UInt32, maxCmdSN: UInt32) {
    sender.flush(ring: ring, batches: batches, expCmdSN: expCmdSN, maxCmdSN: maxCmdSN)
  }

  /// The message in flight is done. Returns whether all of it was sent.
  public func complete(result: Int32, pool: BufferPool, batches: SendBatches) -> Bool {
    sender.complete(result: result, pool: pool, batches: batches)
  }

  // MARK: The end

  /// The socket is shut down, so that what the ring still has for it completes at once.
  public override func terminate() { shutdown(fd, Int32(SHUT_RDWR)) }
  public override func discard(pool: BufferPool) { sender.discard(pool: pool) }
  public override func release(pool: BufferPool) { close(fd) }

  public override var mayQueue: Bool { sender.mayQueue }
  public override var isInFlight: Bool { sender.isInFlight }
  public override var hasWaiting: Bool { sender.hasWaiting }
  public override var bytesTaken: (count: UInt64, hasMore: Bool)? {
    var hasMore: Int32 = 0
    return (system_bytes_acknowledged(fd, &hasMore), hasMore != 0)
  }
  public override var isQuiet: Bool { !isReceiving && !sender.isInFlight }
  public override func takeNotices() -> [UInt32] { sender.takeNotices() }
}
