import FoundationEssentials
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import Gateway

/// A gateway that answers what it is told to, when it is told to.
final class ScriptedControl: GatewayControl {
  let delaySeconds: Mutex<Double> = Mutex(0)
  let adopted: Mutex<[String]> = Mutex([])

  static let report = StatusReport(
    uptimeSeconds: 7, targetName: "iqn.2024-01.org.example:a\nb",
    portals: [PortalReport(address: "[::]:3260", transport: "tcp", state: "listening")], threads: 2, sessions: 1,
    memory: MemoryReport(arenaBytes: 1, arenaUsedBytes: 0, residentBytes: 3),
    logicalUnits: [
      LogicalUnitReport(
        number: 1, naa: "6001", sizeBytes: 1 << 40, blockBytes: 512, path: "/dev/sdb", serial: "S", state: "online")
    ])

  func status() -> StatusReport {
    let delay = delaySeconds.withLock { $0 }
    if delay > 0 { usleep(UInt32(delay * 1_000_000)) }
    return Self.report
  }

  func look() -> (StatusReport, [SessionReport], Observations) { (status(), sessions(), Observations()) }

  func disks() -> [DiskReport] {
    [DiskReport(path: "/dev/sda", model: "M", serial: "S", sizeBytes: 9, verdict: .refused, reason: "mounted")]
  }

  func nics() -> [NICReport] { NICReport.all(madeInventory) }

  func sessions() -> [SessionReport] {
    (1...3000).map {
      SessionReport(
        id: UInt16($0), initiator: "iqn.2024-01.org.example:\($0)", address: "10.0.0.1:\($0)", transport: "tcp",
        ageSeconds: 1, parameters: ["MaxBurstLength": "262144"])
    }
  }

  func endSession(_ session: UInt16) throws(ControlError) -> EndReport { EndReport(session: session) }
  func traces(session: UInt16) -> [TraceReport] {
    [
      TraceReport(
        session: session, initiator: nil, address: "10.0.0.1:5", portal: "10.0.0.2:3260", transport: "tcp",
        isOpen: false,
        forgotten: 0, events: [.init(time: "2026-01-01T00:00:00.000Z", event: "accepted", detail: "\u{1b}[2J")])
    ]
  }

  func adopt(path: String, mode: AdoptMode) throws(ControlError) -> AdoptReport {
    guard path == "/dev/sdb" else { throw ControlError(.noSuchDisk, "no disk \(path)") }
    adopted.withLock { $0.append("\(path) \(mode)") }
    return AdoptReport(path: path, lun: 3, naa: "6002")
  }

  func pair() -> PairReport { .off("no shared disk") }

  func operate(_ operation: PairOperation) throws(ControlError) -> PairReport {
    guard operation != .force else { throw ControlError(.refused, "no pair") }
    adopted.withLock { $0.append("\(operation)") }
    return pair()
  }

  func reload(_ settings: Settings) throws(ControlError) {}
}

/// A control socket in a directory of its own.
struct ControlFixture {
  let control = ScriptedControl()
  let server: ControlServer
  let directory: String
  var path: String { directory + "/c.sock" }

  init(requestSeconds: Double = 5, answerSeconds: Double = 10) throws {
    var template = Array("/tmp/gatewayd-test-XXXXXX".utf8CString)
    let made = try #require(mkdtemp(&template))
    directory = String(cString: made)
    let patience = ControlServer.Patience(requestSeconds: requestSeconds, answerSeconds: answerSeconds)
    server = ControlServer(path: directory + "/c.sock", control: control, patience: patience)
    try server.start()
  }

  func end() {
    server.stop()
    unlink(path)
    rmdir(directory)
  }

  /// Sends bytes as they are and gives the answer's line.
  func raw(_ bytes: [UInt8], seconds: Double = 5) throws -> String {
    let deadline = Deadline(seconds: seconds)
    let socket = try ControlClient.connect(to: path, until: deadline)
    defer { socket.close() }
    do { try socket.write(bytes, until: deadline) } catch  where error.code != .timedOut {}
    return String(decoding: try socket.readLine(bytesMax: 1 << 20, until: deadline), as: UTF8.self)
  }

  func code(_ bytes: [UInt8], seconds: Double = 5) throws -> ControlError.Code? {
    struct Reply: Decodable { var error: ControlError? }
    return try JSONDecoder().decode(Reply.self, from: Data(try raw(bytes, seconds: seconds).utf8)).error?.code
  }
}

