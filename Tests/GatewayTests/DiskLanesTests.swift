import CSystem
import Discovery
import Glibc
import Reactor
import SCSI
import Storage
import Synchronization
import Testing

@testable import Gateway

@Suite("A disk that hangs is in no other's way", .serialized)
struct DiskLanesTests {
  /// What hangs until it is let go, and whether it has begun.
  private final class Hang: Sendable {
    let begun = ReadyFlag()
    let end = ReadyFlag()

    func wait() {
      begun.set()
      _ = end.wait(milliseconds: 20_000)
    }
  }

  private static func wait(_ what: Comment, _ condition: () -> Bool) {
    for _ in 0..<4000 {
      if condition() { return }
      usleep(1000)
    }
    Issue.record(what)
  }

  /// A file as a block device that discovery tells of.
  private static func device(_ path: String, _ name: String) throws -> BlockDevice {
    var status = stat()
    try #require(stat(path, &status) == 0)
    var device = BlockDevice(name: name, number: DeviceNumber(status.st_dev), bytes: UInt64(status.st_size))
    device.path = path
    return device
  }

  private static func provisioner(_ access: DiskAccess) throws -> Provisioner {
    let options = RunOptions(disks: [], discovery: false, threads: 1)
    return try Provisioner(options: options, registry: NexusRegistry(), access: access) { _ in
    } announce: { _, _ in
    }
  }

  private static func lun(_ provisioner: Provisioner, _ name: String) -> UInt16? {
    provisioner.state.withLock { $0.entries[name]?.export?.unit.number }
  }

  /// Access to files in which the disk of this path hangs, in its examination or in its opening.
  private static func access(_ hang: Hang, in path: String, opening: Bool) -> DiskAccess {
    DiskAccess(
      judge: { device, _, _ in
        if !opening, device.path == path { hang.wait() }
        let fd = open(device.path, O_RDONLY)
        defer { close(fd) }
        return LabelStore.isOurs(fd: fd, diskBytes: device.bytes) ? .labelled : .blank
      },
      open: { other, device, known throws(DiskOpening.Refusal) in
        if opening, other == path { hang.wait() }
        return try DiskOpening(path: other, device: device, knownBytes: known)
      })
  }

  @Test(
    "Others come, go and are adopted meanwhile; its own outcome counts for nothing once it went",
    arguments: [false, true])
  func events(opening: Bool) throws {
    let room = TemporaryDisks()
    let (a, b, c) = (room.disk("a"), room.disk("b"), room.disk("c"))
    let hang = Hang()
    defer { hang.end.set() }
    let provisioner = try Self.provisioner(Self.access(hang, in: a, opening: opening))
    provisioner.handle(.enumerated)
    Self.wait("the first round ends") { provisioner.firstRound.wait(milliseconds: 0) }
    provisioner.handle(.appeared(try Self.device(a, "a")))
    Self.wait("the disk hangs") { hang.begun.wait(milliseconds: 0) }
    TemporaryDisks.write([1], to: c)
    provisioner.handle(.appeared(try Self.device(b, "b")))
    provisioner.handle(.appeared(try Self.device(c, "c")))
    Self.wait("another comes") { Self.lun(provisioner, "b") == 0 }
    Self.wait("another is held") { provisioner.reports().contains { $0.path == c && $0.reason.contains("not blank") } }
    #expect(throws: ControlError.self) { try provisioner.adopt(path: b, mode: .wipe) }
    #expect(provisioner.reports().first { $0.path == a }?.reason == "it is being examined")
    let gone = try Self.device(b, "b")
    provisioner.handle(.vanished(name: "b", last: gone))
    #expect(Self.lun(provisioner, "b") == nil)
    provisioner.handle(.vanished(name: "a", last: try Self.device(a, "a")))
    hang.end.set()
    // What comes for it later waits behind what hung, and what hung has left no trace.
    provisioner.handle(.appeared(try Self.device(a, "a")))
    Self.wait("it comes back") { Self.lun(provisioner, "a") != nil }
    #expect(Self.lun(provisioner, "a") == 1)
  }

