import Testing

@testable import Discovery

private func number(_ text: String) -> DeviceNumber { DeviceNumber(text) ?? DeviceNumber(major: 0, minor: 0) }

/// sda (root on sda2), LVM and crypt over an md array of sdb1 and sdc1, a btrfs of sdd and sde, a multipath disk of sdf
/// and sdg, loop0 on a file, and sdz free.
private let graph = DeviceGraph([
  .init(name: "sda", number: number("8:0")),
  .init(name: "sda2", number: number("8:2"), disk: "sda", partitionUUID: "aaaa-02"),
  .init(name: "sdb", number: number("8:16")), .init(name: "sdb1", number: number("8:17"), disk: "sdb"),
  .init(name: "sdc", number: number("8:32")), .init(name: "sdc1", number: number("8:33"), disk: "sdc"),
  .init(name: "md0", number: number("9:0"), slaves: ["sdb1", "sdc1"]),
  .init(name: "dm-0", number: number("252:0"), slaves: ["md0"], mapName: "vg-lv"),
  .init(name: "dm-1", number: number("252:1"), slaves: ["dm-0"], mapName: "crypt"),
  .init(name: "sdd", number: number("8:48")), .init(name: "sde", number: number("8:64")),
  .init(name: "sdf", number: number("8:80")), .init(name: "sdg", number: number("8:96")),
  .init(name: "dm-2", number: number("252:2"), slaves: ["sdf", "sdg"], mapName: "mpatha", isMultipath: true),
  .init(name: "loop0", number: number("7:0"), backingFile: "/srv/image"),
  .init(name: "sdz", number: number("65:144")),
])

private func use(
  mounts: String..., swaps: String = "", commandLine: String = "", loader: String? = nil, spanning: [[String]] = [],
  stat: [String: (String, String?)] = [:]
) -> SystemUse {
  var evidence = SystemUse.Evidence()
  evidence.mountinfo = mounts.map { Array($0.utf8) }
  evidence.swaps = Array("Filename Type\n\(swaps)".utf8)
  evidence.commandLine = commandLine
  evidence.loaderPartition = loader
  evidence.spanning = spanning
  evidence.stat = { path in stat[path].map { (number($0.0), $0.1.map { number($0) }) } }
  return SystemUse(graph: graph, evidence: evidence)
}

@Suite("The devices that the running system stands on")
struct SystemUseTests {
  @Test("A mounted partition puts its disk in use, and no other")
  func partition() {
    let use = use(mounts: "1 1 8:2 / / rw - ext4 /dev/root rw")
    #expect(use.uses["sda"] == [.init(role: .system, place: "/")])
    #expect(Set(use.uses.keys) == ["sda", "sda2"])
  }

  @Test("A mount on crypt on LVM on md reaches every disk beneath")
  func stack() {
    let use = use(mounts: "1 1 252:1 / /srv/x rw - xfs /dev/mapper/crypt rw")
    #expect(Set(use.uses.keys) == ["dm-1", "dm-0", "md0", "sdb1", "sdc1", "sdb", "sdc"])
    #expect(use.uses["sdc"] == [.init(role: .mount, place: "/srv/x")])
  }

  @Test("A mounted multipath disk puts its paths in use")
  func multipath() {
    #expect(Set(use(mounts: "1 1 252:2 / /m rw - xfs x rw").uses.keys) == ["dm-2", "sdf", "sdg"])
  }

  @Test("A btrfs subvolume's anonymous number is followed by its source, to every device of the file system")
  func btrfs() {
    let line = "1 1 0:35 /@home /home rw - btrfs /dev/sde rw,subvol=/@home"
    #expect(Set(use(mounts: line, spanning: [["sdd", "sde"]]).uses.keys) == ["sdd", "sde"])
    #expect(Set(use(mounts: line).uses.keys) == ["sde"])
  }

  @Test("A source is resolved by the node's own number before its name")
  func sourceByNumber() {
    let line = "1 1 0:35 / /b rw - btrfs /dev/disk/by-label/x rw"
    #expect(Set(use(mounts: line, stat: ["/dev/disk/by-label/x": ("0:5", "8:48")]).uses.keys) == ["sdd"])
    let mapper = "1 1 0:35 / /b rw - btrfs /dev/mapper/vg-lv rw"
    #expect(use(mounts: mapper).uses["sdb"] != nil)
    #expect(use(mounts: "1 1 0:36 / /b rw - bcachefs /dev/sdd:/dev/sde rw").uses.keys.sorted() == ["sdd", "sde"])
  }

