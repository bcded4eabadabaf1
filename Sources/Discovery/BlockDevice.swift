/// One whole block device as sysfs, and udev where it runs, describe it at one moment. Partitions are facts about the
/// disk that carries them and never devices of their own: the whole disk is the unit of export.
public struct BlockDevice: Equatable, Sendable {
  /// What the driver makes of the device; decides much of what may be done with it.
  public enum Kind: String, Sendable {
    case disk, loop, nbd, bcache, mtd, ram, zram, optical, floppy, zvol
    case deviceMapper = "device-mapper"
    case md
  }

  /// How the disk is attached, as far as its place in sysfs tells: a hint for people.
  public enum Transport: String, Sendable {
    case unknown, virtual, virtio, usb, ata, sas, scsi, nvme, mmc, iscsi
    case fibreChannel = "fc"
  }

  /// A partition found by the kernel.
  public struct Partition: Equatable, Sendable {
    /// Sysfs name, "sda1".
    public var name: String
    public var number: DeviceNumber
    /// Its index in the table, from 1.
    public var index: UInt32
    public var startBytes: UInt64
    public var bytes: UInt64
    /// PARTLABEL of a GPT entry.
    public var label: String?
    /// PARTUUID, lower case.
    public var uuid: String?
    /// Names of the devices (dm, md, bcache) built on it.
    public var holders: [String]

    public init(
      name: String, number: DeviceNumber, index: UInt32, startBytes: UInt64 = 0, bytes: UInt64 = 0,
      label: String? = nil, uuid: String? = nil, holders: [String] = []
    ) {
      self.name = name
      self.number = number
      self.index = index
      self.startBytes = startBytes
      self.bytes = bytes
      self.label = label
      self.uuid = uuid
      self.holders = holders
    }
  }

  /// Sysfs name, "sda"; a slash in the device's path is "!" here.
  public var name: String
  /// Where its node is, "/dev/sda".
  public var path: String
  public var number: DeviceNumber
  /// The kernel's count of attachments (diskseq): another disk under the same name has another. 0: not told.
  public var diskSequence: UInt64 = 0
  public var kind: Kind = .disk
  public var transport: Transport = .unknown

  public var bytes: UInt64
  public var logicalBlockBytes: UInt32 = 512
  public var physicalBlockBytes: UInt32 = 512
  /// Bytes by which the start of the device is off a physical block's boundary.
  public var alignmentOffset: UInt32 = 0

  /// World-wide name with its kind: "naa.5000c500…", "eui.…", "uuid.…", "t10.…", else "serial.…". The same on every
  /// machine that sees the disk, with or without udev. Nil for loop devices and others without one.
  public var wwid: String?
  public var serial: String?
  public var vendor: String?
  public var model: String?

  public var isRemovable = false
  public var isReadOnly = false
  public var isRotational = false
  /// Zoned, host-managed: cannot be written at any place.
  public var isZoned = false
  /// Whether the kernel flushes a volatile cache on it (queue/write_cache is "write back").
  public var hasWriteCache = false
  /// For nbd: whether a server is behind it. True for every other kind.
  public var isConnected = true
  public var discardGranularity: UInt64 = 0
  /// Most bytes of one discard; 0: no discard.
  public var discardBytesMax: UInt64 = 0
  /// Most bytes of one write-zeroes that the device itself performs; 0: none.
  public var writeZeroesBytesMax: UInt64 = 0

  public var partitions: [Partition] = []
  /// Names of the devices built on the whole disk.
  public var holders: [String] = []
  /// Names of the devices that this one is built on.
  public var slaves: [String] = []
  /// `dm/name`; nil if not device-mapper.
  public var mapName: String?
  /// `dm/uuid`: "mpath-…", "LVM-…", "CRYPT-…", "part1-mpath-…".
  public var mapUUID: String?
  /// `md/level`: "raid1".
  public var raidLevel: String?
  /// The file behind a loop device.
  public var backingFile: String?

  public init(name: String, number: DeviceNumber, bytes: UInt64) {
    self.name = name
    path = "/dev/" + String(name.map { $0 == "!" ? "/" : $0 })
    self.number = number
    self.bytes = bytes
  }

  /// A multipath map: one disk over several paths, exported in their place.
  public var isMultipath: Bool { mapUUID?.hasPrefix("mpath-") ?? false }
  /// A partition of a device-mapper disk, mapped by kpartx.
  public var isMappedPartition: Bool { mapUUID?.hasPrefix("part") ?? false }
}
