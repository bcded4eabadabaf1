/// The one table of commands. Everything that depends on which command it is, is read here: what a CDB may contain,
/// what reservations, unit attentions and ALUA states allow, and what REPORT SUPPORTED OPERATION CODES tells. A
/// further command is a row and a handler.
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

  /// A row, or why there is none.
  struct Lookup {
    let row: UnsafePointer<CommandRow>?
    let refusal: Sense

    static func found(_ row: UnsafePointer<CommandRow>) -> Lookup {
      Lookup(row: row, refusal: .invalidCommandOperationCode)
    }
  }

  /// The row for a CDB.
  func row(for cdb: CDB) -> Lookup {
    guard let start = firstRow(cdb.opcode) else { return Lookup(row: nil, refusal: .invalidCommandOperationCode) }
    guard start.pointee.serviceAction != nil else { return .found(start) }
    for row in rows(opcode: cdb.opcode).indices where rows[row].serviceAction == cdb.serviceAction {
      return .found(address(row))
    }
    return Lookup(row: nil, refusal: .invalidFieldInCDB(byte: 1, bit: 4))
  }

  /// The row of an operation code that is a READ or a WRITE.
  @inline(__always)
  func transferRow(for opcode: UInt8) -> UnsafePointer<CommandRow>? {
    guard let row = firstRow(opcode), row.pointee.handler.rawValue <= CommandHandler.write.rawValue else { return nil }
    return row
  }

  @inline(__always)
  private func firstRow(_ opcode: UInt8) -> UnsafePointer<CommandRow>? {
    let i = first[Int(opcode)]
    return i == Self.none ? nil : address(Int(i))
  }

  /// `i` is the index of a row, and there are rows: the base address is there.
  @inline(__always)
  private func address(_ i: Int) -> UnsafePointer<CommandRow> { rows.baseAddress! + i }

  /// The rows of an operation code.
  func rows(opcode: UInt8) -> Slice<UnsafeBufferPointer<CommandRow>> {
    guard first[Int(opcode)] != Self.none else { return rows[0..<0] }
    let start = Int(first[Int(opcode)])
    let end = rows[start...].firstIndex { $0.opcode != opcode } ?? rows.count
    return rows[start..<end]
  }
}
