import Glibc
import Testing

@testable import Discovery

/// One after the other: loop devices are few, and each test looks at the whole machine.
@Suite(
  "Against this machine's kernel", .serialized, .enabled(if: LoopDevice.isAvailable), .timeLimit(.minutes(1)))
enum MachineTests {}

extension MachineTests {
  @Suite("With loop devices")
  struct LoopDeviceTests {
    @Test("The facts of a loop device")
    func facts() throws {
      let loop = try #require(LoopDevice())
      let facts = try #require(loop.facts())
      #expect(facts.kind == .loop && facts.bytes == 32 << 20 && facts.wwid == nil)
      #expect(facts.backingFile == "\(loop.file.tree.path)/disk")
      #expect(facts.path == loop.path && facts.number.major == 7)
    }

    @Test("Blank, labelled, held, and blank again when it is empty again")
    func contents() throws {
      let loop = try #require(LoopDevice())
      #expect(loop.verdict() == .blank)
      loop.file.write(Contents.luks[0] ?? [], at: 0)
      #expect(loop.code() == .encrypted)
      #expect(loop.verdict(isLabelled: true) == .labelled, "a labelled disk's contents are its initiators'")
      loop.file.write([0, 0, 0, 0], at: 0)
      #expect(loop.code() == .data)
      loop.file.write([0, 0, 0, 0, 0, 0, 0, 0], at: 0)
      #expect(loop.verdict() == .blank)
    }

    @Test("A disk with a partition of the gateway's is refused, one with another partition is held")
    func partitions() throws {
      let bytes = Contents.bytes
      #expect(try #require(LoopDevice(Contents.gpt(label: "gatewayd-efi"), bytes: bytes)).code() == .ownImage)
      #expect(try #require(LoopDevice(Contents.gpt(label: "gateway"), bytes: bytes)).code() == .partitionTable)
    }

    @Test("Too small, read-only")
    func unfit() throws {
      #expect(try #require(LoopDevice(bytes: 8 << 20)).code() == .tooSmall)
      #expect(try #require(LoopDevice(isReadOnly: true)).code() == .readOnly)
    }

    @Test("A device that somebody has open exclusively is claimed, unless it is we who serve it")
    func exclusive() throws {
      var policy = DiscoveryPolicy()
      policy.openAttempts = 2
      let loop = try #require(LoopDevice())
      let fd = open(loop.path, O_RDWR | O_EXCL | O_CLOEXEC)
      try #require(fd >= 0)
      #expect(loop.code(policy: policy) == .claimed)
      #expect(loop.verdict(isInService: true) == .blank)
      let facts = try #require(loop.facts())
      #expect(examine(facts, fd: fd, use: SystemUse(), policy: policy) { _, _ in false } == .blank)
      close(fd)
      #expect(loop.verdict() == .blank)
    }

    @Test("A device that is not the one described is refused: another number, another size, another attachment")
    func identity() throws {
      let loop = try #require(LoopDevice())
      let facts = try #require(loop.facts())
      let changes: [(inout BlockDevice) -> Void] = [
        { $0.number = DeviceNumber(major: 7, minor: 4000) }, { $0.bytes -= 512 }, { $0.diskSequence += 1 },
        { $0.path = "/dev/null" },
      ]
      for change in changes {
        var other = facts
        change(&other)
        let verdict = examine(other, use: SystemUse(), policy: DiscoveryPolicy()) { _, _ in true }
        guard case .refused(let reason) = verdict else {
          Issue.record("not refused: \(verdict)")
          continue
        }
        #expect(reason.code == .identityChanged)
      }
    }

    @Test("A node that does not come is waited for within a bound")
    func noNode() throws {
      var facts = BlockDevice(name: "none", number: DeviceNumber(major: 7, minor: 4000), bytes: 32 << 20)
      facts.path = "/dev/no-such-disk"
      let start = ContinuousClock.now
      let verdict = examine(facts, use: SystemUse(), policy: DiscoveryPolicy()) { _, _ in true }
      #expect(ContinuousClock.now - start < .seconds(2))
      guard case .refused(let reason) = verdict else {
        Issue.record("not refused")
        return
      }
      #expect(reason.code == .cannotOpen)
    }

    @Test("Swap is refused while it is swapped to, held after")
    func swap() throws {
      let loop = try #require(LoopDevice(Contents.swap(bytes: 32 << 20)))
      try #require(run("/sbin/swapon", loop.path) == 0)
      let code = loop.code()
      #expect(run("/sbin/swapoff", loop.path) == 0)
      #expect(code == .swap)
      #expect(loop.code() == .signature)
    }

    @Test(
      "A mounted disk is refused, and so is the one beneath a loop device on it; unmounted it is held",
      .enabled(if: access("/sbin/mkfs.ext4", X_OK) == 0))
    func mounted() throws {
      let loop = try #require(LoopDevice())
      try #require(run("/sbin/mkfs.ext4", "-q", "-L", "a\tb", loop.path) == 0)
      guard case .held(let reason) = loop.verdict() else {
        Issue.record("not held")
        return
      }
      #expect(reason.code == .fileSystem && reason.sentence.contains("ext4"))
      let point = "\(loop.file.tree.path)/mount point"
      mkdir(point, 0o700)
      try #require(mount(loop.path, point, "ext4", 0, nil) == 0)
      let code = loop.code()
      umount2(point, Int32(MNT_DETACH))
      #expect(code == .mounted)
      #expect(loop.code() == .fileSystem)
    }
  }
}
