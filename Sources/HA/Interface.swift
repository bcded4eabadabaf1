import Wire

/// Nanoseconds of a clock that never goes back and runs on while the machine sleeps (CLOCK_BOOTTIME). Only differences mean
/// anything, and only on one node.
public typealias Instant = UInt64

/// A shared disk, by its label's UUID: the same on both nodes.
public typealias DiskID = UUID

/// Who this node is. The cluster and the key come from the labels.
public struct NodeIdentity: Equatable, Sendable {
  public var node: UUID
  /// New at each start of the program.
  public var bootID: UInt64
  /// Public name, at most 64 bytes.
  public var name: String

  public init(node: UUID, bootID: UInt64, name: String) {
    self.node = node
    self.bootID = bootID
    self.name = name
  }
}

/// What a node is, as its peer and its operator see it.
public enum Role: UInt8, Sendable, CaseIterable {
  /// After the start: looks whether the peer is active.
  case observing = 0
  case passive = 1
  /// The active is silent, not yet for long enough.
  case suspecting = 2
  /// Takes the disks.
  case fencing = 3
  /// Has the disks; the target reads what is written there.
  case recovering = 4
  case active = 5
  /// Hands over: takes no new commands, finishes what is under way.
  case draining = 6
  /// Has lost the disks: ends all connections without an answer, then is passive.
  case fenced = 7
}

/// A disk that the pair may share.
public struct SharedDisk: Equatable, Sendable {
  /// What keeps the other node from writing.
  public enum Fence: Sendable {
    /// The drive: persistent reservations.
    case reservations
    /// The other node itself, by a lease on the disk, and its watchdog.
    case lease
  }

  public var id: DiskID
  /// World-wide identifier: arbiters are the lowest of these.
  public var wwid: String
  /// Of the disk's label.
  public var cluster: UUID
  public var nodes: [UUID]
  public var fence: Fence

  public init(id: DiskID, wwid: String, cluster: UUID, nodes: [UUID], fence: Fence = .reservations) {
    self.id = id
    self.fence = fence
    self.wwid = wwid
    self.cluster = cluster
    self.nodes = nodes
  }
}

/// Who was given the disk last: a record of the label area, written with the node's key registered.
public struct OwnerRecord: Equatable, Sendable {
  public var epoch: Epoch
  public var node: UUID
  public var bootID: UInt64
  /// The disks whose majority decides a takeover; one or three.
  public var arbiters: [DiskID]

  public init(epoch: Epoch, node: UUID, bootID: UInt64, arbiters: [DiskID]) {
    self.epoch = epoch
    self.node = node
    self.bootID = bootID
    self.arbiters = arbiters
  }
}

/// What the active writes to the arbiters at every beat: the passive sees by it that a node without links is alive.
public struct DiskBeat: Equatable, Sendable {
  public var epoch: Epoch
  public var node: UUID
  public var bootID: UInt64
  public var sequence: UInt64
  /// The active cannot be reached by anybody (no portal has a link): whoever can be may take over at once.
  public var offersHandover: Bool

  public init(epoch: Epoch, node: UUID, bootID: UInt64, sequence: UInt64, offersHandover: Bool) {
    self.epoch = epoch
    self.node = node
    self.bootID = bootID
    self.sequence = sequence
    self.offersHandover = offersHandover
  }
}

/// What a look at a disk found.
public struct Survey: Equatable, Sendable {
  /// All registered keys, foreign ones too, one entry for each registration.
  public var keys: [UInt64]
  /// The key that holds the reservation; nil: no reservation. Of whatever type.
  public var holder: UInt64?
  /// The reservation is Write Exclusive - Registrants Only.
  public var isOurType: Bool
  public var owner: OwnerRecord?
  public var beat: DiskBeat?
  /// Nodes of the label as it is now, at most two.
  public var nodes: [UUID]
  /// By place, both of them; only of a disk that cannot fence.
  public var leases: [LeaseRecord?]

  public init(
    keys: [UInt64], holder: UInt64?, isOurType: Bool, owner: OwnerRecord?, beat: DiskBeat?, nodes: [UUID],
    leases: [LeaseRecord?] = []
  ) {
    self.keys = keys
    self.holder = holder
    self.isOurType = isOurType
    self.owner = owner
    self.beat = beat
    self.nodes = nodes
    self.leases = leases
  }
}

/// Something to be done at one disk. Each is answered, and the engine gives a disk no order before it has answered the one
/// before. Orders to a disk are done one after another, in order: one is not begun before the last has come back from the
/// disk, by whatever end, also when `timedOut` was answered to that; a register that came late would undo the next. One whose
/// answer is given before it was begun is not done at all.
public enum DiskOrder: Equatable, Sendable {
  /// Keys, reservation, owner record, beat and label.
  case survey
  /// REGISTER AND IGNORE EXISTING KEY on every path. Only when everything that this node wrote before has come back from
  /// the disk, by whatever end: with the key a late write would land, in an epoch that it does not belong to.
  case register(ReservationKey)
  /// RESERVE, Write Exclusive - Registrants Only. Done also where another path of this node holds it with this key.
  case reserve(ReservationKey)
  /// PREEMPT AND ABORT; the same type.
  case preempt(own: ReservationKey, victim: UInt64)
  /// Takes the own key back: by whoever lost a race, never by whoever served.
  case unregister(ReservationKey)
  case writeOwner(OwnerRecord)
  case writeBeat(DiskBeat)
  /// Enters a node into the label's free slot.
  case enroll(node: UUID, name: String)
  /// Takes a node out of the label.
  case expel(node: UUID)

