/// The device server (SAM-5 §4.8.4): decides what becomes of each command, from the command table, the logical unit
/// and the nexus. It moves no data and waits for nothing; it never changes, and shards are given a new one when the
/// port groups do.
///
/// Order of refusals: LUN, operation code, unit attention, ALUA state, reservation, medium and write protection, then
/// the fields of the CDB, then the range (SAM-5 §5.3.3 leaves it open but for the unit attention and the
/// reservation).
public final class DeviceServer: Sendable {
  /// The longest parameter list that is collected, in bytes.
  public static let parameterBytesMax = 64 << 10

  /// The SCSI device name: the iSCSI target name.
  public let deviceName: String
  public let registry: NexusRegistry
  public let portGroups: TargetPortGroups
  let table: CommandTable
  /// The time of day in milliseconds since 1970; nil: it is not known.
  let clock: (@Sendable () -> UInt64)?

  public init(
    deviceName: String, registry: NexusRegistry, portGroups: TargetPortGroups,
    clock: (@Sendable () -> UInt64)? = nil
  ) {
    self.deviceName = deviceName
    self.registry = registry
    self.portGroups = portGroups
    self.clock = clock
    table = .shared
  }

  /// The same under another name.
  public func renamed(_ name: String) -> DeviceServer {
    DeviceServer(deviceName: name, registry: registry, portGroups: portGroups, clock: clock)
  }

  /// The same with other port groups.
  public func with(_ portGroups: TargetPortGroups) -> DeviceServer {
    DeviceServer(deviceName: deviceName, registry: registry, portGroups: portGroups, clock: clock)
  }

  /// What becomes of a command that has arrived.
  ///
  /// The first part is the warm path: a READ or WRITE that nothing stands in the way of. It proves only that and
  /// takes no decision of its own; whatever fails a test goes through `executeInFull`.
  public func execute(_ request: Request, nexus: Nexus, map: LogicalUnitMap) -> Disposition {
    guard let number = LogicalUnitMap.number(of: request.lun), let unit = map[number] else {
      return executeWithoutUnit(request, nexus: nexus, map: map)
    }
    if let operation = warmTransfer(request.cdb, number, unit, nexus) { return .medium(operation, unit) }
    return executeInFull(request, number, unit, nexus, map)
  }

  /// The warm path alone: what it moves and where, or nil, which says nothing and has changed nothing.
  @inline(__always)
  public func warmTransfer(
    _ cdb: CDB, lun: UInt64, nexus: Nexus, map: LogicalUnitMap
  ) -> (MediumOperation, LogicalUnit)? {
    guard let number = LogicalUnitMap.number(of: lun), let unit = map[number],
      let operation = warmTransfer(cdb, number, unit, nexus)
    else { return nil }
    return (operation, unit)
  }

  @inline(__always)
  private func warmTransfer(_ cdb: CDB, _ number: UInt16, _ unit: LogicalUnit, _ nexus: Nexus) -> MediumOperation? {
    guard let row = table.transferRow(for: cdb.opcode), row.pointee.isProper(cdb), !nexus.hasAttention(lun: number),
      portGroups.isAllActive, unit.gate.isDisjoint(with: .blocking)
    else { return nil }
    let extent = cdb.extent(row.pointee.fields)
    guard extent.blocks != 0, extent.blocks <= unit.limits.transfer, unit.contains(extent.lba, extent.blocks) else {
      return nil
    }
    return row.pointee.transfer(extent, cdb)
  }

