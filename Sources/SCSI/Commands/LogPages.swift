import Wire

/// What the log pages tell that the device server does not know: the executor gathers it (`Disposition.log`).
public struct LogFacts: Equatable, Sendable {
  public var readCommands: UInt64 = 0
  public var writeCommands: UInt64 = 0
  /// Bytes from and to initiators.
  public var receivedBytes: UInt64 = 0
  public var transmittedBytes: UInt64 = 0
  /// What the logical unit takes of the space that it shares with others, and what is left there; nil: not known.
  public var usedBytes: UInt64?
  public var availableBytes: UInt64?

  public init() {}
}

/// A log page that was asked for, free of errors.
public struct LogQuery: Equatable, Sendable {
  public var page: LogPageCode
  /// Only parameters from this code on (PARAMETER POINTER).
  public var firstParameter: UInt16
  public var allocationLength: UInt32
}

/// The log pages that there are (SPC-5 §7.3, SBC-4 §6.4). No page has parameters that can be set or reset.
public enum LogPageCode: UInt8, CaseIterable, Sendable {
  case supported = 0x00
  case provisioning = 0x0C
  case statistics = 0x19
  case informationalExceptions = 0x2F

  /// The highest parameter code.
  var lastParameter: UInt16 {
    switch self {
    case .supported, .informationalExceptions: 0
    case .provisioning: 2
    case .statistics: 1
    }
  }

  /// Those of a logical unit, ascending. How much of its space is used can be told of a regular file only.
  static func all(_ traits: LogicalUnitTraits) -> [LogPageCode] {
    allCases.filter { $0 != .provisioning || traits.countsSpace }
  }
}

extension LogicalUnitTraits {
  var countsSpace: Bool { isThin && tellsMapping }
}

/// LOG SENSE (SPC-5 §6.7): current cumulative values.
extension DeviceServer {
  private static let allSubpages: UInt8 = 0xFF
  private static let cumulative: UInt8 = 0b01

  func logSense(_ command: Command) -> Disposition {
    let cdb = command.cdb
    let unit = command.unit
    if cdb[1] & 0x01 != 0 { return .checkCondition(.invalidFieldInCDB(byte: 1, bit: 0)) }  // SP
    guard let page = LogPageCode(rawValue: cdb[2] & 0x3F), LogPageCode.all(unit.traits).contains(page) else {
      return .checkCondition(.invalidFieldInCDB(byte: 2, bit: 5))
    }
    guard cdb[3] == 0 || cdb[3] == Self.allSubpages else { return .checkCondition(.invalidFieldInCDB(byte: 3)) }
    let pointer = cdb.be16(5)
    let length = UInt32(cdb.be16(7))
    if page == .supported || cdb[3] == Self.allSubpages {
      // Lists of pages have no values and no parameters.
      guard pointer == 0 else { return .checkCondition(.invalidFieldInCDB(byte: 5)) }
      return .dataIn(logPageList(page, subpages: cdb[3], unit), allocationLength: length)
    }
    guard cdb[2] >> 6 == Self.cumulative else { return .checkCondition(.invalidFieldInCDB(byte: 2, bit: 7)) }
    guard pointer <= page.lastParameter else { return .checkCondition(.invalidFieldInCDB(byte: 5)) }
    let query = LogQuery(page: page, firstParameter: pointer, allocationLength: length)
    guard page != .informationalExceptions else { return .dataIn(logPage(query, unit, LogFacts())) }
    return .log(query, unit)
  }

  /// The answer to a LOG SENSE whose facts have been gathered, cut to its allocation length.
  public func logPage(_ query: LogQuery, _ unit: LogicalUnit, _ facts: LogFacts) -> [UInt8] {
    var data: [UInt8] = [query.page.rawValue, 0, 0, 0]
    func append(_ code: UInt16, _ value: [UInt8]) {
      guard code >= query.firstParameter else { return }
      data.append(be: code)
      data += [0x03, UInt8(value.count)] + value  // FORMAT AND LINKING: binary
    }
    switch query.page {
    case .supported: break
    case .provisioning:
      append(1, resources(facts.availableBytes, unit, scope: 0b10))
      append(2, resources(facts.usedBytes, unit, scope: 0b01))
    case .statistics: append(1, statistics(facts, unit))
    // Nothing to tell, and no temperature: whose would it be?
    case .informationalExceptions: append(0, [0, 0, 0xFF, 0])
    }
    data.store(be: UInt16(data.count - 4), at: 2)
    return Array(data.prefix(Int(query.allocationLength)))
  }

  /// The pages, with their subpages (of which there are only the lists themselves) or without.
  private func logPageList(_ page: LogPageCode, subpages: UInt8, _ unit: LogicalUnit) -> [UInt8] {
    let pages = LogPageCode.all(unit.traits).map(\.rawValue)
    var list: [UInt8]
    if subpages == 0 {
      list = [page.rawValue, 0, 0, 0] + pages
    } else {
      list = [0x40 | page.rawValue, Self.allSubpages, 0, 0]  // SPF
      for code in page == .supported ? pages : [page.rawValue] { list += [code, 0, code, Self.allSubpages] }
    }
    list.store(be: UInt16(list.count - 4), at: 2)
    return list
  }

  /// LBA MAPPING RESOURCE COUNT in threshold sets (SBC-4 §6.4.4), and its SCOPE.
  private func resources(_ bytes: UInt64?, _ unit: LogicalUnit, scope: UInt8) -> [UInt8] {
    let blocks = (bytes ?? 0) / UInt64(unit.traits.blockBytes)
    var value: [UInt8] = []
    value.append(be: UInt32(clamping: (blocks + (1 << unit.thresholdExponent) - 1) >> unit.thresholdExponent))
    return value + [scope, 0, 0, 0]
  }

  /// General Statistics and Performance (SPC-5 §7.3.10). Processing times are not kept: zeroes.
  private func statistics(_ facts: LogFacts, _ unit: LogicalUnit) -> [UInt8] {
    let blockBytes = UInt64(unit.traits.blockBytes)
    var value: [UInt8] = []
    value.append(be: facts.readCommands)
    value.append(be: facts.writeCommands)
    value.append(be: facts.receivedBytes / blockBytes)
    value.append(be: facts.transmittedBytes / blockBytes)
    return value + [UInt8](repeating: 0, count: 32)
  }
}

extension LogicalUnit {
  /// THRESHOLD EXPONENT: resources are counted in MiB, which 32 bits hold for any capacity.
  var thresholdExponent: UInt64 { UInt64(20 - traits.blockBytes.trailingZeroBitCount) }
}
