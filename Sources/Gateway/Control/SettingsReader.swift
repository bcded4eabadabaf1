/// Reads a whole settings file by tables: one row per key.
public enum SettingsReader {
  /// - Throws: Everything that is wrong with it, at once.
  public static func read(_ file: SettingsValue) throws(SettingsProblems) -> Settings {
    let sink = SettingsSink()
    var settings = Settings()
    SettingsField(value: file, path: [], sink: sink).section(sections, into: &settings)
    guard sink.problems.isEmpty else { throw SettingsProblems(problems: sink.problems) }
    return settings
  }

  static let sections: [SettingsRow<Settings>] = [
    SettingsRow("target") { $0.section(target, into: &$1.target) },
    SettingsRow("discovery") { $0.section(discovery, into: &$1.discovery) },
    SettingsRow("limits") { $0.section(limits, into: &$1.limits) },
    SettingsRow("access") { $0.section(access, into: &$1.access) },
    SettingsRow("discovery-auth") { $1.discoveryAuthentication = CHAPDraft.read($0) },
    SettingsRow("iser") { $0.section(iser, into: &$1.iser) },
    SettingsRow("timeouts") { $0.section(timeouts, into: &$1.timeouts) },
    SettingsRow("pair") { $0.section(pair, into: &$1.pair) },
    SettingsRow("metrics") { $0.section(metrics, into: &$1.metrics) },
    SettingsRow("disk") { field, settings in
      if let rules = field.list("[[disk]] tables", DiskDraft.read) { settings.disks = rules }
    },
    SettingsRow("log") { $0.section(log, into: &$1) },
  ]

  static let target: [SettingsRow<Settings.Target>] = [
    SettingsRow("name") { field, target in
      if let name = field.parsed(NameSyntax.allowed, NameSyntax.check) { target.name = name }
    },
    SettingsRow("alias") { field, target in
      if let alias = field.parsed("a text of at most 255 bytes", checkAlias) { target.alias = alias }
    },
    SettingsRow("listen") { field, target in
      let allowed = "a list of \(ListenAddress.allowed)"
      guard let addresses = field.texts(allowed, ListenAddress.init(parsing:)) else { return }
      if addresses.isEmpty { return field.report("\(field.name) is empty; allowed: \(allowed)") }
      if Set(addresses).count < addresses.count { return field.report("\(field.name) has an address twice") }
      target.listen = addresses
    },
    SettingsRow("threads") { field, target in
      if let count = field.integer(1...256) { target.threads = count }
    },
    SettingsRow("poll-us") { field, target in
      if let us = field.integer(0...1000, unit: " (microseconds; 0: never)") { target.pollNs = UInt64(us) * 1000 }
    },
  ]

  static let discovery: [SettingsRow<Settings.Discovery>] = [
    SettingsRow("enabled") { field, discovery in
      if let flag = field.boolean() { discovery.isEnabled = flag }
    },
    SettingsRow("export-blank") { field, discovery in
      if let flag = field.boolean() { discovery.exportsBlank = flag }
    },
    SettingsRow("ignore") { field, discovery in
      if let patterns = field.texts("a list of paths or globs below /dev", checkDevicePattern) {
        discovery.ignore = patterns
      }
    },
    SettingsRow("only") { field, discovery in
      if let patterns = field.texts("a list of paths or globs below /dev", checkDevicePattern) {
        discovery.only = patterns
      }
    },
  ]

  static let limits: [SettingsRow<Settings.Limits>] = [
    SettingsRow("sessions") { field, limits in
      // A TSIH is 16 bits, not 0 (RFC 7143 §11.12.6).
      if let count = field.integer(1...65535) { limits.sessions = count }
    },
    SettingsRow("connections-per-address") { field, limits in
      if let count = field.integer(1...65535) { limits.connectionsPerAddress = count }
    },
    SettingsRow("login-timeout") { field, limits in
      if let seconds = field.integer(1...600, unit: " (seconds)") { limits.loginTimeoutSeconds = seconds }
    },
    SettingsRow("queue-depth") { field, limits in
      if let count = field.integer(1...1024) { limits.queueDepth = count }
    },
    SettingsRow("memory") { field, limits in
      if let bytes = field.parsed("a size from 16M to 1T, as in \"512M\"", checkMemory) { limits.memoryBytes = bytes }
    },
  ]

  static let access: [SettingsRow<Settings.Access>] = [
    SettingsRow("networks") { field, access in
      let allowed = "a list of \"on-link\", \"any\" or networks as in \"10.0.0.0/8\""
      if let networks = field.texts(allowed, NetworkRule.init(parsing:)) { access.networks = networks }
    },
    SettingsRow("initiators") { field, access in
      let allowed = "a list of initiator names or globs, as in \"iqn.1993-08.org.debian:*\""
      if let names = field.texts(allowed, NameSyntax.checkPattern) { access.initiators = names }
    },
    SettingsRow("chap") { field, access in access.chap = CHAPDraft.read(field) },
    SettingsRow("initiator") { field, access in
      if let rules = field.list("[[access.initiator]] tables", InitiatorDraft.read) { access.rules = rules }
    },
  ]

  static let iser: [SettingsRow<Settings.ISER>] = [
    SettingsRow("enabled") { field, iser in
      if let flag = field.boolean() { iser.isEnabled = flag }
    }
  ]

  static let timeouts: [SettingsRow<Settings.Timeouts>] = [
    SettingsRow("nop-interval") { field, timeouts in
      if let seconds = field.integer(0...3600, unit: " (seconds; 0: never)") { timeouts.nopIntervalSeconds = seconds }
    },
    SettingsRow("io-deadline") { field, timeouts in
      if let seconds = field.integer(1...600, unit: " (seconds)") { timeouts.ioDeadlineSeconds = seconds }
    },
  ]