  private func executeInFull(
    _ request: Request, _ number: UInt16, _ unit: LogicalUnit, _ nexus: Nexus, _ map: LogicalUnitMap
  ) -> Disposition {
    if unit.gate.contains(.gone) { return executeWithoutUnit(request, nexus: nexus, map: map) }
    let lookup = table.row(for: request.cdb)
    // What is answered without a logical unit does not depend on who has it.
    if unit.gate.contains(.suspended), lookup.row?.pointee.flags.contains(.needsNoUnit) == false { return .wait(unit) }
    let ignoresAttention = lookup.row?.pointee.flags.contains(.ignoresAttention) ?? false
    if !ignoresAttention, nexus.hasAttention(lun: number), let attention = nexus.take(lun: number) {
      return .checkCondition(attention.sense)
    }
    guard let row = lookup.row?.pointee else { return .checkCondition(lookup.refusal) }
    if isElsewhere(row, nexus) {
      if let misuse = row.misuse(in: request.cdb) { return .checkCondition(misuse) }
      if row.handler == .persistentReserveIn { return .forward(unit, parameters: []) }
      return perform(row, Command(request, unit, nexus, map))
    }
    if !portGroups.isAllActive, let refusal = refuseForAccessState(row, nexus) { return refusal }
    if let refusal = refuse(row, unit, nexus) { return refusal }
    if let misuse = row.misuse(in: request.cdb) { return .checkCondition(misuse) }
    return perform(row, Command(request, unit, nexus, map))
  }

  /// What becomes of a command whose parameter list, asked for with `.dataOut`, has been collected.
  ///
  /// - Parameter parameters: what the initiator sent, at most the byte count asked for; less if it sent less.
  public func resume(
    _ request: Request, nexus: Nexus, map: LogicalUnitMap, parameters: [UInt8]
  ) -> Disposition {
    guard let number = LogicalUnitMap.number(of: request.lun), let unit = map[number], !unit.gate.contains(.gone) else {
      return .checkCondition(.logicalUnitNotSupported)
    }
    let lookup = table.row(for: request.cdb)
    guard let row = lookup.row?.pointee else { return .checkCondition(lookup.refusal) }
    if unit.gate.contains(.suspended) { return .wait(unit) }
    if isElsewhere(row, nexus) { return .forward(unit, parameters: parameters) }
    if !portGroups.isAllActive, let refusal = refuseForAccessState(row, nexus) { return refusal }
    // A reservation may have come while the data was on its way.
    if let refusal = refuse(row, unit, nexus) { return refusal }
    let command = Command(request, unit, nexus, map)
    switch row.handler {
    case .unmap: return unmap(command, parameters)
    case .sanitize: return sanitize(command, parameters)
    case .extendedCopy: return extendedCopy(command, parameters)
    case .modeSelect6: return modeSelect(command, parameters, .six)
    case .modeSelect10: return modeSelect(command, parameters, .ten)
    case .persistentReserveOut: return persistentReserveOut(command, parameters)
    case .setTargetPortGroups: return setTargetPortGroups(parameters)
    case .writeBuffer: return writeBuffer(command, parameters)
    case .sendDiagnostic: return .checkCondition(.invalidFieldInParameterList(byte: 0))
    default: return .checkCondition(.internalTargetFailure)
    }
  }

  /// What becomes of a PERSISTENT RESERVE IN or OUT that came to the node in standby and was handed over (`.forward`).
  /// `.wait`: this node cannot say now.
  public func reserve(
    _ request: Request, nexus: Nexus, map: LogicalUnitMap, parameters: [UInt8]
  ) -> Disposition {
    guard let number = LogicalUnitMap.number(of: request.lun), let unit = map[number], !unit.gate.contains(.gone) else {
      return .checkCondition(.logicalUnitNotSupported)
    }
    guard portGroups.isAllActive, !unit.gate.contains(.suspended) else { return .wait(unit) }
    let lookup = table.row(for: request.cdb)
    guard let row = lookup.row?.pointee else { return .checkCondition(lookup.refusal) }
    if let refusal = refuse(row, unit, nexus) { return refusal }
    if let misuse = row.misuse(in: request.cdb) { return .checkCondition(misuse) }
    let command = Command(request, unit, nexus, map)
    switch row.handler {
    case .persistentReserveIn: return persistentReserveIn(command)
    case .persistentReserveOut: return persistentReserveOut(command, parameters)
    default: return .checkCondition(.invalidCommandOperationCode)
    }
  }

