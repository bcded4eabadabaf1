import Wire

/// What stands between two nodes at a disk that cannot fence: each writes its claim to a place of its own and looks at the
/// other's before it goes on (docs/HA.md). A record of the label area, one for each of the label's nodes.
public struct LeaseRecord: Equatable, Sendable {
  public var epoch: Epoch
  public var node: UUID
  public var bootID: UInt64
  /// Grows with each record of a boot.
  public var sequence: UInt64
  public var phase: Phase
  /// The node's watchdog is armed: if this record is not renewed, the machine is reset.
  public var isGuarded: Bool

  public enum Phase: UInt8, Sendable {
    /// Nothing that the node wrote is under way, and it writes nothing.
    case released = 0
    /// The node wants the disk, and writes nothing yet but records.
    case wanted = 1
    /// The node writes to the disk.
    case held = 2
  }

  public init(epoch: Epoch, node: UUID, bootID: UInt64, sequence: UInt64, phase: Phase, isGuarded: Bool) {
    self.epoch = epoch
    self.node = node
    self.bootID = bootID
    self.sequence = sequence
    self.phase = phase
    self.isGuarded = isGuarded
  }
}

/// The lease that this node has at a disk, or is giving up: from the order of its first record until a `released` is
/// acknowledged, for whatever was ordered may have been done.
struct Lease: Sendable {
  /// As it was ordered last.
  var record: LeaseRecord
  /// Which of the two places it is written to.
  var place: Int
  /// When the last record was ordered that the disk acknowledged; 0: none yet. The other may have seen it at any time since,
  /// so the time that it keeps off is counted from here.
  var provenAt: Instant = 0
  /// What the last acknowledged record says.
  var provenPhase = LeaseRecord.Phase.released
  /// When the first `wanted` was acknowledged: what is found by a look after that is found by the other as well.
  var claimedAt: Instant = 0
  /// The other's place was looked at after that, and did not stand in the way.
  var isVerified = false
  /// To be released.
  var isEnding = false
  /// A record that says `isGuarded` may be on the disk: the other may take it for over by time alone.
  var mayBeGuarded = false
  var nextWrite: Instant = 0
  /// When to look again whether it can be released.
  var nextSettle: Instant = 0

  init(_ record: LeaseRecord, place: Int, isEnding: Bool = false) {
    self.record = record
    self.place = place
    self.isEnding = isEnding
    mayBeGuarded = record.isGuarded
  }
}

/// The other node's record, as it was found.
struct SeenLease: Sendable {
  var record: LeaseRecord
  /// When a look was answered that was the first to find it so.
  var since: Instant
  /// When the last look was ordered that found it so.
  var lookedAt: Instant
}

/// What keeps this node from a disk that cannot fence.
public enum LeaseObstacle: Equatable, Sendable {
  /// The other node has it, or had it until lately: it is free when it is released, or when its record stood still for
  /// `PairTimers.leaseExpiry`.
  case taken
  /// The other node had it, did not release it, and had no watchdog: it may still write.
  case unguarded
  /// The same, and the label does not name this node.
  case unnamed
}

public enum WatchdogOrder: Equatable, Sendable {
  /// Opens it and sets its time; answered by `Event.watchdog`.
  case arm
  /// Keeps the machine from being reset for as long as it is set to, unless the instant is over when this is done.
  case keepAlive(until: Instant)
  /// Nothing is held any more.
  case disarm
}

extension LeaseRecord {
  static let byteCount = 40

  /// Big-endian: epoch(4) phase(1) flags(1; 1: guarded) zero(2) node(16) boot(8) sequence(8).
  public func encode() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(be: epoch.value)
    bytes += [phase.rawValue, isGuarded ? 1 : 0, 0, 0]
    bytes += node.bytes
    bytes.append(be: bootID)
    bytes.append(be: sequence)
    return bytes
  }

  public init?(decoding bytes: [UInt8]) {
    guard bytes.count == Self.byteCount, let phase = Phase(rawValue: bytes[4]), bytes[5] <= 1, bytes[6] == 0,
      bytes[7] == 0
    else { return nil }
    let span = bytes.span.bytes
    self.init(
      epoch: Epoch(span.be32(0)), node: uuid(bytes, at: 8), bootID: span.be64(24), sequence: span.be64(32),
      phase: phase, isGuarded: bytes[5] == 1)
  }
}
