import Testing

@testable import Discovery

/// A plain disk of 1 GiB that nothing is known against.
func plainDisk(_ change: (inout BlockDevice) -> Void = { _ in }) -> BlockDevice {
  var device = BlockDevice(name: "sdx", number: DeviceNumber(major: 8, minor: 0), bytes: 1 << 30)
  change(&device)
  return device
}

@Suite("Never exported")
struct RefusalTests {
  private func code(
    _ policy: DiscoveryPolicy = DiscoveryPolicy(), use: SystemUse = SystemUse(), _ change: (inout BlockDevice) -> Void
  ) -> Reason.Code? {
    policy.refusal(of: plainDisk(change), use: use)?.code
  }

  @Test("A plain disk that nothing uses is looked at")
  func plain() { #expect(code { _ in } == nil) }

  @Test("Kinds of device that are no disks", arguments: [BlockDevice.Kind.ram, .zram, .optical, .floppy, .mtd])
  func kinds(kind: BlockDevice.Kind) { #expect(code { $0.kind = kind } == .kind) }

  @Test(
    "md, LVM, bcache and multipath devices are looked at", arguments: [BlockDevice.Kind.md, .deviceMapper, .bcache])
  func volumes(kind: BlockDevice.Kind) { #expect(code { $0.kind = kind } == nil) }

  @Test("A mapped partition, a device without a medium, an nbd without a server")
  func notDisks() {
    #expect(code { $0.mapUUID = "part1-mpath-3600" } == .partition)
    #expect(code { $0.bytes = 0 } == .noMedium)
    #expect(code { $0.isConnected = false } == .noMedium)
  }

  @Test("Read-only, zoned, odd block lengths, too small")
  func unfit() {
    #expect(code { $0.isReadOnly = true } == .readOnly)
    #expect(code { $0.isZoned = true } == .zoned)
    #expect(code { $0.logicalBlockBytes = 520 } == .blockSize)
    #expect(code { $0.logicalBlockBytes = 4096 } == nil)
    #expect(code { $0.bytes = 16 << 20 } == nil)
    #expect(code { $0.bytes = 16 << 20 - 512 } == .tooSmall)
  }

  @Test("Removable disks are a matter of policy")
  func removable() {
    var policy = DiscoveryPolicy()
    #expect(code(policy) { $0.isRemovable = true } == nil)
    policy.admitsRemovable = false
    #expect(code(policy) { $0.isRemovable = true } == .removable)
  }

  @Test("A LUN of a gateway that came back, by vendor or by identity")
  func ownUnits() {
    #expect(code { $0.vendor = "GATEWAYD" } == .ownUnit)
    let policy = DiscoveryPolicy { $0.wwid == "naa.6001" }
    #expect(code(policy) { $0.wwid = "naa.6001" } == .ownUnit)
    #expect(code(policy) { $0.wwid = "naa.6002" } == nil)
  }

  @Test("Members of active volumes, whole or by a partition, and paths of multipath disks")
  func claimed() {
    #expect(code { $0.holders = ["md0"] } == .claimed)
    let partition = BlockDevice.Partition(
      name: "sdx1", number: DeviceNumber(major: 8, minor: 1), index: 1, holders: ["dm-0"])
    #expect(code { $0.partitions = [partition] } == .claimed)
    let map = DeviceGraph.Node(name: "dm-2", number: DeviceNumber(major: 252, minor: 2), isMultipath: true)
    let use = SystemUse(graph: DeviceGraph([map]), evidence: SystemUse.Evidence())
    #expect(code(use: use) { $0.holders = ["dm-2"] } == .multipathPath)
  }

  @Test("Use by the system is told before anything else that is wrong with the disk, and its place is fit to print")
  func inUse() {
    var evidence = SystemUse.Evidence()
    evidence.mountinfo = [Array("1 1 8:0 / /a\\012\\033[2Jb rw - ext4 x rw".utf8)]
    let use = SystemUse(graph: DeviceGraph([plainDisk()]), evidence: evidence)
    let reason = DiscoveryPolicy().refusal(of: plainDisk { $0.isReadOnly = true }, use: use)
    #expect(reason == Reason(.mounted, "It is mounted (/a??[2Jb)."))
  }

  @Test("A partition named gatewayd-…, or the loader's, makes the disk our own; found in the table or by the kernel")
  func ownImage() {
    var content = ContentFinding()
    let policy = DiscoveryPolicy()
    content.partitionTable = .init(type: "gpt", entries: [.init(label: "data"), .init(label: "gatewayd-root")])
    #expect(policy.ownImage(content, plainDisk(), SystemUse())?.code == .ownImage)
    content.partitionTable = .init(type: "gpt", entries: [.init(label: "my gatewayd-root", uuid: "aa")])
    #expect(policy.ownImage(content, plainDisk(), SystemUse()) == nil)
    var evidence = SystemUse.Evidence()
    evidence.loaderPartition = "aa"
    let use = SystemUse(graph: DeviceGraph(), evidence: evidence)
    #expect(policy.ownImage(content, plainDisk(), use)?.code == .systemDisk)
    let partition = BlockDevice.Partition(
      name: "sdx1", number: DeviceNumber(major: 8, minor: 1), index: 1, label: "gatewayd-efi")
    #expect(policy.ownImage(ContentFinding(), plainDisk { $0.partitions = [partition] }, use)?.code == .ownImage)
  }
}

@Suite("Held until adopted")
struct HoldTests {
  private func code(_ change: (inout ContentFinding) -> Void, on device: BlockDevice = plainDisk()) -> Reason.Code? {
    var content = ContentFinding()
    change(&content)
    guard case .held(let reason) = verdict(on: content, of: device) else { return nil }
    #expect(reason.remedy == "gatewayd disks adopt /dev/sdx")
    return reason.code
  }

  @Test("Each kind of foreign content has its reason, and the command that adopts it")
  func reasons() {
    #expect(code { $0.partitionTable = .init(type: "gpt") } == .partitionTable)
    #expect(code { $0.signature = .init(type: "xfs", usage: .fileSystem) } == .fileSystem)
    #expect(code { $0.signature = .init(type: "LVM2_member", usage: .raid) } == .volumeMember)
    #expect(code { $0.signature = .init(type: "crypto_LUKS", usage: .crypto) } == .encrypted)
    #expect(code { $0.signature = .init(type: "swap", usage: .other) } == .signature)
    #expect(code { $0.isAmbivalent = true } == .ambivalent)
    #expect(code { $0.firstDataOffset = 0 } == .data)
  }

  @Test("A disk of which a part could not be read is never blank")
  func unreadable() {
    var content = ContentFinding()
    content.readError = 5
    guard case .refused(let reason) = verdict(on: content, of: plainDisk()) else {
      Issue.record("not refused")
      return
    }
    #expect(reason.code == .cannotRead)
  }

  @Test("A blank disk and a blank multipath disk are blank; a blank volume that somebody put together is held")
  func volumes() {
    #expect(verdict(on: ContentFinding(), of: plainDisk()) == .blank)
    let map = plainDisk {
      $0.kind = .deviceMapper
      $0.mapUUID = "mpath-3600"
    }
    #expect(verdict(on: ContentFinding(), of: map) == .blank)
    for kind in [BlockDevice.Kind.md, .deviceMapper, .bcache, .zvol] {
      #expect(code({ _ in }, on: plainDisk { $0.kind = kind }) == .assembledVolume)
    }
  }

  @Test("A label written by a stranger is printed without its control characters and cut to a bound")
  func hostileLabel() {
    let label = "a\u{1b}[31m\n\u{202e}" + String(repeating: "x", count: 500)
    let reason = ContentFinding.Signature(type: "ext4", usage: .fileSystem, label: label).reason
    #expect(reason.sentence.hasPrefix("It carries a file system (ext4, labelled \"a?[31m??xxx"))
    #expect(reason.sentence.unicodeScalars.count < 200)
  }
}
