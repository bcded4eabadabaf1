/// What a command must look at before it goes on.
struct LogicalUnitGate: OptionSet, Sendable {
  var rawValue: UInt32
  /// Some nexus may be kept out: an SPC-2 or a persistent reservation is held.
  static let reserved = LogicalUnitGate(rawValue: 1 << 0)
  /// Writes are refused: by the disk, or by SWP.
  static let writeProtected = LogicalUnitGate(rawValue: 1 << 1)
  /// The disk is gone.
  static let gone = LogicalUnitGate(rawValue: 1 << 2)
  /// The medium is ejected.
  static let ejected = LogicalUnitGate(rawValue: 1 << 3)
  /// D_SENSE; no command needs to look, `usesDescriptorSense` does.
  static let descriptorSense = LogicalUnitGate(rawValue: 1 << 4)
  /// Commands wait: it is being found out, or changed, who has the disk.
  static let suspended = LogicalUnitGate(rawValue: 1 << 5)
  /// What is on the medium is being sanitized, or should have been.
  static let sanitizing = LogicalUnitGate(rawValue: 1 << 6)
  /// Those that stop the warm path.
  static let blocking: LogicalUnitGate = [.reserved, .writeProtected, .gone, .ejected, .suspended, .sanitizing]
}

/// The mode parameters that can be changed. Shared by all nexuses.
struct ModeParameters: Equatable, Sendable {
  /// D_SENSE.
  var descriptorSense = false
  /// SWP.
  var softwareWriteProtect = false
}

/// What is behind a logical unit's lock.
struct LogicalUnitState: Sendable {
  var persistent: PersistentReservations
  /// The nexus id of the SPC-2 reservation's holder.
  var legacyHolder: UInt64?
  var mode = ModeParameters()
  /// Nexus ids that prevent removal.
  var preventers: Set<UInt64> = []
  var isEjected = false
  var isGone = false
  var isSuspended = false
  var sanitation = Sanitation.none
  /// Another node has the table of persistent reservations: none is known here.
  var isTableElsewhere = false
  /// The serial of the reservation change that is being made durable.
  var openChange: UInt64?
  var changes: UInt64 = 0
  /// What the persistent reservation lets each nexus do, by nexus id, so that a reserved logical unit stays fast.
  /// Forgotten at every change, bounded by the live nexuses.
  var decisions: [UInt64: Decision] = [:]

  struct Decision: Sendable {
    var reads: Bool
    var writes: Bool
  }

  init(persistent: PersistentReservations) {
    self.persistent = persistent
  }

  func gate(_ traits: LogicalUnitTraits, gone: Bool) -> LogicalUnitGate {
    var gate: LogicalUnitGate = []
    if legacyHolder != nil || persistent.reservation != nil { gate.insert(.reserved) }
    if traits.isReadOnly || mode.softwareWriteProtect { gate.insert(.writeProtected) }
    if gone { gate.insert(.gone) }
    if isSuspended { gate.insert(.suspended) }
    if sanitation != .none { gate.insert(.sanitizing) }
    if isEjected { gate.insert(.ejected) }
    if mode.descriptorSense { gate.insert(.descriptorSense) }
    return gate
  }

  mutating func admits(
    _ legacy: LegacyAccess, _ access: PersistentAccess, from nexus: Nexus, _ portGroups: TargetPortGroups
  ) -> Bool {
    if let legacyHolder {
      switch legacy {
      case .allowed: break
      case .conflict: if legacyHolder != nexus.id { return false }
      case .conflictEvenForHolder: return false
      }
    }
    guard let reservation = persistent.reservation else { return true }
    switch access {
    case .always, .own: return true
    case .reading: return decision(reservation, nexus, portGroups).reads
    case .writing: return decision(reservation, nexus, portGroups).writes
    }
  }

  private mutating func decision(
    _ reservation: PersistentReservations.Reservation, _ nexus: Nexus, _ portGroups: TargetPortGroups
  ) -> Decision {
    if let known = decisions[nexus.id] { return known }
    let standing = persistent.standing(of: nexus.identity, isElsewhere: portGroups.isElsewhere)
    func allowed(_ access: PersistentAccess) -> Bool {
      access.isAllowed(with: reservation.kind, holder: standing.isHolder, registered: standing.isRegistered)
    }
    let decision = Decision(reads: allowed(.reading), writes: allowed(.writing))
    decisions[nexus.id] = decision
    return decision
  }
}
