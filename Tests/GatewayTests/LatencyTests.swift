import Glibc
import TestSupport
import Testing

@testable import Gateway

@Suite("Latencies")
struct LatencyTests {
  @Test("A time lies in its bucket: not before its begin, before its end, and a bucket is at most a quarter wide")
  func buckets() {
    var random = SplitMix(seed: 3)
    for _ in 0..<20_000 {
      let ns = random.next() >> (random.next() % 64)
      let index = LatencyBuckets.index(ns)
      #expect(index == LatencyBuckets.count - 1 || ns < LatencyBuckets.end(index))
      #expect(index == 0 || ns >= LatencyBuckets.end(index - 1))
    }
    for index in 1..<LatencyBuckets.count {
      let (begin, end) = (LatencyBuckets.end(index - 1), LatencyBuckets.end(index))
      #expect(begin < end && (end - begin) * 4 <= begin)
    }
    #expect(LatencyBuckets.index(0) == 0 && LatencyBuckets.index(.max) == LatencyBuckets.count - 1)
    #expect(LatencyBuckets.end(LatencyBuckets.count - 1) == 1 << 36)
  }

  @Test("Quantiles are at most a quarter too large and never above the longest")
  func quantiles() {
    var histogram = LatencyHistogram()
    #expect(histogram.quantile(0.5) == 0)
    for us in 1...1000 as ClosedRange<UInt64> { histogram.add(us * 1000) }
    #expect((500_000...625_000).contains(histogram.quantile(0.5)))
    #expect((990_000...1_000_000).contains(histogram.quantile(0.99)))
    #expect(histogram.quantile(1) == 1_000_000 && histogram.longestNs == 1_000_000)
    #expect(histogram.sumNs == 500_500_000 && histogram.count == 1000)
    // Wider buckets for the exposition have all of those before them in them.
    #expect(histogram.count(within: 34) == 1000 && histogram.count(within: 13) == 8)
    var twice = histogram
    twice.add(histogram)
    #expect(twice.count == 2000 && twice.quantile(0.5) == histogram.quantile(0.5))
  }

  @Test("Times are written with three digits at most")
  func texts() {
    let texts = [0, 840, 1024, 12_345, 99_900, 1_300_000, 20_000_000_000].map {
      Duration.text(nanoseconds: $0)
    }
    #expect(texts == ["0 ns", "840 ns", "1 us", "12 us", "99 us", "1.3 ms", "20 s"])
  }
}

/// A gateway with one disk of each kind that matters here, and an initiator.
@Suite("What a gateway tells of its connections", .serialized)
struct ObservationTests {
  private static let target = "iqn.2026-01.example:test"

  private static func run(
    _ disks: [String] = ["memory:16M"], settings: (inout Settings) -> Void = { _ in },
    _ body: (Gateway, UInt16) throws -> Void
  ) throws {
    var options = RunOptions(
      listen: [ListenAddress(host: "127.0.0.1", port: 0)], disks: try disks.map { try DiskSpecification(parsing: $0) },
      discovery: false, targetName: target, threads: 2)
    settings(&options.settings)
    let gateway = Gateway(options)
    try gateway.start()
    let address = try #require(gateway.status().portals.first?.address)
    let result = Result { try body(gateway, try #require(UInt16(address.split(separator: ":").last!))) }
    gateway.stop(within: 2)
    try result.get()
  }

  private static func login(
    _ port: UInt16, _ name: String = "a", target: String = ObservationTests.target
  ) throws -> SmallInitiator {
    try SmallInitiator(port: port, target: target, name: "iqn.2026-01.example:\(name)")
  }

  @Test("Each command is in one histogram, of its unit, transport and direction, with the time that it took")
  func latencies() throws {
    try Self.run(["memory:16M", "slow:16M:20"]) { gateway, port in
      let initiator = try Self.login(port)
      for lun in [0, 1] as [UInt8] {
        try initiator.ready(lun: lun)
        for block in 0..<10 as Range<UInt32> {
          #expect(try initiator.write([UInt8](repeating: 1, count: 512), block: block, lun: lun) == 0)
          #expect(try initiator.read(512, block: block, lun: lun).status == 0)
          #expect(try initiator.read(512, block: block, lun: lun).status == 0)
        }
      }
      let (status, _, observed) = gateway.look()
      for lun in [0, 1] as [UInt16] {
        let reads = try #require(observed.latencies[LatencyKey(lun: lun, isOverRDMA: false, direction: .read)])
        let writes = try #require(observed.latencies[LatencyKey(lun: lun, isOverRDMA: false, direction: .write)])
        let others = try #require(observed.latencies[LatencyKey(lun: lun, isOverRDMA: false, direction: .other)])
        #expect(reads.count == 20 && writes.count == 10 && others.count > 0)
        #expect(observed.latencies[LatencyKey(lun: lun, isOverRDMA: true, direction: .read)] == nil)
        if lun == 1 {
          #expect(reads.quantile(0.01) >= 20_000_000 && reads.sumNs >= 400_000_000 && reads.longestNs < 10_000_000_000)
        } else {
          #expect(reads.longestNs > 0 && reads.quantile(0.5) < 20_000_000)
        }
      }
      let told = try #require(status.logicalUnits[1].latencies?.first { $0.direction == "read" })
      #expect(told.transport == "tcp" && told.commands == 20 && told.p50Ns >= 20_000_000 && told.p50Ns <= told.p99Ns)
      #expect(told.p99Ns <= told.maxNs)
      #expect(status.text.contains("P99"))
      let text = gateway.metrics()
      #expect(text.contains("\n# TYPE gatewayd_command_seconds histogram\n"))
      #expect(
        text.contains(
          "\ngatewayd_command_seconds_bucket{lun=\"1\",transport=\"tcp\",direction=\"read\",le=\"+Inf\"} 20\n"))
      #expect(text.contains("\ngatewayd_command_seconds_count{lun=\"1\",transport=\"tcp\",direction=\"write\"} 10\n"))
      #expect(
        text.contains(
          "\ngatewayd_command_seconds_bucket{lun=\"1\",transport=\"tcp\",direction=\"read\",le=\"8.192e-06\"} 0\n"))
    }
  }

