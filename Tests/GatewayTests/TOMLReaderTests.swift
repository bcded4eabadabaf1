import Glibc
import TestSupport
import Testing

@testable import Gateway

/// By the clauses of TOML 1.0 (https://toml.io/en/v1.0.0).
@Suite("Settings: TOML")
struct TOMLReaderTests {
  /// - Throws: What is wrong with it.
  static func value(_ text: String) throws(TOMLProblem) -> SettingsValue {
    try TOMLReader.read(Array(text.utf8)).value
  }

  static func problem(_ bytes: some Sequence<UInt8>) -> TOMLProblem? {
    do throws(TOMLProblem) {
      _ = try TOMLReader.read(Array(bytes))
      return nil
    } catch { return error }
  }

  static func problem(_ text: String) -> TOMLProblem? { problem(text.utf8) }

  @Test("What is TOML is read as it says, by clause", arguments: TOMLExamples.good)
  func good(_ example: TOMLExamples.Good) throws {
    #expect(try Self.value(example.text) == example.value)
    #expect(try Self.value(example.text + "\n") == example.value)
  }

  @Test(
    "Each kind of value is read as it says, alone, in an array and in an inline table",
    arguments: TOMLExamples.goodValues)
  func goodValue(_ example: TOMLExamples.Good) throws {
    let (text, value) = (example.text, example.value)
    #expect(try Self.value("a = \(text)") == ["a": value])
    #expect(try Self.value("a = [\(text)\n, 1]") == ["a": [value, 1]])
    #expect(try Self.value("[t]\na = {b = \(text)\t, c = \(text)}") == ["t": ["a": ["b": value, "c": value]]])
  }

  @Test(
    "What is not TOML is refused, by clause",
    arguments: TOMLExamples.bad)
  func bad(text: String) throws {
    let problem = try #require(Self.problem(text))
    #expect((1...text.utf8.count { $0 == 0x0A } + 1).contains(problem.line))
    #expect(problem.message.hasPrefix("not TOML: ") && !problem.message.contains { $0.isNewline })
  }

  @Test(
    "What is no value is refused, by clause",
    arguments: TOMLExamples.badValues)
  func badValue(text: String) throws {
    for whole in ["a = \(text)", "a = [\(text)]", "a = {b = \(text)}", "a = \(text)\nb = 1"] {
      let problem = try #require(Self.problem(whole), "\(whole.debugDescription)")
      #expect((1...whole.utf8.count { $0 == 0x0A } + 1).contains(problem.line))
      #expect(problem.message.hasPrefix("not TOML: ") && !problem.message.contains { $0.isNewline })
    }
  }

