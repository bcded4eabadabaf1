import Datamover
import ISCSI
import Reactor
import SCSI

/// One iSCSI connection: it lives and dies on one shard. What the initiator may have in flight at a time is bounded
/// by the command window, what it may say before it is known by the login machine and a deadline.
final class Connection {
  enum Phase {
    case login
    /// The session is being settled with other shards; nothing is received meanwhile.
    case settling
    case fullFeature
    /// The datamover is told to end; waiting for what it still has.
    case closing
  }

  /// Where the data segment at hand goes.
  enum Placement {
    case none
    /// Immediate data of a SCSI Command.
    case immediate(Buffer)
    /// The same, where it was received: there for as long as its command is being looked at.
    case received(UnsafeRawPointer)
    /// A piece that waits for data.
    case piece(index: Int, generation: UInt32)
    /// Login, text, ping.
    case control
    case dropped
  }

  let index: Int
  let generation: UInt32
  let mover: Mover
  /// The same, if the ring has to receive for it, or a device.
  let tcp: TCPMover?
  let iser: ISERMover?
  let isOverRDMA: Bool
  var endpoint: VerbsEndpoint?
  /// The port of the target that it came to.
  let port: TargetPort
  /// The peer's address with port, and ours.
  let peer: String
  let local: String
  /// Its place in the count of its address.
  let ticket: ConnectionTicket
  let acceptedAt: UInt64
  /// The target as this connection is told of it.
  var target: TargetConfiguration
  var phase = Phase.login
  var placement = Placement.none
  /// Where the initiator has the data of the command at hand.
  var advertised = AdvertisedBuffers()
  /// Login and text requests, pings: their data segment.
  var control: UnsafeMutableRawBufferPointer?
  var isDirty = false
  /// Close once everything queued is sent.
  var closesAfterSend = false
  var closeReason = ""
  var endCause = EndCause.logout
  var trace = ConnectionTrace()

  var login: LoginMachine?
  var result: LoginResult?
  var text: TextExchange?
  var window = CommandWindow(initialCmdSN: 0, depth: 1)
  var statSN: UInt32 = 0
  var tsih: UInt16 = 0
  var nexus: Nexus? { didSet { nexusReference = nexus.map(Unmanaged.passUnretained) } }
  /// The units this initiator may see.
  var units: LogicalUnitMap { didSet { unitsReference = Unmanaged.passUnretained(units) } }
  /// They are others than those that it was told of.
  var hasOtherUnits = false
  /// The same two, for the warm path: uncounted.
  private(set) var nexusReference: Unmanaged<Nexus>?
  private(set) var unitsReference: Unmanaged<LogicalUnitMap>
  var parameters = NegotiatedParameters()
  /// The initiator has said something in full feature phase: only then is anything unsolicited sent to it, and only then do
  /// digests begin.
  var hasHeard = false

  /// What it has of the arena for parameter lists and for answers of the device server, which are on no unit's account.
  let account = BufferAccount()
  /// Its commands, linked.
  var firstCommand: Int32 = -1
  var commandCount = 0
  var lastHeardAt: UInt64
  /// Since when something sent is in flight that has not arrived, or when some of it last did.
  var sendingSince: UInt64 = 0
  /// When the message in flight was begun.
  var messageSince: UInt64 = 0
  /// Bytes that the peer had taken when that was last looked at.
  var bytesTaken: UInt64 = 0
  /// When the ping in flight was sent; 0: none.
  var pingedAt: UInt64 = 0
  /// And how many bytes the peer had taken then.
  var takenAtPing: UInt64 = 0
  var pingTag: UInt32 = 0
  /// Called when it is closed for good.
  var onClosed: [() -> Void] = []

  var readCommands: UInt64 = 0
  var writeCommands: UInt64 = 0
  var otherCommands: UInt64 = 0
  var readBytes: UInt64 = 0
  var writtenBytes: UInt64 = 0
  var failedCommands: UInt64 = 0

  init(
    index: Int, generation: UInt32, mover: Mover, port: TargetPort, peer: String, local: String,
    ticket: ConnectionTicket,
    target: TargetConfiguration, units: LogicalUnitMap, now: UInt64
  ) {
    self.index = index
    self.generation = generation
    self.mover = mover
    tcp = mover as? TCPMover
    iser = mover as? ISERMover
    isOverRDMA = mover is ISERMover
    self.port = port
    self.peer = peer
    self.local = local
    self.ticket = ticket
    self.target = target
    self.units = units
    unitsReference = Unmanaged.passUnretained(units)
    acceptedAt = now
    lastHeardAt = now
  }

  deinit { control?.deallocate() }

  var isOpen: Bool {
    switch phase {
    case .login, .settling, .fullFeature: true
    case .closing: false
    }
  }

  /// For the log: who this is.
  var name: String { result.map { "\($0.initiatorName) at \(peer)" } ?? peer }
}