  static let pair: [SettingsRow<Settings.Pair>] = [
    SettingsRow("enabled") { field, pair in
      if let flag = field.boolean() { pair.isEnabled = flag }
    },
    SettingsRow("explicit-alua") { field, pair in
      if let flag = field.boolean() { pair.hasExplicitALUA = flag }
    },
    SettingsRow("watchdog") { field, pair in
      if let choice = field.parsed(WatchdogChoice.allowed, WatchdogChoice.init(parsing:)) { pair.watchdog = choice }
    },
    SettingsRow("addresses") { field, pair in
      let allowed = "a list of \(ServiceAddress.allowed)"
      guard let addresses = field.texts(allowed, ServiceAddress.init(parsing:)) else { return }
      if Set(addresses.map(\.address)).count < addresses.count {
        return field.report("\(field.name) has an address twice")
      }
      if addresses.count > ServiceAddress.countMax {
        return field.report("\(field.name) has \(addresses.count) addresses; allowed: \(ServiceAddress.countMax)")
      }
      pair.addresses = addresses
    },
  ]

  static let metrics: [SettingsRow<Settings.Metrics>] = [
    SettingsRow("listen") { field, metrics in
      // One address or a list of them.
      let addresses: [ListenAddress]?
      if case .array = field.value {
        addresses = field.list("a list of \(ListenAddress.allowedForMetrics)", metricsAddress)
      } else {
        addresses = metricsAddress(field).map { [$0] }
      }
      guard let addresses else { return }
      if Set(addresses).count < addresses.count { return field.report("\(field.name) has an address twice") }
      if addresses.count > 16 {
        return field.report("\(field.name) has \(addresses.count) addresses; allowed: 16")
      }
      metrics.listen = addresses
    }
  ]

  private static func metricsAddress(_ field: SettingsField) -> ListenAddress? {
    if case .integer(let port) = field.value, let port = UInt16(exactly: port) {
      return ListenAddress(host: "127.0.0.1", port: port)
    }
    return field.parsed(ListenAddress.allowedForMetrics) { text throws(ValueError) in
      try ListenAddress(parsingForMetrics: text)
    }
  }

  static let log: [SettingsRow<Settings>] = [
    SettingsRow("level") { field, settings in
      if let level = field.parsed(LogLevel.allowed, LogLevel.init(parsing:)) { settings.logLevel = level }
    }
  ]

  private static func checkAlias(_ text: String) throws(ValueError) -> String {
    // A text value is at most 255 bytes (RFC 7143 §6.1).
    guard !text.isEmpty, text.utf8.count <= 255,
      text.unicodeScalars.allSatisfy({ $0.value >= 0x20 && $0.value != 0x7F })
    else { throw ValueError("an alias has 1 to 255 bytes and no control characters") }
    return text
  }

  private static func checkDevicePattern(_ text: String) throws(ValueError) -> String {
    guard text.hasPrefix("/dev/") || text.hasPrefix("*") else {
      throw ValueError(
        "'\(text)' can match no disk; allowed: paths or globs below /dev, as in \"/dev/disk/by-id/usb-*\"")
    }
    return text
  }

  private static func checkMemory(_ text: String) throws(ValueError) -> UInt64 {
    let bytes = try ByteCount.parse(text)
    guard (1 << 24...1 << 40).contains(bytes) else { throw ValueError("'\(text)' is out of range; allowed: 16M to 1T") }
    return bytes
  }
}

extension LogLevel {
  static let allowed = allCases.map(\.name).joined(separator: ", ")

  public init(parsing text: String) throws(ValueError) {
    guard let level = LogLevel(name: text) else {
      throw ValueError("'\(text)' is not a level; allowed: \(Self.allowed)")
    }
    self = level
  }
}

extension NetworkRule {
  init(parsing text: String) throws(ValueError) {
    switch text {
    case "on-link": self = .onLink
    case "any": self = .any
    default:
      do { self = .network(try IPNetwork(parsing: text)) } catch {
        throw ValueError("\(error.description); \"on-link\" and \"any\" are allowed too")
      }
    }
  }
}

/// One `[[disk]]` on its way to a rule.
struct DiskDraft {
  var rule = Settings.DiskRule(name: "")

  static let rows: [SettingsRow<DiskDraft>] = [
    SettingsRow("name") { field, draft in
      if let name = field.parsed("a path or glob of a disk's node, of a link to it, or of --disk", check) {
        draft.rule.name = name
      }
    },
    SettingsRow("read-only") { field, draft in
      if let flag = field.boolean() { draft.rule.isReadOnly = flag }
    },
    SettingsRow("removable") { field, draft in
      if let flag = field.boolean() { draft.rule.isRemovable = flag }
    },
    SettingsRow("thin") { field, draft in
      if let flag = field.boolean() { draft.rule.isThin = flag }
    },
    SettingsRow("block-bytes") { field, draft in
      guard let bytes = field.integer(512...4096, unit: " (512 or 4096)") else { return }
      guard bytes == 512 || bytes == 4096 else {
        return field.report("\(field.name) is \(bytes); allowed: 512 or 4096")
      }
      draft.rule.blockBytes = UInt32(bytes)
    },
  ]

  static func read(_ field: SettingsField) -> Settings.DiskRule? {
    var draft = DiskDraft()
    field.section(rows, into: &draft)
    guard case .table(let table) = field.value else { return nil }
    if table["name"] == nil { field.report("[[disk]] needs 'name'") }
    return draft.rule
  }

  private static func check(_ text: String) throws(ValueError) -> String {
    guard !text.isEmpty, !text.utf8.contains(0) else {
      throw ValueError("an empty text names no disk; allowed: paths or globs, as in \"/dev/disk/by-id/usb-*\"")
    }
    return text
  }
}
