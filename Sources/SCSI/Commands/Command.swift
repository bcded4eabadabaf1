/// A command that has passed the gates, with what its handler needs.
struct Command {
  let cdb: CDB
  let dataOutBytes: UInt32?
  let unit: LogicalUnit
  let nexus: Nexus
  let map: LogicalUnitMap

  @inline(__always)
  init(_ request: Request, _ unit: LogicalUnit, _ nexus: Nexus, _ map: LogicalUnitMap) {
    cdb = request.cdb
    dataOutBytes = request.dataOutBytes
    self.unit = unit
    self.nexus = nexus
    self.map = map
  }

  /// Whether the initiator sends exactly this many blocks, as far as the transport knows.
  func sends(blocks: UInt64) -> Bool {
    guard let dataOutBytes else { return true }
    return UInt64(dataOutBytes) == blocks * UInt64(unit.traits.blockBytes)
  }
}

extension DeviceServer {
  /// The handler of a row.
  func perform(_ row: CommandRow, _ command: Command) -> Disposition {
    if row.flags.contains(.thinOnly), !command.unit.traits.isThin {
      return .checkCondition(
        row.serviceAction == nil ? .invalidCommandOperationCode : .invalidFieldInCDB(byte: 1, bit: 4))
    }
    let cdb = command.cdb
    switch row.handler {
    case .read, .write: return transfer(row, command)
    case .writeAndVerify: return writeAndVerify(row.fields, command)
    case .verify: return verify(row.fields, command)
    case .writeSame: return writeSame(row.fields, command)
    case .compareAndWrite: return compareAndWrite(command)
    case .orWrite: return orWrite(row.fields, command)
    case .writeAtomic: return writeAtomic(command)
    case .prefetch: return prefetch(row.fields, command)
    case .synchronizeCache: return synchronizeCache(row.fields, command)
    case .unmap: return collect(UInt32(cdb.be16(7)), lengthAt: 7)
    case .lbaStatus: return lbaStatus(command)
    case .sanitize: return startSanitize(command)
    case .extendedCopy: return collect(cdb.be32(10), lengthAt: 10)
    case .receiveCopyResults: return receiveCopyResults(command)
    case .readCapacity10: return readCapacity10(command)
    case .readCapacity16: return readCapacity16(command)
    case .readDefectData10: return readDefectData10(cdb)
    case .readDefectData12: return readDefectData12(cdb)
    case .testUnitReady: return .status(.good)
    case .requestSense: return requestSense(cdb, command)
    case .inquiry: return inquiry(command)
    case .reportLuns: return reportLuns(cdb, command.nexus, command.map)
    case .modeSense6: return modeSense(command, .six)
    case .modeSense10: return modeSense(command, .ten)
    case .modeSelect6: return startModeSelect(cdb, UInt32(cdb[4]), lengthAt: 4)
    case .modeSelect10: return startModeSelect(cdb, UInt32(cdb.be16(7)), lengthAt: 7)
    case .startStopUnit: return startStopUnit(command)
    case .preventAllow: return preventAllow(command)
    case .sendDiagnostic: return sendDiagnostic(cdb)
    case .receiveDiagnostic: return receiveDiagnostic(cdb)
    case .readBuffer: return readBuffer(command)
    case .writeBuffer: return startWriteBuffer(cdb)
    case .logSense: return logSense(command)
    case .reserve: return command.unit.reserve(for: command.nexus)
    case .release: return command.unit.release(for: command.nexus)
    case .persistentReserveIn: return persistentReserveIn(command)
    case .persistentReserveOut: return startPersistentReserveOut(cdb)
    case .reportTargetPortGroups: return reportTargetPortGroups(cdb)
    case .setTargetPortGroups:
      return portGroups.isExplicit
        ? collect(cdb.be32(6), lengthAt: 6) : .checkCondition(.invalidCommandOperationCode)
    case .reportSupportedOperationCodes: return reportSupportedOperationCodes(command)
    case .reportSupportedTaskManagementFunctions: return reportSupportedTaskManagementFunctions(cdb)
    case .reportTimestamp: return reportTimestamp(cdb)
    }
  }

  /// Asks for a parameter list; none is not an error (SPC-5 §4.3.5.5).
  func collect(_ byteCount: UInt32, lengthAt byte: Int) -> Disposition {
    if byteCount == 0 { return .status(.good) }
    if byteCount > Self.parameterBytesMax { return .checkCondition(.invalidFieldInCDB(byte: byte)) }
    return .dataOut(byteCount: Int(byteCount))
  }
}

extension Disposition {
  /// GOOD with as much of `data` as the allocation length admits (SPC-5 §4.3.5.6).
  static func dataIn(_ data: [UInt8], allocationLength: UInt32) -> Disposition {
    data.count <= Int(allocationLength) ? .dataIn(data) : .dataIn(Array(data.prefix(Int(allocationLength))))
  }
}
