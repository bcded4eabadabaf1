import Glibc
import SCSI
import Storage
import Testing
import Wire

@testable import Gateway

@Suite("Which disks are LUNs, and under which numbers")
struct ProvisionerTests {
  private static func provisioner(_ disks: [String], state: String? = nil) throws -> Provisioner {
    let specifications = try disks.map { try DiskSpecification(parsing: $0) }
    let options = RunOptions(stateDirectory: state, disks: specifications, discovery: false, threads: 1)
    let provisioner = try Provisioner(options: options, registry: NexusRegistry()) { _ in
    } announce: { _, _ in
    }
    try provisioner.start()
    return provisioner
  }

  private static func numbers(_ provisioner: Provisioner) -> [String: UInt16] {
    var numbers: [String: UInt16] = [:]
    for report in provisioner.reports() { numbers[report.path] = report.lun }
    return numbers
  }

  private static func refusal(_ disks: [String], state: String? = nil) -> String? {
    do throws(StartError) {
      do { _ = try provisioner(disks, state: state) } catch let error as StartError { throw error } catch {
        Issue.record("\(error)")
      }
      return nil
    } catch { return error.description }
  }

  @Test("Blank disks are labelled in the order given, and keep their numbers in any other order")
  func numbering() throws {
    let room = TemporaryDisks()
    let (a, b, c) = (room.disk("a"), room.disk("b"), room.disk("c"))
    #expect(Self.numbers(try Self.provisioner([a, b])) == [a: 0, b: 1])
    #expect(Self.numbers(try Self.provisioner([c, b, a])) == [a: 0, b: 1, c: 2])
    #expect(Self.numbers(try Self.provisioner([c])) == [c: 2])
  }

  @Test("The number of a disk that is away is not given to another, by the labels of those that are there")
  func absent() throws {
    let room = TemporaryDisks()
    let (a, b, c) = (room.disk("a"), room.disk("b"), room.disk("c"))
    #expect(Self.numbers(try Self.provisioner([a, b])) == [a: 0, b: 1])
    #expect(Self.numbers(try Self.provisioner([b, c]))[c] == 2)
  }

  @Test("With every disk away the state directory still knows the cluster and the next number")
  func state() throws {
    let room = TemporaryDisks()
    let (a, b) = (room.disk("a"), room.disk("b"))
    let name = try Self.provisioner([a], state: room.state).targetName
    do {
      let second = try Self.provisioner([b], state: room.state)
      #expect(Self.numbers(second) == [b: 1] && second.targetName == name)
    }
    #expect(Self.numbers(try Self.provisioner([a, b], state: room.state)) == [a: 0, b: 1])
  }

  @Test("Initiators see the disk without its label area, whatever its size")
  func sizes() throws {
    let room = TemporaryDisks()
    let odd = room.disk("odd", bytes: (32 << 20) + 1000)
    let unit = try #require(try Self.provisioner([odd]).logicalUnits([:]).first)
    #expect(unit.sizeBytes == 24 << 20)
  }

  @Test("Disks in memory get numbers that no labelled disk has")
  func synthetic() throws {
    let room = TemporaryDisks()
    let a = room.disk("a")
    _ = try Self.provisioner([a])
    let numbers = Self.numbers(try Self.provisioner(["memory:16M", "null:1G", a]))
    #expect(numbers[a] == 0 && Set(numbers.values) == [0, 1, 2])
  }

  @Test("A file with something on it is held, not labelled, and nothing of it is changed")
  func held() throws {
    let room = TemporaryDisks()
    let a = room.disk("a")
    let content = [UInt8](repeating: 0x6B, count: 4096)
    TemporaryDisks.write(content, to: a)
    let report = try #require(try Self.provisioner([a]).reports().first)
    #expect(report.verdict == .held && report.lun == nil && report.advice?.contains("--wipe") == true)
    let fd = open(a, O_RDONLY)
    defer { close(fd) }
    var found = [UInt8](repeating: 0, count: 4096)
    #expect(pread(fd, &found, 4096, 0) == 4096 && found == content)
    #expect(LabelStore.readLabel(fd: fd, diskBytes: 32 << 20) == .none)
  }

  @Test("A held disk that is adopted with --wipe becomes a LUN; one that is a LUN is not adopted again")
  func adoption() throws {
    let room = TemporaryDisks()
    let a = room.disk("a")
    TemporaryDisks.write([UInt8](repeating: 0x6B, count: 4096), to: a)
    let provisioner = try Self.provisioner([a])
    #expect(throws: ControlError.self) { try provisioner.adopt(path: a, mode: .whole) }
    #expect(try provisioner.adopt(path: a, mode: .wipe).lun == 0)
    #expect(Self.numbers(provisioner) == [a: 0])
    #expect(throws: ControlError.self) { try provisioner.adopt(path: a, mode: .wipe) }
    let error = #expect(throws: ControlError.self) { try provisioner.adopt(path: "/nowhere", mode: .wipe) }
    #expect(error?.code == .noSuchDisk)
  }

