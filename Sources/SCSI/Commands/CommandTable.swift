/// The one table of commands. Everything that depends on which command it is, is read here: what a CDB may contain, what
/// reservations, unit attentions and ALUA states allow, and what REPORT SUPPORTED OPERATION CODES tells. A further command
/// is a row and a handler.
///
/// Built once and never freed, so that a row is reached by two loads and no reference is counted.
final class CommandTable: @unchecked Sendable {
  static let shared = CommandTable(CommandTable.commands)

  /// The rows, ascending by operation code and service action.
  let rows: UnsafeBufferPointer<CommandRow>
  /// By operation code the index of the first row, or `none`.
  private let first: UnsafeBufferPointer<UInt16>
  private static let none: UInt16 = 0xFFFF

  private init(_ commands: [CommandRow]) {
    let sorted = commands.sorted { ($0.opcode, $0.serviceAction ?? 0) < ($1.opcode, $1.serviceAction ?? 0) }
    let rows = UnsafeMutableBufferPointer<CommandRow>.allocate(capacity: sorted.count)
    _ = rows.initialize(from: sorted)
    let first = UnsafeMutableBufferPointer<UInt16>.allocate(capacity: 256)
    first.initialize(repeating: Self.none)
    for (i, row) in sorted.enumerated().reversed() { first[Int(row.opcode)] = UInt16(i) }
    self.rows = UnsafeBufferPointer(rows)
    self.first = UnsafeBufferPointer(first)
  }

  enum Lookup {
    case row(UnsafePointer<CommandRow>)
    case unknownOpcode
    case unknownServiceAction
  }

  /// The row for a CDB.
  func row(for cdb: CDB) -> Lookup {
    let i = first[Int(cdb.opcode)]
    if i == Self.none { return .unknownOpcode }
    let row = rows.baseAddress! + Int(i)  // i is the index of a row
    if row.pointee.serviceAction == nil { return .row(row) }
    return self.row(opcode: cdb.opcode, serviceAction: UInt16(cdb.serviceAction), from: Int(i))
  }

  private func row(opcode: UInt8, serviceAction: UInt16, from start: Int) -> Lookup {
    var i = start
    while i < rows.count, rows[i].opcode == opcode {
      if let action = rows[i].serviceAction, UInt16(action) == serviceAction { return .row(rows.baseAddress! + i) }
      i += 1
    }
    return .unknownServiceAction
  }

  /// The rows of an operation code.
  func rows(opcode: UInt8) -> [CommandRow] {
    rows.filter { $0.opcode == opcode }
  }
}
