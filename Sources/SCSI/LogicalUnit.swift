import Synchronization

/// One logical unit: what is shared between all nexuses and shards that address it. It owns the mode parameters, the
/// SPC-2 reservation, the persistent reservation and the prevention of medium removal, under one lock; `gate` is
/// non-zero whenever a command must look there, so that the warm path costs one atomic load.
public final class LogicalUnit: Sendable {
  public let number: UInt16
  public let identity: LogicalUnitIdentity
  public let traits: LogicalUnitTraits
  /// What a command may ask at most, as VPD page B0h tells it.
  let limits: BlockLimits

  private let registry: NexusRegistry
  private let capacity: Atomic<UInt64>
  private let gateBits: Atomic<UInt32>
  private let state: Mutex<LogicalUnitState>
  /// PROGRESS INDICATION of a sanitize operation: 65536ths.
  private let sanitizeProgress = Atomic<UInt16>(0)

  /// - Parameters:
  ///   - number: the LUN, 0 to 16383.
  ///   - blocks: the capacity in logical blocks.
  ///   - record: the persisted reservations, as `ReservationChange.record` had them. They are in force only if their
  ///     APTPL flag is set, or with `afterTakeover`: then the logical unit has not lost power, the peer's node has.
  /// - Throws: what is wrong with the record; the caller decides whether the disk is exported without it.
  public init(
    number: UInt16, identity: LogicalUnitIdentity, traits: LogicalUnitTraits, blocks: UInt64,
    registry: NexusRegistry, reservations record: [UInt8]? = nil, afterTakeover: Bool = false
  ) throws(ReservationRecordError) {
    precondition(number < 0x4000, "flat space addressing holds 14 bits")
    let initial = LogicalUnitState(
      persistent: try PersistentReservations(onRecord: record, afterTakeover: afterTakeover))
    self.number = number
    self.identity = identity
    self.traits = traits
    self.registry = registry
    limits = BlockLimits(traits)
    capacity = Atomic(blocks)
    gateBits = Atomic(initial.gate(traits, gone: false).rawValue)
    state = Mutex(initial)
  }

  /// The capacity in logical blocks.
  public var blocks: UInt64 { capacity.load(ordering: .relaxed) }

  /// Whether the run lies inside the capacity; an empty one may begin at the end.
  @inline(__always)
  func contains(_ lba: UInt64, _ blocks: UInt32) -> Bool {
    let capacity = self.blocks
    return lba <= capacity && UInt64(blocks) <= capacity - lba
  }

  /// What commands must look at before they go on; empty on the warm path.
  @inline(__always)
  var gate: LogicalUnitGate { LogicalUnitGate(rawValue: gateBits.load(ordering: .acquiring)) }

  /// Whether sense for this logical unit is in descriptor format (D_SENSE of the Control mode page).
  public var usesDescriptorSense: Bool { gate.contains(.descriptorSense) }

  /// The persistent reservation now in force.
  public var reservations: PersistentReservations { state.withLock { $0.persistent } }

  /// The capacity has changed: CAPACITY DATA HAS CHANGED for every nexus (SBC-4 §4.4.2).
  public func resize(toBlocks blocks: UInt64) {
    capacity.store(blocks, ordering: .relaxed)
    registry.raiseForAll(.capacityDataHasChanged, lun: number)
  }

  /// The disk is gone: from now on every command that needs a logical unit gets LOGICAL UNIT NOT SUPPORTED.
  public func markGone() {
    change { $0.isGone = true }
  }

  /// Whether commands wait (`Disposition.wait`): in force on every shard when this returns, for commands that come then.
  public func setSuspended(_ isSuspended: Bool) {
    change { $0.isSuspended = isSuspended }
  }