  @Test("An overlay at the root puts the disks of its layers in use by the system")
  func overlay() {
    let text = """
      1 1 0:40 / / rw - overlay overlay rw,lowerdir=/media/ro,upperdir=/media/rw/up,workdir=/media/rw/work
      2 1 8:2 / /media/ro ro - squashfs /dev/sda2 ro
      3 1 8:48 / /media/rw rw - ext4 /dev/sdd rw
      """
    let use = use(mounts: text)
    #expect(use.uses["sda"]?.first == .init(role: .system, place: "/"))
    #expect(use.uses["sdd"]?.first == .init(role: .system, place: "/"))
  }

  @Test("Overlays that lie on one another in a circle end")
  func overlayCircle() {
    let text = """
      1 1 0:40 / /a rw - overlay o rw,lowerdir=/b/x
      2 1 0:41 / /b rw - overlay o rw,lowerdir=/a/x
      """
    #expect(use(mounts: text).uses.isEmpty)
  }

  @Test("A bind mount is a mount of its disk")
  func bind() {
    #expect(use(mounts: "1 1 8:64 /some/dir /mnt/bind rw - ext4 /dev/sde rw").uses["sde"]?.first?.place == "/mnt/bind")
  }

  @Test("A mount in another namespace counts; its paths do not lead ours astray")
  func namespaces() {
    let use = use(mounts: "1 1 8:2 / / rw - ext4 x rw", "1 1 8:64 / /data rw - xfs y rw")
    #expect(use.uses["sde"] == [.init(role: .mount, place: "/data")])
  }

  @Test("A mounted loop device puts the disk that holds its file in use, through an anonymous number too")
  func loop() {
    let mount = "1 1 7:0 / /mnt rw - ext4 /dev/loop0 rw"
    #expect(use(mounts: mount, stat: ["/srv/image": ("8:48", nil)]).uses["sdd"]?.first?.place == "/mnt")
    let anonymous = mount + "\n2 1 0:35 / /srv rw - btrfs /dev/sde rw"
    #expect(use(mounts: anonymous, stat: ["/srv/image": ("0:35", nil)]).uses["sde"]?.map(\.place) == ["/mnt", "/srv"])
  }

  @Test("Swap partitions, swap files and swap on LVM put their disks in use")
  func swap() {
    #expect(use(swaps: "/dev/dm-0 partition 1 0 -2").uses["sdc"]?.first?.role == .swap)
    let file = use(swaps: "/var/swap file 1 0 -2", stat: ["/var/swap": ("8:64", nil)])
    #expect(file.uses["sde"] == [.init(role: .swap, place: "/var/swap")])
    let mount = "1 1 0:35 / /var rw - btrfs /dev/sdd rw"
    let subvolume = use(mounts: mount, swaps: "/var/swap file 1 0 -2", stat: ["/var/swap": ("0:36", nil)])
    #expect(subvolume.uses["sdd"]?.contains(.init(role: .swap, place: "/var/swap")) == true)
  }

  @Test("The disk that root= or the boot loader names is the system's, mounted or not")
  func boot() {
    #expect(use(commandLine: "root=/dev/sdd").uses["sdd"]?.first?.role == .system)
    #expect(use(commandLine: "root=PARTUUID=AAAA-02").uses["sda"]?.first?.role == .system)
    #expect(use(loader: "aaaa-02").uses["sda"]?.first?.role == .system)
    #expect(use(loader: "bbbb-02").uses.isEmpty)
  }

  @Test("Of several uses the worst is told first")
  func worstFirst() {
    let text = "1 1 8:2 / /home rw - ext4 x rw\n2 1 8:2 / /boot/efi rw - vfat x rw"
    let use = use(mounts: text, swaps: "/dev/sda2 partition 1 0 -2")
    #expect(use.uses["sda"]?.map(\.place) == ["/boot/efi", "/dev/sda2", "/home"])
  }

  @Test("A graph with a cycle is walked to its end")
  func cycle() {
    let graph = DeviceGraph([
      .init(name: "dm-0", number: number("252:0"), slaves: ["dm-1", "gone"]),
      .init(name: "dm-1", number: number("252:1"), slaves: ["dm-0", "dm-1"]),
    ])
    #expect(graph.beneath("dm-0") == ["dm-0", "dm-1", "gone"])
  }

  @Test(
    "glibc's dev_t is taken apart into major and minor", arguments: [(8, 17), (259, 300), (7, 1_048_575), (4095, 0)])
  func deviceNumber(major: UInt32, minor: UInt32) {
    let low = UInt64(minor & 0xff) | UInt64(major & 0xfff) << 8
    let encoded = low | UInt64(minor & ~0xff) << 12 | UInt64(major & ~0xfff) << 32
    #expect(DeviceNumber(UInt(encoded)) == DeviceNumber(major: major, minor: minor))
  }
}