  @Test("A copy of a disk that is a LUN is held, as is a disk of another cluster")
  func copies() throws {
    let room = TemporaryDisks()
    let (a, b, c) = (room.disk("a"), room.disk("b"), room.disk("c"))
    _ = try Self.provisioner([a])
    Self.putLabel(b) { $0 = Self.label(a)! }
    let copy = try Self.provisioner([a, b]).reports().first { $0.path == b }
    #expect(copy?.lun == nil && copy?.reason.contains("copy") == true)
    Self.putLabel(c) {
      $0 = Self.label(a)!
      $0.cluster = UUID(random: [UInt8](repeating: 1, count: 16))
    }
    let foreign = try Self.provisioner([a, c]).reports().first { $0.path == c }
    #expect(foreign?.lun == nil && foreign?.reason.contains("another gateway") == true)
  }

  @Test("Two disks of one number: the first has it, the second is held")
  func sameNumber() throws {
    let room = TemporaryDisks()
    let (a, b) = (room.disk("a"), room.disk("b"))
    _ = try Self.provisioner([a])
    Self.putLabel(b) {
      $0 = Self.label(a)!
      $0.disk = UUID(random: [UInt8](repeating: 2, count: 16))
    }
    let provisioner = try Self.provisioner([a, b])
    #expect(Self.numbers(provisioner) == [a: 0])
    #expect(provisioner.reports().first { $0.path == b }?.reason == "another disk is LUN 0 already")
  }

  @Test("After the last LUN number the lowest that is free is given, and the next start still works (SAM-5 §4.7)")
  func exhausted() throws {
    let room = TemporaryDisks()
    let (a, b) = (room.disk("a"), room.disk("b"))
    _ = try Self.provisioner([a])
    Self.putLabel(a) {
      $0.lun = Label.lunCount - 1
      $0.nextLUN = Label.lunCount
    }
    #expect(Self.numbers(try Self.provisioner([a], state: room.state)) == [a: Label.lunCount - 1])
    #expect(Self.numbers(try Self.provisioner([a, b], state: room.state)) == [a: Label.lunCount - 1, b: 0])
    #expect(Self.numbers(try Self.provisioner([b, a], state: room.state)) == [a: Label.lunCount - 1, b: 0])
  }

  @Test("With every LUN number taken a blank disk is held with that reason, and stays blank (SAM-5 §4.7)")
  func allTaken() throws {
    let room = TemporaryDisks()
    let a = room.disk("a")
    let provisioner = try Self.provisioner(["memory:16M"])
    provisioner.state.withLock { state in
      for lun in 0..<Label.lunCount {
        let id = UUID(random: [UInt8(lun >> 8), UInt8(lun & 0xFF)] + [UInt8](repeating: 0, count: 14))
        state.numbers[id] = lun
      }
    }
    let serial = provisioner.begin(a, path: a, device: nil)
    let error = #expect(throws: DiskOpening.Refusal.self) {
      try provisioner.label(try DiskOpening(path: a, device: nil), key: a, serial: serial)
    }
    #expect(error?.isHeld == true && error?.reason.contains("16384 LUN numbers") == true)
    #expect(Self.label(a) == nil)
  }

  @Test("A disk that is named and cannot be had keeps the gateway from starting, with the reason")
  func refused() {
    let room = TemporaryDisks()
    #expect(Self.refusal(["\(room.path)/nothing"])?.contains("No such file") == true)
    #expect(Self.refusal([room.disk("small", bytes: 1 << 20)])?.contains("the least is 16 MiB") == true)
    #expect(Self.refusal(["faulty:16M:nonsense"])?.contains("rules are") == true)
    #expect(Self.refusal(["memory:512"]) != nil)
  }

  @Test(
    "A damaged state file is told, not read as something",
    arguments: [
      "x", "f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff", "f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff 16385",
      "f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff -1", "f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff 1 2",
      "f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfef 1",
    ])
  func damagedState(text: String) {
    let room = TemporaryDisks()
    mkdir(room.state, 0o700)
    TemporaryDisks.write(Array((text + "\n").utf8), to: room.state + "/cluster")
    #expect(Self.refusal(["memory:16M"], state: room.state)?.contains("is damaged") == true)
  }

  @Test("An empty state file is damaged too; a directory that cannot be made is told")
  func emptyState() {
    let room = TemporaryDisks()
    mkdir(room.state, 0o700)
    for content in [[], [10], [0, 0, 0, 0]] as [[UInt8]] {
      TemporaryDisks.write(content, to: room.state + "/cluster")
      #expect(Self.refusal(["memory:16M"], state: room.state)?.contains("is damaged") == true)
      unlink(room.state + "/cluster")
    }
    #expect(Self.refusal(["memory:16M"], state: "/proc/gatewayd")?.contains("cannot be made") == true)
  }

  private static func label(_ path: String) -> Label? {
    let fd = open(path, O_RDONLY)
    defer { close(fd) }
    guard case .label(let label) = LabelStore.readLabel(fd: fd, diskBytes: 32 << 20) else { return nil }
    return label
  }

  /// Writes a changed label to a disk: what is there, or blank.
  private static func putLabel(_ path: String, _ change: (inout Label) -> Void) {
    let id = UUID(random: [UInt8](repeating: 0, count: 16))
    var label =
      label(path)
      ?? Label(
        cluster: id, disk: id, lun: 0, nextLUN: 1, diskBytes: 32 << 20, blockBytes: 512,
        pairKey: [UInt8](repeating: 0, count: 32), nodes: [])
    change(&label)
    let fd = open(path, O_RDWR)
    defer { close(fd) }
    #expect(LabelStore.initialize(label, fd: fd) == 0)
  }
}