  @Test("What is refused is counted by its reason: logins, commands, task management, the ends of connections")
  func events() throws {
    try Self.run { gateway, port in
      #expect(throws: SmallInitiator.Failure.self) { _ = try Self.login(port, target: "iqn.2026-01.example:other") }
      let initiator = try Self.login(port)
      try initiator.ready()
      #expect(try initiator.read(512, block: 1 << 30).status == 2)
      #expect(try initiator.command([0xFF, 0, 0, 0, 0, 0]).status == 2)
      _ = try Self.login(port)  // the same name and ISID
      for _ in 0..<2000 where gateway.look().2.events[.connectionEnded(.reinstated)] == 0 { usleep(1000) }
      let events = gateway.look().2.events
      #expect(events[.loginRefused(.notFound)] == 1)
      #expect(events[.checkCondition(.illegalRequest, 0x2100)] == 1)
      #expect(events[.checkCondition(.illegalRequest, 0x2000)] == 1)
      #expect(events[.connectionEnded(.loginRefused)] == 1 && events[.connectionEnded(.reinstated)] == 1)
      let text = gateway.metrics()
      #expect(text.contains("\ngatewayd_logins_refused_total{status=\"0203\",reason=\"not_found\"} 1\n"))
      #expect(text.contains("\ngatewayd_check_conditions_total{key=\"illegal_request\",asc=\"2100\"} 1\n"))
      #expect(text.contains("\ngatewayd_connections_ended_total{reason=\"reinstated\"} 1\n"))
      #expect(text.contains("\ngatewayd_digest_errors_total{digest=\"data\"} 0\n"))
    }
  }

  @Test("A connection that may not come is counted by why")
  func connectionsRefused() throws {
    try Self.run {
      $0.limits.connectionsPerAddress = 1
    } _: { gateway, port in
      let first = try Self.login(port)
      #expect(throws: SmallInitiator.Failure.self) { _ = try Self.login(port, "b") }
      try first.ready()
      #expect(gateway.look().2.events[.connectionRefused(.addressLimit)] == 1)
      #expect(gateway.status().problems.contains { $0.hasPrefix("1 connection(s)") })
    }
  }

  @Test(
    "A trace tells what became of a connection, while it is open and after its end, and of one that came to no session")
  func traces() throws {
    try Self.run { gateway, port in
      let initiator = try Self.login(port)
      try initiator.ready()
      let id = try #require(gateway.sessions().first?.id)
      let open = try #require(gateway.traces(session: id).first)
      #expect(open.isOpen && open.initiator == "iqn.2026-01.example:a" && open.session == id && open.transport == "tcp")
      #expect(open.events.map(\.event) == ["accepted", "authenticated", "login-stage", "full-feature"])
      #expect(open.events.last?.detail?.contains("HeaderDigest=None") == true)
      for block in 0..<100 as Range<UInt32> { #expect(try initiator.read(512, block: block).status == 0) }
      #expect(gateway.traces(session: id).first?.events == open.events, "nothing is added for I/O")
      _ = try Self.login(port)
      for _ in 0..<2000 where gateway.traces(session: id).first?.isOpen != false { usleep(1000) }
      let ended = try #require(gateway.traces(session: id).first)
      #expect(!ended.isOpen && ended.events.last?.event == "ended")
      #expect(ended.events.last?.detail == "reinstated: reinstated by a new login")
      #expect(throws: SmallInitiator.Failure.self) { _ = try Self.login(port, target: "iqn.2026-01.example:other") }
      for _ in 0..<2000 where gateway.traces(session: 0).isEmpty { usleep(1000) }
      let refused = try #require(gateway.traces(session: 0).last)
      #expect(refused.events.map(\.event).contains("login-refused") && refused.initiator == nil)
      #expect(gateway.traces(session: 60000).isEmpty)
      #expect(TraceReport.text([ended]).hasPrefix("Session \(id) of iqn.2026-01.example:a, 127.0.0.1:"))
    }
  }
}
