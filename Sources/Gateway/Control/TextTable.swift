/// Aligned columns for a terminal or a file. Whatever comes from disks or peers is made printable first.
public struct TextTable: Sendable {
  private var rows: [[String]] = []
  private let rightAligned: Set<Int>

  /// - Parameter numbers: The columns that are aligned to the right.
  public init(_ titles: [String], numbers: Set<Int> = []) {
    rows = [titles]
    rightAligned = numbers
  }

  public mutating func add(_ cells: [String]) { rows.append(cells.map(Printable.text)) }

  /// The lines, without trailing blanks, each ended by a newline.
  public var text: String {
    let columns = rows.map(\.count).max() ?? 0
    let widths = (0..<columns).map { column in rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
    return rows.map { row in
      var line = ""
      for (column, cell) in row.enumerated() {
        let blanks = String(repeating: " ", count: widths[column] - cell.count)
        line += rightAligned.contains(column) ? blanks + cell : cell + blanks
        line += "  "
      }
      while line.last == " " { line.removeLast() }
      return line + "\n"
    }.joined()
  }
}

/// Text from elsewhere, made safe for a terminal and a log.
public enum Printable {
  /// Control characters, separators of lines and marks of direction are written as `\n`, `\u{1b}`.
  public static func text(_ text: String) -> String {
    var bytes: [UInt8] = []
    for scalar in text.unicodeScalars { append(scalar, to: &bytes) }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// Adds a character as `text` writes it. Nothing is allocated for one of ASCII: most of what a login allocated was its
  /// line in the log.
  static func append(_ scalar: Unicode.Scalar, to bytes: inout [UInt8]) {
    switch scalar.value {
    case 0x20..<0x7F: bytes.append(UInt8(scalar.value))
    case 0x0A: bytes += "\\n".utf8
    case 0x0D: bytes += "\\r".utf8
    case 0x09: bytes += "\\t".utf8
    case 0..<0x20, 0x7F..<0xA0, 0x2028...0x202E, 0x2066...0x2069:
      bytes += "\\u{\(String(scalar.value, radix: 16))}".utf8
    default: bytes += String(Character(scalar)).utf8
    }
  }
}
