import Testing

@testable import Gateway

/// What is TOML and what is not, by the clauses of TOML 1.0 (https://toml.io/en/v1.0.0).
enum TOMLExamples {
  struct Good: CustomTestStringConvertible, Sendable {
    var text: String
    var value: SettingsValue

    init(_ text: String, _ value: SettingsValue) {
      self.text = text
      self.value = value
    }

    var testDescription: String { text.debugDescription }
  }

  static let fraction = SettingsValue.other("a fraction")
  static let date = SettingsValue.other("a date or time")

  static let good: [Good] = [
    // Preliminaries, Comment.
    Good("", [:]), Good("a = 1979-05-27 # b", ["a": date]), Good("\n\r\n \t\n", [:]), Good("\u{FEFF}a = 1", ["a": 1]),
    Good("# a\ta = 1", [:]),
    Good("a = 1 # b = 2\r\n# c = '\r\nd=3#", ["a": 1, "d": 3]), Good("# \u{80} é \u{10FFFF}", [:]),
    Good("\ta\t=\t1\t", ["a": 1]), Good("A = 1\na = 2", ["A": 1, "a": 2]),
    // Keys.
    Good("key = 1\nbare_key = 2\nbare-key = 3\n1234 = 4", ["key": 1, "bare_key": 2, "bare-key": 3, "1234": 4]),
    Good("\"127.0.0.1\" = 1\n'ʎǝʞ' = 2\n'a \"b\"' = 3", ["127.0.0.1": 1, "ʎǝʞ": 2, "a \"b\"": 3]),
    Good("\"\" = 1", ["": 1]), Good("'' = 1", ["": 1]), Good("\"\\u0061\\n\" = 1", ["a\n": 1]),
    Good("a.b = 1\na.'c.d' = 2\nsite.\"e f\".g = 3", ["a": ["b": 1, "c.d": 2], "site": ["e f": ["g": 3]]]),
    Good("a.b = 1\na . c = 2\na\t.\td = 3", ["a": ["b": 1, "c": 2, "d": 3]]),
    Good("a.x = 1\nb.x = 2\na.y = 3", ["a": ["x": 1, "y": 3], "b": ["x": 2]]),
    Good("fruit.apple.smooth = true\nfruit.orange = 2", ["fruit": ["apple": ["smooth": true], "orange": 2]]),
    Good("3.14159 = 1", ["3": ["14159": 1]]), Good("-1 = 1\ntrue = 2\n1e5 = 3", ["-1": 1, "true": 2, "1e5": 3]),
    // Boolean.
    Good("a = true\nb = false", ["a": true, "b": false]),
    // Array.
    Good("a = []", ["a": []]), Good("a = [ ]", ["a": []]), Good("a = [1,2 , 3]", ["a": [1, 2, 3]]),
    Good("a = [[1, 2], ['a', \"b\"]]", ["a": [[1, 2], ["a", "b"]]]),
    Good("a = [1, 'b', {c = 2}]", ["a": [1, "b", ["c": 2]]]),
    Good("a = [\n  1, # one\r\n\n  2\n  # end\n  , # comma\n]", ["a": [1, 2]]), Good("a = [1, 2,]", ["a": [1, 2]]),
    Good("a = [#]\n#]\n]", ["a": []]), Good("a = [\"]\", '#']", ["a": ["]", "#"]]),
    // Inline Table.
    Good("a = {}", ["a": [:]]), Good("a = { }", ["a": [:]]),
    Good("a = {b = 1, c.d = 'e'}", ["a": ["b": 1, "c": ["d": "e"]]]),
    Good("a = {b.c = 1, b.d = 2}", ["a": ["b": ["c": 1, "d": 2]]]), Good("a={b=[\n1,\n]}", ["a": ["b": [1]]]),
    Good("a = { b = {c = {}} } # d", ["a": ["b": ["c": [:]]]]), Good("a = {b = \"\"\"\n\n\"\"\"}", ["a": ["b": "\n"]]),
    Good("a = [{x = 1}, {y = 2, x = 3}]", ["a": [["x": 1], ["y": 2, "x": 3]]]),
    // Table.
    Good("[a]", ["a": [:]]), Good("[ a . 'b' ] # c\nd = 1", ["a": ["b": ["d": 1]]]),
    Good("[a]\r\nb=1", ["a": ["b": 1]]),
    Good("[x.y.z.w]\n[x]", ["x": ["y": ["z": ["w": [:]]]]]),
    Good("[a.b]\n[c]\n[a.d]", ["a": ["b": [:], "d": [:]], "c": [:]]),
    Good("a = 1\n[b.c]\nd = 2\n[b]\ne = 3", ["a": 1, "b": ["c": ["d": 2], "e": 3]]), Good("['']\na=1", ["": ["a": 1]]),
    // A header may define a table below one that dotted keys made.
    Good("[f]\na.b.c = 1\n[f.a.b.d]\ne = 2", ["f": ["a": ["b": ["c": 1, "d": ["e": 2]]]]]),
    Good("[a.b.c]\nz = 1\n[a]\nb.t = 2", ["a": ["b": ["c": ["z": 1], "t": 2]]]),
    // Array of Tables.
    Good("[[a]]\nb = 1\n[[a]]\n[[a]]\nb = 3", ["a": [["b": 1], [:], ["b": 3]]]),
    Good("[[ 'a' . b ]]", ["a": ["b": [[:]]]]),
    Good(
      "[[f]]\nn = 1\n[f.p]\nc = 2\n[[f.v]]\nn = 3\n[[f.v]]\nn = 4\n[[f]]\nn = 5\n[[f.v]]\nn = 6\n[f.p]\nc = 7",
      ["f": [["n": 1, "p": ["c": 2], "v": [["n": 3], ["n": 4]]], ["n": 5, "v": [["n": 6]], "p": ["c": 7]]]]),
    Good("[[a.b]]\n[a]\nc = 1", ["a": ["b": [[:]], "c": 1]]),
    Good("[[a]]\nb.c = 1\n[a.d]", ["a": [["b": ["c": 1], "d": [:]]]]),
  ]

