import Discovery
import Glibc
import Testing

@testable import Gateway

/// A machine made of a few files.
final class MadeMachine {
  let root: String
  var files: MachineFiles { MachineFiles(root: root) }

  init(_ texts: [String: String] = [:], links: [String: String] = [:]) throws {
    var template = Array("/tmp/gatewayd-machine-XXXXXX".utf8CString)
    root = String(cString: try #require(mkdtemp(&template)))
    for (path, text) in texts {
      makeDirectories(of: path)
      let descriptor = open(root + path, O_CREAT | O_WRONLY, 0o600)
      let bytes = Array(text.utf8)
      #expect(write(descriptor, bytes, bytes.count) == bytes.count)
      close(descriptor)
    }
    for (path, target) in links {
      makeDirectories(of: path)
      #expect(symlink(target, root + path) == 0)
    }
  }

  private func makeDirectories(of path: String) {
    var directory = root
    for part in path.split(separator: "/").dropLast() {
      directory += "/" + part
      mkdir(directory, 0o700)
    }
  }

  deinit { Self.removeTree(root, MachineFiles()) }

  private static func removeTree(_ path: String, _ files: MachineFiles) {
    // A link is removed, not followed.
    if files.link(path) == nil { for name in files.names(in: path) { removeTree(path + "/" + name, files) } }
    remove(path)
  }
}

@Suite("Doctor")
struct ControlDoctorTests {
  static let listening = """
      sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
       0: 0100007F:0CBC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1
       1: 0100007F:0CBD 0100007F:0CBC 01 00000000:00000000 00:00000000 00000000     0        0 4712 1
    """

  @Test(
    "A kernel before 6.1 is a problem",
    arguments: [
      ("6.1.0-18-amd64", .fine), ("6.18.44", .fine), ("10.0", .fine), ("6.0.19", .problem), ("5.15.0", .problem),
      ("weird", .note),
    ] as [(String, DoctorCheck.Outcome)])
  func kernel(release: String, outcome: DoctorCheck.Outcome) throws {
    let machine = try MadeMachine(["/proc/sys/kernel/osrelease": release + "\n"])
    #expect(SystemChecks.kernel(machine.files).outcome == outcome)
  }

  @Test("io_uring that is switched off names the switch, one that a sandbox forbids names the sandbox")
  func ring() throws {
    let off = try MadeMachine(["/proc/sys/kernel/io_uring_disabled": "2\n"])
    #expect(SystemChecks.ring(off.files) { 0 }.outcome == .fine)
    let switched = SystemChecks.ring(off.files) { EPERM }
    #expect(switched.outcome == .problem && switched.advice == "sysctl -w kernel.io_uring_disabled=0")
    let on = try MadeMachine(["/proc/sys/kernel/io_uring_disabled": "0\n"])
    #expect(SystemChecks.ring(on.files) { EPERM }.advice?.contains("seccomp") == true)
    #expect(SystemChecks.ring(on.files) { ENOMEM }.advice?.contains("ulimit -l") == true)
  }

  @Test("The limits are those of the daemon; privilege lifts the memory lock")
  func limits() throws {
    let text = """
      Limit                     Soft Limit           Hard Limit           Units
      Max open files            1024                 524288               files
      Max locked memory         8388608              8388608              bytes
      """
    let machine = try MadeMachine([
      "/proc/7/limits": text, "/proc/7/status": "CapEff:\t0000000000000000\n",
      "/proc/8/limits": text, "/proc/8/status": "CapEff:\t0000000000004000\n",
      "/proc/9/limits": text.replacing("8388608 ", with: "unlimited ").replacing("1024 ", with: "65536 "),
    ])
    #expect(SystemChecks.limits(machine.files, daemon: 7).map(\.outcome) == [.problem, .problem])
    #expect(SystemChecks.limits(machine.files, daemon: 8).map(\.outcome) == [.fine, .problem])
    #expect(SystemChecks.limits(machine.files, daemon: 9).map(\.outcome) == [.fine, .fine])
    #expect(SystemChecks.limits(machine.files, daemon: 10).map(\.outcome) == [.note, .note])
  }

