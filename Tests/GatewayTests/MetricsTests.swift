import Glibc
import HA
import Testing

@testable import Gateway

/// A pair with everything that a report can have.
func madePairReport() -> PairReport {
  var report = PairReport.off("")
  report.isRunning = true
  report.role = "active"
  report.epoch = 7
  report.name = "left"
  report.node = "6a1b"
  report.peer = PairReport.Peer(
    node: "7c2d", name: "right", role: "passive", epoch: 7, heardMillisecondsAgo: 40, linksBothWays: 2,
    silenceLimitMilliseconds: 600)
  report.disks = [
    PairReport.Disk(disk: "d0", lun: 0, path: "/dev/sda", state: "secured", isArbiter: true, problem: ""),
    PairReport.Disk(disk: "d1", lun: 1, path: "/dev/sdb", state: "secured", isArbiter: true, problem: ""),
    PairReport.Disk(disk: "d2", lun: 2, path: "/dev/sdc", state: "secured", isArbiter: true, problem: ""),
  ]
  report.links = LinksReport(
    links: ["eth0/4", "eth1/4"].map(madeLink), drops: LinkDrops(), priorityProblem: nil, problems: [])
  report.serviceAddresses = [ServiceAddressReport(address: "10.0.0.5/24", interface: "eth0", problem: nil)]
  report.takeovers = PairReport.Takeovers(
    counts: ["silent": 2], last: PairReport.Takeover(cause: "silent", secondsAgo: 60, seconds: 1.25), fenced: 1,
    handedOver: 3)
  return report
}

private func madeLink(_ name: String) -> LinkReport {
  LinkReport(
    name: name, condition: "up", localAddress: "10.0.0.1", sent: 5, sendFailures: 0, received: 4, lost: 1,
    duplicates: 0, late: 0, jitterNs: 250_000, longestGapNs: 60_000_000)
}

@Suite("Metrics (Prometheus text exposition format 0.0.4)")
struct MetricsTests {
  /// Name, labels and value of a line, by the format's grammar; nil: it has none.
  private func sample(_ line: Substring) -> (name: Substring, labels: [String], value: Double)? {
    let name = line.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_" || $0 == ":") }
    guard let first = name.first, !first.isNumber else { return nil }
    var rest = line.dropFirst(name.count)
    var labels: [String] = []
    if rest.first == "{" {
      rest = rest.dropFirst()
      while rest.first != "}" {
        let label = rest.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
        guard !label.isEmpty, rest.dropFirst(label.count).hasPrefix("=\"") else { return nil }
        rest = rest.dropFirst(label.count + 2)
        var value = ""
        while let next = rest.first, next != "\"" {
          rest = rest.dropFirst()
          guard next == "\\" else {
            value.append(next)
            continue
          }
          switch rest.popFirst() {
          case "\\": value += "\\"
          case "\"": value += "\""
          case "n": value += "\n"
          default: return nil
          }
        }
        guard rest.popFirst() == "\"" else { return nil }
        labels.append("\(label)=\(value)")
        if rest.first == "," { rest = rest.dropFirst() }
      }
      rest = rest.dropFirst()
    }
    guard rest.popFirst() == " ", let value = Double(rest) else { return nil }
    return (name, labels, value)
  }

  private func text(_ pair: PairReport = madePairReport()) -> String {
    let control = ScriptedControl()
    var observed = Observations()
    for (lun, direction) in [(0, .read), (0, .write), (1, .other)] as [(UInt16, LatencyDirection)] {
      var histogram = LatencyHistogram()
      for ns in [900, 12_345, 99_000_000] as [UInt64] { histogram.add(ns) }
      observed.latencies[LatencyKey(lun: lun, isOverRDMA: lun == 1, direction: direction)] = histogram
    }
    return Metrics.text(
      status: control.status(), sessions: control.sessions(), disks: control.disks(), pair: pair, observed: observed)
  }

  @Test("Each line parses, each family has HELP and TYPE once and its values together, and no value comes twice")
  func grammar() throws {
    let text = text()
    #expect(text.hasSuffix("\n"))
    var families: Set<Substring> = []
    var described: Substring?
    var family: Substring = ""
    var isHistogram = false
    var values: Set<String> = []
    for line in text.dropLast().split(separator: "\n", omittingEmptySubsequences: false) {
      let words = line.split(separator: " ", maxSplits: 3)
      if line.hasPrefix("# HELP ") {
        #expect(families.insert(words[2]).inserted, "\(words[2]) is a family already")
        described = words[2]
      } else if line.hasPrefix("# TYPE ") {
        #expect(words[2] == described && ["counter", "gauge", "histogram"].contains(words[3]))
        isHistogram = words[3] == "histogram"
        #expect(words[2].hasSuffix("_total") == (words[3] == "counter"), "\(line)")
        family = words[2]
      } else {
        let found = try #require(sample(line), "\(line)")
        let parts = isHistogram ? ["_bucket", "_sum", "_count"] : [""]
        #expect(parts.contains { found.name == family + $0 }, "\(line)")
        #expect(values.insert("\(found.name)\(found.labels.sorted())").inserted, "\(line)")
      }
    }
    #expect(families.count > 40 && families.allSatisfy { $0.hasPrefix("gatewayd_") })
  }

