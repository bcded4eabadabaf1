/// What the device server does with a command: the handler's name, so that a row stays a plain value.
enum CommandHandler: UInt8, Sendable {
  // The first two are the warm path.
  case read, write
  case writeAndVerify, verify, writeSame, compareAndWrite, orWrite, writeAtomic, prefetch, synchronizeCache
  case unmap, lbaStatus, sanitize
  case extendedCopy, receiveCopyResults
  case readCapacity10, readCapacity16, readDefectData10, readDefectData12
  case testUnitReady, requestSense, inquiry, reportLuns
  case modeSense6, modeSense10, modeSelect6, modeSelect10
  case startStopUnit, preventAllow, sendDiagnostic, receiveDiagnostic, readBuffer, writeBuffer, logSense
  case reserve, release, persistentReserveIn, persistentReserveOut
  case reportTargetPortGroups, setTargetPortGroups, reportSupportedOperationCodes,
    reportSupportedTaskManagementFunctions, reportTimestamp
}

/// Where LBA and length are in a CDB that moves blocks.
enum BlockFields: UInt8, Sendable {
  case none, six, ten, twelve, sixteen
}

/// One command: all that is known of it without looking at a logical unit. Plain and without references, so that the
/// warm path reads it through a pointer.
struct CommandRow: Sendable {
  struct Flags: OptionSet, Sendable {
    var rawValue: UInt8
    /// Processed with a unit attention condition pending (SAM-5 §5.14.1, table 47).
    static let ignoresAttention = Flags(rawValue: 1 << 0)
    /// Answered for a LUN without a logical unit (SPC-5 §6.6, §6.33, §6.39).
    static let needsNoUnit = Flags(rawValue: 1 << 1)
    /// Changes the medium: refused with write protection.
    static let changesMedium = Flags(rawValue: 1 << 2)
    /// Needs a medium: NOT READY when it is ejected.
    static let needsMedium = Flags(rawValue: 1 << 3)
    /// Only where blocks can be deallocated.
    static let thinOnly = Flags(rawValue: 1 << 4)
    /// Allowed in ALUA standby and unavailable states (SPC-5 §5.18.2.6).
    static let anyAccessState = Flags(rawValue: 1 << 5)
    /// Processed while the medium is being sanitized (SBC-4 §4.11.2): it tells nothing of it and changes nothing.
    static let duringSanitize = Flags(rawValue: 1 << 6)
  }

  let name: StaticString
  let opcode: UInt8
  /// nil: the command has no service actions.
  let serviceAction: UInt8?
  /// CDB LENGTH in bytes.
  let length: UInt8
  let handler: CommandHandler
  let fields: BlockFields
  let legacy: LegacyAccess
  let persistent: PersistentAccess
  let flags: Flags
  /// The CDB usage data of REPORT SUPPORTED OPERATION CODES (SPC-5 §6.34.3): operation code, service action, and ones
  /// for every bit that is looked at.
  let usage: CDB
  /// The bits of a CDB that must be zero.
  let reserved: CDB

  init(
    _ name: StaticString, _ usage: [UInt8], _ handler: CommandHandler, fields: BlockFields = .none,
    serviceAction: UInt8? = nil, legacy: LegacyAccess = .conflict, persistent: PersistentAccess, _ flags: Flags = []
  ) {
    self.name = name
    opcode = usage[0]
    self.serviceAction = serviceAction
    length = UInt8(usage.count)
    self.handler = handler
    self.fields = fields
    self.legacy = legacy
    self.persistent = persistent
    self.flags = flags
    self.usage = CDB(usage)
    var reserved = usage.map { ~$0 }
    reserved[0] = 0
    if let serviceAction {
      precondition(usage[1] & 0x1F == serviceAction)
      reserved[1] &= 0xE0
    }
    self.reserved = CDB(reserved)
  }

  /// Whether all that must be zero is.
  @inline(__always)
  func isProper(_ cdb: CDB) -> Bool {
    (cdb.high & reserved.high) | (cdb.low & reserved.low) == 0
  }

  /// The first field of `cdb` that must be zero and is not.
  func misuse(in cdb: CDB) -> Sense? {
    if isProper(cdb) { return nil }
    let high = cdb.high & reserved.high
    let low = cdb.low & reserved.low
    let place = high != 0 ? high.leadingZeroBitCount : 64 + low.leadingZeroBitCount
    return .invalidFieldInCDB(byte: place / 8, bit: UInt8(7 - place % 8))
  }
}
