import Datamover
import Reactor
import SCSI
import Storage

/// A SCSI command in progress: an entry of its shard's table, linked into its connection's list.
struct Command {
  /// What the command does with data; decides who moves it on.
  enum Plan: UInt8 {
    /// Not decided: parameters are being collected, or it is parked.
    case none
    /// Medium to initiator, in pieces.
    case streamIn
    /// Initiator to medium (or to a comparison with it), in pieces.
    case streamOut
    /// All data first, into one buffer, then the medium or the device server.
    case collect
    /// No data from or to the initiator but what is made here.
    case simple
  }

  var generation: UInt32 = 0
  /// -1: the connection is gone, or the entry is free.
  var connection: Int32 = -1
  var previous: Int32 = -1
  var next: Int32 = -1

  var initiatorTaskTag: UInt32 = 0
  var lun: UInt64 = 0
  var cdb = CDB(high: 0, low: 0)
  var isImmediate = false
  var isRead = false
  var isWrite = false
  /// Expected Data Transfer Length.
  var expected: UInt32 = 0
  /// The datamover's: where the initiator has the data.
  var advertised = AdvertisedBuffers()

  /// Index of the unit's port in the shard; -1: none. With it, log2 of the bytes of a block.
  var port: Int32 = -1
  var blockShift: UInt8 = 0
  /// The objects behind `connection` and `port`, nil where these are -1. Not counted, as atomic operations are most of what a
  /// short command costs: the shard's tables keep both for as long as a command names them.
  var owner: Unmanaged<Connection>?
  var unitPort: Unmanaged<UnitPort>?
  var plan = Plan.none
  var operation = MediumOperation(.flush, lba: 0, blocks: 0)
  /// Bytes the operation asks of the initiator or has for it, and what of these the initiator's expectation lets through.
  var transferBytes: UInt64 = 0
  var limit: UInt64 = 0
  /// Bytes for which pieces were made; bytes done with.
  var issued: UInt64 = 0
  var completed: UInt64 = 0
  /// Its pieces, in order.
  var firstPiece: Int32 = -1
  var lastPiece: Int32 = -1
  var pieceCount: Int32 = 0
  /// Pieces that the disk has in hand.
  var diskCount: Int32 = 0

  /// Unsolicited data may still come (until F), and how much came, immediate data included.
  var expectsUnsolicited = false
  var unsolicited: UInt32 = 0
  /// Bytes of immediate data.
  var immediateBytes: UInt32 = 0
  var unsolicitedDataSN: UInt32 = 0
  var dataSN: UInt32 = 0
  var r2tSN: UInt32 = 0
  var outstandingR2T: UInt16 = 0

  var isAborted = false
  /// Aborted while the disk had something of it: counted with its port.
  var isQuarantined = false
  /// It waits for its range to be its own.
  var awaitsRange = false
  /// It waits for an answer of the file system.
  var awaitsFile = false
  /// Its hold on the range is in force on every shard, and since when.
  var isExclusive = false
  var exclusiveSince: UInt64 = 0
  var hasFailed = false
  var failure = Sense(.noSense, 0)
  /// The place of the command window is held.
  var holdsWindow = false
  /// Hold on a byte range of the unit; 0: none.
  var hold: UInt64 = 0
  /// Progress of a `simple` or `collect` operation, in blocks.
  var cursor: UInt64 = 0
  /// When it came; monotonic nanoseconds.
  var startedAt: UInt64 = 0
  /// When it came, a disk took something of it or gave something back, or data came for it.
  var progressedAt: UInt64 = 0

  var latencyDirection: LatencyDirection { plan == .streamIn ? .read : plan == .streamOut ? .write : .other }
}

/// A part of a command's data with a buffer of its own: what a disk request and a Data-In run or R2T sequence share.
struct Piece {
  enum StablePromise: UInt8 {
    case none
    /// Of what this request writes.
    case written
    /// Of all that was written before.
    case flushed
  }

