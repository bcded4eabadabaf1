/// What a PERSISTENT RESERVE OUT asks for, decoded and free of syntax errors.
public struct ReservationAction: Equatable, Sendable {
  /// Service actions (SPC-5 table 231).
  public enum Service: UInt8, CaseIterable, Sendable {
    case register = 0x00
    case reserve = 0x01
    case release = 0x02
    case clear = 0x03
    case preempt = 0x04
    case preemptAndAbort = 0x05
    case registerAndIgnoreExistingKey = 0x06
    case registerAndMove = 0x07
  }

  public var service: Service
  /// RESERVATION KEY.
  public var key: UInt64
  /// SERVICE ACTION RESERVATION KEY.
  public var serviceKey: UInt64
  /// TYPE, nil if it or SCOPE is not one of ours; only looked at by RESERVE, RELEASE and a PREEMPT that makes a
  /// reservation.
  public var kind: PersistentReservations.Kind?
  public var activatesThroughPowerLoss = false
  /// ALL_TG_PT: the relative target port identifiers of every port; empty with the bit clear.
  public var allTargetPorts: [UInt16] = []
  /// SPEC_I_PT.
  public var specifiesInitiatorPorts = false
  /// The initiator ports of the TransportIDs, as nexuses with the port that the command came through.
  public var initiatorPorts: [NexusIdentity] = []
  /// REGISTER AND MOVE: the nexus to move to, and UNREG.
  public var destination: NexusIdentity?
  public var unregisters = false

  public init(
    _ service: Service, key: UInt64 = 0, serviceKey: UInt64 = 0, kind: PersistentReservations.Kind? = nil
  ) {
    self.service = service
    self.key = key
    self.serviceKey = serviceKey
    self.kind = kind
  }
}

/// What comes of a `ReservationAction`.
public enum ReservationOutcome: Equatable, Sendable {
  case conflict
  case refused(Sense)
  /// GOOD, and nothing has changed.
  case unchanged
  case changed(ReservationEffects)
}

/// The next state and what must follow once it is in force.
public struct ReservationEffects: Equatable, Sendable {
  public var next: PersistentReservations
  /// Unit attentions to establish for others.
  public var attentions: [Notice] = []
  /// PREEMPT AND ABORT: whose commands to this logical unit end before GOOD.
  public var aborts: [NexusIdentity] = []

  public struct Notice: Equatable, Sendable {
    public var nexus: NexusIdentity
    public var attention: UnitAttention

    public init(nexus: NexusIdentity, attention: UnitAttention) {
      self.nexus = nexus
      self.attention = attention
    }
  }
}