  /// What stands after `a = `.
  static let goodValues: [Good] = [
    // String: basic.
    Good(
      #""I'm a string. \"Quoted\". Name\tJos\u00E9\nLocation\tSF.""#,
      "I'm a string. \"Quoted\". Name\tJosé\nLocation\tSF."),
    Good(#""""#, ""), Good(#""\b\t\n\f\r\"\\""#, "\u{8}\t\n\u{C}\r\"\\"), Good("\"\t# é\u{9F}\"", "\t# é\u{9F}"),
    Good(#""\u0001\uD7FF\ue000\uffff\U0010ffFF\U0001F600""#, "\u{1}\u{D7FF}\u{E000}\u{FFFF}\u{10FFFF}😀"),
    // Multi-line basic.
    Good("\"\"\"\"\"\"", ""), Good("\"\"\"\nRoses\nViolets\"\"\"", "Roses\nViolets"),
    Good("\"\"\"\r\na\r\nb\"\"\"", "a\nb"),
    Good("\"\"\"\n\n\"\"\"", "\n"), Good("\"\"\"a \\\n\n   b\\\r\n\t c \\ \t\n\"\"\"", "a bc "),
    Good("\"\"\"\\\n  \"\"\"", ""),
    Good("\"\"\"\"a\"\"\"\"", "\"a\""), Good("\"\"\"a\"\"\"\"\"", "a\"\""), Good("\"\"\"\"\"\"\"\"", "\"\""),
    Good("\"\"\"a\"\"b\\\"\"\"c\"\"\"", "a\"\"b\"\"\"c"), Good("\"\"\"\\u00e9\\\\\"\"\"", "é\\"),
    // Literal.
    Good(#"'C:\Users\nodejs'"#, #"C:\Users\nodejs"#), Good(#"'<\i\c*\s*>'"#, #"<\i\c*\s*>"#), Good("''", ""),
    Good("'\"#\t'", "\"#\t"),
    // Multi-line literal.
    Good("''''''", ""), Good("'''\n\\n\r\n  'a'\n'''", "\\n\n  'a'\n"), Good("''''a'''''", "'a''"),
    Good("'''\"\"\"'''", "\"\"\""),
    // Integer.
    Good("+99", 99), Good("42", 42), Good("0", 0), Good("-17", -17), Good("+0", 0), Good("-0", 0), Good("1_000", 1000),
    Good("5_349_221", 5_349_221), Good("1_2_3_4_5", 12345), Good("0xDEADBEEF", 0xDEAD_BEEF),
    Good("0xdead_beef", 0xDEAD_BEEF),
    Good("0x00", 0), Good("0o01234567", 0o1234567), Good("0o7_55", 0o755), Good("0b11010110", 0b1101_0110),
    Good("0b0_1", 1),
    Good("9223372036854775807", .integer(.max)), Good("-9223372036854775808", .integer(.min)),
    Good("0x7fffffffffffffff", .integer(.max)),
    // Float.
    Good("+1.0", fraction), Good("3.1415", fraction), Good("-0.01", fraction), Good("5e+22", fraction),
    Good("1e06", fraction),
    Good("-2E-2", fraction), Good("6.626e-34", fraction), Good("224_617.445_991_228", fraction), Good("0.0", fraction),
    Good("0e0", fraction), Good("1_0e1_0", fraction), Good("inf", fraction), Good("+inf", fraction),
    Good("-nan", fraction),
    // Offset Date-Time, Local Date-Time, Local Date, Local Time.
    Good("1979-05-27T07:32:00Z", date), Good("1979-05-27T00:32:00-07:00", date),
    Good("1979-05-27T00:32:00.999999-07:00", date),
    Good("1979-05-27 07:32:00Z", date), Good("1979-05-27t07:32:00z", date), Good("1979-05-27T07:32:00", date),
    Good("1979-05-27 00:32:00.5", date), Good("1979-05-27", date), Good("07:32:00", date),
    Good("00:32:00.999999", date), Good("2000-02-29", date), Good("1990-12-31T23:59:60Z", date),
    Good("[1979-05-27 ]", [date]),
  ]

  static let bad: [String] = [
    // Preliminaries, Comment.
    "\ra = 1", "a = 1\r", "a = 1\rb = 2", "# a\u{1}", "# a\r", "# \u{7F}", "\u{B}a = 1", "a = 1\u{C}", "\u{A0}a = 1",
    "a\u{FEFF} = 1", "\u{FEFF}\u{FEFF}", "a = 1 b", "/* a */", "a = 1 // b",
    // Key/Value Pair.
    "a", "a =", "a = # b", "a = \n1", "a\n= 1", "a = 1 b = 2", "= 1", "a = = 1", "a : 1", "a b = 1", "[a] b = 1",
    "a == 1",
    // Keys.
    "a. = 1", ".a = 1", "a..b = 1", "a.\nb = 1", "é = 1", "a! = 1", "'a = 1", "\"a\nb\" = 1", "\"\"\"a\"\"\" = 1",
    "'''a''' = 1", "'a'b = 1", "a'b' = 1", "\"\\x\" = 1", "a = 1\na = 2", "a = 1\n\"a\" = 2",
    "a = 1\n'\\u0061' = 1\n'a' = 2",
    "a = 1\na.b = 2", "a.b = 1\na = 2", "a.b = 1\na.b = 2", "a.b = 1\na.b.c = 2", "a = []\na.b = 1",
    // Table.
    "[]", "[ ]", "[", "[a", "[a\n]", "[a.]", "[.a]", "[a..b]", "[a]]", "[[a]", "[a] ]", "[a b]", "[a]\nb = 1\n[a]",
    "[a] [b]",
    "[a]\n[a]", "[a]\nb = 1\n[a.b]", "a = 1\n[a]", "a = 1\n[a.b]", "[a.b]\n[a]\n[a]", "[a=1]", "[\"\"\"a\"\"\"]",
    "[ # x", "[!", "[[ =", "[[\n", "[\u{E9}]", " \t[\u{1}", "[[.a]]",
    "[f]\na.b = 1\n[f.a]", "[f]\na.b.c = 1\n[f.a.b]", "a.b = 1\n[a]", "[a.b]\n[a]\nb.c = 1",
    "[a.b.c]\n[a]\nb.c.d = 1",
    "[a.b.c.d]\n[a]\nb.c.d.e.f = 1", "[a]\nb = {c = 1}\n[a.b]", "[a]\nb = {c = 1}\n[a.b.d]", "[a.b]\n[a]\nb = 1",
    // Array of Tables.
    "[[]]", "[[ ]]", "[[a] ]", "[ [a]]", "[[a\n]]", "[[a.]]", "a = []\n[[a]]", "a = [{}]\n[[a]]", "[a]\n[[a]]",
    "[[a]]\n[a]",
    "[a.b]\n[[a]]", "[[a]]\n[[a.b]]\n[a.b]", "[[a]]\n[a.b]\n[[a.b]]", "a = [{b = 1}]\n[a.c]", "[[a.b]]\n[a]\nb.c = 1",
    "a = 1\n[[a]]", "a.b = 1\n[[a]]", "[[a]]\nb = 1\nb = 2",
    // Inline Table.
    "a = {", "a = {b}", "a = {b = 1", "a = {b = 1,}", "a = {,}", "a = {b = 1,, c = 2}", "a = {b = 1 c = 2}",
    "a = {\n}",
    "a = {b = 1,\nc = 2}", "a = {b = 1\n}", "a = {b = 1 # c\n}", "a = {b = 1, b = 2}", "a = {b.c = 1, b = 2}",
    "a = {b = {}, b.c = 1}", "a = {b = 1, b.c = 2}", "a = {b = 1}\na.c = 2", "a = {b.c = 1}\na.b.d = 2",
    "a = {}\n[a]",
    "a = {}\n[a.b]", "a = {}\n[[a]]", "a.b = {}\na.b.c = 1", "a = {b = 1}}", "a = {[b] = 1}", "a = }",
    "a = {b = [1}", "a = {b = 1]",
    // Array.
    "a = [", "a = [1", "a = [1,", "a = [1 2]", "a = [,]", "a = [1,,2]", "a = [1,,]", "a = [,1]", "a = [1, }",
    "a = [1]]", "a = ]",
    "a = [b]", "a = [b = 1]", "a = [1\nb = 2", "a = [\r1]", "a = [[1]", "a = [1] 2", "a = ['\n']",
    "a = [1, 0x7f, 0o7, }", "[access.chap]\nuser = [ # ]",
  ]

  /// What stands after `a = `.
  static let badValues: [String] = [
    // String.
    "\"", "\"a", "\"a\nb\"", "'", "'a", "'a\nb'", "\"a\" b", "\"a\"\"b\"", "'a''b'", "\"\\a\"", "\"\\x41\"",
    "\"\\ \"", "\"\\e\"", "\"\\'\"",
    "\"\\u12\"", "\"\\u00g0\"", "\"\\u+123\"", "\"\\U0010FFF\"", "\"\\UFFFFFFFF\"", "\"\\U00110000\"", "\"\\uD800\"",
    "\"\\uDFFF\"", "\"\\ud83d\\ude00\"", "\"\\U0000D800\"", "\"\u{1}\"", "\"\u{7F}\"", "\"\r\"", "'\u{8}'", "'\r'",
    "'\u{1F}'", "\"\\",
    "\"\"\"", "\"\"\"a", "\"\"\"a\"", "\"\"\"a\"\"", "\"\"\"a\"\"\"\"\"\"", "\"\"\"\"\"\"\"\"\"", "\"\"\"\\ a\"\"\"",
    "\"\"\"\\", "\"\"\"\r\"\"\"",
    "\"\"\"\u{7F}\"\"\"", "\"\"\"a\\\r\"\"\"", "\"\"\"\\uD800\"\"\"", "'''", "'''a", "'''a''", "'''a''''''",
    "'''\r'''", "'''\u{B}'''", "a\"b\"",
    "\"\"\"\\\n", "“a”", "\"\\u", "\"\\u00",
    // Integer.
    "01", "-01", "+00", "1__0", "_1", "1_", "+_1", "++1", "+-1", "+", "-", "1,000", "1 000", "0x", "0xg", "0X1",
    "+0x1", "-0o1", "-0b1", "0x_1",
    "0x1_", "0x1__2", "0o8", "0o", "0O7", "0b2", "0b", "0B1", "00", "0_1", "1a", "1.2.3.4", "０", "1h", "0x-1",
    "0b1e1",
    // Float.
    "1.", ".1", "+.1", "1.e1", "1e", "1e+", "1e1.0", "1._0", "1.0_", "1_.0", "1e_1", "1e1_", "01.0", "1..0", "1e++1",
    "Inf", "NaN", "infinity",
    "+-inf", "in", "nan1", "0x1.8p1", "1e1e1", "1.5f", "-", "i nf",
    // Boolean.
    "True", "FALSE", "truer", "true1", "t", "yes", "on", "nil", "null", "none", "!true", "-true", "true false",
    // Dates and times.
    "1979-13-01", "1979-00-01", "1979-02-29", "1900-02-29", "1979-04-31", "1979-01-00", "1979-1-01", "79-01-01",
    "1979-01", "1979-01-01T",
    "1979-01-01T07", "1979-01-01T07:32", "1979-01-01T24:00:00", "1979-01-01T07:60:00", "1979-01-01T07:32:61",
    "1979-01-01T07:32:00.",
    "1979-01-01T07:32:00+", "1979-01-01T07:32:00+07", "1979-01-01T07:32:00+24:00", "1979-01-01T07:32:00+07:60",
    "1979-01-01T07:32:00ZZ", "1979-01-01_07:32:00", "1979-01-01  07:32:00", "1979-01-01 07", "1979-01-01 a",
    "1979/01/01", "7:32:00", "07:32", "2021-02-3107:32:00", "1979-00-0107:32:00", "1979-01-0107:32:00",
    "07:32:00Z", "07:32:00+07:00", "07:32:00.", "07:32:0", "07.32.00", "+07:32:00", "-1979-01-01", "1979-01-01Z",
    "19790101T073200",
    "1979-01-01T07:32:00.5.5", "1979-01-01T07:32:00+0700", "11979-01-01", "07:32:00 1",
  ]
}