  @Test("A port is free, the daemon's, somebody's by name, or somebody's who cannot be seen")
  func port() throws {
    let table = ["/proc/net/tcp": Self.listening]
    let other = try MadeMachine(
      table.merging(["/proc/42/comm": "tgtd\n"]) { first, _ in first }, links: ["/proc/42/fd/3": "socket:[4711]"])
    #expect(PortOwner.find(port: 3260, in: other.files) == PortOwner(process: (42, "tgtd")))
    // Connected, not listening.
    #expect(PortOwner.find(port: 3261, in: other.files) == nil)
    let taken = SystemChecks.port(3260, other.files, daemon: nil)
    #expect(taken.outcome == .problem && taken.finding == "taken by tgtd (process 42)")
    #expect(SystemChecks.port(3260, other.files, daemon: 42).outcome == .fine)
    let hidden = try MadeMachine(table)
    #expect(SystemChecks.port(3260, hidden.files, daemon: nil).outcome == .problem)
    #expect(SystemChecks.port(3260, hidden.files, daemon: 42).outcome == .note)
    #expect(SystemChecks.port(3260, try MadeMachine().files, daemon: nil).finding == "free")
  }

  @Test("Without a daemon the report says what to type, and gives no commands for initiators")
  func noDaemon() throws {
    let machine = try MadeMachine([
      "/run/udev/control": "", "/sys/block/sda/size": "2048\n", "/sys/block/loop0/size": "9",
    ])
    var doctor = Doctor(controlPath: "/nonexistent/c")
    doctor.files = machine.files
    doctor.ringProbe = { 0 }
    doctor.ownInventory = { RDMAInventory() }
    let report = doctor.examine()
    #expect(report.hasProblems && report.initiators.isEmpty)
    let text = report.text(isColoured: false)
    #expect(text.contains("PROBLEM daemon") && text.contains("-> systemctl start gatewayd"))
    #expect(text.contains("the kernel sees sda 1 MiB\n") && !text.contains("loop0"))
    #expect(!text.contains("\u{1B}") && text.hasSuffix("\n1 problem.\n"))
    #expect(report.text(isColoured: true).contains("\u{1B}[31mPROBLEM\u{1B}[0m"))
  }

  @Test("With a daemon the report has its disks and commands that name its target and an address of this machine")
  func daemon() async throws {
    try await blocking {
      let fixture = try ControlFixture()
      defer { fixture.end() }
      var doctor = Doctor(controlPath: fixture.path)
      doctor.ownAddresses = { ["192.0.2.7", "2001:db8::7"] }
      let report = doctor.examine()
      #expect(report.checks.contains { $0.name == "disk" && $0.finding == "/dev/sda is refused: mounted" })
      let text = report.text(isColoured: false)
      #expect(text.contains("gatewayd doctor --initiator linux|linux-service-address|vmware|windows|libiscsi\n"))
      #expect(report.initiators.map(\.kind) == InitiatorKind.allCases)
      #expect(report.checks.contains { $0.name == "pair" && $0.finding == "none: no shared disk" })
      #expect(!report.initiators[0].commands.contains { $0.contains("OTHER-NODE") })
    }
  }

  @Test("No exported disk is a problem, but not where the settings name none that is here")
  func noDisk() {
    func disk(_ verdict: DiskVerdict, _ code: String?) -> DiskReport {
      DiskReport(path: "/dev/sda", model: "", serial: "", sizeBytes: 1, verdict: verdict, reason: "R.", code: code)
    }
    #expect(Doctor.summary([]).outcome == .problem)
    #expect(Doctor.summary([disk(.held, "data")]).outcome == .problem)
    let unnamed = Doctor.summary([disk(.held, "data"), disk(.held, "not-chosen")])
    #expect(unnamed.outcome == .note && unnamed.finding.contains("[discovery] only"))
    #expect(Doctor.summary([disk(.held, "not-chosen"), disk(.exported, nil)]).outcome == .fine)
  }

  @Test("A block for an initiator names the target and an address of this machine, line by line")
  func guide() async throws {
    try await blocking {
      let fixture = try ControlFixture()
      defer { fixture.end() }
      var doctor = Doctor(controlPath: fixture.path)
      doctor.ownAddresses = { ["192.0.2.7", "2001:db8::7"] }
      let text = try doctor.guide(.linux).text
      #expect(text.contains("\nattach '192.0.2.7:3260' default\n"))
      // The target name of this gateway has a newline in it: it cannot become a line of its own.
      #expect(text.contains("a\\nb") && !text.contains("a\nb"))
    }
  }

  @Test("A port that nobody listens on cannot be reached, one that somebody does can")
  func reachability() async throws {
    try await blocking {
      let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
      var address = sockaddr_in()
      address.sin_family = sa_family_t(AF_INET)
      address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
      var length = socklen_t(MemoryLayout<sockaddr_in>.size)
      withUnsafeMutablePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          #expect(bind(listener, $0, length) == 0)
          #expect(getsockname(listener, $0, &length) == 0)
        }
      }
      let port = UInt16(bigEndian: address.sin_port)
      #expect(Reachability.connect(host: "127.0.0.1", port: port, deadline: Deadline(seconds: 2)) == ECONNREFUSED)
      #expect(listen(listener, 1) == 0)
      #expect(Reachability.connect(host: "127.0.0.1", port: port, deadline: Deadline(seconds: 2)) == 0)
      close(listener)
    }
  }
}

