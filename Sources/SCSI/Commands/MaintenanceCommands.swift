import Wire

/// MAINTENANCE IN: what the device server can, and by which ports.
extension DeviceServer {
  /// REPORT TARGET PORT GROUPS (SPC-5 §6.36), PARAMETER DATA FORMAT 000b or with the extended header 001b.
  func reportTargetPortGroups(_ cdb: CDB) -> Disposition {
    let format = cdb[1] >> 5
    guard format <= 1 else { return .checkCondition(.invalidFieldInCDB(byte: 1, bit: 7)) }
    var groups: [UInt8] = []
    for group in portGroups.groups {
      let ports = group.relativeTargetPorts.prefix(255)
      groups += [(group.isPreferred ? 0x80 : 0) | group.state.rawValue, portGroups.supportedStates.rawValue]
      groups.append(be: group.id)
      groups += [0, 0x02, 0, UInt8(ports.count)]  // STATUS CODE: altered by implicit behaviour
      for port in ports { groups.append(be: UInt32(port)) }
    }
    var data: [UInt8] = []
    data.append(be: UInt32(groups.count + (format == 1 ? 4 : 0)))
    if format == 1 { data += [0x10, Self.implicitTransitionSecondsMax, 0, 0] }
    return .dataIn(data + groups, allocationLength: cdb.be32(6))
  }

  /// SET TARGET PORT GROUPS (SPC-5 §6.45): to make a group active that is in standby is to switch over. Between groups that
  /// are active there is nothing to choose, and none is put out of service.
  func setTargetPortGroups(_ list: [UInt8]) -> Disposition {
    var isWanted = false
    for start in stride(from: 4, to: list.count, by: 4) {
      guard start + 4 <= list.count else { return .checkCondition(.parameterListLengthError) }
      let id = UInt16(list[start + 2]) << 8 | UInt16(list[start + 3])
      guard let group = portGroups.groups.first(where: { $0.id == id }) else {
        return .checkCondition(.invalidFieldInParameterList(byte: start + 2))
      }
      switch AsymmetricAccessState(rawValue: list[start] & 0x0F) {
      case .activeOptimized, .activeNonOptimized: if group.state == .standby { isWanted = true }
      case .standby where group.state == .standby: break
      default: return .checkCondition(.invalidFieldInParameterList(byte: start))
      }
    }
    return isWanted ? .switchover : .status(.good)
  }

  /// IMPLICIT TRANSITION TIME: how long an initiator should wait for a transition to end.
  static let implicitTransitionSecondsMax: UInt8 = 60

  /// REPORT SUPPORTED OPERATION CODES (SPC-5 §6.34).
  func reportSupportedOperationCodes(_ command: Command) -> Disposition {
    let cdb = command.cdb
    let withTimeouts = cdb[2] & 0x80 != 0
    let length = cdb.be32(6)
    let supported = table.rows(opcode: cdb[3]).filter { isSupported($0, by: command.unit) }
    let action = cdb.be16(4)
    let byAction = supported.first { $0.serviceAction.map(UInt16.init) == action }
    switch cdb[2] & 0x07 {
    case 0b000: return .dataIn(allCommands(command.unit, withTimeouts), allocationLength: length)
    case 0b001:
      // A command with service actions must be asked for with one.
      if supported.contains(where: { $0.serviceAction != nil }) {
        return .checkCondition(.invalidFieldInCDB(byte: 2, bit: 2))
      }
      return .dataIn(oneCommand(supported.first, withTimeouts), allocationLength: length)
    case 0b010:
      if supported.contains(where: { $0.serviceAction == nil }) {
        return .checkCondition(.invalidFieldInCDB(byte: 2, bit: 2))
      }
      return .dataIn(oneCommand(byAction, withTimeouts), allocationLength: length)
    case 0b011:
      let plain = action == 0 ? supported.first { $0.serviceAction == nil } : nil
      return .dataIn(oneCommand(plain ?? byAction, withTimeouts), allocationLength: length)
    default: return .checkCondition(.invalidFieldInCDB(byte: 2, bit: 2))
    }
  }

  /// SPC-5 §6.34.2.
  private func allCommands(_ unit: LogicalUnit, _ withTimeouts: Bool) -> [UInt8] {
    var data: [UInt8] = [0, 0, 0, 0]
    for row in table.rows where isSupported(row, by: unit) {
      data += [row.opcode, 0, 0, row.serviceAction ?? 0, 0]
      data.append((withTimeouts ? 0x02 : 0) | (row.serviceAction != nil ? 0x01 : 0))  // CTDP, SERVACTV
      data += [0, row.length]
      if withTimeouts { data += Self.timeouts }
    }
    data.store(be: UInt32(data.count - 4), at: 0)
    return data
  }

  /// SPC-5 §6.34.3: SUPPORT 001b with nothing more, or 011b with the CDB usage data.
  private func oneCommand(_ row: CommandRow?, _ withTimeouts: Bool) -> [UInt8] {
    guard let row else { return [0, 0x01, 0, 0] }
    var data: [UInt8] = [0, 0x03 | (withTimeouts ? 0x80 : 0), 0, row.length]
    for i in 0..<Int(row.length) { data.append(row.usage[i]) }
    return withTimeouts ? data + Self.timeouts : data
  }

  /// A command timeouts descriptor that promises nothing (SPC-5 §6.34.4).
  private static let timeouts: [UInt8] = [0x00, 0x0A] + [UInt8](repeating: 0, count: 10)

  /// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-5 §6.35): ATS, ATSS, CTSS, LURS, TRS.
  func reportSupportedTaskManagementFunctions(_ cdb: CDB) -> Disposition {
    var data: [UInt8] = [0x80 | 0x40 | 0x10 | 0x08 | 0x02, 0, 0, 0]
    if cdb[2] & 0x80 != 0 {  // REPD: with timeouts, which promise nothing
      data[3] = 0x0C
      data += [UInt8](repeating: 0, count: 12)
    }
    return .dataIn(data, allocationLength: cdb.be32(6))
  }

  /// REPORT TIMESTAMP (SPC-5 §6.37). TIMESTAMP ORIGIN: set by other means than SET TIMESTAMP (the machine's clock), or not
  /// at all.
  func reportTimestamp(_ cdb: CDB) -> Disposition {
    var data: [UInt8] = [0, 10, clock == nil ? 0b000 : 0b011, 0]
    let milliseconds = clock?() ?? 0
    data.append(be: UInt16(truncatingIfNeeded: milliseconds >> 32))
    data.append(be: UInt32(truncatingIfNeeded: milliseconds))
    return .dataIn(data + [0, 0], allocationLength: cdb.be32(6))
  }
}

extension DeviceServer {
  private func isSupported(_ row: CommandRow, by unit: LogicalUnit) -> Bool {
    switch row.handler {
    case .setTargetPortGroups: portGroups.isExplicit
    case .writeAtomic: unit.limits.atomic > 0
    default: !row.flags.contains(.thinOnly) || unit.traits.isThin
    }
  }
}
