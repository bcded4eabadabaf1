import Wire

/// Decides what this node is to the pair. Pure: no clock, no I/O and no randomness of its own.
public struct Engine: Sendable {
  public private(set) var role = Role.observing

  /// - Parameter seed: random; decides the delays by which two nodes do not do the same thing at the same time.
  public init(identity: NodeIdentity, seed: UInt64) {}

  /// Takes an event and says what is to be done, in this order. Instants never go back.
  public mutating func step(_ event: Event, at now: Instant) -> [Action] { [] }

  /// When `.tick` is due at the latest; nil: not before another event.
  public var deadline: Instant? { nil }

  public func status(at now: Instant) -> PairStatus {
    PairStatus(
      role: role, epoch: .none, cluster: nil, arbiters: [], disks: [], peer: nil, hold: nil, droppedMessages: 0)
  }
}
