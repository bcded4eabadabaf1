/// Why a text is not TOML, or not TOML that settings may be written in.
public struct TOMLProblem: Error, Sendable, Equatable {
  /// From 1.
  public var line: Int
  /// A sentence for a person. Keys may be in it, and single characters beside them; of a value nothing that can be read: it
  /// may be a secret whose quotes were forgotten.
  public var message: String

  public init(line: Int, message: String) {
    self.line = line
    self.message = message
  }

  static func notTOML(_ line: Int, _ message: String) -> TOMLProblem {
    TOMLProblem(line: line, message: "not TOML: \(message)")
  }
}

/// TOML 1.0 (https://toml.io/en/v1.0.0) in, a tree with lines out. It goes over the bytes once; any bytes give one or the
/// other. The parts of the grammar are in extensions, the rules of what may be defined twice in `TOMLDocument`.
///
/// What TOML allows and no setting needs is refused: U+0000, at which a C string ends; trees deeper than
/// `TOMLDocument.depthMax`; keys and texts longer than those below. Of a value that no key takes (a fraction, a date) the
/// syntax is checked and the kind kept.
public struct TOMLReader {
  /// To compare texts Swift sorts the accents of a letter, in a time that is quadratic in their number: what is longer than
  /// any key or path is not to come that far.
  static let keyByteCountMax = 255
  static let textByteCountMax = 4096

  let bytes: [UInt8]
  var position = 0
  var line = 1
  /// From a key's = to the end of its statement: what is here may be of a secret, or the rest of one.
  private var isInValue = false
  var document = TOMLDocument()

  /// - Throws: The first thing that is wrong.
  public static func read(_ bytes: [UInt8]) throws(TOMLProblem) -> TOMLDocument {
    var reader = TOMLReader(bytes: bytes)
    try reader.checkEncoding()
    try reader.statements()
    return reader.document
  }

  private init(bytes: [UInt8]) { self.bytes = bytes }

  var byte: UInt8? { position < bytes.count ? bytes[position] : nil }

  func byte(at offset: Int) -> UInt8? { position + offset < bytes.count ? bytes[position + offset] : nil }

  /// Whether three of these follow.
  func isTriple(_ quote: UInt8) -> Bool { byte == quote && byte(at: 1) == quote && byte(at: 2) == quote }

  // MARK: Statements

  /// A document is valid UTF-8 (Preliminaries); what comes after may rely on it.
  private func checkEncoding() throws(TOMLProblem) {
    do throws(UTF8.ValidationError) { _ = try UTF8Span(validating: bytes.span) } catch {
      let newlines = bytes[..<error.byteOffsets.lowerBound].count { $0 == UInt8(ascii: "\n") }
      throw .notTOML(newlines + 1, "the file is not UTF-8 here")
    }
  }

  /// Key/value pairs and headers, each on lines of its own.
  private mutating func statements() throws(TOMLProblem) {
    // Some editors write a byte order mark.
    if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { position = 3 }
    var table = TOMLDocument.root
    while true {
      isInValue = false
      skipBlanks()
      switch byte {
      case nil: return
      case UInt8(ascii: "#"), UInt8(ascii: "\n"), UInt8(ascii: "\r"): break
      case UInt8(ascii: "["): table = try header()
      default:
        try pair(in: table, "a line has a key, as in key = \"value\", a table's name, as in [limits], or a # comment")
      }
      skipBlanks()
      try comment()
      guard byte != nil else { return }
      guard newline() else { throw unexpected("a statement has to end with its line") }
    }
  }