  /// Another node has had the disk: takes what is written there in place of what this one knew, and forgets what belonged
  /// to sessions of that time (SPC-2 reservation, prevention of removal). If reservations are dropped with it, every nexus
  /// that is here learns of a power on: to this logical unit it was one.
  /// - Parameters:
  ///   - record: as for `init`.
  ///   - afterTakeover: as for `init`.
  ///   - blocks: the capacity now; the initiators are told by the attentions of the takeover.
  public func adopt(
    reservations record: [UInt8]?, afterTakeover: Bool, blocks: UInt64
  ) throws(ReservationRecordError) {
    let reservations = try PersistentReservations(onRecord: record, afterTakeover: afterTakeover)
    let written = try PersistentReservations(onRecord: record, afterTakeover: true)
    capacity.store(blocks, ordering: .relaxed)
    let hadHolder = change { state in
      defer { state.legacyHolder = nil }
      state.persistent = reservations
      state.isTableElsewhere = false
      state.openChange = nil
      state.preventers = []
      return state.legacyHolder != nil
    }
    if hadHolder || written.registrants != reservations.registrants { registry.raiseForAll(.powerOn, lun: number) }
  }

  /// Another node has the disk from now on, and the table of reservations: what this one knew of it may be over. So nothing is
  /// judged by it, and what must be known is asked there (`Disposition.forward`).
  public func forgetReservations() {
    let hadHolder = change { state in
      defer { state.legacyHolder = nil }
      state.persistent = PersistentReservations()
      state.isTableElsewhere = true
      return state.legacyHolder != nil
    }
    // An SPC-2 reservation is of this node alone.
    if hadHolder { registry.raiseForAll(.powerOn, lun: number) }
  }

  // MARK: - Persistent reservations

  /// The reservations in force, as a record.
  public var reservationRecord: [UInt8] { state.withLock { $0.persistent.encodeRecord() } }

  /// What the action comes to; a change is opened with it and must be ended by `commit` or `abandon`.
  func open(_ action: ReservationAction, from nexus: NexusIdentity) -> Disposition {
    state.withLock { state in
      guard state.openChange == nil else { return .status(.busy) }
      switch state.persistent.applying(action, from: nexus) {
      case .conflict: return .status(.reservationConflict)
      case .refused(let sense): return .checkCondition(sense)
      case .unchanged: return .status(.good)
      case .changed(let effects):
        state.changes += 1
        state.openChange = state.changes
        let record = traits.persistsReservations ? effects.next.encodeRecord() : nil
        return .reservationChange(ReservationChange(record: record, serial: state.changes, effects: effects), self)
      }
    }
  }

  /// Puts the change into force and raises the unit attentions it brings for others.
  public func commit(_ change: ReservationChange) -> CommitOutcome {
    let isOurs = self.change { state in
      guard state.openChange == change.serial else { return false }
      state.openChange = nil
      // A record that got to the disk while it was this node's is in force where the disk is now.
      if !state.isTableElsewhere { state.persistent = change.effects.next }
      return true
    }
    guard isOurs else { return CommitOutcome(status: .busy, aborts: []) }
    registry.raise(change.effects.attentions, lun: number)
    return CommitOutcome(status: .good, aborts: change.effects.aborts)
  }

  /// The record could not be written: nothing has changed.
  public func abandon(_ change: ReservationChange) {
    self.change { state in
      if state.openChange == change.serial { state.openChange = nil }
    }
  }

  // MARK: - SPC-2 reservation, prevention of removal

  /// RESERVE (SPC-2 §7.21). A conflict with another holder, or while there are persistent registrations (SPC-2
  /// §5.5.1).
  func reserve(for nexus: Nexus) -> Disposition {
    change { state in
      if state.openChange != nil { return .status(.busy) }
      if !state.persistent.registrants.isEmpty { return .status(.reservationConflict) }
      if let holder = state.legacyHolder, holder != nexus.id { return .status(.reservationConflict) }
      state.legacyHolder = nexus.id
      return .status(.good)
    }
  }

  /// RELEASE (SPC-2 §7.19): GOOD, and nothing done, for one that does not hold.
  func release(for nexus: Nexus) -> Disposition {
    change { state in
      if !state.persistent.registrants.isEmpty { return .status(.reservationConflict) }
      if state.legacyHolder == nexus.id { state.legacyHolder = nil }
      return .status(.good)
    }
  }

  /// Whether the reservations let a command through of which the tables say this.
  func admits(
    _ legacy: LegacyAccess, _ persistent: PersistentAccess, from nexus: Nexus, _ portGroups: TargetPortGroups
  ) -> Bool {
    state.withLock { $0.admits(legacy, persistent, from: nexus, portGroups) }
  }