  // Only at a disk that cannot fence:

  /// Done if nothing that this node wrote is under way to the disk, of the data path and of this node's earlier lives too;
  /// else `failed(EBUSY)`, at once.
  case settle
  /// Writes the lease to a place. A record of another phase than the one before is on stable storage when it is done.
  case writeLease(LeaseRecord, place: Int, isDurable: Bool)
  /// Makes the disk drop what it still has of the other node. Best effort: most that cannot fence cannot be told to.
  case resetUnit
}

public enum DiskAnswer: Equatable, Sendable {
  case done
  case surveyed(Survey)
  /// RESERVATION CONFLICT.
  case conflict
  /// Registrations may be gone: a unit attention 29/xx or 2A/03..05 came instead of an answer, and the order was not done.
  case disturbed
  /// Not done, for another reason; a positive errno. `timedOut`: whether it is still going to be done is not known.
  case failed(Int32)
  case timedOut
  /// A look found no label there, or one of another disk or cluster: somebody has made something else of it.
  case relabelled
}

/// What happens to the engine.
public enum Event: Equatable, Sendable {
  /// The shared disks in sight, whenever that changes.
  case disks([SharedDisk])
  /// A message that came over a link, authenticated.
  case received(Heartbeat, link: LinkID)
  /// The links that can be used now.
  case links([LinkID])
  /// The answer to an order.
  case answer(DiskID, order: UInt64, DiskAnswer)
  /// A command or record of the data path met a reservation conflict: others have the disk.
  case conflict(DiskID)
  /// The data path got a unit attention that says that registrations may be gone.
  case disturbed(DiskID)
  /// What the target says of itself, at each of its beats (the age of the oldest command in nanoseconds).
  case health(oldestIO: UInt64, reachable: Bool)
  /// Everything of the disks has been read again for the epoch; the target may serve.
  case recovered(Epoch)
  /// Answer to `.drain`.
  case drained(Bool)
  case operate(OperatorCommand)
  /// Whether the watchdog is armed, with no more than `PairTimers.watchdog`.
  case watchdog(isArmed: Bool)
  /// The program is being ended in good order: the peer may have the disks at once.
  case shutdown
  /// The time that was asked for with `Engine.deadline` has come.
  case tick
}

/// A network interface and address family over which beats go.
public struct LinkID: Hashable, Sendable, CustomStringConvertible {
  public var name: String
  public init(_ name: String) { self.name = name }
  public var description: String { name }
}

public enum OperatorCommand: Equatable, Sendable {
  case switchover
  /// No automatic takeover until `resume`.
  case hold
  case resume
  /// Takes a node out of the labels that is gone for good.
  case forget(node: UUID)
  /// Takes over, or goes on when there is no sign that it may, with disks that answer: from then on these decide, for the others
  /// are gone for good. Nothing fences the peer from disks that this node does not see, nor from one that cannot fence and
  /// whose lease stands still.
  case force
}

/// What the engine wants done.
public enum Action: Equatable, Sendable {
  /// On every link.
  case send(Heartbeat)
  /// `order` names it in the answer.
  case disk(DiskID, order: UInt64, DiskOrder)
  case target(TargetOrder)
  case addresses(AddressOrder)
  case watchdog(WatchdogOrder)
  /// Kept for the next life of the program until the machine ends, before what follows is done: disks that the other node may
  /// take by time alone, for the watchdog would have reset this machine.
  case keepGuarded(Set<DiskID>)
  /// For the log and `gatewayd pair`: what changed and why.
  case note(Transition)
}

public enum TargetOrder: Equatable, Sendable {
  /// Commands and ALUA questions wait; nothing is answered that was not finished.
  case hold
  /// Read labels, reservations and sizes again from these disks, then say `.recovered`.
  case recover(Epoch, disks: [DiskID])
  /// These LUNs are served; the others are not to be had.
  case serve(Epoch, disks: [DiskID])
  /// One more LUN can be served.
  case admit(Epoch, disk: DiskID)
  /// Its disk is not ours any more for now: its commands wait. At one that cannot fence those that were begun end, unanswered.
  case suspend(DiskID)
  /// Wait until nothing is under way, at most until the instant; answered by `.drained`.
  case drain(until: Instant)
  /// Every connection ends without another byte, and nothing more is written to a shared disk.
  case closeWithoutAnswer
  /// Logins are taken; every port of this node is in standby.
  case standby
}

public enum AddressOrder: Equatable, Sendable {
  case take
  case drop
}

/// Why a node takes over.
public enum TakeoverCause: String, Sendable, CaseIterable {
  /// No other node can be.
  case alone
  /// There was nobody for long enough, by all that is known.
  case nobody
  /// The active was not heard, on links or disks.
  case silent
  /// It has stopped, and says so.
  case offered
  /// It may well go on until the fence tells it.
  case alive
  /// An operator said so, though there was no majority.
  case forced
}

public struct Transition: Equatable, Sendable {
  public var from: Role
  public var to: Role
  public var epoch: Epoch
  public var reason: String
  public var at: Instant
  /// Of the takeover that is under way, or ends with this.
  public var cause: TakeoverCause?

  public init(
    from: Role, to: Role, epoch: Epoch, reason: String, at: Instant, cause: TakeoverCause? = nil
  ) {
    self.from = from
    self.to = to
    self.epoch = epoch
    self.reason = reason
    self.at = at
    self.cause = cause
  }
}
