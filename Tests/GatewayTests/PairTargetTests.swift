import Glibc
import HA
import SCSI
import Storage
import Synchronization
import Testing
import Wire

@testable import Gateway

@Suite("The target as the pair's engine commands it")
struct PairTargetTests {
  /// A target without threads of its own, and the shared disks that it has.
  private final class Bench: Sendable {
    let exports = Mutex<[Export]>([])
    let isActive = Mutex<[Bool]>([])
    private let made = Mutex<PairTarget?>(nil)
    struct Reading {
      /// What a reading waits for.
      var end: ReadyFlag?
      /// How often it fails first.
      var failures = 0
      var begun = 0
      var underWay = 0
      /// At the same time.
      var most = 0
      /// What each is to take for granted: the pair has served before.
      var afterTakeover: [Bool] = []
      /// What is found.
      var record: [UInt8]?
    }
    let reading = Mutex(Reading())
    var target: PairTarget { made.withLock { $0! } }

    init() {
      let context = ShardContext(shards: 0, registry: NexusRegistry(), arenaBytes: 0)
      let target = PairTarget(context: context) { [weak self] in
        self?.exports.withLock { $0 } ?? []
      } setActive: { [weak self] isActive in
        self?.isActive.withLock { $0.append(isActive) }
      } reload: { [weak self] in
        self?.read($0, $1)
      }
      made.withLock { $0 = target }
    }

    private func read(_ export: Export, _ afterTakeover: Bool) -> String? {
      let (end, fails) = reading.withLock { reading in
        reading.afterTakeover.append(afterTakeover)
        reading.begun += 1
        reading.underWay += 1
        reading.most = max(reading.most, reading.underWay)
        reading.failures -= 1
        return (reading.end, reading.failures >= 0)
      }
      _ = end?.wait(milliseconds: 20_000)
      let record = reading.withLock { $0.record }
      try? export.unit.adopt(reservations: record, afterTakeover: true, blocks: export.unit.blocks)
      reading.withLock { $0.underWay -= 1 }
      return fails ? "it cannot be read" : nil
    }

    /// A disk that has come.
    func add(_ number: UInt16) throws -> Export {
      let id = UUID(bytes: [UInt8](repeating: UInt8(number + 1), count: 16))
      let disk = try Disk.memory(byteCount: 16 << 20, path: "memory:16M")
      let unit = try LogicalUnit(
        number: number, identity: DiskOpening.identity(id),
        traits: DiskOpening.traits(disk, blockBytes: 512, persistsReservations: false), blocks: 100,
        registry: NexusRegistry())
      let label = Label(
        cluster: id, disk: id, lun: number, nextLUN: number + 1, diskBytes: 16 << 20, blockBytes: 512,
        pairKey: [UInt8](repeating: 0, count: 32), nodes: [])
      let export = Export(unit: unit, disk: disk, label: label, byteCount: 8 << 20, isShared: true)
      exports.withLock { $0.append(export) }
      target.exportsChanged()
      return export
    }

    /// Gives an order, and waits until all that were given are done.
    func perform(_ orders: TargetOrder...) {
      for order in orders { target.perform(order, afterTakeover: false) { _ in } }
      let isDone = ReadyFlag()
      target.perform(.recover(Epoch(1), disks: []), afterTakeover: false) { _ in isDone.set() }
      #expect(isDone.wait(milliseconds: 5000))
    }

    /// Whether commands of the unit are answered, whatever the answer.
    func isAnswered(_ export: Export) -> Bool {
      let server = DeviceServer(
        deviceName: "iqn.2026-01.example:a", registry: NexusRegistry(), portGroups: PortGroupState().groups)
      let nexus = Nexus(
        identity: NexusIdentity(initiatorName: "iqn.2026-01.example:b", isid: 1, relativeTargetPort: 1), id: 1,
        targetPortGroup: 1)
      let request = Request(cdb: CDB([0, 0, 0, 0, 0, 0]), lun: UInt64(export.unit.number) << 48)
      if case .wait = server.execute(request, nexus: nexus, map: LogicalUnitMap([export.unit])) { return false }
      return true
    }
  }

