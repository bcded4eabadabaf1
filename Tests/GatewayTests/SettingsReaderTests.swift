import TestSupport
import Testing

@testable import Gateway

@Suite("Settings: what a file says")
struct SettingsReaderTests {
  func problems(_ file: SettingsValue, in document: TOMLDocument? = nil) -> [String] {
    do {
      _ = try SettingsReader.read(file)
      return []
    } catch { return error.lines(file: "gatewayd.toml", in: document) }
  }

  func problems(text: String) throws -> [String] {
    let document = try TOMLReader.read(Array(text.utf8))
    return problems(document.value, in: document)
  }

  @Test("An empty file is the defaults")
  func empty() throws {
    #expect(try SettingsReader.read([:]) == Settings())
  }

  @Test("Every key is read into its place")
  func everyKey() throws {
    let settings = try SettingsReader.read([
      "target": [
        "name": "iqn.2024-01.org.example:storage", "alias": "Attic", "listen": ["10.0.0.1:3261", "[fd00::1]"],
        "threads": 3, "poll-us": 50,
      ],
      "discovery": [
        "enabled": false, "export-blank": false, "ignore": ["/dev/sdz", "/dev/disk/by-id/usb-*"], "only": [],
      ],
      "limits": [
        "sessions": 10, "connections-per-address": 4, "login-timeout": 7, "queue-depth": 64, "memory": "512M",
      ],
      "access": [
        "networks": ["on-link", "10.0.0.0/8"], "initiators": ["iqn.1993-08.org.debian:*"],
        "chap": ["user": "u", "secret": "0123456789ab", "mutual-user": "m", "mutual-secret": "ba9876543210"],
        "initiator": [
          [
            "name": "iqn.1991-05.com.microsoft:host", "luns": [0, 3], "chap": ["user": "w", "secret": "abcdefabcdef"],
          ],
          ["name": "eui.0123456789abcdef"],
        ],
      ],
      "discovery-auth": ["user": "d", "secret": "ddddddddddddd"],
      "iser": ["enabled": false],
      "timeouts": ["nop-interval": 0, "io-deadline": 25],
      "pair": ["enabled": false, "explicit-alua": true, "addresses": ["192.0.2.10/24", "2001:db8::10/64%eth1"]],
      "metrics": ["listen": [9862, "9863", "[::1]", "192.0.2.1:99"]],
      "log": ["level": "debug"],
      "disk": [
        ["name": "/dev/sr*", "read-only": true, "removable": true, "thin": false, "block-bytes": 4096],
        ["name": "/dev/disk/by-id/usb-*"],
      ],
    ])
    #expect(settings.disks.count == 2)
    let kind = settings.rule(for: ["/dev/sr0", "/dev/disk/by-id/usb-0"])
    #expect(kind?.isReadOnly == true && kind?.isRemovable == true && kind?.isThin == false && kind?.blockBytes == 4096)
    let plain = settings.rule(for: ["/dev/sdb", "/dev/disk/by-id/usb-0"])
    #expect(plain == Settings.DiskRule(name: "/dev/disk/by-id/usb-*"))
    #expect(settings.rule(for: ["/dev/sdb"]) == nil)
    #expect(settings.target.name == "iqn.2024-01.org.example:storage")
    #expect(settings.target.alias == "Attic")
    #expect(settings.target.listen == [.init(host: "10.0.0.1", port: 3261), .init(host: "fd00::1", port: 3260)])
    #expect(settings.target.threads == 3)
    #expect(!settings.discovery.isEnabled && !settings.discovery.exportsBlank)
    #expect(settings.discovery.ignores(["/dev/sdq", "/dev/disk/by-id/usb-Stick-0:0"]))
    #expect(!settings.discovery.ignores(["/dev/sda"]))
    #expect(settings.discovery.only == [] && !settings.discovery.allows(["/dev/sda"]))
    #expect(settings.limits.sessions == 10 && settings.limits.connectionsPerAddress == 4)
    #expect(settings.limits.loginTimeoutSeconds == 7 && settings.limits.queueDepth == 64)
    #expect(settings.limits.memoryBytes == 512 << 20)
    #expect(settings.access.networks == [.onLink, .network(try IPNetwork(parsing: "10.0.0.0/8"))])
    #expect(settings.access.initiators == ["iqn.1993-08.org.debian:*"])
    #expect(settings.access.chap?.initiator.user == "u")
    #expect(settings.access.chap?.target == .init(user: "m", secret: Secret("ba9876543210")))
    #expect(settings.access.rules.count == 2)
    #expect(settings.access.rules[0].luns == [0, 3])
    #expect(settings.access.rules[0].chap?.initiator.secret == Secret("abcdefabcdef"))
    #expect(settings.discoveryAuthentication?.initiator.user == "d")
    #expect(!settings.iser.isEnabled && settings.target.pollNs == 50_000)
    #expect(settings.timeouts.nopIntervalSeconds == 0 && settings.timeouts.ioDeadlineSeconds == 25)
    #expect(!settings.pair.isEnabled && settings.pair.hasExplicitALUA)
    #expect(settings.pair.addresses.map(\.description) == ["192.0.2.10/24", "2001:db8::10/64%eth1"])
    #expect(settings.logLevel == .debug)
    #expect(
      settings.metrics.listen.map(\.description) == [
        "127.0.0.1:9862", "127.0.0.1:9863", "[::1]:9862", "192.0.2.1:99",
      ])
  }

  @Test("The metrics listen at one address or several, at a port alone on loopback, and nowhere unless told")
  func metrics() throws {
    func listen(_ value: SettingsValue) throws -> [String] {
      try SettingsReader.read(["metrics": ["listen": value]]).metrics.listen.map(\.description)
    }
    #expect(Settings().metrics.listen.isEmpty)
    #expect(try listen([]) == [])
    #expect(try listen("9000") == ["127.0.0.1:9000"])
    #expect(try listen(9000) == ["127.0.0.1:9000"])
    #expect(try listen("::") == ["[::]:9862"])
    for bad in [70000, -1, "localhost", "", ["9000", 9000], true] as [SettingsValue] {
      #expect(problems(["metrics": ["listen": bad]]).count == 1, "\(bad)")
    }
  }

  @Test("Without 'only' every disk may be touched; with it, those that one of its globs names")
  func only() throws {
    #expect(Settings().discovery.allows(["/dev/sda"]))
    let discovery = try SettingsReader.read(["discovery": ["only": ["/dev/sdb", "/dev/disk/by-id/wwn-0x5*"]]]).discovery
    #expect(discovery.allows(["/dev/sdb"]) && !discovery.allows(["/dev/sdc", "/dev/disk/by-id/ata-A_B"]))
    #expect(discovery.allows(["/dev/sdc", "/dev/disk/by-id/wwn-0x5000"]))
    #expect(problems(["discovery": ["only": ["sdb"]]]).count == 1)
  }

  @Test("An unknown key names file, line, the nearest key and all that are allowed")
  func unknownKey() throws {
    let text = "# a file\n\n[target]\nname = 'iqn.2024-01.org.example'\n\n# below\nlisen = []\n"
    #expect(
      try problems(text: text) == [
        "gatewayd.toml:7: unknown key 'lisen' in [target]; did you mean 'listen'? allowed: name, alias, listen, threads, "
          + "poll-us"
      ])
  }

  @Test("A key that is near nothing gets no suggestion")
  func farKey() {
    #expect(problems(["colour": true])[0].contains("unknown key 'colour' in the file; allowed: target, discovery"))
  }

  @Test("All problems are told at once, in the order of their lines")
  func allAtOnce() throws {
    let text = """
      [limits]
      sessions = 0
      memory = "lots"
      [access]
      networks = [
        "any",
        "10.0.0.1/8",
      ]
      [[access.initiator]]
      name = "iqn.2024-01.org.example:a"
      [[access.initiator]]
      luns = [1, 99999]
      [log]
      level = "loud"
      """
    let lines = try problems(text: text)
    #expect(lines.count == 6)
    #expect(lines[0] == "gatewayd.toml:2: 'sessions' in [limits] is 0; allowed: a number from 1 to 65535")
    #expect(lines[1].hasPrefix("gatewayd.toml:3: 'memory' in [limits]: 'lots' is not a size; allowed:"))
    #expect(
      lines[2] == "gatewayd.toml:7: 'networks' in [access]: '10.0.0.1/8' has bits set beyond its prefix of 8; "
        + "\"on-link\" and \"any\" are allowed too")
    #expect(lines[3] == "gatewayd.toml:11: [[access.initiator]] needs 'name'")
    #expect(lines[4].hasPrefix("gatewayd.toml:12: 'luns' in [[access.initiator]]"))
    #expect(lines[5].hasPrefix("gatewayd.toml:14: 'level' in [log]: 'loud' is not a level; allowed: error, warning"))
  }

  @Test("A value of the wrong kind says what it is and what is allowed")
  func wrongKind() {
    #expect(
      problems(["limits": ["sessions": "many"]]) == [
        "gatewayd.toml: 'sessions' in [limits] is a text; allowed: a number from 1 to 65535"
      ])
    #expect(problems(["target": 3])[0].contains("allowed: a table with name, alias, listen, threads, poll-us"))
    #expect(problems(["discovery": ["enabled": 1]])[0].hasSuffix("is a number; allowed: true or false"))
    #expect(problems(["timeouts": ["io-deadline": .other("a fraction")]])[0].contains("is a fraction; allowed:"))
  }

  @Test("iSER is on by default and polling off; polling has a bound")
  func iser() throws {
    #expect(Settings().iser.isEnabled && Settings().target.pollNs == 0)
    #expect(try SettingsReader.read(["target": ["poll-us": 1000]]).target.pollNs == 1_000_000)
    #expect(
      problems(["target": ["poll-us": 1001]]) == [
        "gatewayd.toml: 'poll-us' in [target] is 1001; allowed: a number from 0 to 1000 (microseconds; 0: never)"
      ])
    #expect(problems(["iser": ["enabled": "yes"]])[0].hasSuffix("is a text; allowed: true or false"))
    var off = Settings()
    off.iser.isEnabled = false
    #expect(Settings.keysNeedingRestart(from: Settings(), to: off) == ["iser.enabled"])
    #expect(!RunOptions(settings: off).servesISER && !RunOptions(iser: false).servesISER && RunOptions().servesISER)
  }

  @Test("A secret is never in a message, whatever is wrong with it")
  func secretsStaySecret() {
    let short = "pa55w0rd"
    let good = "a-good-long-secret"
    let lines =
      problems(["access": ["chap": ["user": "u", "secret": .string(short)]]])
      + problems(["access": ["chap": ["user": 3, "secret": .string(good)]]])
      + problems(["discovery-auth": ["secret": .string(good), "secrte": .string(good)]])
      + problems([
        "access": [
          "chap": ["user": "u", "secret": .string(good), "mutual-user": "v", "mutual-secret": .string(good)]
        ]
      ])
    #expect(lines.count == 5)
    #expect(!lines.contains { $0.contains(short) || $0.contains(good) })
  }

  @Test("A secret does not show in print, interpolation or dump")
  func secretIsOpaque() {
    let credentials = CHAPCredentials(initiator: .init(user: "u", secret: Secret("a-good-long-secret")))
    var dumped = ""
    dump(credentials, to: &dumped)
    // As text and as the decimal bytes of an array.
    for text in ["\(credentials)", String(reflecting: credentials), dumped] {
      #expect(!text.contains("a-good") && !text.contains("97, 45"))
      #expect(text.contains("(secret)"))
    }
  }

  @Test("A CHAP secret has at least 96 bits, and the two directions differ (RFC 7143 §9.2.1)")
  func chapRules() {
    #expect(problems(["access": ["chap": ["user": "u", "secret": "12345678901"]]])[0].contains("has 11 bytes"))
    #expect(problems(["access": ["chap": ["user": "u", "secret": "123456789012"]]]).isEmpty)
    let same: SettingsValue = [
      "user": "u", "secret": "123456789012", "mutual-user": "v", "mutual-secret": "123456789012",
    ]
    #expect(problems(["discovery-auth": same])[0].contains("must differ"))
    #expect(problems(["discovery-auth": ["user": "u"]])[0].contains("needs 'secret'"))
    let half: SettingsValue = ["user": "u", "secret": "123456789012", "mutual-user": "v"]
    #expect(problems(["discovery-auth": half])[0].contains("or neither"))
  }

  @Test(
    "Target names follow RFC 7143 §4.2.7",
    arguments: [
      ("iqn.2024-01.org.example:storage", true), ("iqn.2024-01.org.example", true), ("eui.0123456789abcdef", true),
      ("naa.600144f0c73abf00", true), ("naa.600144f0c73abf000000000000000001", true),
      ("iqn.2024-13.org.example", false), ("iqn.24-01.org.example", false), ("iqn.2024-01.", false),
      ("IQN.2024-01.org.example", false), ("iqn.2024-01.org.example:A", false), ("iqn.2024-01.org.exa mple", false),
      ("eui.0123", false), ("naa.600144f0c73abf0", false), ("storage", false), ("", false), ("iqn.", false),
    ])
  func targetNames(name: String, isGood: Bool) {
    #expect(problems(["target": ["name": .string(name)]]).isEmpty == isGood)
  }

  @Test("A name longer than 223 bytes is refused (RFC 7143 §4.2.7.1)")
  func longName() {
    let base = "iqn.2024-01.org.example:"
    let fits = base + String(repeating: "a", count: 223 - base.count)
    #expect(problems(["target": ["name": .string(fits)]]).isEmpty)
    #expect(!problems(["target": ["name": .string(fits + "a")]]).isEmpty)
  }

  @Test("The first rule that names an initiator decides; without one the list and [access.chap] do")
  func admission() {
    let chap = CHAPCredentials(initiator: .init(user: "u", secret: Secret("123456789012")))
    let own = CHAPCredentials(initiator: .init(user: "o", secret: Secret("abcdefabcdef")))
    var access = Settings.Access()
    access.initiators = ["iqn.1993-08.org.debian:*"]
    access.chap = chap
    access.rules = [
      .init(name: "iqn.1993-08.org.debian:a", luns: [1], chap: own), .init(name: "iqn.1991-05.com.microsoft:*"),
      .init(name: "*:a", luns: []),
    ]
    #expect(access.admission(of: "iqn.1993-08.org.debian:a") == .init(luns: [1], chap: own))
    #expect(access.admission(of: "iqn.1993-08.org.debian:b") == .init(luns: nil, chap: chap))
    #expect(access.admission(of: "iqn.1991-05.com.microsoft:x") == .init(luns: nil, chap: chap))
    #expect(access.admission(of: "iqn.1998-01.com.vmware:a") == .init(luns: [], chap: chap))
    #expect(access.admission(of: "iqn.1998-01.com.vmware:b") == nil)
  }

  @Test("Random files give settings or problems, never a trap")
  func randomFiles() {
    var random = SplitMix(seed: 7)
    var good = 0
    for _ in 0..<3000 {
      let file = Self.randomValue(&random, depth: 0)
      do {
        _ = try SettingsReader.read(file)
        good += 1
      } catch {
        #expect(!error.problems.isEmpty)
        #expect(error.lines(file: "f").count == error.problems.count)
      }
    }
    #expect(good < 3000)
  }

  static let words = [
    "target", "name", "listen", "limits", "sessions", "memory", "access", "chap", "user", "secret", "initiator",
    "luns", "networks", "discovery-auth", "log", "level", "iqn.2024-01.a", "::", "1.2.3.4/33", "/", "", "é\u{0}",
  ]

  static func randomValue(_ random: inout SplitMix, depth: Int) -> SettingsValue {
    switch depth == 0 ? 5 : random.next() % (depth > 4 ? 4 : 7) {
    case 0: .string(words[Int(random.next() % UInt64(words.count))])
    case 1: .integer(Int64(bitPattern: random.next()) >> Int64(random.next() % 64))
    case 2: .boolean(random.next() & 1 == 0)
    case 3: .other("a date")
    case 4: .array((0..<random.next() % 4).map { _ in randomValue(&random, depth: depth + 1) })
    default:
      .table(
        Dictionary(
          (0..<random.next() % 6).map { _ in
            (words[Int(random.next() % UInt64(words.count))], randomValue(&random, depth: depth + 1))
          }
        ) { first, _ in first })
    }
  }
}
