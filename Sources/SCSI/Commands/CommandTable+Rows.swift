extension CommandTable {
  /// Bits that are in no mask: RDPROTECT, WRPROTECT and VRPROTECT, because there is no protection information; the
  /// CONTROL byte, because NACA is not supported.
  static let commands: [CommandRow] = primary + reservations + mode + blocks + maintenance

  private static let primary: [CommandRow] = [
    CommandRow(
      "TEST UNIT READY", [0x00, 0, 0, 0, 0, 0], .testUnitReady, persistent: .always, [.needsMedium]),
    CommandRow(
      "REQUEST SENSE", [0x03, 0x01, 0, 0, 0xFF, 0], .requestSense, legacy: .allowed, persistent: .always,
      [.ignoresAttention, .needsNoUnit, .anyAccessState, .duringSanitize]),
    CommandRow(
      "INQUIRY", [0x12, 0x01, 0xFF, 0xFF, 0xFF, 0], .inquiry, legacy: .allowed, persistent: .always,
      [.ignoresAttention, .needsNoUnit, .anyAccessState, .duringSanitize]),
    CommandRow(
      "REPORT LUNS", [0xA0, 0, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0], .reportLuns, legacy: .allowed,
      persistent: .always, [.ignoresAttention, .needsNoUnit, .anyAccessState, .duringSanitize]),
    CommandRow(
      "RECEIVE DIAGNOSTIC RESULTS", [0x1C, 0x01, 0xFF, 0xFF, 0xFF, 0], .receiveDiagnostic, persistent: .reading,
      [.anyAccessState]),
    CommandRow(
      "SEND DIAGNOSTIC", [0x1D, 0x17, 0, 0, 0, 0], .sendDiagnostic, persistent: .writing, [.anyAccessState]),
    CommandRow(
      "READ BUFFER(10)", [0x3C, 0x1F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0], .readBuffer, persistent: .reading,
      [.anyAccessState]),
    CommandRow(
      "WRITE BUFFER", [0x3B, 0x1F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0], .writeBuffer, persistent: .writing,
      [.anyAccessState]),
    CommandRow(
      "LOG SENSE", [0x4D, 0x01, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0], .logSense, legacy: .allowed,
      persistent: .always, [.anyAccessState, .duringSanitize]),
    // Reservations of the logical units that it reads and writes are looked at for each piece of a segment.
    CommandRow(
      "EXTENDED COPY(LID1)", [0x83, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0], .extendedCopy,
      serviceAction: 0x00, persistent: .writing),
    receiveCopyResults("RECEIVE COPY STATUS(LID1)", 0x00),
    receiveCopyResults("RECEIVE COPY DATA(LID1)", 0x01),
    receiveCopyResults("RECEIVE COPY OPERATING PARAMETERS", 0x03),
    receiveCopyResults("RECEIVE COPY FAILURE DETAILS(LID1)", 0x04),
    // With START or PREVENT as the tables say, decided in the handler.
    CommandRow(
      "START STOP UNIT", [0x1B, 0x01, 0, 0x0F, 0xF7, 0], .startStopUnit, legacy: .allowed, persistent: .own),
    CommandRow(
      "PREVENT ALLOW MEDIUM REMOVAL", [0x1E, 0, 0, 0, 0x03, 0], .preventAllow, legacy: .allowed, persistent: .own),
  ]

  private static func receiveCopyResults(_ name: StaticString, _ action: UInt8) -> CommandRow {
    CommandRow(
      name, [0x84, action, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0], .receiveCopyResults,
      serviceAction: action, persistent: .reading)
  }

  private static let reservations: [CommandRow] = [
    CommandRow("RESERVE(6)", [0x16, 0, 0, 0, 0, 0], .reserve, legacy: .allowed, persistent: .own),
    CommandRow("RELEASE(6)", [0x17, 0, 0, 0, 0, 0], .release, legacy: .allowed, persistent: .own),
    CommandRow("RESERVE(10)", [0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0], .reserve, legacy: .allowed, persistent: .own),
    CommandRow("RELEASE(10)", [0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0], .release, legacy: .allowed, persistent: .own),
    reserveIn("PERSISTENT RESERVE IN, READ KEYS", 0x00),
    reserveIn("PERSISTENT RESERVE IN, READ RESERVATION", 0x01),
    reserveIn("PERSISTENT RESERVE IN, REPORT CAPABILITIES", 0x02),
    reserveIn("PERSISTENT RESERVE IN, READ FULL STATUS", 0x03),
    reserveOut("PERSISTENT RESERVE OUT, REGISTER", 0x00),
    reserveOut("PERSISTENT RESERVE OUT, RESERVE", 0x01),
    reserveOut("PERSISTENT RESERVE OUT, RELEASE", 0x02),
    reserveOut("PERSISTENT RESERVE OUT, CLEAR", 0x03),
    reserveOut("PERSISTENT RESERVE OUT, PREEMPT", 0x04),
    reserveOut("PERSISTENT RESERVE OUT, PREEMPT AND ABORT", 0x05),
    reserveOut("PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY", 0x06),
    reserveOut("PERSISTENT RESERVE OUT, REGISTER AND MOVE", 0x07),
  ]

  // In standby another node has the table: it is asked.
  private static func reserveIn(_ name: StaticString, _ action: UInt8) -> CommandRow {
    CommandRow(
      name, [0x5E, action, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0], .persistentReserveIn, serviceAction: action,
      legacy: .conflictEvenForHolder, persistent: .own)
  }

  private static func reserveOut(_ name: StaticString, _ action: UInt8) -> CommandRow {
    CommandRow(
      name, [0x5F, action, 0xFF, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0], .persistentReserveOut, serviceAction: action,
      legacy: .conflictEvenForHolder, persistent: .own)
  }

  private static let mode: [CommandRow] = [
    CommandRow("MODE SELECT(6)", [0x15, 0x11, 0, 0, 0xFF, 0], .modeSelect6, persistent: .writing, [.anyAccessState]),
    CommandRow(
      "MODE SELECT(10)", [0x55, 0x11, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0], .modeSelect10, persistent: .writing,
      [.anyAccessState]),
    CommandRow(
      "MODE SENSE(6)", [0x1A, 0x08, 0xFF, 0xFF, 0xFF, 0], .modeSense6, persistent: .reading, [.anyAccessState]),
    CommandRow(
      "MODE SENSE(10)", [0x5A, 0x18, 0xFF, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0], .modeSense10, persistent: .reading,
      [.anyAccessState]),
  ]

  private static let maintenance: [CommandRow] = [
    CommandRow(
      "REPORT TARGET PORT GROUPS", [0xA3, 0xEA, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0], .reportTargetPortGroups,
      serviceAction: 0x0A, legacy: .allowed, persistent: .always, [.anyAccessState, .duringSanitize]),
    CommandRow(
      "SET TARGET PORT GROUPS", [0xA4, 0x0A, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0], .setTargetPortGroups,
      serviceAction: 0x0A, persistent: .writing, [.anyAccessState]),
    CommandRow(
      "REPORT SUPPORTED OPERATION CODES", [0xA3, 0x0C, 0x87, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
      .reportSupportedOperationCodes, serviceAction: 0x0C, persistent: .reading, [.anyAccessState, .duringSanitize]),
    CommandRow(
      "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", [0xA3, 0x0D, 0x80, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
      .reportSupportedTaskManagementFunctions, serviceAction: 0x0D, persistent: .reading,
      [.anyAccessState, .duringSanitize]),
    CommandRow(
      "REPORT TIMESTAMP", [0xA3, 0x0F, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0], .reportTimestamp,
      serviceAction: 0x0F, persistent: .always, [.anyAccessState, .duringSanitize]),
  ]
}