  @Test("Backslashes, quotes and newlines in label values are escaped, and in HELP all but quotes")
  func escaping() throws {
    var metrics = MetricsText()
    metrics.add("a_total", .counter, "say \"a\\b\"\n", [.init(UInt64.max, ["path": "C:\\\"x\"\n{y=\"é\"}"])])
    #expect(
      metrics.text == "# HELP a_total say \"a\\\\b\"\\n\n# TYPE a_total counter\n"
        + "a_total{path=\"C:\\\\\\\"x\\\"\\n{y=\\\"é\\\"}\"} 18446744073709551615\n")
    let line = try #require(metrics.text.split(separator: "\n").last)
    #expect(sample(line)?.labels == ["path=C:\\\"x\"\n{y=\"é\"}"])
    // The target name of the scripted gateway has a newline in it.
    #expect(text().contains("target=\"iqn.2024-01.org.example:a\\nb\""))
  }

  @Test("The role is one of a set of states; takeovers are counted by cause")
  func pair() {
    let text = text()
    #expect(text.contains("\ngatewayd_pair_role{role=\"active\"} 1\n"))
    #expect(text.contains("\ngatewayd_pair_role{role=\"passive\"} 0\n"))
    #expect(text.contains("\ngatewayd_pair_peer_role{role=\"passive\"} 1\n"))
    #expect(text.split(separator: "\n").count { $0.hasPrefix("gatewayd_pair_role{") } == Role.allCases.count)
    #expect(text.contains("\ngatewayd_pair_takeovers_total{cause=\"silent\"} 2\n"))
    #expect(text.contains("\ngatewayd_pair_last_takeover_seconds{cause=\"silent\"} 1.25\n"))
    #expect(text.contains("\ngatewayd_pair_disks{state=\"secured\"} 3\ngatewayd_pair_disks{state=\"foreign\"} 0\n"))
    #expect(text.contains("\ngatewayd_pair_links_up 2\n") && text.contains("\ngatewayd_pair_arbiters 3\n"))
    #expect(text.contains("\ngatewayd_pair_peer_heard_age_seconds 0.04\n"))
    #expect(text.contains("\ngatewayd_pair_hold{reason=\"operator\"} 0\n"))
  }

  @Test("A gateway alone has no values of a pair, and one that is down only says so")
  func alone() {
    let text = text(.off("no shared disk"))
    #expect(text.contains("\ngatewayd_pair_running 0\n") && !text.contains("gatewayd_pair_role"))
    #expect(text.contains("\ngatewayd_sessions{transport=\"tcp\"} 3000\ngatewayd_sessions{transport=\"iser\"} 0\n"))
    #expect(text.contains("\ngatewayd_lun_size_bytes{lun=\"1\"} 1099511627776\n"))
    #expect(Metrics.down.hasSuffix("\ngatewayd_up 0\n"))
  }

  @Test("A histogram's buckets are each as large as those before them, and the last is all")
  func histogram() {
    let prefix = "gatewayd_command_seconds_bucket{lun=\"1\",transport=\"iser\",direction=\"other\",le="
    let buckets = text().split(separator: "\n").filter { $0.hasPrefix(prefix) }
    let counts = buckets.compactMap { $0.split(separator: " ").last.flatMap { Int($0) } }
    #expect(counts.count == 23 && counts.first == 1 && counts.last == 3 && counts == counts.sorted())
    #expect(buckets.first?.contains("le=\"8.192e-06\"") == true && buckets.last?.contains("le=\"+Inf\"") == true)
    #expect(
      text().contains("gatewayd_command_seconds_sum{lun=\"0\",transport=\"tcp\",direction=\"read\"} 0.099013245\n"))
  }

  @Test("Every name is in docs/COMMANDS.md")
  func documented() throws {
    let root = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    let file = try #require(fopen("/\(root)/docs/COMMANDS.md", "r"))
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 1 << 20)
    let count = fread(&bytes, 1, 1 << 20, file)
    let documents = String(decoding: bytes[..<count], as: UTF8.self)
    let names = text().split(separator: "\n").filter { $0.hasPrefix("# TYPE ") }.map { $0.split(separator: " ")[2] }
    for name in names.map({ String($0.dropFirst("gatewayd_".count)) })
      + EventFamily.all.map({ String($0.name.dropFirst(9)) })
    {
      #expect(documents.contains("`\(name)`"), "\(name)")
    }
  }

  @Test("They come over the control socket, to whoever may read")
  func overTheSocket() async throws {
    try await blocking {
      let fixture = try ControlFixture()
      defer { fixture.end() }
      let text: String = try ControlClient.request(.init(.metrics), at: fixture.path)
      #expect(text.hasPrefix("# HELP gatewayd_up ") && text.contains("\ngatewayd_disks{verdict=\"refused\"} 1\n"))
    }
  }
}