  @Test("A shared disk waits until it is served, and a stop after the order keeps it waiting")
  func stops() throws {
    let bench = Bench()
    let export = try bench.add(0)
    let disk = try #require(export.label?.disk)
    #expect(!bench.isAnswered(export))
    bench.perform(.serve(Epoch(1), disks: [disk]), .hold)
    #expect(!bench.isAnswered(export))
    bench.perform(.serve(Epoch(1), disks: [disk]))
    #expect(bench.isAnswered(export))
    bench.perform(.admit(Epoch(1), disk: disk), .suspend(disk))
    #expect(!bench.isAnswered(export))
    bench.perform(.admit(Epoch(1), disk: disk))
    #expect(bench.isAnswered(export))
    bench.perform(.closeWithoutAnswer)
    #expect(!bench.isAnswered(export))
  }

  @Test("While the node drains nothing new is begun; a handover that is called off lets all go on")
  func drains() throws {
    let bench = Bench()
    let export = try bench.add(0)
    let disk = try #require(export.label?.disk)
    bench.perform(.serve(Epoch(1), disks: [disk]))
    #expect(bench.isAnswered(export))
    bench.perform(.drain(until: BootClock.now))
    #expect(!bench.isAnswered(export))
    bench.perform(.serve(Epoch(1), disks: [disk]))
    #expect(bench.isAnswered(export))
    bench.perform(.drain(until: BootClock.now), .standby)
    #expect(bench.isAnswered(export), "standby is an answer")
  }

  @Test("In standby a disk that comes later is answered for like the others, and waits again when the pair does")
  func comesInStandby() throws {
    let bench = Bench()
    let first = try bench.add(0)
    bench.perform(.standby)
    let second = try bench.add(1)
    bench.perform()
    #expect(bench.isAnswered(first) && bench.isAnswered(second))
    bench.perform(.hold)
    let third = try bench.add(2)
    bench.perform()
    #expect(!bench.isAnswered(first) && !bench.isAnswered(second) && !bench.isAnswered(third))
    #expect(bench.isActive.withLock { $0 } == [false])
  }

  private func isSoon(_ condition: () -> Bool) -> Bool {
    for _ in 0..<4000 where !condition() { usleep(1000) }
    return condition()
  }

  @Test("A disk whose records take long to read is served when they are, without another order, and read once")
  func slowReading() throws {
    let bench = Bench()
    let export = try bench.add(0)
    let disk = try #require(export.label?.disk)
    let end = ReadyFlag()
    bench.reading.withLock { $0.end = end }
    bench.perform(.recover(Epoch(1), disks: [disk]), .serve(Epoch(1), disks: [disk]), .admit(Epoch(1), disk: disk))
    #expect(!bench.isAnswered(export) && !export.isAdmitted)
    #expect(bench.target.problems[disk] != nil)
    end.set()
    #expect(isSoon { bench.isAnswered(export) && export.isAdmitted })
    #expect(bench.target.problems.isEmpty)
    #expect(bench.reading.withLock { $0.begun } == 1)
  }

  /// One host holds an exclusive reservation.
  private static func record() throws -> [UInt8] {
    let nexus = NexusIdentity(initiatorName: "iqn.2026-01.example:c", isid: 1, relativeTargetPort: 1)
    var table = PersistentReservations()
    for action in [
      ReservationAction(.register, serviceKey: 5), ReservationAction(.reserve, key: 5, kind: .exclusiveAccess),
    ] {
      guard case .changed(let effects) = table.applying(action, from: nexus) else { throw TestFailure() }
      table = effects.next
    }
    return table.encodeRecord()
  }

  private struct TestFailure: Error {}

  @Test("In standby the table of reservations is the other node's: nothing is judged by what was known of it")
  func standbyKnowsNoReservations() throws {
    let bench = Bench()
    let export = try bench.add(0)
    let disk = try #require(export.label?.disk)
    let record = try Self.record()
    bench.reading.withLock { $0.record = record }
    bench.perform(.serve(Epoch(1), disks: [disk]))
    #expect(export.unit.reservations.reservation != nil)
    bench.perform(.drain(until: BootClock.now))
    #expect(export.unit.reservations.reservation != nil, "it may be called off")
    bench.perform(.standby)
    #expect(export.unit.reservations == PersistentReservations())
    // As from a disk that is opened: with APTPL.
    let second = try bench.add(1)
    try second.unit.adopt(reservations: record, afterTakeover: true, blocks: 100)
    bench.target.exportsChanged()
    bench.perform()
    #expect(second.unit.reservations == PersistentReservations())
    bench.target.perform(.serve(Epoch(2), disks: [disk]), afterTakeover: true) { _ in }
    #expect(isSoon { export.unit.reservations.reservation != nil })
  }

