/// On which line each key and list element of a TOML text stands, found by a scan that knows only TOML's brackets, quotes
/// and comments. The parser has read the text before; where the scan misunderstands, a line is missing or wrong, no more.
struct SettingsLines {
  private var lines: [[String]: Int] = [:]

  /// The line, from 1, of the thing at `path`, or of the nearest thing around it; nil: none of it is in the text.
  func line(of path: [String]) -> Int? {
    var path = path
    while !path.isEmpty {
      if let line = lines[path] { return line }
      path.removeLast()
    }
    return nil
  }

  init(text: String) {
    var scan = Scan(bytes: [UInt8](text.utf8))
    scan.document()
    lines = scan.lines
  }
}

/// The scan: a position that only grows.
private struct Scan {
  let bytes: [UInt8]
  var position = 0
  var line = 1
  var lines: [[String]: Int] = [:]
  /// How many elements each `[[…]]` has so far.
  var elements: [[String]: Int] = [:]

  init(bytes: [UInt8]) { self.bytes = bytes }

  var byte: UInt8? { position < bytes.count ? bytes[position] : nil }

  mutating func advance(_ count: Int = 1) {
    for _ in 0..<count where position < bytes.count {
      if bytes[position] == UInt8(ascii: "\n") { line += 1 }
      position += 1
    }
  }

  func starts(with text: StaticString) -> Bool {
    text.withUTF8Buffer { bytes[position...].starts(with: $0) }
  }

  mutating func skip(newlines: Bool) {
    while let byte {
      switch byte {
      case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"): advance()
      case UInt8(ascii: "\n") where newlines: advance()
      case UInt8(ascii: "#"): while let byte = self.byte, byte != UInt8(ascii: "\n") { _ = byte; advance() }
      default: return
      }
    }
  }

  mutating func document() {
    var prefix: [String] = []
    while true {
      skip(newlines: true)
      guard byte != nil else { return }
      let start = position
      if byte == UInt8(ascii: "[") { prefix = header() } else { pair(under: prefix, depth: 0) }
      // What is not understood is stepped over.
      if position == start { advance() }
    }
  }

  /// `[a.b]` or `[[a.b]]`.
  mutating func header() -> [String] {
    let line = self.line
    let isElement = starts(with: "[[")
    advance(isElement ? 2 : 1)
    let names = key()
    var path: [String] = []
    for (index, name) in names.enumerated() {
      path.append(name)
      let isLast = index == names.count - 1
      if isLast, isElement { elements[path, default: 0] += 1 }
      if let count = elements[path] { path.append(String(count - 1)) }
    }
    record(path, line)
    skip(newlines: false)
    while byte == UInt8(ascii: "]") { advance() }
    return path
  }

  /// `a.b = value`.
  mutating func pair(under prefix: [String], depth: Int) {
    let line = self.line
    let names = key()
    guard !names.isEmpty else { return }
    for count in 1...names.count { record(prefix + names[..<count], line) }
    skip(newlines: false)
    guard byte == UInt8(ascii: "=") else { return }
    advance()
    skip(newlines: false)
    value(at: prefix + names, depth: depth)
  }

  mutating func record(_ path: [String], _ line: Int) {
    if lines[path] == nil { lines[path] = line }
  }

  /// A dotted key, its parts bare or quoted.
  mutating func key() -> [String] {
    var names: [String] = []
    while true {
      skip(newlines: false)
      if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "'") {
        names.append(quoted())
      } else {
        let start = position
        while let byte, Self.isBare(byte) { advance() }
        guard position > start else { return names }
        names.append(String(decoding: bytes[start..<position], as: UTF8.self))
      }
      skip(newlines: false)
      guard byte == UInt8(ascii: ".") else { return names }
      advance()
    }
  }

  static func isBare(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"):
      true
    default: false
    }
  }

  /// Steps over a string of any of the four kinds; gives its text, escapes as written.
  mutating func quoted() -> String {
    guard let quote = byte else { return "" }
    let isLong = starts(with: "\"\"\"") || starts(with: "'''")
    let escapes = quote == UInt8(ascii: "\"")
    advance(isLong ? 3 : 1)
    let start = position
    while let byte {
      if escapes, byte == UInt8(ascii: "\\") {
        advance(2)
        continue
      }
      if byte == quote, !isLong || starts(with: escapes ? "\"\"\"" : "'''") { break }
      if !isLong, byte == UInt8(ascii: "\n") { break }
      advance()
    }
    let text = String(decoding: bytes[start..<position], as: UTF8.self)
    // Up to two quotes may stand right before the closing three.
    if isLong { while byte == quote { advance() } } else if byte == quote { advance() }
    return text
  }

  mutating func value(at path: [String], depth: Int) {
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "'"): _ = quoted()
    // Deeper than any settings go, the rest is stepped over as plain text.
    case UInt8(ascii: "[") where depth < 16: list(at: path, depth: depth)
    case UInt8(ascii: "{") where depth < 16: inlineTable(at: path, depth: depth)
    default:
      while let byte, !",]}#\n".utf8.contains(byte) { advance() }
    }
  }

  mutating func list(at path: [String], depth: Int) {
    advance()
    var index = 0
    while true {
      skip(newlines: true)
      guard let byte else { return }
      if byte == UInt8(ascii: "]") { return advance() }
      if byte == UInt8(ascii: ",") {
        advance()
        index += 1
        continue
      }
      let start = position
      record(path + [String(index)], line)
      value(at: path + [String(index)], depth: depth + 1)
      if position == start { advance() }
    }
  }

  mutating func inlineTable(at path: [String], depth: Int) {
    advance()
    while true {
      skip(newlines: true)
      guard let byte else { return }
      if byte == UInt8(ascii: "}") { return advance() }
      let start = position
      if byte != UInt8(ascii: ",") { pair(under: path, depth: depth + 1) }
      if position == start { advance() }
    }
  }
}
