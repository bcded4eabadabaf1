/// The rules that need no look at the disk's contents: pure, so that each is a line in a test.
extension DiscoveryPolicy {
  /// Why the device is never exported, or nil if it has to be looked at. The first rule that applies speaks; what would
  /// destroy the running system comes before what is merely unfit.
  public func refusal(of device: BlockDevice, use: SystemUse) -> Reason? {
    Self.kind(device) ?? Self.inUse(device, use) ?? own(device) ?? Self.claimed(device, use) ?? unfit(device)
  }

  private static let unfitKinds: [BlockDevice.Kind: String] = [
    .ram: "It is a RAM disk.", .zram: "It is compressed memory (zram).", .optical: "It is an optical drive.",
    .floppy: "It is a floppy drive.", .mtd: "It is raw flash memory.",
  ]

  private static func kind(_ device: BlockDevice) -> Reason? {
    if let sentence = unfitKinds[device.kind] { return Reason(.kind, sentence) }
    if device.isMappedPartition {
      return Reason(.partition, "It is a partition; only whole disks are exported.")
    }
    if device.bytes == 0 { return Reason(.noMedium, "It has no medium.") }
    if !device.isConnected { return Reason(.noMedium, "It is not connected to a server.") }
    return nil
  }

  private static func inUse(_ device: BlockDevice, _ use: SystemUse) -> Reason? {
    guard let worst = use.uses(of: device).first else { return nil }
    let place = KernelText.printable(worst.place)
    switch worst.role {
    case .system: return Reason(.systemDisk, "The running system is on it (\(place)).")
    case .swap: return Reason(.swap, "The system swaps to it (\(place)).")
    case .mount: return Reason(.mounted, "It is mounted (\(place)).")
    }
  }

  private func own(_ device: BlockDevice) -> Reason? {
    guard device.vendor == ownVendor || isOwnUnit(device) else { return nil }
    return Reason(.ownUnit, "It is a logical unit of a gateway, come back through an initiator.")
  }

  private static func claimed(_ device: BlockDevice, _ use: SystemUse) -> Reason? {
    let holders = device.holders + device.partitions.flatMap(\.holders)
    guard let first = holders.first else { return nil }
    if let map = holders.first(where: { use.graph.nodes[$0]?.isMultipath ?? false }) {
      return Reason(.multipathPath, "It is a path of the multipath disk \(KernelText.printable(map)).")
    }
    return Reason(.claimed, "It is a member of the active volume \(KernelText.printable(first)).")
  }

  private func unfit(_ device: BlockDevice) -> Reason? {
    if device.isReadOnly { return Reason(.readOnly, "It is read-only.") }
    if device.isZoned { return Reason(.zoned, "It is zoned: it cannot be written at any place.") }
    if device.isRemovable && !admitsRemovable { return Reason(.removable, "It is removable.") }
    if device.logicalBlockBytes != 512 && device.logicalBlockBytes != 4096 {
      return Reason(.blockSize, "Its logical blocks have \(device.logicalBlockBytes) bytes, not 512 or 4096.")
    }
    if device.bytes < bytesMin {
      return Reason(.tooSmall, "It has \(device.bytes >> 20) MiB; at least \(bytesMin >> 20) MiB are needed.")
    }
    return nil
  }

  /// Why a disk that carries our own system is never exported; known only once its partition table has been read.
  func ownImage(_ content: ContentFinding, _ device: BlockDevice, _ use: SystemUse) -> Reason? {
    let entries = content.partitionTable?.entries ?? []
    let labels = entries.compactMap(\.label) + device.partitions.compactMap(\.label)
    if let label = labels.first(where: { $0.hasPrefix(ownPartitionLabelPrefix) }) {
      return Reason(.ownImage, "The gateway's own system is on it (partition \(KernelText.printable(label))).")
    }
    if let loader = use.loaderPartition, entries.contains(where: { $0.uuid == loader }) {
      return Reason(.systemDisk, "The running system was booted from it.")
    }
    return nil
  }
}
