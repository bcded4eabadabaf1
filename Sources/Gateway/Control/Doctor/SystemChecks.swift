import Glibc

/// The checks that look at the machine.
enum SystemChecks {
  static let kernelMin = (major: 6, minor: 1)

  static func kernel(_ files: MachineFiles) -> DoctorCheck {
    guard let release = files.text("/proc/sys/kernel/osrelease") else {
      return DoctorCheck("kernel", .note, "its version cannot be read")
    }
    let numbers = release.split { !$0.isNumber }.prefix(2).compactMap { Int($0) }
    guard numbers.count == 2 else { return DoctorCheck("kernel", .note, "version \(release)") }
    guard (numbers[0], numbers[1]) >= kernelMin else {
      return DoctorCheck(
        "kernel", .problem, "version \(release) is older than \(kernelMin.major).\(kernelMin.minor)",
        advice: "install a newer kernel (Debian 12 has 6.1)")
    }
    return DoctorCheck("kernel", .fine, "version \(release)")
  }

  /// - Parameter probe: Sets up a ring and takes it down; 0 or errno.
  static func ring(_ files: MachineFiles, probe: () -> Int32) -> DoctorCheck {
    let code = probe()
    guard code != 0 else { return DoctorCheck("io_uring", .fine, "available") }
    let setting = files.text("/proc/sys/kernel/io_uring_disabled")
    let finding = "not available: \(SystemError.text(code))"
    switch (setting, code) {
    case ("2", _), ("1", EPERM):
      return DoctorCheck(
        "io_uring", .problem, finding + " (kernel.io_uring_disabled is \(setting ?? ""))",
        advice: "sysctl -w kernel.io_uring_disabled=0")
    case (_, ENOSYS):
      return DoctorCheck("io_uring", .problem, finding, advice: "the kernel is built without it, or a sandbox hides it")
    case (_, EPERM), (_, EACCES):
      return DoctorCheck(
        "io_uring", .problem, finding,
        advice: "a sandbox forbids it: in a container allow io_uring_* in its seccomp profile")
    case (_, ENOMEM):
      return DoctorCheck("io_uring", .problem, finding, advice: "raise the memlock limit: ulimit -l unlimited")
    default: return DoctorCheck("io_uring", .problem, finding)
    }
  }

  /// Below this no useful number of buffers can be registered.
  static let memlockMin: UInt64 = 64 << 20
  static let filesMin: UInt64 = 4096

  /// The limits of the daemon, or of this process if none runs.
  static func limits(_ files: MachineFiles, daemon: Int32?) -> [DoctorCheck] {
    let whose = daemon == nil ? "here" : "of the daemon"
    let path = "/proc/\(daemon.map(String.init) ?? "self")/limits"
    let rows = files.lines(path)
    func soft(_ name: String) -> UInt64? {
      guard let row = rows.first(where: { $0.hasPrefix(name) }) else { return nil }
      let word = row.dropFirst(name.count).split(separator: " ").first ?? ""
      return word == "unlimited" ? UInt64.max : UInt64(word)
    }
    // CAP_IPC_LOCK, bit 14 (capability.h): its holder locks what it likes.
    let status = files.lines("/proc/\(daemon.map(String.init) ?? "self")/status")
    let capabilities = status.first { $0.hasPrefix("CapEff:") }?.split(whereSeparator: \.isWhitespace).last
    let mayLock = capabilities.flatMap { UInt64($0, radix: 16) }.map { $0 >> 14 & 1 == 1 } ?? false
    return [
      mayLock
        ? DoctorCheck("memlock", .fine, "no limit \(whose), by privilege")
        : limit(
          "memlock", soft("Max locked memory"), atLeast: memlockMin, whose: whose, words: ByteCount.describe,
          advice: "service: LimitMEMLOCK=infinity; shell: ulimit -l unlimited"),
      limit(
        "open files", soft("Max open files"), atLeast: filesMin, whose: whose, words: { "\($0)" },
        advice: "service: LimitNOFILE=1048576; shell: ulimit -n 1048576"),
    ]
  }

  private static func limit(
    _ name: String, _ value: UInt64?, atLeast least: UInt64, whose: String, words: (UInt64) -> String, advice: String
  ) -> DoctorCheck {
    guard let value else { return DoctorCheck(name, .note, "the limit cannot be read") }
    let text = value == UInt64.max ? "no limit \(whose)" : "at most \(words(value)) \(whose)"
    guard value < least else { return DoctorCheck(name, .fine, text) }
    // Privilege lifts the limit; how a daemon that is not running would be started is not known.
    return DoctorCheck(name, whose == "here" ? .note : .problem, text + ", below \(words(least))", advice: advice)
  }

  static func port(_ number: UInt16, _ files: MachineFiles, daemon: Int32?) -> DoctorCheck {
    let name = "port \(number)"
    guard let owner = PortOwner.find(port: number, in: files) else {
      return DoctorCheck(
        name, daemon == nil ? .fine : .note, daemon == nil ? "free" : "nobody listens, not even the daemon")
    }
    guard let process = owner.process else {
      return daemon == nil
        ? DoctorCheck(
          name, .problem, "taken, by the kernel's own target or by a process of another user",
          advice: "as root: gatewayd doctor; targetcli ls (LIO); ss -ltnp 'sport = :\(number)'")
        : DoctorCheck(name, .note, "taken; by whom only root may read", advice: "sudo gatewayd doctor")
    }
    if process.id == daemon { return DoctorCheck(name, .fine, "the daemon listens") }
    let isOurs = process.name == "gatewayd"
    return DoctorCheck(
      name, isOurs ? .note : .problem, "taken by \(process.name) (process \(process.id))",
      advice: isOurs
        ? "this gatewayd has another control socket: --control PATH"
        : "stop it, or choose another port: gatewayd run --listen '[::]:\(number &+ 1)'")
  }

  static func udev(_ files: MachineFiles) -> DoctorCheck {
    files.exists("/run/udev/control")
      ? DoctorCheck("udev", .fine, "running")
      : DoctorCheck(
        "udev", .note, "not running: disks are found by the kernel's own events, without udev's names for them",
        advice: "systemctl start systemd-udevd")
  }

  /// What there is without a daemon to say more.
  static func blockDevices(_ files: MachineFiles) -> DoctorCheck {
    let skipped = ["loop", "ram", "zram", "sr", "fd", "dm-", "md", "nbd"]
    let names = files.names(in: "/sys/block").filter { name in !skipped.contains { name.hasPrefix($0) } }
    let sizes = names.map { name in
      let blocks = files.text("/sys/block/\(name)/size").flatMap(UInt64.init) ?? 0
      // In units of 512 bytes, whatever the disk's own block is.
      return "\(name) \(ByteCount.describe(blocks.multipliedReportingOverflow(by: 512).partialValue))"
    }
    return DoctorCheck(
      "disks", .note, names.isEmpty ? "none seen" : "the kernel sees \(sizes.joined(separator: ", "))",
      advice: "which of them are exported and why not: 'gatewayd disks', when a gatewayd runs")
  }
}