  /// `[a.b]` (Table) or `[[a.b]]` (Array of Tables); gives the table that it begins.
  private mutating func header() throws(TOMLProblem) -> Int {
    let start = line
    position += 1
    let isElement = byte == UInt8(ascii: "[")
    if isElement { position += 1 }
    let names = try key("a table's name is of letters, digits, - and _, as in [limits]")
    for _ in 0..<(isElement ? 2 : 1) {
      guard byte == UInt8(ascii: "]") else {
        throw unexpected("a table's name ends with \(isElement ? "]] as in [[disk]]" : "] as in [limits]")")
      }
      position += 1
    }
    return isElement ? try document.elementTable(names, line: start) : try document.table(names, line: start)
  }

  /// `a.b = value` (Key/Value Pair).
  mutating func pair(in table: Int, _ rule: String) throws(TOMLProblem) {
    let start = line
    let names = try key(rule)
    guard byte == UInt8(ascii: "=") else { throw unexpected("a key is followed by = and a value") }
    position += 1
    isInValue = true
    skipBlanks()
    try value(at: document.place(for: names, in: table, line: start))
  }

  /// Bare, quoted and dotted keys (Keys), and the blanks after them.
  /// - Parameter rule: What to say where there is none.
  private mutating func key(_ rule: String) throws(TOMLProblem) -> [String] {
    var names: [String] = []
    while true {
      skipBlanks()
      switch byte {
      case UInt8(ascii: "\""): names.append(try basicString())
      case UInt8(ascii: "'"): names.append(try literalString())
      default:
        let start = position
        while let byte, Self.isBare(byte) { position += 1 }
        guard position > start else { throw unexpected(rule) }
        names.append(String(decoding: bytes[start..<position], as: UTF8.self))
      }
      guard names.last?.utf8.count ?? 0 <= Self.keyByteCountMax else {
        throw TOMLProblem(line: line, message: "a key is longer than \(Self.keyByteCountMax) bytes")
      }
      skipBlanks()
      guard byte == UInt8(ascii: ".") else { return names }
      position += 1
    }
  }

  private static func isBare(_ byte: UInt8) -> Bool { isLetter(byte) || isDigit(byte) || byte == 0x2D || byte == 0x5F }

  static func isLetter(_ byte: UInt8) -> Bool { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20) }

  static func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }

  /// Of a decimal or hexadecimal digit.
  static func value(ofDigit byte: UInt8) -> UInt8? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
    default: nil
    }
  }

  // MARK: Between the words

  /// Tabs and spaces (Preliminaries).
  mutating func skipBlanks() {
    while byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") { position += 1 }
  }

  /// Blanks, comments and ends of lines, where all of them may be.
  mutating func skipLines() throws(TOMLProblem) {
    repeat {
      skipBlanks()
      try comment()
    } while newline()
  }

  /// LF or CRLF (Preliminaries); false: none is here.
  mutating func newline() -> Bool {
    let isPair = byte == UInt8(ascii: "\r") && byte(at: 1) == UInt8(ascii: "\n")
    guard isPair || byte == UInt8(ascii: "\n") else { return false }
    position += isPair ? 2 : 1
    line += 1
    return true
  }

  var isAtNewline: Bool {
    byte == UInt8(ascii: "\n") || byte == UInt8(ascii: "\r") && byte(at: 1) == UInt8(ascii: "\n")
  }

  /// A comment up to its line's end, if there is one; control characters may not be in it (Comment).
  private mutating func comment() throws(TOMLProblem) {
    guard byte == UInt8(ascii: "#") else { return }
    while let byte, !isAtNewline {
      guard Self.isText(byte) else { throw unexpected("a comment has no control characters but tabs") }
      position += 1
    }
  }

  /// Whether a byte may stand for itself in comments and strings: no control character but the tab.
  static func isText(_ byte: UInt8) -> Bool { byte >= 0x20 && byte != 0x7F || byte == UInt8(ascii: "\t") }

  // MARK: Problems

  /// What is here is not what should be: says which character it is, if that may be told, and the rule.
  func unexpected(_ rule: String) -> TOMLProblem {
    guard let byte else { return .notTOML(line, "the file ends too early: \(rule)") }
    if isAtNewline { return .notTOML(line, "the line ends too early: \(rule)") }
    if byte == 0 { return zero }
    guard let scalar = String(decoding: bytes[position...].prefix(4), as: UTF8.self).unicodeScalars.first,
      !isInValue || Self.isDeceptive(scalar)
    else { return .notTOML(line, "a character does not belong here: \(rule)") }
    if (0x21..<0x7F).contains(byte) { return .notTOML(line, "'\(scalar)' does not belong here: \(rule)") }
    let digits = String(scalar.value, radix: 16, uppercase: true)
    let zeros = String(repeating: "0", count: max(0, 4 - digits.count))
    return .notTOML(line, "U+\(zeros)\(digits) does not belong here: \(rule)")
  }

  /// Whether a character cannot be seen, or is a quote that looks like the right one: who is not told of it never finds it, and
  /// hardly a secret has it.
  private static func isDeceptive(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.properties.generalCategory {
    case .control, .format, .spaceSeparator, .initialPunctuation, .finalPunctuation: true
    default: false
    }
  }

  /// U+0000, as it is or as an escape.
  var zero: TOMLProblem { TOMLProblem(line: line, message: "a zero character is not allowed in settings") }
}