  /// PREVENT ALLOW MEDIUM REMOVAL, per nexus (SBC-4 §5.15).
  func preventRemoval(_ prevent: Bool, by nexus: Nexus) {
    change { state in
      if prevent { state.preventers.insert(nexus.id) } else { state.preventers.remove(nexus.id) }
    }
  }

  /// Ejects or loads the medium; false: some nexus prevents it (SBC-4 §5.15 prevents both).
  func setLoaded(_ loaded: Bool, by nexus: Nexus) -> Bool {
    let (isAllowed, inserted) = change { state in
      if !state.preventers.isEmpty { return (false, false) }
      defer { state.isEjected = !loaded }
      return (true, loaded && state.isEjected)
    }
    if inserted { registry.raiseForAll(.mediumMayHaveChanged, lun: number, except: nexus) }
    return isAllowed
  }

  // MARK: - Sanitize

  /// Whether the medium is being sanitized, or should have been.
  public var sanitation: Sanitation { state.withLock { $0.sanitation } }

  /// What every command that needs the medium is told meanwhile; nil: it may go on.
  var sanitizeSense: Sense? {
    guard gate.contains(.sanitizing) else { return nil }
    switch sanitation {
    case .none: return nil
    case .running: return .sanitizeInProgress(sanitizeProgress.load(ordering: .relaxed))
    case .failed: return .sanitizeCommandFailed
    }
  }

  /// Begins a sanitize operation, or says why not.
  func open(_ order: SanitizeOrder) -> Disposition {
    if order.method == .exitFailureMode, sanitation == .none { return .status(.good) }
    if let sense = change({ $0.open(order) }) { return .checkCondition(sense) }
    sanitizeProgress.store(0, ordering: .relaxed)
    return .sanitize(order, self)
  }

  /// Whether commands are carried out here: its disk is neither gone nor, maybe, another node's.
  public var isServed: Bool { gate.isDisjoint(with: [.gone, .suspended]) }

  public func setSanitizeProgress(_ progress: UInt16) { sanitizeProgress.store(progress, ordering: .relaxed) }

  /// The operation that `Disposition.sanitize` began is over.
  public func endSanitize(_ outcome: SanitizeOutcome) { change { $0.end(outcome) } }

  /// What the disk says that was begun and not brought to its end, by whoever had it before.
  public func adopt(_ sanitation: Sanitation) { change { $0.sanitation = sanitation } }

  // MARK: - Mode parameters

  var modeParameters: ModeParameters { state.withLock { $0.mode } }

  /// New mode parameters from one nexus: MODE PARAMETERS CHANGED for the others (SPC-5 §6.13).
  func setModeParameters(_ parameters: ModeParameters, by nexus: Nexus) {
    let hasChanged = change { state in
      defer { state.mode = parameters }
      return state.mode != parameters
    }
    if hasChanged { registry.raiseForAll(.modeParametersChanged, lun: number, except: nexus) }
  }

  // MARK: - Nexus loss and resets

  /// The session has ended: its SPC-2 reservation and its prevention of removal go (SAM-5 §6.3.4).
  public func nexusLost(_ nexus: Nexus) {
    change { state in
      if state.legacyHolder == nexus.id { state.legacyHolder = nil }
      state.preventers.remove(nexus.id)
      state.decisions = [:]
    }
  }

  /// LOGICAL UNIT RESET or a target reset (SAM-5 §6.3.3): the SPC-2 reservation, the prevention of removal and the
  /// mode parameters go, persistent reservations stay; BUS DEVICE RESET FUNCTION OCCURRED for every nexus.
  public func reset() {
    change { state in
      state.legacyHolder = nil
      state.preventers = []
      state.mode = ModeParameters()
    }
    registry.raiseForAll(.logicalUnitReset, lun: number)
  }

  /// Every change of the state goes through here: the gate is stored under the lock, and what was decided before is
  /// forgotten.
  @discardableResult
  private func change<R>(_ body: (inout LogicalUnitState) -> R) -> R {
    state.withLock { state in
      let result = body(&state)
      state.decisions = [:]
      gateBits.store(state.gate(traits, gone: state.isGone).rawValue, ordering: .releasing)
      return result
    }
  }
}
