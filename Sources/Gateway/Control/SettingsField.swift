/// Where the problems of one reading are gathered: a bad value does not keep the rest from being looked at.
final class SettingsSink {
  private(set) var problems: [SettingsProblem] = []

  func report(_ path: [String], _ message: String) { problems.append(SettingsProblem(path: path, message: message)) }
}

/// A value with its place. Each reading gives the value, or nil after a problem was reported.
struct SettingsField {
  let value: SettingsValue
  let path: [String]
  let sink: SettingsSink

  /// `listen in [target]`.
  var name: String { "'\(path.last ?? "")' in \(Self.sectionName(path.dropLast()))" }

  /// `[target]`, `[[access.initiator]]`, or the file itself.
  static func sectionName(_ path: some Collection<String>) -> String {
    if path.isEmpty { return "the file" }
    let isElement = Array(path).last.flatMap { Int($0) } != nil
    let name = path.filter { Int($0) == nil }.joined(separator: ".")
    return isElement ? "[[\(name)]]" : "[\(name)]"
  }

  func report(_ message: String) { sink.report(path, message) }

  private func wrong(_ allowed: String) { report("\(name) is \(value.kind); allowed: \(allowed)") }

  func boolean() -> Bool? {
    if case .boolean(let flag) = value { return flag }
    wrong("true or false")
    return nil
  }

  func integer(_ range: ClosedRange<Int>, unit: String = "") -> Int? {
    let allowed = "a number from \(range.lowerBound) to \(range.upperBound)\(unit)"
    guard case .integer(let number) = value else {
      wrong(allowed)
      return nil
    }
    guard let number = Int(exactly: number), range.contains(number) else {
      report("\(name) is \(number); allowed: \(allowed)")
      return nil
    }
    return number
  }

  func text(_ allowed: String) -> String? {
    if case .string(let text) = value { return text }
    wrong(allowed)
    return nil
  }

  /// A text that `parse` understands.
  func parsed<Value>(_ allowed: String, _ parse: (String) throws(ValueError) -> Value) -> Value? {
    guard let text = text(allowed) else { return nil }
    do { return try parse(text) } catch {
      report("\(name): \(error.description)")
      return nil
    }
  }

  /// A list, each element read by `element`; nil if any of them was bad.
  func list<Element>(_ allowed: String, _ element: (SettingsField) -> Element?) -> [Element]? {
    guard case .array(let values) = value else {
      wrong(allowed)
      return nil
    }
    let elements = values.enumerated().map { index, value in
      element(SettingsField(value: value, path: path + [String(index)], sink: sink))
    }
    let good = elements.compactMap { $0 }
    return good.count == elements.count ? good : nil
  }

  /// A list of texts, each understood by `parse`.
  func texts<Element>(_ allowed: String, _ parse: (String) throws(ValueError) -> Element) -> [Element]? {
    list(allowed) { (element: SettingsField) -> Element? in
      guard case .string(let text) = element.value else {
        element.report("'\(path.last ?? "")' holds \(element.value.kind); allowed: \(allowed)")
        return nil
      }
      do throws(ValueError) { return try parse(text) } catch {
        element.report("'\(path.last ?? "")' in \(Self.sectionName(path.dropLast())): \(error.description)")
        return nil
      }
    }
  }

  /// Reads a table by its rows; a key without a row is a problem.
  func section<Subject>(_ rows: [SettingsRow<Subject>], into subject: inout Subject) {
    guard case .table(let table) = value else {
      let keys = rows.map(\.key).joined(separator: ", ")
      return report("\(name) is \(value.kind); allowed: a table with \(keys)")
    }
    for key in table.keys.sorted() {
      guard let value = table[key] else { continue }
      let field = SettingsField(value: value, path: path + [key], sink: sink)
      if let row = rows.first(where: { $0.key == key }) {
        row.read(field, &subject)
      } else {
        field.report(Self.unknown(key, in: path, allowed: rows.map(\.key)))
      }
    }
  }

  static func unknown(_ key: String, in path: [String], allowed: [String]) -> String {
    let near = allowed.map { ($0, Spelling.distance($0, key)) }.min { $0.1 < $1.1 }
    let hint = near.flatMap { $0.1 <= max(1, min(3, key.count / 2)) ? "; did you mean '\($0.0)'?" : nil } ?? ";"
    return "unknown key '\(key)' in \(sectionName(path))\(hint) allowed: \(allowed.joined(separator: ", "))"
  }
}

/// One key of a section and how it is read.
struct SettingsRow<Subject>: Sendable {
  let key: String
  let read: @Sendable (SettingsField, inout Subject) -> Void

  init(_ key: String, _ read: @escaping @Sendable (SettingsField, inout Subject) -> Void) {
    self.key = key
    self.read = read
  }
}

/// How far apart two words are.
enum Spelling {
  /// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other. Words longer than 64
  /// bytes are simply far apart.
  static func distance(_ left: String, _ right: String) -> Int {
    let a = [UInt8](left.lowercased().utf8)
    let b = [UInt8](right.lowercased().utf8)
    guard a.count <= 64, b.count <= 64 else { return Int.max }
    var before: [Int] = []
    var last = Array(0...b.count)
    for i in a.indices {
      var row = [i + 1]
      for j in b.indices {
        var best = min(last[j + 1] + 1, row[j] + 1, last[j] + (a[i] == b[j] ? 0 : 1))
        if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] { best = min(best, before[j - 1] + 1) }
        row.append(best)
      }
      before = last
      last = row
    }
    return last[b.count]
  }
}