@Suite("Tables and reports for people")
struct ControlTextTests {
  @Test("Columns are aligned and have no trailing blanks")
  func table() {
    var table = TextTable(["A", "SIZE", "C"], numbers: [1])
    table.add(["long", "1 B", ""])
    table.add(["x", "100 B", "y\u{1B}[2J"])
    #expect(table.text == "A      SIZE  C\nlong    1 B\nx     100 B  y\\u{1b}[2J\n")
  }

  @Test("The status names what is wrong, and an empty gateway says where to look")
  func status() {
    var report = ScriptedControl.report
    #expect(report.text.contains("LUN   SIZE  BLOCK  STATE"))
    report.logicalUnits = []
    report.problems = ["port 860 is taken"]
    #expect(report.text.contains("No LUNs: 'gatewayd disks' says why"))
    #expect(report.text.hasSuffix("\nProblem: port 860 is taken\n"))
  }

  @Test("A held disk shows its reason and the command that adopts it")
  func disks() {
    let disk = DiskReport(
      path: "/dev/sdb", model: "", serial: "", sizeBytes: 1 << 30, verdict: .held, reason: "ext4 is on it",
      advice: "gatewayd disks adopt /dev/sdb --wipe")
    let text = DiskReport.text([disk])
    #expect(text.contains("/dev/sdb  1 GiB  held       -  -      -       ext4 is on it\n"))
    #expect(text.hasSuffix("\n/dev/sdb: gatewayd disks adopt /dev/sdb --wipe\n"))
  }

  @Test(
    "Ages",
    arguments: [(0, "0 s"), (119, "119 s"), (120, "2 min"), (3600, "1 h 0 min"), (90000, "1 d 1 h")]
      as [(UInt64, String)])
  func ages(seconds: UInt64, text: String) {
    #expect(Duration.text(seconds: seconds) == text)
  }
}

@Suite("What systemd is told (sd_notify(3))")
struct ControlServiceManagerTests {
  func manager(_ environment: [String: String]) -> ServiceManager {
    ServiceManager(environment: { environment[$0] }, processID: 7)
  }

  @Test("The watchdog is due at half its time, only if it is ours and somebody listens")
  func watchdog() {
    let socket = ["NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "30000000"]
    #expect(manager(socket).watchdogSeconds == 15)
    #expect(manager(socket.merging(["WATCHDOG_PID": "7"]) { $1 }).watchdogSeconds == 15)
    #expect(manager(socket.merging(["WATCHDOG_PID": "8"]) { $1 }).watchdogSeconds == nil)
    #expect(manager(["WATCHDOG_USEC": "30000000"]).watchdogSeconds == nil)
    #expect(manager(["NOTIFY_SOCKET": "/run/x"]).watchdogSeconds == nil)
    #expect(manager(["NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "0"]).watchdogSeconds == nil)
  }

  @Test("Datagrams arrive at a path and at an abstract name; a status stays one line", arguments: [true, false])
  func datagrams(isAbstract: Bool) throws {
    let name = "/tmp/gatewayd-notify-\(getpid())-\(isAbstract)"
    let receiver = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
    defer {
      close(receiver)
      unlink(name)
    }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = (isAbstract ? [0] : []) + Array(name.utf8)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    let length = socklen_t(2 + bytes.count)
    let code = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(receiver, $0, length) }
    }
    #expect(code == 0)
    let manager = manager(["NOTIFY_SOCKET": (isAbstract ? "@" : "") + name])
    manager.ready("on\nWATCHDOG=trigger")
    manager.stopping()
    func received() -> String {
      var buffer = [UInt8](repeating: 0, count: 512)
      let count = recv(receiver, &buffer, buffer.count, 0)
      return String(decoding: buffer[..<max(0, count)], as: UTF8.self)
    }
    #expect(received() == "READY=1\nSTATUS=on WATCHDOG=trigger")
    #expect(received() == "STOPPING=1\nSTATUS=Stopping")
  }

  @Test("Without a socket, or with one that is no address, nothing is sent and nothing fails")
  func nobodyListens() {
    for socket in [nil, "", "relative", "@", String(repeating: "/a", count: 200)] {
      manager(socket.map { ["NOTIFY_SOCKET": $0] } ?? [:]).ready("on")
    }
  }
}
