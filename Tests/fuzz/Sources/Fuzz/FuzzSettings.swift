import GatewaySettings

private let keys = [
  "target", "discovery", "limits", "access", "discovery-auth", "timeouts", "log", "name", "alias", "listen", "threads",
  "enabled", "export-blank", "ignore", "only", "sessions", "connections-per-address", "login-timeout", "queue-depth",
  "memory",
  "networks", "initiators", "chap", "initiator", "nop-interval", "io-deadline", "level", "user", "secret",
  "mutual-user",
  "mutual-secret", "luns",
]

/// A settings file: the input as a tree of values for the reader, and as the text that mistakes are located in.
@Sendable func fuzzSettings(_ data: UnsafeRawBufferPointer) {
  var input = Input(data)
  let tree = value(&input, depth: 0)
  let text = String(decoding: data, as: UTF8.self)
  do throws(SettingsProblems) {
    _ = try SettingsReader.read(tree)
  } catch {
    let lines = error.lines(file: "settings", text: text)
    precondition(!lines.isEmpty)
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
