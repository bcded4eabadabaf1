import Testing

@testable import Discovery

@Suite struct BootDiskTests {
  private func disk(_ name: String, _ uuids: String...) throws -> BlockDevice {
    let number = try #require(DeviceNumber("8:0"))
    var device = BlockDevice(name: name, number: number, bytes: 1 << 30)
    device.partitions = uuids.enumerated().map { index, uuid in
      .init(name: "\(name)\(index + 1)", number: number, index: UInt32(index + 1), uuid: uuid)
    }
    return device
  }

  @Test("It is the one disk with the partition that the boot loader names")
  func one() throws {
    let disks = [try disk("sda", "aa", "bb"), try disk("sdb", "cc")]
    #expect(BootDisk.find(partition: "bb", in: disks) == .disk("sda"))
  }

  @Test("Two disks that were written from one image cannot be told apart: neither is it")
  func twins() throws {
    let disks = [try disk("sdb", "aa"), try disk("sda", "aa")]
    #expect(BootDisk.find(partition: "aa", in: disks) == .several(["sda", "sdb"]))
  }

  @Test("Without a word of the boot loader there is none, and a disk that did not come is missing")
  func absent() throws {
    let disks = [try disk("sda", "aa")]
    #expect(BootDisk.find(partition: nil, in: disks) == .none)
    #expect(BootDisk.find(partition: "bb", in: disks) == .missing(partition: "bb"))
  }
}
