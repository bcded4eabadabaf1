import Gateway
import TOMLKit

private let keys = [
  "target", "discovery", "limits", "access", "discovery-auth", "timeouts", "log", "name", "alias", "listen", "threads",
  "enabled", "export-blank", "ignore", "only", "sessions", "connections-per-address", "login-timeout", "queue-depth",
  "memory",
  "networks", "initiators", "chap", "initiator", "nop-interval", "io-deadline", "level", "user", "secret",
  "mutual-user",
  "mutual-secret", "luns",
]

/// A settings file as it lies on a disk: TOML from anybody, then the reader.
@Sendable func fuzzTOML(_ data: UnsafeRawBufferPointer) {
  // What SettingsFile has looked at before it gives the text to the parser.
  guard let text = String(validating: data, as: UTF8.self), !SettingsReader.hasZero(text),
    SettingsReader.namelessTable(text) == nil
  else { return }
  let table: TOMLTable
  do { table = try TOMLTable(string: text) } catch {
    if let error = error as? TOMLParseError {
      precondition(error.source.begin.line >= 0 && !SettingsReader.withoutContent(error.description).isEmpty)
    }
    return
  }
  check(SettingsValue(table), text)
}

/// A settings file: the input as a tree of values for the reader, and as the text that mistakes are located in.
@Sendable func fuzzSettings(_ data: UnsafeRawBufferPointer) {
  var input = Input(data)
  let tree = value(&input, depth: 0)
  check(tree, String(decoding: data, as: UTF8.self))
}

/// A refusal has lines, and each is of one line.
private func check(_ tree: SettingsValue, _ text: String) {
  do throws(SettingsProblems) {
    _ = try SettingsReader.read(tree)
  } catch {
    let lines = error.lines(file: "settings", text: text)
    precondition(!lines.isEmpty && lines.allSatisfy { !$0.utf8.contains(0x0A) })
  }
}

private func value(_ input: inout Input, depth: Int) -> SettingsValue {
  let kind = depth == 0 ? 4 : input.byte() % 6
  switch kind {
  case 0: return .string(String(decoding: input.bytes(Int(input.byte())), as: UTF8.self))
  case 1: return .integer(input.integer())
  case 2: return .boolean(input.byte() & 1 == 1)
  case 3 where depth < 6: return .array((0..<(input.byte() % 8)).map { _ in value(&input, depth: depth + 1) })
  case 4 where depth < 6:
    var table: [String: SettingsValue] = [:]
    for _ in 0..<(input.byte() % 16) {
      let index = Int(input.byte())
      let key = index < keys.count ? keys[index] : String(decoding: input.bytes(index & 7), as: UTF8.self)
      table[key] = value(&input, depth: depth + 1)
    }
    return .table(table)
  default: return .other("a date")
  }
}