  @Test("Who notices late that a disk goes does not take the next one, which has its name")
  func successor() throws {
    let room = TemporaryDisks()
    let provisioner = try Self.provisioner(Self.access(Hang(), in: "", opening: false))
    provisioner.handle(.enumerated)
    var device = try Self.device(room.disk("a"), "a")
    device.diskSequence = 7
    provisioner.handle(.appeared(device))
    Self.wait("it is served") { Self.lun(provisioner, "a") != nil }
    provisioner.vanished("a", sequence: 6)
    #expect(Self.lun(provisioner, "a") != nil)
    provisioner.vanished("a", sequence: 7)
    #expect(provisioner.reports().isEmpty)
  }

  @Test("What an adoption writes is an event, and does not make the adoption void; the look comes after it")
  func adoption() throws {
    let room = TemporaryDisks()
    let a = room.disk("a")
    TemporaryDisks.write([1], to: a)
    let device = try Self.device(a, a)
    let told = Mutex<Provisioner?>(nil)
    var access = Self.access(Hang(), in: "", opening: false)
    let open = access.open
    access.open = { path, other, known throws(DiskOpening.Refusal) in
      told.withLock { $0 }?.handle(.changed(device))
      return try open(path, other, known)
    }
    let provisioner = try Self.provisioner(access)
    provisioner.handle(.enumerated)
    Self.wait("the first round ends") { provisioner.firstRound.wait(milliseconds: 0) }
    provisioner.handle(.appeared(device))
    Self.wait("it is held") { provisioner.reports().contains { $0.reason.contains("not blank") } }
    told.withLock { $0 = provisioner }
    #expect(try provisioner.adopt(path: a, mode: .wipe).lun == 0)
    told.withLock { $0 = nil }
    Self.wait("nothing is done with it") { provisioner.lanes.perform(a, within: 0) {} != nil }
    #expect(Self.lun(provisioner, a) == 0)
  }

  @Test("At the start, too: labelled disks have their numbers, and blank ones get theirs in order")
  func start() throws {
    let room = TemporaryDisks()
    let (a, b, c, d) = (room.disk("a"), room.disk("b"), room.disk("c"), room.disk("d"))
    do {
      let first = try Self.provisioner(Self.access(Hang(), in: "", opening: false))
      first.handle(.appeared(try Self.device(d, "d")))
      first.handle(.enumerated)
      Self.wait("it has its number") { Self.lun(first, "d") == 0 }
    }
    let hang = Hang()
    defer { hang.end.set() }
    let provisioner = try Self.provisioner(Self.access(hang, in: a, opening: true))
    for (path, name) in [(a, "a"), (b, "b"), (c, "c"), (d, "d")] {
      provisioner.handle(.appeared(try Self.device(path, name)))
    }
    let begin = ContinuousClock.now
    provisioner.handle(.enumerated)
    #expect(ContinuousClock.now - begin < .milliseconds(500), "the monitor's thread waits for no disk")
    Self.wait("the others are served") { Self.lun(provisioner, "c") != nil && Self.lun(provisioner, "d") != nil }
    #expect(Self.lun(provisioner, "b").map { $0 < Self.lun(provisioner, "c")! } == true)
    #expect(Set(["b", "c", "d"].compactMap { Self.lun(provisioner, $0) }).count == 3)
  }

  @Test("A lane does one thing at a time, and of several that wait the last")
  func order() {
    let lanes = DiskLanes()
    let hang = Hang()
    let done = Shared(Atomic(0))
    lanes.run("a") { hang.wait() }
    Self.wait("it has begun") { hang.begun.wait(milliseconds: 0) }
    for number in 1...3 { lanes.run("a") { done.value.add(number * number, ordering: .relaxed) } }
    #expect(lanes.perform("a", within: 20) { true } == nil, "it is taken")
    #expect(lanes.perform("b", within: 20) { true } == true, "another's is not")
    hang.end.set()
    Self.wait("the last is done") { done.value.load(ordering: .relaxed) != 0 }
    #expect(lanes.perform("a", within: 4000) { true } == true)
    #expect(done.value.load(ordering: .relaxed) == 9)
  }
}
