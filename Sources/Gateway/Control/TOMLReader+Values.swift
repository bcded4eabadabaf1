// Values (TOML 1.0, Key/Value Pair to Inline Table).
extension TOMLReader {
  /// Any value.
  mutating func value(at place: Int) throws(TOMLProblem) {
    switch byte {
    case UInt8(ascii: "["): try array(at: place)
    case UInt8(ascii: "{"): try inlineTable(at: place)
    case UInt8(ascii: "\""), UInt8(ascii: "'"): document.set(place, .string(try string()))
    default: document.set(place, try bareValue())
    }
  }

  /// `[1, 2]`, over as many lines as it likes, with a comma after the last too (Array).
  private mutating func array(at place: Int) throws(TOMLProblem) {
    let start = line
    document.set(place, .array)
    position += 1
    while true {
      try skipLines()
      if byte != UInt8(ascii: "]"), byte != nil {
        try value(at: document.append(to: place, line: line))
        try skipLines()
        if byte == UInt8(ascii: ",") {
          position += 1
          continue
        }
      }
      guard byte != nil else { throw .notTOML(start, "the list that begins here has no ] at its end") }
      guard byte == UInt8(ascii: "]") else { throw unexpected("in a list, a value is followed by a comma or ]") }
      position += 1
      return
    }
  }

  /// `{ a = 1, b.c = 2 }`: on one line, but for what its values have, and without a comma after the last (Inline Table).
  private mutating func inlineTable(at place: Int) throws(TOMLProblem) {
    document.set(place, .inlineTable)
    position += 1
    skipBlanks()
    if byte == UInt8(ascii: "}") {
      position += 1
      return
    }
    while true {
      try pair(in: place, "in a table in braces, a key follows, on the same line")
      skipBlanks()
      guard let byte, byte == UInt8(ascii: ",") || byte == UInt8(ascii: "}") else {
        throw unexpected("in a table in braces, a value is followed by a comma or }, on the same line")
      }
      position += 1
      if byte == UInt8(ascii: "}") { return }
    }
  }

  /// Numbers, `true`, `false`, dates and times: a word, which has to be one of them as a whole.
  private mutating func bareValue() throws(TOMLProblem) -> SettingsValue {
    let start = position
    skipWord()
    // Between a date and its time a space may stand for the T (Offset Date-Time).
    if position - start == 10, bytes[start + 4] == UInt8(ascii: "-"), byte == UInt8(ascii: " "),
      let next = byte(at: 1), Self.isDigit(next)
    {
      position += 1
      skipWord()
    }
    let word = bytes[start..<position]
    if word.isEmpty { throw unexpected("a value is a text in quotes, a number, true, false, a list or a table") }
    if word.elementsEqual("true".utf8) { return true }
    if word.elementsEqual("false".utf8) { return false }
    if let (digits, radix) = TOMLWord.integer(word) {
      guard let number = Int64(digits, radix: radix) else {
        throw .notTOML(line, "a number is beyond 64 bits (a text has to stand in quotes)")
      }
      return .integer(number)
    }
    if TOMLWord.isFloat(word) { return .other("a fraction") }
    if TOMLWord.isDateOrTime(word) { return .other("a date or time") }
    throw .notTOML(line, "a value is no number, no date, not true and not false (a text has to stand in quotes)")
  }

  private mutating func skipWord() {
    while let byte, Self.isLetter(byte) || Self.isDigit(byte) || "+-_.:".utf8.contains(byte) { position += 1 }
  }
}

/// What a word without quotes is. None of this has a state: the word is there as a whole.
enum TOMLWord {
  /// The digits with their sign but without underscores, and their radix (Integer); nil: it is none. Its range is not looked
  /// at.
  static func integer(_ word: ArraySlice<UInt8>) -> (String, radix: Int)? {
    let radix =
      switch word.dropFirst().first {
      case UInt8(ascii: "x"): 16
      case UInt8(ascii: "o"): 8
      case UInt8(ascii: "b"): 2
      default: 10
      }
    if radix == 10 {
      guard isDecimal(unsigned(word)) else { return nil }
    } else {
      // These have no sign, and may begin with zeros.
      guard word.first == UInt8(ascii: "0"), isDigits(word.dropFirst(2), radix: radix) else { return nil }
    }
    let digits = (radix == 10 ? word : word.dropFirst(2)).filter { $0 != UInt8(ascii: "_") }
    return (String(decoding: digits, as: UTF8.self), radix)
  }

