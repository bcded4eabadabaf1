import Glibc
import SCSI
import Testing
import Wire

@testable import Gateway
@testable import Storage

@Suite("Disks that grew while the gateway was off")
struct GrownDiskTests {
  private static let bytes = 32 << 20

  private static func provisioner(_ disks: [String], state: String? = nil) throws -> Provisioner {
    let options = RunOptions(
      stateDirectory: state, disks: try disks.map { try DiskSpecification(parsing: $0) }, discovery: false, threads: 1)
    let provisioner = try Provisioner(options: options, registry: NexusRegistry()) { _ in
    } announce: { _, _ in
    }
    try provisioner.start()
    return provisioner
  }

  private static func report(_ provisioner: Provisioner, _ path: String) throws -> DiskReport {
    try #require(provisioner.reports().first { $0.path == path })
  }

  private static func grow(_ path: String, to bytes: Int) { #expect(truncate(path, off_t(bytes)) == 0) }

  private static func read(_ path: String, _ count: Int, at offset: UInt64) -> [UInt8] {
    let fd = open(path, O_RDONLY)
    defer { close(fd) }
    var bytes = [UInt8](repeating: 0xEE, count: count)
    #expect(pread(fd, &bytes, count, off_t(offset)) == count)
    return bytes
  }

  private static func label(_ path: String, _ bytes: Int) -> Label? {
    let fd = open(path, O_RDONLY)
    defer { close(fd) }
    guard case .label(let label) = LabelStore.readLabel(fd: fd, diskBytes: UInt64(bytes)) else { return nil }
    return label
  }

  @Test(
    "One that looks blank is held, not labelled again, and told why",
    arguments: [4096, 1 << 20, 8 << 20, (8 << 20) + 4096, 100 << 20, 4 << 30])
  func held(growth: Int) throws {
    let room = TemporaryDisks()
    let a = room.disk("a")
    let number = try #require(try Self.report(try Self.provisioner([a]), a).lun)
    let label = try #require(Self.label(a, Self.bytes))
    Self.grow(a, to: Self.bytes + growth)
    let report = try Self.report(try Self.provisioner([a]), a)
    #expect(report.verdict == .held && report.lun == nil)
    #expect(report.reason.contains("has grown from 32 MiB") && report.reason.contains("LUN \(number)"))
    #expect(report.advice?.contains("adopt \(a) --grow") == true)
    #expect(Self.label(a, Self.bytes) == label)
  }

  @Test("One with content at its head is told to have grown, too, not only that there is content")
  func withContent() throws {
    let room = TemporaryDisks()
    let a = room.disk("a")
    _ = try Self.provisioner([a])
    TemporaryDisks.write([UInt8](repeating: 0x6B, count: 4096), to: a)
    Self.grow(a, to: 3 << 30)
    #expect(try Self.report(try Self.provisioner([a]), a).reason.contains("has grown"))
  }

  @Test(
    "--grow keeps number, name and content; the LUN is larger, and what was the label's reads as zeroes",
    arguments: [1, 8, 68])
  func adopt(growth: Int) throws {
    let size = Self.bytes + (growth << 20)
    let room = TemporaryDisks()
    let (a, b) = (room.disk("a"), room.disk("b"))
    let naa: String
    do {
      let before = try Self.provisioner([b, a])
      naa = try #require(before.logicalUnits([:]).first { $0.path == a }?.naa)
    }
    TemporaryDisks.write([1, 2, 3], to: a, at: 20 << 20)
    Self.grow(a, to: size)
    let provisioner = try Self.provisioner([b, a])
    #expect(throws: ControlError.self) { try provisioner.adopt(path: b, mode: .grow) }
    let report = try provisioner.adopt(path: a, mode: .grow)
    #expect(report.lun == 1 && report.naa == naa)
    let unit = try #require(provisioner.logicalUnits([:]).first { $0.path == a })
    #expect(unit.sizeBytes == UInt64(size - (8 << 20)) && unit.naa == naa)
    #expect(Self.read(a, 3, at: 20 << 20) == [1, 2, 3])
    let cleared = min(growth, 8) << 20
    #expect(Self.read(a, cleared, at: 24 << 20) == [UInt8](repeating: 0, count: cleared))
    #expect(Self.label(a, size)?.lun == 1)
  }

  @Test("--grow takes no disk of another cluster, nor one whose number is another's, and changes nothing of it")
  func refusedAdoption() throws {
    let room = TemporaryDisks()
    let (a, b) = (room.disk("a"), room.disk("b"))
    _ = try Self.provisioner([a])
    let own = try #require(Self.label(a, Self.bytes))
    for change in [{ $0.disk = UUID(random: [UInt8](repeating: 4, count: 16)) }, { $0.cluster = $0.disk }]
      as [(inout Label) -> Void]
    {
      var other = own
      change(&other)
      let c = room.disk("c")
      Self.grow(c, to: Self.bytes)
      let fd = open(c, O_RDWR)
      #expect(LabelStore.initialize(other, fd: fd) == 0)
      close(fd)
      Self.grow(c, to: 80 << 20)
      let provisioner = try Self.provisioner([a, c])
      #expect(throws: ControlError.self) { try provisioner.adopt(path: c, mode: .grow) }
      #expect(Self.label(c, Self.bytes) == other && Self.label(c, 80 << 20) == nil)
      unlink(c)
    }
    _ = try Self.provisioner([a, b])
  }

  @Test("--wipe of one leaves nothing of the old label to whoever sees the disk")
  func wiped() throws {
    let room = TemporaryDisks()
    let a = room.disk("a")
    _ = try Self.provisioner([a])
    Self.grow(a, to: 100 << 20)
    let provisioner = try Self.provisioner([a])
    #expect(try provisioner.adopt(path: a, mode: .wipe).lun != nil as UInt16?)
    #expect(Self.read(a, 92 << 20, at: 0) == [UInt8](repeating: 0, count: 92 << 20))
  }

  @Test("Sizes of labelled disks are kept in the state directory, and read again")
  func knownSizes() throws {
    let room = TemporaryDisks()
    let (a, b) = (room.disk("a"), room.disk("b", bytes: 40 << 20))
    _ = try Self.provisioner([a, b], state: room.state)
    let provisioner = try Self.provisioner(["memory:16M"], state: room.state)
    #expect(Set(provisioner.knownBytes) == [32 << 20, 40 << 20])
  }

  @Test(
    "A crash after the label has moved and before the old place was clear: it is clear before anybody sees the disk")
  func crash() throws {
    let room = TemporaryDisks()
    let a = room.disk("a")
    _ = try Self.provisioner([a])
    let old = try #require(Self.label(a, Self.bytes))
    Self.grow(a, to: 64 << 20)
    var new = old
    new.diskBytes = 64 << 20
    let fd = open(a, O_RDWR)
    #expect(LabelStore.initialize(new, clearing: .init(of: old, for: new), fd: fd) == 0)
    close(fd)
    #expect(Self.label(a, Self.bytes) == old)
    let unit = try #require(try Self.provisioner([a]).logicalUnits([:]).first)
    #expect(unit.number == old.lun && unit.sizeBytes == 56 << 20)
    #expect(Self.read(a, 8 << 20, at: 24 << 20) == [UInt8](repeating: 0, count: 8 << 20))
  }

  @Test("A crash in the midst of a move is not finished on a disk that is another cluster's: it is not written at all")
  func foreignCrash() throws {
    let room = TemporaryDisks()
    let (a, b) = (room.disk("a"), room.disk("b", bytes: 64 << 20))
    _ = try Self.provisioner([a])
    var old = try #require(Self.label(a, Self.bytes))
    old.cluster = old.disk
    var new = old
    new.diskBytes = 64 << 20
    let fd = open(b, O_RDWR)
    #expect(LabelStore.initialize(old, fd: fd) == 0)
    #expect(LabelStore.initialize(new, clearing: .init(of: old, for: new), fd: fd) == 0)
    close(fd)
    #expect(try Self.report(try Self.provisioner([a, b]), b).reason.contains("another gateway"))
    #expect(Self.label(b, Self.bytes) == old)
  }
}
