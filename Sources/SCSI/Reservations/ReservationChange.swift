/// A change of a logical unit's persistent reservation that is decided and not yet in force. The caller makes
/// `record` durable, then calls `LogicalUnit.commit(_:)`; or `abandon(_:)` if it cannot. One is open at a time: a
/// second PERSISTENT RESERVE OUT meanwhile gets BUSY.
public struct ReservationChange: Sendable {
  /// What to persist; nil where the logical unit keeps no reservations through power loss.
  public let record: [UInt8]?
  let serial: UInt64
  let effects: ReservationEffects
}

/// What to do once a change is in force.
public struct CommitOutcome: Equatable, Sendable {
  /// The status of the PERSISTENT RESERVE OUT; BUSY if the change was not the open one.
  public var status: Status
  /// PREEMPT AND ABORT: the nexuses whose commands to this logical unit must be aborted before GOOD.
  public var aborts: [NexusIdentity]
}