  /// An integer, then a fraction, an exponent or both; or inf, or nan (Float).
  static func isFloat(_ word: ArraySlice<UInt8>) -> Bool {
    let number = unsigned(word)
    if number.elementsEqual("inf".utf8) || number.elementsEqual("nan".utf8) { return true }
    let exponent = number.firstIndex { $0 | 0x20 == UInt8(ascii: "e") }
    let mantissa = number[..<(exponent ?? number.endIndex)]
    let point = mantissa.firstIndex(of: UInt8(ascii: "."))
    guard point != nil || exponent != nil, isDecimal(mantissa[..<(point ?? mantissa.endIndex)]) else { return false }
    if let point, !isDigits(mantissa[(point + 1)...], radix: 10) { return false }
    if let exponent, !isDigits(unsigned(number[(exponent + 1)...]), radix: 10) { return false }
    return true
  }

  private static func unsigned(_ word: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
    word.first == UInt8(ascii: "+") || word.first == UInt8(ascii: "-") ? word.dropFirst() : word
  }

  /// Digits that do not begin with a zero, or one zero.
  private static func isDecimal(_ word: ArraySlice<UInt8>) -> Bool {
    isDigits(word, radix: 10) && (word.count == 1 || word.first != UInt8(ascii: "0"))
  }

  /// One digit or more, and single underscores between digits.
  private static func isDigits(_ word: ArraySlice<UInt8>, radix: Int) -> Bool {
    var isAfterDigit = false
    for byte in word {
      if byte == UInt8(ascii: "_") {
        guard isAfterDigit else { return false }
        isAfterDigit = false
      } else {
        guard let digit = TOMLReader.value(ofDigit: byte), digit < radix else { return false }
        isAfterDigit = true
      }
    }
    return isAfterDigit
  }

  /// RFC 3339's date and time with an offset, without one, or either alone (Offset Date-Time to Local Time). A word that has
  /// T may have t, and Z may be z.
  static func isDateOrTime(_ word: ArraySlice<UInt8>) -> Bool {
    var rest = word
    guard takeDate(&rest) else { return takeTime(&rest) && rest.isEmpty }
    guard let separator = rest.popFirst() else { return true }
    guard separator == UInt8(ascii: " ") || separator | 0x20 == UInt8(ascii: "t"), takeTime(&rest) else { return false }
    guard let offset = rest.popFirst() else { return true }
    if offset | 0x20 == UInt8(ascii: "z") { return rest.isEmpty }
    return (offset == UInt8(ascii: "+") || offset == UInt8(ascii: "-")) && takeHourAndMinute(&rest) && rest.isEmpty
  }

  private static func takeDate(_ rest: inout ArraySlice<UInt8>) -> Bool {
    var date = rest
    guard let year = takeNumber(&date, 4), date.popFirst() == UInt8(ascii: "-"), let month = takeNumber(&date, 2),
      date.popFirst() == UInt8(ascii: "-"), let day = takeNumber(&date, 2), (1...12).contains(month)
    else { return false }
    let isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
    let days = [31, isLeap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1]
    // What is no date is left as it is: else a time might follow right behind it.
    guard (1...days).contains(day) else { return false }
    rest = date
    return true
  }

  /// The second may be a leap second, and have a fraction of any length.
  private static func takeTime(_ rest: inout ArraySlice<UInt8>) -> Bool {
    guard takeHourAndMinute(&rest), rest.popFirst() == UInt8(ascii: ":"), let second = takeNumber(&rest, 2),
      second <= 60
    else { return false }
    guard rest.first == UInt8(ascii: ".") else { return true }
    let fraction = rest.dropFirst().prefix(while: TOMLReader.isDigit)
    rest = rest[fraction.endIndex...]
    return !fraction.isEmpty
  }

  private static func takeHourAndMinute(_ rest: inout ArraySlice<UInt8>) -> Bool {
    guard let hour = takeNumber(&rest, 2), rest.popFirst() == UInt8(ascii: ":"), let minute = takeNumber(&rest, 2)
    else { return false }
    return hour < 24 && minute < 60
  }

  private static func takeNumber(_ rest: inout ArraySlice<UInt8>, _ count: Int) -> Int? {
    let digits = rest.prefix(count)
    guard digits.count == count, digits.allSatisfy(TOMLReader.isDigit) else { return nil }
    rest = rest.dropFirst(count)
    return digits.reduce(0) { $0 * 10 + Int($1 - UInt8(ascii: "0")) }
  }
}