  /// The sense that a failure of the medium becomes. A disk that is gone looks like a logical unit that is not there:
  /// so multipath and cluster software gives the path up instead of trying it again. MEDIUM ERROR ends a command for good,
  /// whatever paths there are: so no path failure may look like one.
  /// - Parameter isWrite: what failed was to change the medium, or to make a change last.
  public func sense(for failure: MediumFailure, isWrite: Bool = false) -> Sense {
    switch failure {
    case .device where portGroups.hasOtherNode: .logicalUnitCommunicationFailure
    case .medium(let lba), .device(let lba): isWrite ? .writeError : .unrecoveredReadError(lba: lba)
    case .unreachable: .logicalUnitCommunicationFailure
    case .gone: .logicalUnitNotSupported
    case .writeProtected: .writeProtected
    case .noSpace: .spaceAllocationFailedWriteProtect
    case .hardware: .internalTargetFailure
    case .miscompare(let offset): .miscompareDuringVerifyOperation(offset: offset)
    }
  }

  /// Whether sense for this LUN field is sent in descriptor format (D_SENSE, SPC-5 §7.5.9).
  public func usesDescriptorSense(lun: UInt64, map: LogicalUnitMap) -> Bool {
    guard let number = LogicalUnitMap.number(of: lun), let unit = map[number] else { return false }
    return unit.usesDescriptorSense
  }

  // MARK: - Refusals

  /// Whether another node has what the command is about: in standby it has the table of persistent reservations.
  private func isElsewhere(_ row: CommandRow, _ nexus: Nexus) -> Bool {
    guard !portGroups.isAllActive, portGroups.state(of: nexus.targetPortGroup) == .standby else { return false }
    return row.handler == .persistentReserveIn || row.handler == .persistentReserveOut
  }

  /// SPC-5 §5.18.2.6 to §5.18.2.8.
  private func refuseForAccessState(_ row: CommandRow, _ nexus: Nexus) -> Disposition? {
    switch portGroups.state(of: nexus.targetPortGroup) {
    case .activeOptimized, .activeNonOptimized: return nil
    case .standby:
      return row.flags.contains(.anyAccessState) ? nil : .checkCondition(.notReadyTargetPortInStandbyState)
    case .unavailable:
      return row.flags.contains(.anyAccessState) ? nil : .checkCondition(.notReadyTargetPortInUnavailableState)
    case .transitioning:
      return row.flags.contains(.anyAccessState) ? nil : .checkCondition(.notReadyTargetPortInTransition)
    }
  }

  /// What the gate of the logical unit stops this command for.
  private func refuse(_ row: CommandRow, _ unit: LogicalUnit, _ nexus: Nexus) -> Disposition? {
    let gate = unit.gate
    if gate.isDisjoint(with: .blocking) { return nil }
    if gate.contains(.reserved), !unit.admits(row.legacy, row.persistent, from: nexus, portGroups) {
      return .status(.reservationConflict)
    }
    if gate.contains(.sanitizing), let refusal = refuseForSanitize(row, unit) { return refusal }
    if gate.contains(.ejected), row.flags.contains(.needsMedium) { return .checkCondition(.mediumNotPresent) }
    if gate.contains(.writeProtected), row.flags.contains(.changesMedium) {
      return .checkCondition(unit.traits.isReadOnly ? .writeProtected : .logicalUnitSoftwareWriteProtected)
    }
    return nil
  }

  /// SBC-4 §4.11.2, §4.11.3: after a failure another SANITIZE is the way out.
  private func refuseForSanitize(_ row: CommandRow, _ unit: LogicalUnit) -> Disposition? {
    if row.flags.contains(.duringSanitize) { return nil }
    guard let sense = unit.sanitizeSense else { return nil }
    return row.handler == .sanitize && sense.key != .notReady ? nil : .checkCondition(sense)
  }

  /// A LUN that has no logical unit answers three commands (SPC-5 §6.6, §6.33, §6.39).
  private func executeWithoutUnit(_ request: Request, nexus: Nexus, map: LogicalUnitMap) -> Disposition {
    guard let row = table.row(for: request.cdb).row, row.pointee.flags.contains(.needsNoUnit) else {
      return .checkCondition(.logicalUnitNotSupported)
    }
    if let misuse = row.pointee.misuse(in: request.cdb) { return .checkCondition(misuse) }
    switch row.pointee.handler {
    case .inquiry: return inquiryWithoutUnit(request.cdb, isLUN0: request.lun == 0)
    case .reportLuns: return reportLuns(request.cdb, nexus, map)
    default: return requestSense(request.cdb, .logicalUnitNotSupported)
    }
  }
}
