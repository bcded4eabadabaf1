import Wire

/// Commands to the logical unit as a whole: sense, inventory, medium, diagnostics.
extension DeviceServer {
  /// REQUEST SENSE (SPC-5 §6.39): a pending unit attention is told and cleared; else how far a sanitize operation is.
  func requestSense(_ cdb: CDB, _ command: Command) -> Disposition {
    let attention = command.nexus.take(lun: command.unit.number)
    return requestSense(cdb, attention?.sense ?? command.unit.sanitizeSense ?? .noAdditionalSenseInformation)
  }

  func requestSense(_ cdb: CDB, _ sense: Sense) -> Disposition {
    .dataIn(sense.encode(descriptorFormat: cdb[1] & 0x01 != 0), allocationLength: UInt32(cdb[4]))
  }

  /// REPORT LUNS (SPC-5 §6.33). There are no well-known and no administrative logical units.
  func reportLuns(_ cdb: CDB, _ nexus: Nexus, _ map: LogicalUnitMap) -> Disposition {
    let numbers: [UInt16]
    switch cdb[2] {
    case 0x00, 0x02, 0x11: numbers = map.numbers
    case 0x01, 0x10, 0x12: numbers = []
    default: return .checkCondition(.invalidFieldInCDB(byte: 2))
    }
    var data: [UInt8] = []
    data.reserveCapacity(8 + 8 * numbers.count)
    data.append(be: UInt32(8 * numbers.count))
    data.append(be: UInt32(0))
    for number in numbers { data.append(be: LogicalUnitMap.field(of: number)) }
    nexus.clear(.reportedLunsDataHasChanged)
    return .dataIn(data, allocationLength: cdb.be32(6))
  }

  /// START STOP UNIT (SBC-4 §5.31). A shared disk is not stopped for one initiator: only LOEJ on a removable medium
  /// has an effect.
  func startStopUnit(_ command: Command) -> Disposition {
    let start = command.cdb[4] & 0x01 != 0
    let powerCondition = command.cdb[4] >> 4
    // Starting is always allowed, all else is like writing (SBC-4 table 14).
    if !(start && powerCondition == 0), !command.unit.admits(.conflict, .writing, from: command.nexus, portGroups) {
      return .status(.reservationConflict)
    }
    // No power conditions are kept; with one asked for, START and LOEJ are ignored.
    if powerCondition != 0 { return .status(.good) }
    guard command.cdb[4] & 0x02 != 0 else { return .status(.good) }
    guard command.unit.traits.isRemovable else { return .checkCondition(.invalidFieldInCDB(byte: 4, bit: 1)) }
    if command.unit.setLoaded(start, by: command.nexus) { return .status(.good) }
    return .checkCondition(.mediumRemovalPrevented)
  }

  /// PREVENT ALLOW MEDIUM REMOVAL (SBC-4 §5.15); PREVENT 10b and 11b are obsolete.
  func preventAllow(_ command: Command) -> Disposition {
    let prevent = command.cdb[4] & 0x03
    if prevent > 1 { return .checkCondition(.invalidFieldInCDB(byte: 4, bit: 1)) }
    if prevent == 1, !command.unit.admits(.conflict, .writing, from: command.nexus, portGroups) {
      return .status(.reservationConflict)
    }
    command.unit.preventRemoval(prevent == 1, by: command.nexus)
    return .status(.good)
  }

  /// SEND DIAGNOSTIC (SPC-5 §6.42): the default self-test, which has nothing to do; no pages.
  func sendDiagnostic(_ cdb: CDB) -> Disposition { .status(.good) }

  /// RECEIVE DIAGNOSTIC RESULTS (SPC-5 §6.27): page 00h, which lists itself.
  func receiveDiagnostic(_ cdb: CDB) -> Disposition {
    guard cdb[1] & 0x01 != 0, cdb[2] == 0 else { return .checkCondition(.invalidFieldInCDB(byte: 2)) }
    return .dataIn([0, 0, 0, 1, 0], allocationLength: UInt32(cdb.be16(3)))
  }
}
