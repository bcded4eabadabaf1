/// What the tables of SPC-5 (§5.14.1, tables 60 and 61) and SBC-4 (§4.18) say of a command when a persistent
/// reservation is held by another nexus. The columns: WRITE EXCLUSIVE and EXCLUSIVE ACCESS from any other nexus; from
/// a registered nexus with the registrants-only and all-registrants types; from an unregistered one with those.
public enum PersistentAccess: UInt8, CaseIterable, Sendable {
  /// Allowed, allowed; allowed; allowed, allowed: it tells nothing of the data (INQUIRY, TEST UNIT READY).
  case always
  /// Allowed, conflict; allowed; allowed, conflict: it reads.
  case reading
  /// Conflict, conflict; allowed; conflict, conflict: it writes.
  case writing
  /// PERSISTENT RESERVE OUT, RESERVE and RELEASE, which decide for themselves.
  case own

  public func isAllowed(
    with kind: PersistentReservations.Kind, holder: Bool, registered: Bool
  ) -> Bool {
    if holder || (registered && kind.admitsRegistrants) { return true }
    switch self {
    case .always, .own: return true
    case .reading: return kind.isWriteExclusive
    case .writing: return false
    }
  }
}

/// What SPC-2 §5.5 says of a command when the logical unit is reserved (RESERVE) by another nexus.
public enum LegacyAccess: UInt8, Sendable {
  case allowed
  case conflict
  /// Conflict whoever holds the reservation: PERSISTENT RESERVE IN and OUT (SPC-2 §5.5.1).
  case conflictEvenForHolder
}
