/// Reads block devices from sysfs, and asks udev's database where it has more to say.
public struct BlockDeviceReader: Sendable {
  /// "/sys", or a tree made for a test.
  var sysfs: String
  /// What udev knows of a block device by its sysfs name; empty where udevd does not run.
  var properties: @Sendable (String) -> [String: String]

  public init() {
    self.init(sysfs: "/sys") { UdevDatabase.isRunning ? UdevDatabase.properties(of: $0) : [:] }
  }

  init(sysfs: String, properties: @escaping @Sendable (String) -> [String: String] = { _ in [:] }) {
    self.sysfs = sysfs
    self.properties = properties
  }

  /// All whole disks that have a medium, by name.
  public func enumerate() -> [BlockDevice] { KernelText.names(in: "\(sysfs)/block").compactMap(read) }

  /// The links that udev's rules made to a device ("/dev/disk/by-id/…"), in order; empty where udevd does not run.
  public func links(of name: String) -> [String] {
    (properties(name)["DEVLINKS"] ?? "").split(separator: " ").map(String.init).sorted()
  }

  /// One whole disk; nil if it is gone, hidden (a path of an NVMe subsystem) or has no medium (size 0).
  public func read(_ name: String) -> BlockDevice? {
    // A name comes from the kernel, but a slash in one would lead elsewhere.
    guard !name.isEmpty, !name.utf8.contains(UInt8(ascii: "/")), name != ".", name != ".." else { return nil }
    let directory = "\(sysfs)/block/\(name)"
    guard let number = KernelText.attribute("\(directory)/dev").flatMap({ DeviceNumber($0) }),
      let sectors = KernelText.number("\(directory)/size"), sectors > 0, sectors < 1 << 54,
      KernelText.number("\(directory)/hidden") ?? 0 == 0
    else { return nil }
    // sysfs counts in units of 512 bytes whatever the block length is.
    var device = BlockDevice(name: name, number: number, bytes: sectors * 512)
    device.diskSequence = KernelText.number("\(directory)/diskseq") ?? 0
    device.isRemovable = KernelText.number("\(directory)/removable") == 1
    device.isReadOnly = KernelText.number("\(directory)/ro") == 1
    device.alignmentOffset = UInt32(clamping: KernelText.number("\(directory)/alignment_offset") ?? 0)
    readQueue("\(directory)/queue", into: &device)
    readStack(directory, into: &device)
    device.kind = kind(directory, name)
    if device.kind == .nbd { device.isConnected = KernelText.exists("\(directory)/pid") }
    device.transport = transport(directory)
    readIdentity(directory, into: &device)
    device.partitions = partitions(directory, of: name)
    return device
  }

  private func readQueue(_ queue: String, into device: inout BlockDevice) {
    device.logicalBlockBytes = UInt32(clamping: KernelText.number("\(queue)/logical_block_size") ?? 512)
    device.physicalBlockBytes = UInt32(clamping: KernelText.number("\(queue)/physical_block_size") ?? 512)
    device.isRotational = KernelText.number("\(queue)/rotational") == 1
    device.isZoned = KernelText.attribute("\(queue)/zoned") == "host-managed"
    device.hasWriteCache = KernelText.attribute("\(queue)/write_cache") == "write back"
    device.discardGranularity = KernelText.number("\(queue)/discard_granularity") ?? 0
    device.discardBytesMax = KernelText.number("\(queue)/discard_max_bytes") ?? 0
    device.writeZeroesBytesMax = KernelText.number("\(queue)/write_zeroes_max_bytes") ?? 0
  }

  private func readStack(_ directory: String, into device: inout BlockDevice) {
    device.holders = KernelText.names(in: "\(directory)/holders")
    device.slaves = KernelText.names(in: "\(directory)/slaves")
    device.mapName = KernelText.attribute("\(directory)/dm/name")
    device.mapUUID = KernelText.attribute("\(directory)/dm/uuid")
    device.raidLevel = KernelText.attribute("\(directory)/md/level")
    device.backingFile = KernelText.text(of: "\(directory)/loop/backing_file", limit: 4097).map {
      $0.hasSuffix("\n") ? String($0.dropLast()) : $0
    }
  }

  /// Device names are a driver's stem and a number, except those with a directory that tells.
  private static let kinds: [(stem: String, kind: BlockDevice.Kind)] = [
    ("loop", .loop), ("ram", .ram), ("zram", .zram), ("sr", .optical), ("fd", .floppy), ("mtdblock", .mtd),
    ("ubiblock", .mtd), ("nbd", .nbd), ("bcache", .bcache), ("zd", .zvol), ("md", .md),
    ("dm-", .deviceMapper),
  ]

  private func kind(_ directory: String, _ name: String) -> BlockDevice.Kind {
    if KernelText.exists("\(directory)/dm") { return .deviceMapper }
    if KernelText.exists("\(directory)/md") { return .md }
    for (stem, kind) in Self.kinds where name.hasPrefix(stem) {
      if name.utf8.dropFirst(stem.utf8.count).first.map({ (0x30...0x39).contains($0) }) ?? false { return kind }
    }
    return .disk
  }

  /// What a part of the device's path in sysfs says; the more telling first.
  private static let transports: [(part: String, transport: BlockDevice.Transport)] = [
    ("/session", .iscsi), ("/rport-", .fibreChannel), ("/end_device-", .sas), ("/usb", .usb), ("/nvme", .nvme),
    ("/ata", .ata), ("/mmc_host", .mmc), ("/host", .scsi), ("/virtio", .virtio), ("/virtual/", .virtual),
  ]

  private func transport(_ directory: String) -> BlockDevice.Transport {
    guard let target = KernelText.link(directory) else { return .unknown }
    return Self.transports.first { target.contains($0.part) }?.transport ?? .unknown
  }

  private func partitions(_ directory: String, of disk: String) -> [BlockDevice.Partition] {
    KernelText.names(in: directory).compactMap { name in
      guard name.hasPrefix(disk), let index = KernelText.number("\(directory)/\(name)/partition"),
        let number = KernelText.attribute("\(directory)/\(name)/dev").flatMap({ DeviceNumber($0) })
      else { return nil }
      let place = "\(directory)/\(name)"
      let event = Self.assignments(KernelText.text(of: "\(place)/uevent", limit: 4096) ?? "")
      let known = properties(name)
      return BlockDevice.Partition(
        name: name, number: number, index: UInt32(clamping: index),
        startBytes: (KernelText.number("\(place)/start") ?? 0) &* 512,
        bytes: (KernelText.number("\(place)/size") ?? 0) &* 512,
        label: event["PARTNAME"] ?? known["ID_PART_ENTRY_NAME"],
        uuid: (event["PARTUUID"] ?? known["ID_PART_ENTRY_UUID"])?.lowercased(),
        holders: KernelText.names(in: "\(place)/holders"))
    }.sorted { $0.index < $1.index }
  }

  /// KEY=value lines.
  static func assignments(_ text: String) -> [String: String] {
    var result: [String: String] = [:]
    for line in text.split(separator: "\n") {
      let parts = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      if parts.count == 2 { result[String(parts[0])] = String(parts[1]) }
    }
    return result
  }
}