  @Test("What is read late leaves nothing behind in standby")
  func lateReadingInStandby() throws {
    let bench = Bench()
    let export = try bench.add(0)
    let disk = try #require(export.label?.disk)
    let (record, end) = (try Self.record(), ReadyFlag())
    bench.reading.withLock { ($0.record, $0.end) = (record, end) }
    bench.target.perform(.serve(Epoch(1), disks: [disk]), afterTakeover: false) { _ in }
    #expect(isSoon { bench.reading.withLock { $0.underWay } == 1 })
    for order in [TargetOrder.closeWithoutAnswer, .standby] {
      bench.target.perform(order, afterTakeover: false) { _ in }
    }
    #expect(isSoon { bench.isActive.withLock { $0.last } == false })
    end.set()
    #expect(isSoon { bench.reading.withLock { $0.underWay } == 0 && !export.isReloading })
    #expect(isSoon { export.unit.reservations == PersistentReservations() })
  }

  @Test("A disk that goes and comes is read again, though it may have the place in memory of what it was")
  func comesAgain() throws {
    let bench = Bench()
    let disk = try #require(try bench.add(0).label?.disk)
    bench.perform(.serve(Epoch(1), disks: [disk]))
    for _ in 0..<20 {
      bench.exports.withLock { $0 = [] }
      bench.target.exportsChanged()
      let other = try bench.add(0)
      bench.perform(.admit(Epoch(1), disk: disk))
      #expect(bench.isAnswered(other))
    }
    #expect(bench.reading.withLock { $0.begun } == 21)
  }

  @Test("A disk that goes and comes while this node serves keeps what it had; in another epoch the takeover decides")
  func keepsWhatItHad() throws {
    let bench = Bench()
    let disk = try #require(try bench.add(0).label?.disk)
    bench.perform(.serve(Epoch(1), disks: [disk]))
    bench.exports.withLock { $0 = [] }
    _ = try bench.add(0)
    bench.perform(.admit(Epoch(1), disk: disk))
    #expect(bench.reading.withLock { $0.afterTakeover } == [false, true])
    let late = try #require(try bench.add(1).label?.disk)
    bench.perform(.admit(Epoch(1), disk: late))
    #expect(bench.reading.withLock { $0.afterTakeover.last } == false, "this node had never read it")
    bench.target.perform(.serve(Epoch(2), disks: [disk]), afterTakeover: false) { _ in }
    #expect(isSoon { bench.reading.withLock { $0.afterTakeover.count } == 4 })
    #expect(bench.reading.withLock { $0.afterTakeover.last } == false)
  }

  @Test("A disk whose records cannot be read is tried again each second")
  func failedReading() throws {
    let bench = Bench()
    let export = try bench.add(0)
    let disk = try #require(export.label?.disk)
    bench.reading.withLock { $0.failures = 2 }
    bench.perform(.serve(Epoch(1), disks: [disk]))
    #expect(!bench.isAnswered(export))
    #expect(bench.target.problems[disk] == "it cannot be read")
    #expect(isSoon { bench.isAnswered(export) })
    #expect(bench.target.problems.isEmpty)
    #expect(bench.reading.withLock { $0.begun } == 3)
  }

  @Test("What is read late lets nothing go on that was stopped meanwhile, and the next epoch reads anew, one at a time")
  func lateReading() throws {
    let bench = Bench()
    let export = try bench.add(0)
    let disk = try #require(export.label?.disk)
    let (first, second) = (ReadyFlag(), ReadyFlag())
    bench.reading.withLock { $0.end = first }
    bench.perform(.serve(Epoch(1), disks: [disk]))
    bench.target.perform(.closeWithoutAnswer, afterTakeover: false) { _ in }
    first.set()
    #expect(isSoon { bench.reading.withLock { $0.underWay } == 0 && !export.isReloading })
    usleep(50_000)
    #expect(!bench.isAnswered(export) && !export.isAdmitted)
    // Another epoch begins while the reading of the one before is under way.
    bench.reading.withLock { $0 = Bench.Reading(end: second) }
    bench.target.perform(.serve(Epoch(2), disks: [disk]), afterTakeover: false) { _ in }
    #expect(isSoon { bench.reading.withLock { $0.underWay } == 1 })
    bench.target.perform(.hold, afterTakeover: false) { _ in }
    bench.target.perform(.serve(Epoch(3), disks: [disk]), afterTakeover: false) { _ in }
    usleep(800_000)
    #expect(!bench.isAnswered(export))
    second.set()
    #expect(isSoon { bench.isAnswered(export) })
    let reading = bench.reading.withLock { $0 }
    #expect(reading.begun == 2 && reading.most == 1)
  }
}