/// Runs what blocks on a thread of its own: the answers come from the concurrency pool, which must not wait for them.
func blocking<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
  try await withCheckedThrowingContinuation { continuation in
    _ = ControlThread.start { continuation.resume(with: Result(catching: body)) }
  }
}

@Suite("The control socket", .serialized)
struct ControlSocketTests {
  @Test("Reports travel whole: what the gateway says is what the client gets")
  func reports() async throws {
    try await blocking {
      let fixture = try ControlFixture()
      defer { fixture.end() }
      #expect(try ControlClient.request(.init(.status), at: fixture.path) == ScriptedControl.report)
      let disks: [DiskReport] = try ControlClient.request(.init(.disks), at: fixture.path)
      #expect(disks.map(\.reason) == ["mounted"])
      // More than a socket buffer holds.
      let sessions: [SessionReport] = try ControlClient.request(.init(.sessions), at: fixture.path)
      #expect(sessions.count == 3000)
    }
  }

  @Test("A reply is one line of JSON with the version and the fields that scripts read")
  func wire() async throws {
    try await blocking {
      let fixture = try ControlFixture()
      defer { fixture.end() }
      let line = try fixture.raw(Array("{\"version\":1,\"command\":\"disks\"}\n".utf8))
      #expect(
        line == #"{"result":[{"model":"M","path":"/dev/sda","reason":"mounted","serial":"S","sizeBytes":9,"#
          + #""verdict":"refused"}],"version":1}"#)
    }
  }

