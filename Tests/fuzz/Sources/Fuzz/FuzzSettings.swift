import Gateway

private let keys = [
  "target", "discovery", "limits", "access", "discovery-auth", "timeouts", "log", "name", "alias", "listen", "threads",
  "enabled", "export-blank", "ignore", "only", "sessions", "connections-per-address", "login-timeout", "queue-depth",
  "memory",
  "networks", "initiators", "chap", "initiator", "nop-interval", "io-deadline", "level", "user", "secret",
  "mutual-user",
  "mutual-secret", "luns",
]

/// A settings file as it lies on a disk: TOML from anybody, then what it means.
@Sendable func fuzzTOML(_ data: UnsafeRawBufferPointer) {
  let bytes = [UInt8](data)
  let lines = bytes.count { $0 == UInt8(ascii: "\n") } + 1
  let document: TOMLDocument
  do throws(TOMLProblem) { document = try TOMLReader.read(bytes) } catch {
    precondition((1...lines).contains(error.line) && isOneLine(error.message))
    return
  }
  let tree = document.value
  precondition((try? TOMLReader.read(bytes))?.value == tree)
  check(tree, document, lines)
}

/// A tree of values as no file may have given it.
@Sendable func fuzzSettings(_ data: UnsafeRawBufferPointer) {
  var input = Input(data)
  check(value(&input, depth: 0), nil, 1)
}

/// A refusal has lines, and each is of one line; the places are in the text.
private func check(_ tree: SettingsValue, _ document: TOMLDocument?, _ lineCount: Int) {
  do throws(SettingsProblems) {
    _ = try SettingsReader.read(tree)
  } catch {
    let lines = error.lines(file: "settings", in: document)
    precondition(!lines.isEmpty && lines.allSatisfy(isOneLine))
    guard let document else { return }
    for problem in error.problems {
      precondition((1...lineCount).contains(document.line(of: problem.path) ?? 1))
    }
  }
}

private func isOneLine(_ text: String) -> Bool { !text.isEmpty && !text.utf8.contains(0x0A) }

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
