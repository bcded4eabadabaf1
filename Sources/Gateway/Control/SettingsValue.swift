/// What a settings file says, before anything knows what it means: the part of TOML that settings are made of, without lines.
/// `TOMLReader` makes it; tests write it as literals.
public indirect enum SettingsValue: Sendable, Equatable {
  case string(String)
  case integer(Int64)
  case boolean(Bool)
  case array([SettingsValue])
  case table([String: SettingsValue])
  /// A value that no key takes (a date, a fraction), with the name of its kind.
  case other(String)

  /// What a person calls it.
  var kind: String {
    switch self {
    case .string: "a text"
    case .integer: "a number"
    case .boolean: "true or false"
    case .array: "a list"
    case .table: "a table"
    case .other(let kind): kind
    }
  }
}

extension SettingsValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral,
  ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
  public init(stringLiteral value: String) { self = .string(value) }
  public init(integerLiteral value: Int64) { self = .integer(value) }
  public init(booleanLiteral value: Bool) { self = .boolean(value) }
  public init(arrayLiteral elements: SettingsValue...) { self = .array(elements) }
  public init(dictionaryLiteral elements: (String, SettingsValue)...) {
    self = .table(Dictionary(elements) { _, last in last })
  }
}

/// One thing wrong with a settings file.
public struct SettingsProblem: Error, Sendable, Equatable {
  /// Keys and, in lists, indices from 0: `["access", "initiator", "0", "name"]`.
  public var path: [String]
  /// A sentence for a person, with what is allowed. Never a secret.
  public var message: String

  public init(path: [String], message: String) {
    self.path = path
    self.message = message
  }
}

/// Everything wrong with a settings file.
public struct SettingsProblems: Error, Sendable, Equatable {
  public var problems: [SettingsProblem]

  /// A line each, `FILE:LINE: sentence`, in the order of the lines.
  /// - Parameter document: The file; without it there are no numbers of lines.
  public func lines(file: String, in document: TOMLDocument? = nil) -> [String] {
    problems.map { (document?.line(of: $0.path), Printable.text($0.message)) }
      .sorted { ($0.0 ?? 0, $0.1) < ($1.0 ?? 0, $1.1) }
      .map { line, message in line.map { "\(file):\($0): \(message)" } ?? "\(file): \(message)" }
  }
}
