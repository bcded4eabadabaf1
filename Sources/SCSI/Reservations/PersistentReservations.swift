/// The persistent reservation of one logical unit: who is registered, who holds, which type (SPC-5 §5.14). A pure
/// value: `applying(_:from:)` gives the next one and what must follow, and changes nothing itself.
///
/// Invariants: at most `registrantsMax` registrants; no key is 0; no nexus is registered twice; a holder is
/// registered.
public struct PersistentReservations: Equatable, Sendable {
  public static let registrantsMax = 64

  /// Persistent reservation types (SPC-5 table 63).
  public enum Kind: UInt8, CaseIterable, Sendable {
    case writeExclusive = 0x1
    case exclusiveAccess = 0x3
    case writeExclusiveRegistrantsOnly = 0x5
    case exclusiveAccessRegistrantsOnly = 0x6
    case writeExclusiveAllRegistrants = 0x7
    case exclusiveAccessAllRegistrants = 0x8

    /// Whether every registrant holds it.
    public var isAllRegistrants: Bool {
      self == .writeExclusiveAllRegistrants || self == .exclusiveAccessAllRegistrants
    }
    /// Whether registrants other than the holder may do what the holder may: the "RR" columns of the SPC-5 tables.
    public var admitsRegistrants: Bool { rawValue >= 0x5 }
    /// Whether others may still read.
    public var isWriteExclusive: Bool {
      switch self {
      case .writeExclusive, .writeExclusiveRegistrantsOnly, .writeExclusiveAllRegistrants: true
      case .exclusiveAccess, .exclusiveAccessRegistrantsOnly, .exclusiveAccessAllRegistrants: false
      }
    }
  }

  public struct Registrant: Equatable, Sendable {
    public var nexus: NexusIdentity
    public var key: UInt64

    public init(nexus: NexusIdentity, key: UInt64) {
      self.nexus = nexus
      self.key = key
    }
  }

  public struct Reservation: Equatable, Sendable {
    public var kind: Kind
    /// Who reserved. With an all-registrants type every registrant holds and this is nil.
    public var holder: NexusIdentity?

    public init(kind: Kind, holder: NexusIdentity?) {
      self.kind = kind
      self.holder = holder
    }
  }

  /// PRGENERATION.
  public internal(set) var generation: UInt32 = 0
  /// APTPL of the last registration.
  public internal(set) var activatesThroughPowerLoss = false
  public internal(set) var registrants: [Registrant] = []
  public internal(set) var reservation: Reservation?

  public init() {}

  public func key(of nexus: NexusIdentity) -> UInt64? {
    registrants.first { $0.nexus == nexus }?.key
  }

  public func isRegistered(_ nexus: NexusIdentity) -> Bool { key(of: nexus) != nil }

  public func isHolder(_ nexus: NexusIdentity) -> Bool {
    guard let reservation else { return false }
    return reservation.kind.isAllRegistrants ? isRegistered(nexus) : reservation.holder == nexus
  }

  /// Whether a nexus counts as holder and as registered for what it reads and writes: by its own registration, or by one
  /// of its initiator's through a port of another node. Who has one path, or a service address, comes back by a port where
  /// it has not registered: it would meet its own reservation, and what it has under way would fail. The name says who it
  /// is: each session has its own ISID. PREEMPT removes a key whatever port it came by.
  func standing(
    of nexus: NexusIdentity, isElsewhere: (_ relativeTargetPort: UInt16) -> Bool
  ) -> (isHolder: Bool, isRegistered: Bool) {
    let own = registrants.filter {
      $0.nexus == nexus
        || ($0.nexus.initiatorName == nexus.initiatorName && isElsewhere($0.nexus.relativeTargetPort))
    }
    return (own.contains { isHolder($0.nexus) }, !own.isEmpty)
  }

  /// The key that READ RESERVATION tells: 0 for the all-registrants types (SPC-5 §6.16.3.2).
  public var holderKey: UInt64 {
    guard let holder = reservation?.holder else { return 0 }
    return key(of: holder) ?? 0
  }
}
