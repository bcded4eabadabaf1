// The four kinds of strings (TOML 1.0, String).
extension TOMLReader {
  /// A string of any kind, as a value.
  mutating func string() throws(TOMLProblem) -> String {
    let start = line
    let quote = bytes[position]
    let text: String
    if isTriple(quote) {
      text = try longString(quote)
    } else {
      text = quote == UInt8(ascii: "'") ? try literalString() : try basicString()
    }
    guard text.utf8.count <= Self.textByteCountMax else {
      throw TOMLProblem(line: start, message: "a text is longer than \(Self.textByteCountMax) bytes")
    }
    return text
  }

  /// `"…"`, on one line, with escapes.
  mutating func basicString() throws(TOMLProblem) -> String {
    position += 1
    var text: [UInt8] = []
    while let byte {
      switch byte {
      case UInt8(ascii: "\""):
        position += 1
        return String(decoding: text, as: UTF8.self)
      case UInt8(ascii: "\\"): try escape(into: &text)
      case _ where Self.isText(byte): take(into: &text)
      default: throw misplaced("\"")
      }
    }
    throw misplaced("\"")
  }

  /// `'…'`, on one line, as it is.
  mutating func literalString() throws(TOMLProblem) -> String {
    position += 1
    let start = position
    while let byte {
      if byte == UInt8(ascii: "'") {
        position += 1
        return String(decoding: bytes[start..<(position - 1)], as: UTF8.self)
      }
      guard Self.isText(byte) else { throw misplaced("'") }
      position += 1
    }
    throw misplaced("'")
  }

  /// `"""…"""` and `'''…'''`, the first with escapes. A newline right at the beginning is not part of it, and the others are
  /// LF whatever the file has.
  private mutating func longString(_ quote: UInt8) throws(TOMLProblem) -> String {
    let start = line
    let quotes = String(repeating: Character(Unicode.Scalar(quote)), count: 3)
    position += 3
    _ = newline()
    var text: [UInt8] = []
    while let byte {
      switch byte {
      case quote where isTriple(quote):
        position += 3
        // One or two more of them stand before the three that end it.
        for _ in 0..<2 where self.byte == quote { take(into: &text) }
        return String(decoding: text, as: UTF8.self)
      case UInt8(ascii: "\\") where quote == UInt8(ascii: "\""):
        if !foldedLines() { try escape(into: &text) }
      case _ where Self.isText(byte): take(into: &text)
      default:
        guard newline() else { throw misplaced(quotes) }
        text.append(UInt8(ascii: "\n"))
      }
    }
    throw .notTOML(start, "the text that begins here has no \(quotes) at its end")
  }

  private mutating func take(into text: inout [UInt8]) {
    text.append(bytes[position])
    position += 1
  }

  /// A backslash that is the last of its line: all blanks and newlines up to the next character are nothing.
  private mutating func foldedLines() -> Bool {
    let start = position
    position += 1
    skipBlanks()
    guard newline() else {
      position = start
      return false
    }
    repeat { skipBlanks() } while newline()
    return true
  }

  /// `\n`, `\u00E9` and the others; `\u` and `\U` are of a Unicode scalar value, which half a surrogate pair is not.
  private mutating func escape(into text: inout [UInt8]) throws(TOMLProblem) {
    position += 1
    let digits: Int
    switch byte {
    case UInt8(ascii: "b"): return simple(0x08, into: &text)
    case UInt8(ascii: "t"): return simple(0x09, into: &text)
    case UInt8(ascii: "n"): return simple(0x0A, into: &text)
    case UInt8(ascii: "f"): return simple(0x0C, into: &text)
    case UInt8(ascii: "r"): return simple(0x0D, into: &text)
    case UInt8(ascii: "\""), UInt8(ascii: "\\"): return take(into: &text)
    case UInt8(ascii: "u"): digits = 4
    case UInt8(ascii: "U"): digits = 8
    default: throw unexpected("after \\ comes one of b t n f r u U \" \\; a text in 'single quotes' has no escapes")
    }
    position += 1
    var code: UInt32 = 0
    for _ in 0..<digits {
      guard let digit = byte.flatMap(Self.value(ofDigit:)) else {
        throw .notTOML(line, "\\\(digits == 4 ? "u" : "U") is followed by \(digits) hexadecimal digits")
      }
      code = code << 4 | UInt32(digit)
      position += 1
    }
    guard code != 0 else { throw zero }
    guard let scalar = Unicode.Scalar(code) else { throw .notTOML(line, "an escape is of no Unicode character") }
    text += String(Character(scalar)).utf8
  }

  private mutating func simple(_ byte: UInt8, into text: inout [UInt8]) {
    text.append(byte)
    position += 1
  }

  /// What is here cannot be in a string, or the string should have ended.
  private func misplaced(_ quotes: String) -> TOMLProblem {
    if byte == nil || isAtNewline { return .notTOML(line, "a text has no \(quotes) at its end") }
    return unexpected("in a text, control characters are written as escapes, as in \"\\u001B\"")
  }
}
