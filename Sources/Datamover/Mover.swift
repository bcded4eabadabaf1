import ISCSI
import Reactor

/// Somebody whose memory a Put_Data sends from. It must outlive what is lent.
open class Lender: BufferAccount {
  /// Put_Datas that are not sent yet.
  public final var lent = 0
}

/// The datamover under one iSCSI connection: the waist of RFC 5047 (Datamover Architecture), with its primitives. What the
/// owner asks for is queued and goes out with `flush`, once a turn of its loop; what has come of it is told by `takeNotices`
/// or by what the transport's own completions return. The owner knows no transport by name: a difference is a capability.
public class Mover {
  public let capabilities: TransportCapabilities
  /// "tcp" or "iser": for reports.
  public let name: String

  init(capabilities: TransportCapabilities, name: String) {
    self.capabilities = capabilities
    self.name = name
  }

  // MARK: Requests

  /// Send_Control: one PDU. StatSN is in the header; DataSegmentLength is set from `data`.
  public func sendControl(_ header: BasicHeaderSegment, data: [UInt8] = []) { preconditionFailure("abstract") }

  /// Send_Control of a SCSI Response: with it the command's buffers are the initiator's again.
  public func sendResponse(_ header: BasicHeaderSegment, data: [UInt8] = [], advertised: AdvertisedBuffers) {
    sendControl(header, data: data)
  }

  /// Put_Data: `count` bytes at `payload` that lie at `offset` of the command's transfer.
  /// - Parameters:
  ///   - header: `.dataIn`, with status added if this is the last of a command that ends well.
  ///   - dataSN: of the first PDU of the run.
  ///   - isLast: it ends the transfer.
  ///   - buffer: given back to the pool once sent.
  ///   - notice: told by `takeNotices` once sent; 0: nobody wants to hear.
  /// - Returns: the DataSN after the run.
  public func putData(
    _ header: BasicHeaderSegment, payload: UnsafeRawPointer, count: Int, offset: UInt32, dataSN: UInt32, isLast: Bool,
    buffer: Buffer?, notice: UInt32, advertised: AdvertisedBuffers
  ) -> UInt32 { preconditionFailure("abstract") }

  /// How a whole transfer may be sent out of memory that is not the pool's.
  public enum Borrowing {
    case never
    /// By `lendData`.
    case inPlace
    /// By `copyData`.
    case byCopy
  }

  public var borrowing: Borrowing { .never }

  /// Put_Data of a whole transfer from memory that is not the pool's, and may change while it is sent. The lender's count
  /// goes up, and down again once it is sent.
  public func lendData(_ header: BasicHeaderSegment, payload: UnsafeRawPointer, count: Int, lender: Lender) {
    preconditionFailure("abstract")
  }

  /// Put_Data of a whole transfer that is copied into `buffer` first, which is given back to the pool once sent.
  public func copyData(_ header: BasicHeaderSegment, payload: UnsafeRawPointer, count: Int, into buffer: Buffer) {
    preconditionFailure("abstract")
  }

  /// Whether something lent by this one is not sent yet.
  public func borrows(from lender: Lender) -> Bool { false }

  /// Get_Data: what an R2T asks for.
  /// - Parameters:
  ///   - readyToTransfer: the R2T with its Target Transfer Tag, offset and length.
  ///   - destination: where the data goes, in `buffer`.
  ///   - unsolicitedBytes: of the command: what came with it.
  /// - Returns: whether the datamover itself fills the destination and tells when it has; else Data-Out PDUs come.
  public func getData(
    _ readyToTransfer: BasicHeaderSegment, into destination: UnsafeMutableRawPointer, buffer: Buffer,
    advertised: AdvertisedBuffers, unsolicitedBytes: UInt32
  ) -> Bool { preconditionFailure("abstract") }

  /// Allocate_Connection_Resources and Notice_Key_Values: what was negotiated, before the final Login Response is queued.
  /// - Parameter window: the most commands in flight.
  /// - Returns: false when there is no memory for them: the login must be refused.
  public func enable(_ parameters: NegotiatedParameters, window: UInt32, pool: BufferPool) -> Bool { true }

  /// The initiator has been heard in the full-feature phase.
  public func beginFullFeature(_ parameters: NegotiatedParameters) {}

  /// The most bytes of one data segment to the initiator changed (RFC 7143 §13.12, by a Text Request).
  public func setMaxRecvDataSegmentLength(_ bytes: Int) {}

  /// Nothing more will be queued before the end: `isIdle` must tell when all has arrived.
  public func finishSending() {}

  /// Puts what is queued on its way.
  public func flush(ring: Ring, batches: SendBatches, expCmdSN: UInt32, maxCmdSN: UInt32) {
    preconditionFailure("abstract")
  }

  /// Connection_Terminate: nothing more goes out or comes in. What is in flight ends soon: see `isQuiet`.
  public func terminate() { preconditionFailure("abstract") }

  /// After `terminate`, when quiet: drops what waits, giving its buffers back and noting its notices.
  public func discard(pool: BufferPool) { preconditionFailure("abstract") }

  /// Deallocate_Connection_Resources: the last call.
  public func release(pool: BufferPool) { preconditionFailure("abstract") }

  // MARK: State

  /// A negative errno of what could not be put on its way: the connection is at its end; 0: none.
  public var failure: Int32 { 0 }

  /// The most commands that a session over it may have in flight.
  public var commandsMax: UInt32 { .max }
  /// Requests for data that one command may have outstanding; nil: what MaxOutstandingR2T says.
  public var requestsForDataMax: Int? { nil }

  /// Whether more requests may be taken in: those whose answers are not taken would pile up without bound.
  public var mayQueue: Bool { true }
  /// Something was sent and is not known to have arrived.
  public var isInFlight: Bool { false }
  public var hasWaiting: Bool { false }
  /// Bytes that the peer has taken since the beginning, and whether it has not taken all that was sent; nil where no message in
  /// flight is a long one.
  public var bytesTaken: (count: UInt64, hasMore: Bool)? { nil }
  /// Nothing waits and nothing is in flight.
  public var isIdle: Bool { !isInFlight && !hasWaiting }
  /// Nobody reads or writes our memory for it any more.
  public var isQuiet: Bool { true }
  /// The notices of all that is done with since the last call, other than by a completion that returned its own.
  public func takeNotices() -> [UInt32] { [] }
  /// The Target Transfer Tags of the requests for data that ended with the connection, unfinished.
  public func takeUnfinished() -> [UInt32] { [] }
}