  @Test(
    "A number beyond 64 bits is refused, with what to do if it is a text",
    arguments: [
      "9223372036854775808", "-9223372036854775809", "0x8000000000000000", "0xffffffffffffffff",
      "0o1000000000000000000000",
      "0b1000000000000000000000000000000000000000000000000000000000000000", "0x00112233445566778899aabb",
      "99999999999999999999999999999999",
    ])
  func bigNumber(text: String) {
    #expect(
      Self.problem("\n[access.chap]\nsecret = \(text) # here")
        == TOMLProblem(line: 3, message: "not TOML: a number is beyond 64 bits (a text has to stand in quotes)"))
  }

  @Test(
    "A zero is refused wherever it is, as it is and as an escape",
    arguments: [
      "\u{0}", "a\u{0}", "a\u{0}b = 1", "a = 1\u{0}", "# \u{0}", "a = \"\u{0}\"", "a = '\u{0}'", "a = '''\u{0}'''",
      "a = \"\"\"\u{0}\"\"\"", "a = \"\\u0000\"", "a = \"\\U00000000\"", "\"\\u0000\" = 1", "a = \"\"\"\\u0000\"\"\"",
      "[\u{0}]",
      "a = [\u{0}]", "a = {\u{0}}", "a = \u{0}", "a = 1 \u{0}",
    ])
  func zeros(text: String) {
    #expect(
      Self.problem("b = 1\r\n\(text)") == TOMLProblem(line: 2, message: "a zero character is not allowed in settings"))
    // Where it is no escape.
    #expect(Self.problem("a = '\\u0000'\nb = \"\\\\u0000\"\nc = \"\\u00001\"\n")?.line == 3)
  }

  @Test(
    "What is not UTF-8 is refused on its line (Preliminaries)",
    arguments: [
      [0xFF], [0xC3], [0xC0, 0x80], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80], [0xE2, 0x82], [0x80],
    ] as [[UInt8]])
  func wrongEncoding(bytes: [UInt8]) {
    for (before, after) in [("\n\n", ""), ("\n\n# ", "\n"), ("a = 1\n\nb = \"", "\""), ("\n\n[", "]\n\n")] {
      #expect(
        Self.problem(Array(before.utf8) + bytes + Array(after.utf8))
          == TOMLProblem(line: 3, message: "not TOML: the file is not UTF-8 here"))
    }
  }

  @Test(
    "A mistake is told on the line where a person looks for it",
    arguments: [
      (
        "[limits]\n[.target]\n", 2,
        "'.' does not belong here: a table's name is of letters, digits, - and _, as in [limits]"
      ),
      (
        "a = 1\n[ # later", 2, "'#' does not belong here: a table's name is of letters, digits, - and _, as in [limits]"
      ),
      ("[target\n", 1, "the line ends too early: a table's name ends with ] as in [limits]"),
      ("[[disk]\n", 1, "the line ends too early: a table's name ends with ]] as in [[disk]]"),
      ("[target", 1, "the file ends too early: a table's name ends with ] as in [limits]"),
      (
        "a = [1,\n0x7f, }\n", 2,
        "a character does not belong here: a value is a text in quotes, a number, true, false, a list or a table"
      ),
      ("a = [\n1\n\nb = 2\n", 4, "a character does not belong here: in a list, a value is followed by a comma or ]"),
      ("\na = [\n1,\n\n", 2, "the list that begins here has no ] at its end"),
      ("\na = '''\n\nb = 1\n\n", 2, "the text that begins here has no ''' at its end"),
      ("a = 1\nb = \"c\nd = 1", 2, "a text has no \" at its end"), ("b = 'c", 1, "a text has no ' at its end"),
      (
        "a = \"\"\"\n\n\\q\"\"\"", 3,
        "a character does not belong here: after \\ comes one of b t n f r u U \" \\; a text in 'single quotes' has no escapes"
      ),
      ("a = \"\\uD800\"", 1, "an escape is of no Unicode character"),
      ("a = \"\\Uab\"", 1, "\\U is followed by 8 hexadecimal digits"),
      ("a = 1\n\na = 2", 3, "'a' is there already, on line 1"),
      ("[b]\na.c = 1\na.c = 2", 3, "'a.c' is there already, on line 2"),
      ("a = {b = 1}\n\na.c.d = 2", 3, "'a' of line 1 cannot be extended here"),
      ("\n[a]\n[b]\n[a]\n", 4, "'a' is there already, on line 2"),
      ("a = 1\n[a.b]", 2, "'a' of line 1 cannot be extended here"),
      ("[a.b]\n[a]\n[a]", 3, "'a' is there already, on line 2"),
      ("[a.b.c]\n[a]\nb.d = 1\n[a.b]", 4, "'a.b' is there already, on line 3"),
      ("'a\\nb' = 1\n\"a\\\\nb\" = 2", 2, "'a\\nb' is there already, on line 1"),
      ("\"a\\nb\" = 1\n\"a\\nb\" = 2", 2, "'a\\nb' is there already, on line 1"),
      ("a = {b = 1,\nc = 2}", 1, "the line ends too early: in a table in braces, a key follows, on the same line"),
      (
        "a = {b = 1\n}", 1,
        "the line ends too early: in a table in braces, a value is followed by a comma or }, on the same line"
      ),
      ("a\n", 1, "the line ends too early: a key is followed by = and a value"),
      ("a = \n", 1, "the line ends too early: a value is a text in quotes, a number, true, false, a list or a table"),
      (
        "a = 1\n\u{1}", 2,
        "U+0001 does not belong here: a line has a key, as in key = \"value\", a table's name, as in [limits], or a # comment"
      ),
      (
        "é = 1", 1,
        "U+00E9 does not belong here: a line has a key, as in key = \"value\", a table's name, as in [limits], or a # comment"
      ),
      ("a = 'b' 😀", 1, "a character does not belong here: a statement has to end with its line"),
      ("[a] 😀", 1, "U+1F600 does not belong here: a statement has to end with its line"),
      ("[a] b", 1, "'b' does not belong here: a statement has to end with its line"),
      (
        "a = “b”", 1,
        "U+201C does not belong here: a value is a text in quotes, a number, true, false, a list or a table"
      ),
      (
        "a = '\u{7}'", 1,
        "U+0007 does not belong here: in a text, control characters are written as escapes, as in \"\\u001B\""
      ),
      ("# a\rb", 1, "U+000D does not belong here: a comment has no control characters but tabs"),
    ] as [(String, Int, String)])
  func mistakes(text: String, line: Int, message: String) {
    #expect(Self.problem(text) == TOMLProblem(line: line, message: "not TOML: \(message)"))
    #expect(Self.problem(text.replacing("\n", with: "\r\n"))?.line == line)
  }

  static let file = """
    # gatewayd = "not a key"
    top.inner = 1
    [target] # [not.a.header]
    name = "a # b \\" [x]"
    "list\\\\en" = [ # comment ]
      "one",
      [ "deep",
        "er" ], 'th#ree'
    ]
    long = \"\"\"
    key = 1
    \\\"\"\" [no]
    \"\"\"\"\"
    after = '''
    x = ']' '' '''
    [[access.initiator]]
    name = "a"
    chap = { user = "u", secret = "s" }
    [[access.initiator]]
    [access.initiator.chap]
    user = "v"
    """

  @Test(
    "Each key and element has its line, through strings, comments, lists and tables",
    arguments: [
      (["top"], 2), (["top", "inner"], 2), (["target"], 3), (["target", "name"], 4), (["target", "list\\en"], 5),
      (["target", "list\\en", "0"], 6), (["target", "list\\en", "1"], 7), (["target", "list\\en", "1", "1"], 8),
      (["target", "list\\en", "2"], 8), (["target", "long"], 10), (["target", "after"], 14), (["access"], 16),
      (["access", "initiator", "0"], 16), (["access", "initiator", "0", "name"], 17),
      (["access", "initiator", "0", "chap", "secret"], 18), (["access", "initiator", "1"], 19),
      (["access", "initiator", "1", "chap"], 20), (["access", "initiator", "1", "chap", "user"], 21),
      // Not there: the nearest thing around it.
      (["access", "initiator", "1", "name"], 19), (["target", "key"], 3), (["access", "initiator", "2", "name"], 16),
    ])
  func linesOfKeys(path: [String], line: Int) throws {
    for text in [Self.file, Self.file.replacing("\n", with: "\r\n")] {
      #expect(try TOMLReader.read(Array(text.utf8)).line(of: path) == line)
    }
  }

  @Test("What is nowhere in the text has no line")
  func noLine() throws {
    #expect(try TOMLReader.read(Array(Self.file.utf8)).line(of: ["no", "such"]) == nil)
    #expect(try TOMLReader.read([]).line(of: ["a"]) == nil)
  }

  @Test(
    "Nesting is bounded, in every way that there is to nest",
    arguments: [
      ("a = ", "[", "]", ""), ("", "a.", "", "a = 1"), ("[", "a.", "", "a]"), ("[[", "a.", "", "a]]"),
      ("a = ", "{b=", "}", "1"),
      ("a = ", "[{b=", "}]", "1"),
    ])
  func depth(before: String, open: String, close: String, middle: String) {
    func text(_ count: Int) -> String {
      before + String(repeating: open, count: count) + middle + String(repeating: close, count: count)
    }
    #expect(Self.problem(text(20)) == nil)
    for count in [65, 66, 1000, 100_000] {
      #expect(
        Self.problem("\n" + text(count))
          == TOMLProblem(line: 2, message: "tables and lists lie more than 64 deep in each other"))
    }
  }

  @Test("Keys and texts are bounded, whatever kind they are of")
  func lengths() {
    for quotes in ["'", "\"", "'''", "\"\"\""] {
      let text = String(repeating: "é", count: 2048)
      #expect(Self.problem("a = \(quotes)\(text)\(quotes)") == nil)
      #expect(
        Self.problem("\na = \(quotes)\(text)a\(quotes)")
          == TOMLProblem(line: 2, message: "a text is longer than 4096 bytes"))
    }
    let key = String(repeating: "k", count: 255)
    for good in ["\(key) = 1", "[a.\(key)]", "'\(key)'.\"\(key)\" = 1"] { #expect(Self.problem(good) == nil) }
    for bad in ["\(key)k = 1", "[a.k\(key)]", "'\(key)k'.a = 1", "a = {\"\(key)k\" = 1}"] {
      #expect(Self.problem("\n\(bad)") == TOMLProblem(line: 2, message: "a key is longer than 255 bytes"))
    }
  }

  /// Of each, a megabyte: the most that SettingsFile reads.
  static let pathological: [(String, String, String)] = [
    ("", "\n", ""), ("", "a", ""), ("", "a.", ""), ("", "[", ""), ("", "{", ""), ("a = ", "[", ""),
    ("a = [", "1,", "]"), ("a = [", "[],", "]"),
    ("a = [", "{},", "]"), ("a = '", "x", "'"), ("a = \"", "\\\\", "\""), ("a = \"\"\"", "\n", "\"\"\""),
    ("a = \"\"\"", "\\\n", "\"\"\""),
    ("a = \"\"\"", "\"\"a", "\"\"\""), ("a = \"\"\"", "\\ ", ""), ("a = ", "1", ""), ("a = ", "0_", ""),
    ("a = 0x", "f", ""),
    ("a = 1.", "1", ""), ("a = 07:32:00.", "1", ""), ("", "#", ""), ("", "# \r\n", ""), ("", "[[a]]\n", ""),
    ("", "[[a]]\n[[a.b]]\n", ""),
    ("'", "e\u{301}\u{302}\u{323}", "' = 1"), ("'", "\u{301}\u{323}", "' = 1"),
    ("", "'" + String(repeating: "\u{301}\u{323}", count: 60) + "'=1\n", ""), ("a = '", "\u{301}\u{323}", "'"),
    ("[pair]\naddresses = [", "'" + String(repeating: "\u{301}\u{323}", count: 1000) + "',", "]"),
    ("a = {", "a=1,", "}"), ("", " ", ""),
    ("a =", "\t", "1"),
    ("", "a.a.a.a.a.a.a.a=1\n", ""), ("", "'\u{FFFD}", ""), ("", "\u{FEFF}", ""),
  ]

  @Test("A megabyte of anything takes time as it is long, not more")
  func linear() {
    for (before, middle, after) in Self.pathological {
      let count = (1 << 20) / middle.utf8.count
      let small = Self.seconds { before + String(repeating: middle, count: count / 16) + after }
      let large = Self.seconds { before + String(repeating: middle, count: count) + after }
      // Sixteen times as long; what is quadratic takes 256 times.
      #expect(large < max(small, 0.01) * 80, "\((before, middle, after)): \(small) s, \(large) s")
    }
  }

  @Test("Keys that differ take time as they are many, not more")
  func manyKeys() throws {
    func text(_ count: Int) -> String { (0..<count).map { "k\($0).a = \($0)\n[t\($0)]\n" }.joined() }
    #expect(Self.seconds { text(40_000) } < max(Self.seconds { text(2_500) }, 0.01) * 80)
    let document = try TOMLReader.read(Array(text(40_000).utf8))
    #expect(document.line(of: ["t39998", "k39999", "a"]) == 79_999 && document.line(of: ["t39999"]) == 80_000)
  }

  /// Of the processor, to read a text: others want it too.
  static func seconds(_ text: () -> String) -> Double {
    func now() -> Double {
      var time = timespec()
      clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
      return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
    let bytes = Array(text().utf8)
    let start = now()
    _ = (try? TOMLReader.read(bytes))?.value
    return now() - start
  }

  @Test(
    "A value is in no message, whatever is wrong with it",
    arguments: [
      "XSECRETX", "XSECRETX = ", "secret = XSECRETX", "secret = 0xXSECRETX", "secret = \"XSECRETX",
      "secret = 'XSECRETX",
      "secret = \"\"\"XSECRETX", "secret = \"XSECRETX\\q\"", "secret = \"XSECRETX\" y", "secret = \"y\" XSECRETX",
      "secret = \"y\"XSECRETX\"", "secret = [XSECRETX]", "secret = [\"XSECRETX\" 1]", "secret = {a = XSECRETX}",
      "secret = \"\\uXSECRETX\"", "secret = \"y\\XSECRETX\"", "secret = 1979-05-27 1XSECRETX", "secret = 1.XSECRETX",
      "secret = \"XSECRETX\"\nsecret = 1", "secret = \"XSECRETX\"\nsecret.a = 1",
      "secret = \"XSECRETX\"\n[access.chap.secret]",
      "secret = \"XSECRETX\u{1}\"", "secret = XSECRETX\u{0}", "secret\nXSECRETX", "secret =\n\"XSECRETX\"",
      "secret : XSECRETX",
      "# XSECRETX\u{1}", "secret = \\XSECRETX", "secret = éXSECRETX", "secret = true XSECRETX", "secret = (XSECRETX)",
    ])
  func secrets(text: String) throws {
    let message = try #require(Self.problem("[access.chap]\n\(text)")).message
    #expect(!message.contains("SECRET"))
  }

  @Test(
    "Of a value no message has as much as one character",
    arguments: [
      "secret = ~", "secret = \"a\"~", "secret = 'a'~b'", "secret = \"a\\~\"", "secret = [~]", "secret = [\"a\"~]",
      "secret = {~}", "secret = {a~}", "secret = {a = 1~}", "secret = 1 ~", "secret = [\n'a', ~", "a = 1\nsecret = a ~",
    ])
  func secretCharacters(text: String) throws {
    for character in ["~", "q", "Q", "7", "é", "😀"] {
      let whole = text.replacing("~", with: character)
      guard let message = Self.problem(whole)?.message else { continue }
      #expect(!message.contains("'\(character)'") && !message.contains("U+"), "\(whole)")
    }
  }

  @Test("The file of all settings is good as it is, and with every key set")
  func documentation() throws {
    let path = #filePath.replacing("Tests/GatewayTests/TOMLReaderTests.swift", with: "docs/gatewayd.toml")
    let file = try #require(fopen(path, "r"))
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 1 << 16)
    bytes.removeLast(bytes.count - fread(&bytes, 1, bytes.count, file))
    let document = try TOMLReader.read(bytes)
    #expect(try SettingsReader.read(document.value) == Settings())
    // "# key = value" and "# [table]", but not the second of two examples of one key.
    var seen: Set<Substring> = []
    var section: Substring = ""
    let set = String(decoding: bytes, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false).map {
      line in
      let text = line.hasPrefix("# ") ? line.dropFirst(2) : line
      if text.hasPrefix("[") {
        section = text
        if text.hasPrefix("[[") { seen = seen.filter { !$0.hasPrefix(text) } }
        return text
      }
      let key = text.prefix { $0 != " " }
      guard text.dropFirst(key.count).hasPrefix(" = "), key.allSatisfy({ $0.isLowercase || $0 == "-" }) else {
        return line
      }
      return seen.insert(section + key).inserted ? text : line
    }
    let whole = try TOMLReader.read(Array(set.joined(separator: "\n").utf8))
    let settings = try SettingsReader.read(whole.value)
    #expect(settings.access.rules.count == 2 && settings.disks.count == 1 && settings.limits.memoryBytes == 512 << 20)
    #expect(
      settings.access.chap?.target != nil && settings.pair.addresses.count == 2 && settings.access.rules[0].chap != nil)
    #expect(
      whole.line(of: ["disk", "0", "block-bytes"]) == set.firstIndex { $0.hasPrefix("block-bytes") }.map { $0 + 1 })
  }

  @Test("Any bytes give a tree or a problem with a line of the text, and the same again")
  func anything() {
    var random = SplitMix(seed: 11)
    let words = [
      "[", "]", "{", "}", "=", ".", ",", "#", "\"", "'", "\\", "\n", "\r\n", " ", "a", "b", "0", "-", "é", "\"\"\"",
      "'''", "[[", "]]", "a = ", "1",
    ]
    var good = 0
    for _ in 0..<20_000 {
      let text = (0..<random.next() % 24).map { _ in words[Int(random.next() % UInt64(words.count))] }.joined()
      let lines = text.utf8.count { $0 == 0x0A } + 1
      do throws(TOMLProblem) {
        let document = try TOMLReader.read(Array(text.utf8))
        good += 1
        #expect((1...lines).contains(document.line(of: ["a"]) ?? 1))
        #expect((try? Self.value(text)) == document.value)
      } catch { #expect((1...lines).contains(error.line) && !error.message.contains { $0.isNewline }) }
    }
    #expect((500..<19_500).contains(good))
  }
}
