/// What the running system stands on, at one moment: which devices are mounted, swapped to, or booted from.
///
/// Built by walking from each mount's device number down through partitions, dm, md, LVM and loop devices to the disks,
/// so that a disk beneath three layers is as much in use as one mounted directly. What this cannot see (a mount in a
/// namespace we may not read) the kernel still refuses us: `examine` opens with O_EXCL.
public struct SystemUse: Sendable {
  /// One use of a device, possibly through other devices.
  public struct Use: Hashable, Sendable {
    public enum Role: Int, Sendable {
      /// A part of the running system (/, /boot, /usr, …) or what it was booted from.
      case system
      case swap
      case mount
    }
    public var role: Role
    /// Mount point, swap path, or words for what names the device; not yet fit to print.
    public var place: String

    public init(role: Role, place: String) {
      self.role = role
      self.place = place
    }
  }

  /// Mount points that are the running system, in whatever namespace.
  static let systemMountPoints: Set<String> = ["/", "/boot", "/boot/efi", "/efi", "/etc", "/usr", "/var"]

  /// By sysfs name, of disks, partitions and maps alike; worst first.
  public private(set) var uses: [String: [Use]] = [:]
  public private(set) var graph = DeviceGraph()
  /// PARTUUID that the boot loader was read from, lower case.
  public private(set) var loaderPartition: String?

  /// Nothing is in use.
  public init() {}

  /// The uses of a disk, of its partitions and of anything built on them, worst first.
  public func uses(of device: BlockDevice) -> [Use] { uses[device.name] ?? [] }

  /// What is read from the machine: text, and answers to stat(2).
  struct Evidence {
    /// mountinfo of this process, then of others in other namespaces.
    var mountinfo: [[UInt8]] = []
    var swaps: [UInt8] = []
    var commandLine = ""
    var loaderPartition: String?
    /// Sysfs names of the devices of each btrfs: one mounted, all in use.
    var spanning: [[String]] = []
    /// The number of the file system that a path lies on, and, of a device node, its own.
    var stat: (String) -> (fileSystem: DeviceNumber, device: DeviceNumber?)? = { _ in nil }
  }

  init(graph: DeviceGraph, evidence: Evidence) {
    self.graph = graph
    loaderPartition = evidence.loaderPartition
    let resolver = Resolver(graph: graph, evidence: evidence)
    for mount in resolver.mounts {
      let isSystem = Self.systemMountPoints.contains(mount.mountPoint)
      note(Use(role: isSystem ? .system : .mount, place: mount.mountPoint), on: resolver.devices(of: mount), resolver)
    }
    for swap in MountTable.swaps(evidence.swaps) {
      note(Use(role: .swap, place: swap.path), on: resolver.devices(of: swap), resolver)
    }
    for root in BootEvidence.roots(commandLine: evidence.commandLine) {
      let place = "the kernel's command line"
      switch root {
      case .path(let path): note(Use(role: .system, place: place), on: resolver.devices(ofNode: path), resolver)
      case .partition(let uuid):
        note(Use(role: .system, place: place), on: graph.names(ofPartition: uuid), resolver)
      }
    }
    if let loaderPartition {
      note(Use(role: .system, place: "the boot loader"), on: graph.names(ofPartition: loaderPartition), resolver)
    }
    for name in uses.keys { uses[name]?.sort { ($0.role.rawValue, $0.place) < ($1.role.rawValue, $1.place) } }
  }

  private mutating func note(_ use: Use, on devices: [String], _ resolver: Resolver) {
    for device in devices {
      for name in graph.beneath(device, backing: resolver.devices(behind:)) {
        if !(uses[name]?.contains(use) ?? false) { uses[name, default: []].append(use) }
      }
    }
  }
}

/// Finds the devices that a mount, a swap area or a loop device's file stands on.
private struct Resolver {
  let graph: DeviceGraph
  let evidence: SystemUse.Evidence
  /// Of all namespaces, each once.
  let mounts: [MountTable.Mount]
  /// Of our own namespace: where our paths lead.
  private let ownMounts: [MountTable.Mount]

  init(graph: DeviceGraph, evidence: SystemUse.Evidence) {
    self.graph = graph
    self.evidence = evidence
    let tables = evidence.mountinfo.map(MountTable.mounts)
    ownMounts = tables.first ?? []
    mounts = tables.flatMap { $0 }
  }

  func devices(of mount: MountTable.Mount) -> [String] {
    devices(of: mount, depth: 0)
  }

  /// Overlays lie on directories of other mounts, which may be overlays: `depth` bounds a crafted chain.
  private func devices(of mount: MountTable.Mount, depth: Int) -> [String] {
    if let name = graph.name(of: mount.number) { return spanning(name) }
    // No device of that number: btrfs and bcachefs name their devices as the source, overlay its layers as options.
    let nodes = mount.source.hasPrefix("/dev/") ? mount.source.split(separator: ":") : []
    var found = nodes.flatMap { devices(ofNode: String($0)).flatMap(spanning) }
    if mount.fileSystemType == "overlay", depth < 4 {
      for layer in Self.layers(mount.superOptions) { found += devices(ofFile: layer, depth: depth + 1) }
    }
    return found
  }

  /// lowerdir (several, joined by colons), upperdir and workdir.
  private static func layers(_ options: String) -> [String] {
    options.split(separator: ",").flatMap { option -> [String] in
      for key in ["lowerdir=", "lowerdir+=", "upperdir=", "datadir+="] where option.hasPrefix(key) {
        return option.dropFirst(key.count).split(separator: ":").map(String.init)
      }
      return []
    }
  }

  func devices(of swap: MountTable.Swap) -> [String] {
    swap.isFile ? devices(ofFile: swap.path, depth: 0) : devices(ofNode: swap.path)
  }

  func devices(behind loop: DeviceGraph.Node) -> [String] {
    loop.backingFile.map { devices(ofFile: $0, depth: 0) } ?? []
  }

  func devices(ofNode path: String) -> [String] {
    if let number = evidence.stat(path)?.device, let name = graph.name(of: number) { return [name] }
    return graph.name(ofPath: path).map { [$0] } ?? []
  }

  private func devices(ofFile path: String, depth: Int) -> [String] {
    if let number = evidence.stat(path)?.fileSystem, let name = graph.name(of: number) { return spanning(name) }
    return MountTable.containing(path, in: ownMounts).map { devices(of: $0, depth: depth + 1) } ?? []
  }

  private func spanning(_ name: String) -> [String] {
    evidence.spanning.first { $0.contains(name) } ?? [name]
  }
}