  enum State: UInt8 {
    case free
    /// Waiting for the arena.
    case waiting
    /// Data from the initiator is coming in.
    case collecting
    /// The disk has it.
    case disk
    /// Read, waiting for those before it.
    case ready
    /// In the datamover's hands.
    case sending
  }

  var generation: UInt32 = 0
  var state = State.free
  var command: Int32 = -1
  var next: Int32 = -1
  var buffer: Buffer?
  /// For comparisons: what the disk has.
  var second: Buffer?
  /// Which request of several the disk has in hand.
  var step: UInt8 = 0
  /// Whether the request that the disk has in hand promises stable storage, and of what.
  var promise = StablePromise.none
  /// Whether it changes the medium, or makes a change last.
  var isWrite = false
  /// Its disk request waits for a range to be free.
  var isParked = false
  /// Data is coming into its buffer: the receiver, the kernel or the NIC writes there.
  var isReceiving = false
  /// Place in the transfer, bytes for the initiator, bytes for the disk.
  var offset: UInt64 = 0
  var length: UInt32 = 0
  var diskLength: UInt32 = 0
  /// Bytes that came from the initiator.
  var received: UInt32 = 0
  /// Where the R2T in force ends, within the piece; what the next Data-Out must carry.
  var solicitedEnd: UInt32 = 0
  var expectedDataSN: UInt32 = 0

  /// The Target Transfer Tag that names this piece: index and generation, never FFFFFFFFh.
  @inline(__always)
  func transferTag(index: Int) -> UInt32 { UInt32(index) | (generation & 0x7FFF) << 16 }
}

/// What operation a completion is of, in a `Token`.
enum OperationCode {
  static let accept: UInt8 = 1
  static let inbox: UInt8 = 2
  static let receive: UInt8 = 3
  static let receiveDirect: UInt8 = 4
  static let send: UInt8 = 5
  static let disk: UInt8 = 6
  static let cancel: UInt8 = 7
  static let verbs: UInt8 = 8
  static let verbsEvent: UInt8 = 9
  static let receiveLarge: UInt8 = 10
}

/// A logical unit as one shard reaches it. It outlives its removal until the last command has let go.
final class UnitPort: Lender {
  let export: Export
  let queue: DiskQueue
  /// Fixed-file slot to give back.
  let slot: UInt32?
  let blockShift: UInt64
  /// Commands that use it.
  var commands = 0
  /// Of these the aborted ones that the disk does not give back.
  var quarantined = 0
  static let quarantinedMax = 64
  /// Pieces that wait until its commands hold less of the arena (ArenaShare).
  var waiters: [(piece: Int, generation: UInt32)] = []
  var isRemoved = false
  /// When the log was last told of requests beyond the deadline, and how many there were since.
  var warnedAt: UInt64 = 0
  var missedDeadlines = 0
  var readCommands: UInt64 = 0
  var writeCommands: UInt64 = 0
  var otherCommands: UInt64 = 0
  var readBytes: UInt64 = 0
  var writtenBytes: UInt64 = 0
  var failedCommands: UInt64 = 0
  /// How long commands took, by transport; nil: there were none.
  private(set) var latencies: (tcp: LatencyCounter?, rdma: LatencyCounter?) = (nil, nil)

  init(export: Export, queue: DiskQueue, slot: UInt32?) {
    self.export = export
    self.queue = queue
    self.slot = slot
    blockShift = UInt64(export.unit.traits.blockBytes.trailingZeroBitCount)
  }

  deinit {
    latencies.tcp?.deallocate()
    latencies.rdma?.deallocate()
  }

  @inline(__always)
  func latency(overRDMA: Bool) -> LatencyCounter {
    (overRDMA ? latencies.rdma : latencies.tcp) ?? makeLatency(overRDMA: overRDMA)
  }

  /// For the first command over a transport.
  @inline(never)
  private func makeLatency(overRDMA: Bool) -> LatencyCounter {
    let counter = LatencyCounter.allocateAll()
    if overRDMA { latencies.rdma = counter } else { latencies.tcp = counter }
    return counter
  }
}
