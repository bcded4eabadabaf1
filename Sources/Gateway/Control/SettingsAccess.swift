/// The syntax of iSCSI names and of globs over them (RFC 7143 §4.2.7), with words for the operator who got one wrong.
public enum NameSyntax {
  static let byteCountMax = 223
  static let prefixes = ["iqn.", "eui.", "naa."]
  static let allowed = "an iSCSI name as in iqn.2024-01.org.example:storage"

  /// The name itself if it is one.
  /// - Throws: What is wrong with it.
  public static func check(_ name: String) throws(ValueError) -> String {
    try checkCharacters(name, extra: "")
    guard let prefix = prefixes.first(where: name.hasPrefix) else {
      throw ValueError("'\(name)' begins with none of \(prefixes.joined(separator: " ")); allowed: \(allowed)")
    }
    let rest = name.dropFirst(prefix.count).utf8
    let isGood =
      switch prefix {
      // eui. and 16, naa. and 16 or 32 hexadecimal digits (RFC 7143 §4.2.7.4, §4.2.7.5).
      case "eui.": rest.count == 16 && rest.allSatisfy(isHexadecimal)
      case "naa.": (rest.count == 16 || rest.count == 32) && rest.allSatisfy(isHexadecimal)
      default: isQualified(rest)
      }
    guard isGood else {
      throw ValueError("'\(name)' is not \(allowed) (iqn.YEAR-MONTH.DOMAIN, or eui./naa. with its digits)")
    }
    return name
  }

  /// A name, or a glob that can match one.
  public static func checkPattern(_ pattern: String) throws(ValueError) -> String {
    guard pattern.contains("*") || pattern.contains("?") else { return try check(pattern) }
    try checkCharacters(pattern, extra: "*?")
    let fixed = pattern.prefix { $0 != "*" && $0 != "?" }
    guard prefixes.contains(where: { fixed.hasPrefix($0) || $0.hasPrefix(fixed) }) else {
      throw ValueError("'\(pattern)' can match no initiator: names begin with iqn., eui. or naa.")
    }
    return pattern
  }

  private static func checkCharacters(_ name: String, extra: String) throws(ValueError) {
    guard !name.isEmpty, name.utf8.count <= byteCountMax else {
      throw ValueError("an iSCSI name has 1 to \(byteCountMax) bytes")
    }
    // RFC 3722 maps names to lower case; of ASCII it leaves letters, digits, '-', '.' and ':'.
    for scalar in name.unicodeScalars where scalar.isASCII {
      let character = Character(scalar)
      guard character.isLowercase || character.isNumber || "-.:".contains(character) || extra.contains(character) else {
        throw ValueError("'\(name)' has a character that names do not have; allowed: a-z 0-9 - . :")
      }
    }
  }

  /// `YYYY-MM.` and a domain name reversed (RFC 7143 §4.2.7.3).
  private static func isQualified(_ rest: Substring.UTF8View) -> Bool {
    let bytes = [UInt8](rest)
    guard bytes.count > 8, bytes[4] == UInt8(ascii: "-"), bytes[7] == UInt8(ascii: ".") else { return false }
    let digits = bytes[..<4] + bytes[5..<7]
    let month = Int(bytes[5] &- UInt8(ascii: "0")) * 10 + Int(bytes[6] &- UInt8(ascii: "0"))
    return digits.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) } && (1...12).contains(month)
      && bytes[8] != UInt8(ascii: ":") && bytes[8] != UInt8(ascii: ".")
  }

  private static func isHexadecimal(_ byte: UInt8) -> Bool {
    Character(Unicode.Scalar(byte)).isHexDigit
  }
}

/// `user`, `secret`, `mutual-user`, `mutual-secret` on their way to credentials.
struct CHAPDraft {
  var user: String?
  var secret: Secret?
  var mutualUser: String?
  var mutualSecret: Secret?

  static let rows: [SettingsRow<CHAPDraft>] = [
    SettingsRow("user") { $1.user = userName($0) },
    SettingsRow("secret") { $1.secret = secret($0) },
    SettingsRow("mutual-user") { $1.mutualUser = userName($0) },
    SettingsRow("mutual-secret") { $1.mutualSecret = secret($0) },
  ]

  /// Credentials, or nil after a problem was reported.
  static func read(_ field: SettingsField) -> CHAPCredentials? {
    var draft = CHAPDraft()
    field.section(rows, into: &draft)
    guard case .table(let table) = field.value else { return nil }
    let section = SettingsField.sectionName(field.path)
    for key in ["user", "secret"] where table[key] == nil {
      field.report("\(section) needs '\(key)'")
    }
    if (table["mutual-user"] == nil) != (table["mutual-secret"] == nil) {
      field.report("\(section) needs both 'mutual-user' and 'mutual-secret', or neither")
    }
    guard let user = draft.user, let secret = draft.secret else { return nil }
    var credentials = CHAPCredentials(initiator: .init(user: user, secret: secret))
    if let mutualUser = draft.mutualUser, let mutualSecret = draft.mutualSecret {
      // The same secret in both directions lets a peer reflect the challenge (RFC 7143 §9.2.1).
      guard mutualSecret != secret else {
        field.report("\(section): 'secret' and 'mutual-secret' must differ")
        return nil
      }
      credentials.target = .init(user: mutualUser, secret: mutualSecret)
    }
    return credentials
  }

  private static func userName(_ field: SettingsField) -> String? {
    let allowed = "a text of 1 to 255 bytes"
    guard let user = field.text(allowed) else { return nil }
    guard (1...255).contains(user.utf8.count) else {
      field.report("\(field.name) has \(user.utf8.count) bytes; allowed: \(allowed)")
      return nil
    }
    return user
  }

  /// Says how long a bad secret is, never what it is.
  private static func secret(_ field: SettingsField) -> Secret? {
    // 96 bits at least where nothing encrypts (RFC 7143 §9.2.1).
    let allowed = "a text of 12 to 255 bytes (Windows takes 12 to 16)"
    guard let text = field.text(allowed) else { return nil }
    guard (12...255).contains(text.utf8.count) else {
      field.report("\(field.name) has \(text.utf8.count) bytes; allowed: \(allowed)")
      return nil
    }
    return Secret(text)
  }
}

/// One `[[access.initiator]]` on its way to a rule.
struct InitiatorDraft {
  var name: String?
  var luns: Set<UInt16>?
  var chap: CHAPCredentials?

  static let rows: [SettingsRow<InitiatorDraft>] = [
    SettingsRow("name") { $1.name = $0.parsed("an initiator name or glob", NameSyntax.checkPattern) },
    SettingsRow("luns") { $1.luns = $0.list("a list of LUN numbers", lun).map(Set.init) },
    SettingsRow("chap") { $1.chap = CHAPDraft.read($0) },
  ]

  static func read(_ field: SettingsField) -> Settings.InitiatorRule? {
    var draft = InitiatorDraft()
    field.section(rows, into: &draft)
    guard case .table(let table) = field.value else { return nil }
    if table["name"] == nil { field.report("[[access.initiator]] needs 'name'") }
    return draft.name.map { Settings.InitiatorRule(name: $0, luns: draft.luns, chap: draft.chap) }
  }

  // Flat space addressing has 14 bits (SAM-5 §4.7.7.4).
  private static func lun(_ field: SettingsField) -> UInt16? {
    guard case .integer(let number) = field.value, (0...16383).contains(number) else {
      field.report("'luns' in [[access.initiator]] holds \(field.value.kind) that is no LUN; allowed: 0 to 16383")
      return nil
    }
    return UInt16(number)
  }
}
