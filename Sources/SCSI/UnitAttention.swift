/// A unit attention condition that this device server establishes (SAM-5 §5.14). A lower raw value is reported
/// earlier (SAM-5 table 48: the reset conditions come first); the raw value is the bit in a nexus's pending set.
public enum UnitAttention: UInt8, CaseIterable, Sendable {
  /// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED.
  case powerOn
  /// BUS DEVICE RESET FUNCTION OCCURRED: a logical unit or target reset.
  case logicalUnitReset
  /// I_T NEXUS LOSS OCCURRED.
  case nexusLoss
  /// REPORTED LUNS DATA HAS CHANGED.
  case reportedLunsDataHasChanged
  /// MODE PARAMETERS CHANGED.
  case modeParametersChanged
  /// RESERVATIONS PREEMPTED.
  case reservationsPreempted
  /// RESERVATIONS RELEASED.
  case reservationsReleased
  /// REGISTRATIONS PREEMPTED.
  case registrationsPreempted
  /// ASYMMETRIC ACCESS STATE CHANGED.
  case asymmetricAccessStateChanged
  /// CAPACITY DATA HAS CHANGED.
  case capacityDataHasChanged
  /// COMMANDS CLEARED BY ANOTHER INITIATOR.
  case commandsClearedByAnotherInitiator
  /// NOT READY TO READY CHANGE, MEDIUM MAY HAVE CHANGED.
  case mediumMayHaveChanged
  /// INQUIRY DATA HAS CHANGED.
  case inquiryDataHasChanged

  /// ASC in the high byte, ASCQ in the low.
  public var code: UInt16 {
    switch self {
    case .powerOn: 0x2900
    case .logicalUnitReset: 0x2903
    case .nexusLoss: 0x2907
    case .reportedLunsDataHasChanged: 0x3F0E
    case .modeParametersChanged: 0x2A01
    case .reservationsPreempted: 0x2A03
    case .reservationsReleased: 0x2A04
    case .registrationsPreempted: 0x2A05
    case .asymmetricAccessStateChanged: 0x2A06
    case .capacityDataHasChanged: 0x2A09
    case .commandsClearedByAnotherInitiator: 0x2F00
    case .mediumMayHaveChanged: 0x2800
    case .inquiryDataHasChanged: 0x3F03
    }
  }

  public var sense: Sense { Sense(.unitAttention, code) }
}

/// The unit attentions pending on one nexus: a set per logical unit, and one for every logical unit with a note of
/// which have taken it. Equal conditions coalesce (SAM-5 §5.14.1), so that the size is bounded by the logical units
/// addressed.
struct PendingAttentions: Sendable {
  struct Kinds: OptionSet, Sendable {
    var rawValue: UInt16
    init(rawValue: UInt16) { self.rawValue = rawValue }
    init(_ attention: UnitAttention) { rawValue = 1 << attention.rawValue }
    /// The one to report first.
    var first: UnitAttention? { UnitAttention(rawValue: UInt8(rawValue.trailingZeroBitCount)) }
  }

  private struct Unit: Sendable {
    /// Raised for this logical unit alone.
    var own: Kinds = []
    /// Those of `everywhere` that this logical unit has reported.
    var taken: Kinds = []
  }

  private var everywhere: Kinds = []
  private var units: [UInt16: Unit] = [:]

  mutating func raise(_ attention: UnitAttention, lun: UInt16?) {
    let kind = Kinds(attention)
    if let lun {
      units[lun, default: Unit()].own.insert(kind)
      return
    }
    everywhere.insert(kind)
    for lun in units.keys { units[lun]?.taken.remove(kind) }
  }

  func pending(lun: UInt16) -> Kinds {
    let unit = units[lun] ?? Unit()
    return unit.own.union(everywhere.subtracting(unit.taken))
  }

  mutating func take(lun: UInt16) -> UnitAttention? {
    guard let attention = pending(lun: lun).first else { return nil }
    if attention == .reportedLunsDataHasChanged {
      clearEverywhere(attention)
    } else {
      var unit = units[lun] ?? Unit()
      unit.own.remove(Kinds(attention))
      if everywhere.contains(Kinds(attention)) { unit.taken.insert(Kinds(attention)) }
      units[lun] = unit.own.isEmpty && unit.taken.isEmpty ? nil : unit
    }
    return attention
  }

  /// REPORTED LUNS DATA HAS CHANGED is one condition for all logical units (SPC-5 §6.33).
  mutating func clearEverywhere(_ attention: UnitAttention) {
    everywhere.remove(Kinds(attention))
    for lun in units.keys { units[lun]?.own.remove(Kinds(attention)) }
  }

  /// Bit n for LUN n with something pending, n < 63; bit 63 for all others together (it may stay set with nothing
  /// left).
  var summary: UInt64 {
    var bits: UInt64 = everywhere.isEmpty ? 0 : ~0
    for (lun, unit) in units {
      let bit = Self.bit(of: lun)
      if !unit.own.union(everywhere.subtracting(unit.taken)).isEmpty {
        bits |= bit
      } else if lun < 63 {
        bits &= ~bit
      }
    }
    return bits
  }

  @inline(__always)
  static func bit(of lun: UInt16) -> UInt64 { 1 << UInt64(min(lun, 63)) }
}