  @Test("What an operator asks of the pair arrives as it was asked, and so does a refusal")
  func operate() async throws {
    let operations: [PairOperation] = [.switchover, .hold, .resume, .forget(node: "6a1b"), .force]
    for operation in operations {
      let text = try JSONEncoder().encode([operation])
      #expect(try JSONDecoder().decode([PairOperation].self, from: text) == [operation])
    }
    try await blocking {
      let fixture = try ControlFixture()
      defer { fixture.end() }
      let report: PairReport = try ControlClient.request(
        .init(.operate, operation: .forget(node: "6a1b")), at: fixture.path)
      #expect(!report.isRunning && report.text.contains("no shared disk"))
      #expect(fixture.control.adopted.withLock { $0 } == ["forget(node: \"6a1b\")"])
      #expect(throws: ControlError.self) {
        let _: PairReport = try ControlClient.request(.init(.operate, operation: .force), at: fixture.path)
      }
    }
  }

  @Test("Root and the daemon's own user may adopt; the mode is passed on")
  func adopt() async throws {
    try await blocking {
      let fixture = try ControlFixture()
      defer { fixture.end() }
      let report: AdoptReport = try ControlClient.request(
        .init(.adopt, path: "/dev/sdb", mode: .whole), at: fixture.path)
      #expect(report == AdoptReport(path: "/dev/sdb", lun: 3, naa: "6002"))
      #expect(fixture.control.adopted.withLock { $0 } == ["/dev/sdb whole"])
      let error = #expect(throws: ControlError.self) {
        let _: AdoptReport = try ControlClient.request(.init(.adopt, path: "/dev/no", mode: .wipe), at: fixture.path)
      }
      #expect(error?.code == .noSuchDisk)
    }
  }

  @Test("Somebody who may only read is refused a change, and nothing is done")
  func readersDoNotChange() async throws {
    try await blocking {
      let control = ScriptedControl()
      let server = ControlServer(path: "/nonexistent/c", control: control)
      var pair: [Int32] = [-1, -1]
      #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0, &pair) == 0)
      let client = ControlSocket(descriptor: pair[0])
      defer { client.close() }
      let deadline = Deadline(seconds: 5)
      let request = #"{"version":1,"command":"adopt","path":"/dev/sdb","mode":"wipe"}"# + "\n"
      try client.write(Array(request.utf8), until: deadline)
      ControlSession(server: server, socket: ControlSocket(descriptor: pair[1]), mayChange: false).run()
      let line = String(decoding: try client.readLine(bytesMax: 4096, until: deadline), as: UTF8.self)
      #expect(line.contains(#""code":"notPermitted""#))
      #expect(control.adopted.withLock { $0 }.isEmpty)
    }
  }

  @Test(
    "A request that is not understood is told so",
    arguments: [
      "", "{}", "[]", "status", #"{"version":1}"#, #"{"version":2,"command":"status"}"#,
      #"{"version":1,"command":"operate"}"#, #"{"version":1,"command":"operate","operation":"burn"}"#,
      #"{"version":1,"command":"operate","operation":"forget"}"#, #"{"version":1,"command":"format"}"#,
      #"{"version":1,"command":"adopt"}"#,
      #"{"version":1,"command":"adopt","path":"sdb","mode":"wipe"}"#,
      #"{"version":1,"command":"adopt","path":"/dev/sdb","mode":"burn"}"#,
      #"{"version":1,"command":"adopt","path":"/dev/sdb"}"#,
      #"{"version":99999999999999999999,"command":"status"}"#,
    ])
  func badRequests(text: String) async throws {
    try await blocking {
      let fixture = try ControlFixture()
      defer { fixture.end() }
      #expect(try fixture.code(Array(text.utf8) + [0x0A]) == .badRequest)
      #expect(fixture.control.adopted.withLock { $0 }.isEmpty)
    }
  }

  @Test("A request of more than 64 KiB is refused, and the daemon goes on answering")
  func longRequest() async throws {
    try await blocking {
      let fixture = try ControlFixture()
      defer { fixture.end() }
      let bytes = [UInt8](repeating: UInt8(ascii: " "), count: 1 << 20)
      #expect(try fixture.code(bytes) == .badRequest)
      #expect(try fixture.raw(Array("{\"version\":1,\"command\":\"status\"}\n".utf8)).contains("online"))
    }
  }

  @Test("Random bytes get an answer, never a trap")
  func randomBytes() async throws {
    try await blocking {
      let fixture = try ControlFixture(requestSeconds: 60, answerSeconds: 60)
      defer { fixture.end() }
      var random = SplitMix(seed: 3)
      let valid = Array(#"{"version":1,"command":"adopt","path":"/dev/x","mode":"wipe"}"#.utf8)
      for _ in 0..<300 {
        var bytes = valid
        for _ in 0...random.next() % 3 {
          bytes[Int(random.next() % UInt64(bytes.count))] = UInt8(truncatingIfNeeded: random.next())
        }
        // A change that leaves the request whole asks for a disk that is not there.
        let code = try fixture.code(bytes + [0x0A])
        #expect([.badRequest, .noSuchDisk].contains(code))
      }
    }
  }

  @Test("A client that asks nothing is let go after its time, and takes no other's place")
  func silentClients() async throws {
    try await blocking {
      let fixture = try ControlFixture(requestSeconds: 0.3)
      defer { fixture.end() }
      let deadline = Deadline(seconds: 5)
      let silent = try (0..<ControlServer.clientsMax).map { _ in
        try ControlClient.connect(to: fixture.path, until: deadline)
      }
      defer { silent.forEach { $0.close() } }
      // All places are taken: the next one hears so at once.
      #expect(try fixture.code(Array("{\"version\":1,\"command\":\"status\"}\n".utf8)) == .busy)
      for socket in silent {
        let line = String(decoding: try socket.readLine(bytesMax: 4096, until: deadline), as: UTF8.self)
        #expect(line.contains("timedOut"))
      }
      usleep(100_000)
      #expect(try ControlClient.request(.init(.status), at: fixture.path) == ScriptedControl.report)
    }
  }

  @Test("A gateway that hangs gives each client an error in time and collects a bounded number of requests")
  func hungGateway() async throws {
    try await blocking {
      let fixture = try ControlFixture(answerSeconds: 0.1)
      defer { fixture.end() }
      // All of them have to be given up before the first comes back, on a machine that does other things, too.
      fixture.control.delaySeconds.withLock { $0 = 4 }
      let request = Array("{\"version\":1,\"command\":\"status\"}\n".utf8)
      for _ in 0..<ControlServer.clientsMax { #expect(try fixture.code(request) == .timedOut) }
      #expect(try fixture.code(request) == .busy)
      // Once the gateway has finished them, it answers again.
      fixture.control.delaySeconds.withLock { $0 = 0 }
      sleep(5)
      #expect(try fixture.code(request) == nil)
    }
  }

  @Test("Without a daemon the client says what to type")
  func noDaemon() {
    let error = #expect(throws: ControlError.self) {
      let _: StatusReport = try ControlClient.request(.init(.status), at: "/nonexistent/control.sock")
    }
    #expect(error?.code == .noDaemon)
    #expect(error?.message.contains("systemctl start gatewayd") == true)
  }

  @Test("A second daemon does not take the socket of a living one; that of a dead one it does")
  func stale() async throws {
    try await blocking {
      let fixture = try ControlFixture()
      defer { fixture.end() }
      let second = ControlServer(path: fixture.path, control: fixture.control)
      let error = #expect(throws: ControlError.self) { try second.start() }
      #expect(error?.message.contains("another gatewayd runs already") == true)
      #expect(try fixture.code(Array("{\"version\":1,\"command\":\"status\"}\n".utf8)) == nil)
      fixture.server.stop()
      #expect(access(fixture.path, F_OK) != 0)
      // What a daemon that was killed leaves: a bound socket that nobody listens on.
      let dead = try ControlSocket.make()
      #expect(dead.bind(to: fixture.path) == 0)
      dead.close()
      try second.start()
      defer { second.stop() }
      #expect(try ControlClient.request(.init(.status), at: fixture.path) == ScriptedControl.report)
    }
  }

  @Test("A file that is not a socket stays where it is")
  func notASocket() async throws {
    try await blocking {
      let fixture = try ControlFixture()
      defer { fixture.end() }
      let path = fixture.directory + "/file"
      let descriptor = open(path, O_CREAT | O_WRONLY, 0o600)
      close(descriptor)
      defer { unlink(path) }
      #expect(throws: ControlError.self) { try ControlServer(path: path, control: fixture.control).start() }
      #expect(access(path, F_OK) == 0)
    }
  }

  @Test("Only the owner and the group can open the socket")
  func mode() async throws {
    try await blocking {
      let fixture = try ControlFixture()
      defer { fixture.end() }
      var info = stat()
      #expect(lstat(fixture.path, &info) == 0)
      #expect(info.st_mode & 0o777 == 0o660)
    }
  }

  @Test("A path that does not fit in sun_path is an error, not a cut path")
  func longPath() {
    let path = "/tmp/" + String(repeating: "a", count: 120)
    #expect(throws: ControlError.self) { try ControlServer(path: path, control: ScriptedControl()).start() }
    #expect(throws: ControlError.self) {
      let _: StatusReport = try ControlClient.request(.init(.status), at: path)
    }
  }

  @Test("The standard path follows the environment, the service, root and the user, in this order")
  func standardPath() {
    #expect(ControlPath.standard(environment: { $0 == "GATEWAYD_CONTROL" ? "/x" : "/y" }, uid: 0) == "/x")
    #expect(
      ControlPath.standard(environment: { $0 == "RUNTIME_DIRECTORY" ? "/run/g" : nil }, uid: 5) == "/run/g/control.sock"
    )
    #expect(ControlPath.standard(environment: { _ in "" }, uid: 0) == "/run/gatewayd/control.sock")
    #expect(
      ControlPath.standard(environment: { $0 == "XDG_RUNTIME_DIR" ? "/run/user/5" : nil }, uid: 5)
        == "/run/user/5/gatewayd/control.sock")
    #expect(ControlPath.standard(environment: { _ in nil }, uid: 5) == "/tmp/gatewayd-5/control.sock")
  }
}

@Suite("Log lines")
struct ControlLogTests {
  @Test("What a peer sends cannot begin a new line or drive a terminal")
  func escapes() {
    let line = String(
      decoding: Log.line(prefix: "<6>", message: "a\n<0>b\r\u{1B}[31m\u{85}\u{2028}\u{202E}é"), as: UTF8.self)
    #expect(line == "<6>a\\n<0>b\\r\\u{1b}[31m\\u{85}\\u{2028}\\u{202e}é\n")
  }

  @Test("A long line is cut")
  func cut() {
    let line = Log.line(prefix: "", message: String(repeating: "a", count: 100_000))
    #expect(line.count <= Log.byteCountMax + 8)
    #expect(line.last == 0x0A)
  }

  @Test("Levels are syslog's, and the less severe ones are dropped")
  func levels() {
    #expect(LogLevel.allCases.map(\.rawValue) == [3, 4, 5, 6, 7])
    #expect(LogLevel(name: "warning") == .warning)
    #expect(LogLevel(name: "loud") == nil)
    #expect(LogLevel.error < LogLevel.debug)
  }
}
