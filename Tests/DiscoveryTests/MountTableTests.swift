import TestSupport
import Testing

@testable import Discovery

@Suite("mountinfo and swaps (proc(5))")
struct MountTableTests {
  @Test("A line is read past its optional fields, however many there are")
  func optionalFields() {
    let text = """
      36 35 98:0 / /mnt rw,noatime - ext3 /dev/root rw,errors=continue
      37 35 8:1 /sub /srv rw master:1 shared:7 propagate_from:2 - xfs /dev/sda1 rw
      """
    let mounts = MountTable.mounts(Array(text.utf8))
    #expect(mounts.map(\.number) == [DeviceNumber(major: 98, minor: 0), DeviceNumber(major: 8, minor: 1)])
    #expect(mounts.map(\.mountPoint) == ["/mnt", "/srv"])
    #expect(mounts.map(\.root) == ["/", "/sub"])
    #expect(mounts.map(\.fileSystemType) == ["ext3", "xfs"])
    #expect(mounts.map(\.source) == ["/dev/root", "/dev/sda1"])
  }

  @Test("Escaped white space and backslashes in paths are undone, other backslashes stay")
  func escapes() {
    let text = #"1 1 8:1 / /my\040disk\011\012\134x\9\4 rw - ext4 /dev/mapper/a\040b rw"#
    let mount = MountTable.mounts(Array(text.utf8)).first
    #expect(mount?.mountPoint == "/my disk\t\n\\x\\9\\4")
    #expect(mount?.source == "/dev/mapper/a b")
    #expect(MountTable.unescaped(ArraySlice(#"\777\04"#.utf8)) == #"\777\04"#, "not a byte, and cut short")
  }

  @Test("A mount point named \" - ext4 /dev/sda\" cannot pass for the end of the optional fields")
  func forgedSeparator() {
    let text = #"1 1 8:1 / /x\040-\040ext4\040/dev/sdz rw - xfs /dev/sda1 rw"#
    #expect(MountTable.mounts(Array(text.utf8)).map(\.source) == ["/dev/sda1"])
  }

  @Test("An empty source keeps its place")
  func emptySource() {
    let mount = MountTable.mounts(Array("1 1 0:9 / /t rw - tmpfs  rw,size=4k".utf8)).first
    #expect(mount?.source == "")
    #expect(mount?.superOptions == "rw,size=4k")
  }

  @Test(
    "A malformed line is passed over and the next is read",
    arguments: [
      "", "-", "1 2 3", "1 1 8 / / rw - ext4 /dev/sda rw", "1 1 8:x / / rw - ext4 /dev/sda rw", "a b c d e f g h i j k",
      "1 1 8:1 / / rw shared:1 shared:2 shared:3 shared:4 shared:5", "1 1 8:1 / / rw a b c d -",
      "1 1 99999999999:1 / / rw - ext4 x rw",
    ])
  func malformed(line: String) {
    let mounts = MountTable.mounts(Array((line + "\n1 1 8:1 / /ok rw - ext4 /dev/sda1 rw\n").utf8))
    #expect(mounts.map(\.mountPoint) == ["/ok"])
  }

  @Test("Random bytes and torn lines never trap, and a huge line is read in full")
  func random() {
    var random = SplitMix(seed: 7036)
    let sound = Array(#"1 1 8:1 /a\040b /c\134 rw shared:1 - ext4 /dev/sda1 rw,lowerdir=/x:/y"#.utf8)
    for _ in 0..<2000 {
      var line = Array(sound.prefix(Int.random(in: 0...sound.count, using: &random)))
      for _ in 0..<Int.random(in: 0...6, using: &random) where !line.isEmpty {
        line[Int.random(in: 0..<line.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      _ = MountTable.mounts(line)
      _ = MountTable.swaps([10] + line)
    }
    let long = String(repeating: "x", count: 1 << 20)
    #expect(
      MountTable.mounts(Array("1 1 8:1 / /\(long) rw - ext4 a rw".utf8)).first?.mountPoint.utf8.count == 1 << 20 + 1)
  }

  @Test("Swap partitions and files are told apart; the headings are no swap")
  func swaps() {
    let text = """
      Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority
      /dev/dm-1                               partition\t979964\t\t0\t\t-2
      /var/swap\\040file                       file\t\t4088\t\t0\t\t-3
      """
    #expect(
      MountTable.swaps(Array(text.utf8)) == [
        .init(path: "/dev/dm-1", isFile: false), .init(path: "/var/swap file", isFile: true),
      ])
  }

  @Test("A path lies in the mount with the longest mount point that leads to it, the last of several there")
  func containing() {
    let text = """
      1 1 8:1 / / rw - ext4 a rw
      2 1 8:2 / /srv rw - ext4 b rw
      3 1 8:3 / /srv/data rw - ext4 c rw
      4 1 8:4 / /srv rw - ext4 d rw
      """
    let mounts = MountTable.mounts(Array(text.utf8))
    let source = { MountTable.containing($0, in: mounts)?.source }
    #expect(source("/srv/data/x") == "c")
    #expect(source("/srv/database") == "d")
    #expect(source("/srv") == "d")
    #expect(source("/srvx") == "a")
    #expect(source("relative") == nil)
  }
}

@Suite("What the system was booted from")
struct BootEvidenceTests {
  @Test("root= and resume= name devices by path or PARTUUID; other forms are left to the mounts")
  func commandLine() {
    let line = "quiet root=PARTUUID=ABCD-01/PARTNROFF=1 resume=/dev/sdb2 xroot=/dev/sdc root=UUID=1 root=\"/dev/sdd\"\n"
    #expect(
      BootEvidence.roots(commandLine: line) == [.partition("abcd-01"), .path("/dev/sdb2"), .path("/dev/sdd")])
  }

  @Test("LoaderDevicePartUUID is UTF-16LE behind four bytes of attributes")
  func loaderVariable() {
    let uuid = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
    let variable: [UInt8] = [6, 0, 0, 0] + uuid.utf8.flatMap { [$0, 0] } + [0, 0]
    #expect(BootEvidence.loaderPartition(variable: variable) == uuid.lowercased())
    #expect(BootEvidence.loaderPartition(variable: Array(variable.dropLast(4))) == nil)
    #expect(BootEvidence.loaderPartition(variable: []) == nil)
    var other = variable
    other[5] = 1
    #expect(BootEvidence.loaderPartition(variable: other) == nil)
  }
}
