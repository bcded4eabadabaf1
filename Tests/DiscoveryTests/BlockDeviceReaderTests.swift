import Testing

@testable import Discovery

/// A sysfs with one device in it.
private struct FakeSysfs {
  let tree = TemporaryTree()
  let name: String

  init(_ name: String, place: String = "virtual/block", sectors: String = "2097152") {
    self.name = name
    let directory = "devices/\(place)/\(name)"
    tree.link("block/\(name)", to: "../\(directory)")
    tree.makeDirectories(directory)
    set("dev", "8:16")
    set("size", sectors)
  }

  func set(_ attribute: String, _ value: String) { tree.write("block/\(name)/\(attribute)", value + "\n") }

  func read(properties: @escaping @Sendable (String) -> [String: String] = { _ in [:] }) -> BlockDevice? {
    BlockDeviceReader(sysfs: tree.path, properties: properties).read(name)
  }
}

@Suite("What sysfs says of a disk")
struct BlockDeviceReaderTests {
  @Test("A SAS disk: sizes, identity, queue and partitions")
  func sas() throws {
    let sysfs = FakeSysfs("sdb", place: "pci0000:00/host0/port-0:1/end_device-0:1/target0:0:1/0:0:1:0/block")
    let attributes = [
      "diskseq": "12", "ro": "0", "removable": "0", "alignment_offset": "3584", "queue/logical_block_size": "512",
      "queue/physical_block_size": "4096", "queue/rotational": "1", "queue/write_cache": "write back",
      "queue/discard_granularity": "4096", "queue/discard_max_bytes": "1073741824",
      "queue/write_zeroes_max_bytes": "65536", "queue/zoned": "none", "device/vendor": "SEAGATE ",
      "device/model": "ST1  X          ", "device/wwid": "naa.5000c500a1b2c3d4", "sdb2/partition": "2",
      "sdb2/dev": "8:18", "sdb2/start": "4096", "sdb2/size": "8192", "sdb10/partition": "10", "sdb10/dev": "8:26",
      "sdb2/uevent": "MAJOR=8\nPARTN=2\nPARTNAME=gatewayd-root=a\nPARTUUID=ABCD-02", "sdb2/holders/dm-0": "",
    ]
    for (attribute, value) in attributes { sysfs.set(attribute, value) }
    sysfs.tree.write("block/sdb/device/vpd_pg80", [0, 0x80, 0, 8] + "  S3R1AL".utf8)
    let disk = try #require(sysfs.read())
    #expect(disk.path == "/dev/sdb" && disk.bytes == 1 << 30 && disk.diskSequence == 12)
    #expect(disk.number == DeviceNumber(major: 8, minor: 16))
    #expect(disk.transport == .sas && disk.kind == .disk)
    #expect(disk.physicalBlockBytes == 4096 && disk.alignmentOffset == 3584)
    #expect(disk.isRotational && disk.hasWriteCache && !disk.isZoned && !disk.isReadOnly)
    #expect(disk.discardGranularity == 4096 && disk.discardBytesMax == 1 << 30 && disk.writeZeroesBytesMax == 65536)
    #expect(disk.vendor == "SEAGATE" && disk.model == "ST1  X" && disk.serial == "S3R1AL")
    #expect(disk.wwid == "naa.5000c500a1b2c3d4")
    #expect(
      disk.partitions == [
        .init(
          name: "sdb2", number: DeviceNumber(major: 8, minor: 18), index: 2, startBytes: 2 << 20, bytes: 4 << 20,
          label: "gatewayd-root=a", uuid: "abcd-02", holders: ["dm-0"]),
        .init(name: "sdb10", number: DeviceNumber(major: 8, minor: 26), index: 10),
      ])
  }

  @Test("No medium, a hidden path of an NVMe subsystem, a size beyond 2^63, a name that leads elsewhere: no disk")
  func noDisk() {
    #expect(FakeSysfs("sdb", sectors: "0").read() == nil)
    #expect(FakeSysfs("sdb", sectors: "18446744073709551615").read() == nil)
    #expect(FakeSysfs("sdb", sectors: "x").read() == nil)
    let hidden = FakeSysfs("nvme0c0n1")
    hidden.set("hidden", "1")
    #expect(hidden.read() == nil)
    let sysfs = FakeSysfs("sdb")
    let reader = BlockDeviceReader(sysfs: sysfs.tree.path)
    for name in ["", ".", "..", "../block/sdb", "sdb/queue", "sdc"] { #expect(reader.read(name) == nil) }
    #expect(reader.enumerate().map(\.name) == ["sdb"])
  }

  @Test(
    "The kind of a device by its name",
    arguments: [
      ("sr0", BlockDevice.Kind.optical), ("fd1", .floppy), ("zram0", .zram), ("ram15", .ram), ("mtdblock3", .mtd),
      ("nbd0", .nbd), ("loop7", .loop), ("md127", .md), ("md_d0", .disk), ("dm-3", .deviceMapper), ("zd16", .zvol),
      ("bcache0", .bcache), ("sda", .disk), ("srx", .disk), ("nvme0n1", .disk), ("rbd0", .disk), ("mmcblk0", .disk),
    ])
  func kinds(name: String, kind: BlockDevice.Kind) { #expect(FakeSysfs(name).read()?.kind == kind) }

  @Test("An md array under any name, a device-mapper map with its name and UUID, an nbd without a server")
  func stacked() {
    let array = FakeSysfs("md_home")
    array.set("md/level", "raid1")
    array.set("slaves/sda1", "")
    array.set("slaves/sdb1", "")
    #expect(array.read()?.kind == .md)
    #expect(array.read()?.raidLevel == "raid1")
    #expect(array.read()?.slaves == ["sda1", "sdb1"])
    let map = FakeSysfs("dm-0")
    map.set("dm/name", "mpatha")
    map.set("dm/uuid", "mpath-3600A0B80")
    #expect(map.read()?.isMultipath == true)
    #expect(map.read()?.wwid == "naa.600a0b80")
    #expect(FakeSysfs("nbd0").read()?.isConnected == false)
  }

  @Test("A slash in a device's path is an exclamation mark in its name")
  func exclamationMark() { #expect(FakeSysfs("cciss!c0d0").read()?.path == "/dev/cciss/c0d0") }

  @Test("A loop device has its file and no identity")
  func loop() {
    let sysfs = FakeSysfs("loop0")
    sysfs.set("loop/backing_file", "/srv/a b (deleted)")
    sysfs.set("serial", "x")
    #expect(sysfs.read()?.backingFile == "/srv/a b (deleted)")
    #expect(sysfs.read()?.wwid == nil)
  }

  @Test("The kernel's name of a disk comes before udev's, so that a node without udev gives it the same name")
  func identityOrder() {
    let sysfs = FakeSysfs("sdb")
    let known = ["ID_WWN": "0x5000C5", "ID_WWN_WITH_EXTENSION": "0x5000C5001", "ID_SERIAL_SHORT": "U1"]
    #expect(sysfs.read { _ in known }?.wwid == "naa.5000c5001")
    #expect(sysfs.read { _ in ["ID_SERIAL_SHORT": "U1"] }?.wwid == "serial.U1")
    sysfs.set("device/wwid", "t10.ATA     DISK   7")
    #expect(sysfs.read { _ in known }?.wwid == "t10.ATA_DISK_7")
    sysfs.set("wwid", "eui.0025385b71b00000")
    #expect(sysfs.read { _ in known }?.wwid == "eui.0025385b71b00000")
    #expect(FakeSysfs("sdb").read()?.wwid == nil)
  }

  @Test("Unit serial number page: the length is not believed beyond the page (SPC-5 §7.7.19)")
  func serialPage() {
    #expect(BlockDeviceReader.unitSerialNumber(page: [0, 0x80, 0, 4] + "ABCDEFG".utf8) == "ABCD")
    #expect(BlockDeviceReader.unitSerialNumber(page: [0, 0x80, 0xff, 0xff] + "AB\u{1b}C".utf8) == "AB?C")
    #expect(BlockDeviceReader.unitSerialNumber(page: [0, 0x80, 0, 4] + "    ".utf8) == nil)
    #expect(BlockDeviceReader.unitSerialNumber(page: [0, 0x83, 0, 4] + "ABCD".utf8) == nil)
    #expect(BlockDeviceReader.unitSerialNumber(page: [0, 0x80]) == nil)
  }
}

@Suite("The inventory")
struct DiskInventoryTests {
  @Test("A disk appears once, is changed by other facts or by being touched, and vanishes once")
  func life() {
    var inventory = DiskInventory()
    let disk = plainDisk()
    #expect(inventory.update("sdx", to: nil, isTouched: true) == [])
    #expect(inventory.update("sdx", to: disk, isTouched: true) == [.appeared(disk)])
    #expect(inventory.update("sdx", to: disk, isTouched: false) == [])
    #expect(inventory.update("sdx", to: disk, isTouched: true) == [.changed(disk)])
    let grown = plainDisk { $0.bytes *= 2 }
    #expect(inventory.update("sdx", to: grown, isTouched: false) == [.changed(grown)])
    #expect(inventory.update("sdx", to: nil, isTouched: false) == [.vanished(name: "sdx", last: grown)])
    #expect(inventory.update("sdx", to: nil, isTouched: false) == [])
  }

  @Test("Another disk under the same name: the old one vanishes first")
  func replaced() {
    var inventory = DiskInventory()
    let old = plainDisk { $0.diskSequence = 1 }
    let new = plainDisk { $0.diskSequence = 2 }
    _ = inventory.update("sdx", to: old, isTouched: false)
    #expect(
      inventory.update("sdx", to: new, isTouched: true) == [.vanished(name: "sdx", last: old), .appeared(new)])
  }

  @Test("After lost events a new enumeration tells what went, then what came and changed, and nothing else")
  func reconcile() {
    var inventory = DiskInventory()
    func disk(_ name: String, _ bytes: UInt64 = 1) -> BlockDevice {
      BlockDevice(name: name, number: DeviceNumber(major: 8, minor: 0), bytes: bytes)
    }
    _ = inventory.reconcile(with: [disk("a"), disk("b"), disk("c")])
    #expect(
      inventory.reconcile(with: [disk("b"), disk("c", 2), disk("d")]) == [
        .vanished(name: "a", last: disk("a")), .changed(disk("c", 2)), .appeared(disk("d")),
      ])
  }

  @Test("A volume that is built or taken apart makes its disks be read again, by their partitions too")
  func beneath() {
    var inventory = DiskInventory()
    func disk(_ name: String, slaves: [String] = [], holders: [String] = []) -> BlockDevice {
      var device = BlockDevice(name: name, number: DeviceNumber(major: 8, minor: 0), bytes: 1)
      device.slaves = slaves
      device.partitions = [.init(name: "\(name)1", number: device.number, index: 1, holders: holders)]
      return device
    }
    _ = inventory.reconcile(with: [disk("sda"), disk("sdb"), disk("sdc")])
    var now = [
      "sda": disk("sda", holders: ["md0"]), "sdb": disk("sdb"), "md0": disk("md0", slaves: ["sda1", "sdb"]),
    ]
    #expect(
      inventory.update(["md0": true]) { now[$0] } == [
        .appeared(disk("md0", slaves: ["sda1", "sdb"])),
        .changed(disk("sda", holders: ["md0"])),
      ])
    now = ["sda": disk("sda"), "sdb": disk("sdb")]
    #expect(
      inventory.update(["md0": false]) { now[$0] } == [
        .vanished(name: "md0", last: disk("md0", slaves: ["sda1", "sdb"])), .changed(disk("sda")),
      ])
  }
}
