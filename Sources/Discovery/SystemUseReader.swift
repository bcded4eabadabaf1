import Glibc

extension SystemUse {
  /// How much of /proc is looked at. Beyond it O_EXCL is the guard.
  private static let mountinfoBytesMax = 4 << 20
  private static let processesMax = 8192
  private static let namespacesMax = 256

  /// Reads the machine: /proc, /sys, the boot loader's variable.
  ///
  /// - Parameter devices: a fresh enumeration, of all kinds of device.
  public static func read(devices: [BlockDevice]) -> SystemUse {
    var evidence = Evidence()
    evidence.mountinfo = mountTables()
    evidence.swaps = KernelText.bytes(of: "/proc/swaps", limit: 1 << 20) ?? []
    evidence.commandLine = KernelText.text(of: "/proc/cmdline", limit: 16384) ?? ""
    evidence.loaderPartition = KernelText.bytes(of: BootEvidence.loaderVariablePath)
      .flatMap(BootEvidence.loaderPartition(variable:))
    evidence.spanning = KernelText.names(in: "/sys/fs/btrfs")
      .map { KernelText.names(in: "/sys/fs/btrfs/\($0)/devices") }.filter { $0.count > 1 }
    evidence.stat = status(of:)
    return SystemUse(graph: DeviceGraph(devices), evidence: evidence)
  }

  /// Our own mountinfo, and one of each other mount namespace that a process we may look at lives in.
  private static func mountTables() -> [[UInt8]] {
    var tables = [KernelText.bytes(of: "/proc/self/mountinfo", limit: mountinfoBytesMax) ?? []]
    var seen: Set<String> = []
    if let own = KernelText.link("/proc/self/ns/mnt") { seen.insert(own) }
    let processes = KernelText.names(in: "/proc").filter { $0.utf8.first.map { (0x30...0x39).contains($0) } ?? false }
    for process in processes.prefix(processesMax) where tables.count <= namespacesMax {
      guard let namespace = KernelText.link("/proc/\(process)/ns/mnt"), seen.insert(namespace).inserted,
        let table = KernelText.bytes(of: "/proc/\(process)/mountinfo", limit: mountinfoBytesMax)
      else { continue }
      tables.append(table)
    }
    return tables
  }

  private static func status(of path: String) -> (fileSystem: DeviceNumber, device: DeviceNumber?)? {
    var status = stat()
    guard stat(path, &status) == 0 else { return nil }
    let isBlockDevice = status.st_mode & S_IFMT == S_IFBLK
    return (DeviceNumber(status.st_dev), isBlockDevice ? DeviceNumber(status.st_rdev) : nil)
  }
}
