import Gateway
import TOMLKit

extension SettingsValue {
  /// What the TOML parser found, without the parser.
  init(_ table: TOMLTable) {
    self = .table(Dictionary(table.map { ($0.0, SettingsValue($0.1)) }) { first, _ in first })
  }

  init(_ value: any TOMLValueConvertible) {
    switch value.type {
    case .table: self = value.table.map(SettingsValue.init) ?? .other("a table")
    case .array: self = .array(value.array.map { $0.map(SettingsValue.init) } ?? [])
    case .string: self = value.string.map(SettingsValue.string) ?? .other("a text")
    case .int: self = value.int.map { .integer(Int64($0)) } ?? .other("a number")
    case .bool: self = value.bool.map(SettingsValue.boolean) ?? .other("true or false")
    case .double: self = .other("a fraction")
    case .date, .time, .dateTime: self = .other("a date or time")
    }
  }
}
