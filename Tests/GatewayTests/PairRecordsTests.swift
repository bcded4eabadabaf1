import Discovery
import Glibc
import HA
import Reactor
import SCSI
import Testing
import Wire

@testable import Gateway
@testable import Storage

@Suite("Records of the pair on disks that grow while they are served")
struct PairRecordsTests {
  private static let bytes = 32 << 20
  private static let grownBytes = 64 << 20
  private static let node = UUID(bytes: [UInt8](repeating: 0xA0, count: 16))
  private static let other = UUID(bytes: [UInt8](repeating: 0xA1, count: 16))

  /// A labelled file as a shared disk that cannot fence, as one node has it.
  private struct Node {
    let path: String
    let export: Export
    let orders: PairDiskOrders
    var disk: DiskID { Self.id }

    static let id = UUID(bytes: [UInt8](repeating: 0xD0, count: 16))

    static func label(_ diskBytes: Int) -> Label {
      Label(
        cluster: UUID(bytes: Array(1...16)), disk: id, lun: 0, nextLUN: 1, diskBytes: UInt64(diskBytes),
        blockBytes: 512, pairKey: [UInt8](repeating: 0, count: 32),
        nodes: [Label.Node(id: PairRecordsTests.node, name: "a"), Label.Node(id: PairRecordsTests.other, name: "b")])
    }

    init(_ path: String) throws {
      self = try Node(path, Disk.open(path: path), isAdmitted: true)
    }

    /// The other node, which has the disk in sight.
    init(beside node: Node) throws { self = try Node(node.path, node.export.disk, isAdmitted: false) }

    private init(_ path: String, _ disk: Disk, isAdmitted: Bool) throws {
      self.path = path
      let label = Self.label(PairRecordsTests.bytes)
      if case .none = LabelStore.readLabel(fd: try #require(disk.descriptor), diskBytes: label.diskBytes) {
        #expect(LabelStore.initialize(label, fd: try #require(disk.descriptor)) == 0)
      }
      let unit = try LogicalUnit(
        number: 0, identity: DiskOpening.identity(Self.id),
        traits: DiskOpening.traits(disk, blockBytes: 512, persistsReservations: true),
        blocks: label.exportedBytes / 512, registry: NexusRegistry())
      let export = Export(
        unit: unit, disk: disk, label: label, byteCount: label.exportedBytes, sequence: 1, slot: 1, isShared: true,
        fence: .lease)
      export.setAdmitted(isAdmitted)
      self.export = export
      orders = PairDiskOrders(exports: { [export] }, log: PairLog()) { _ in false }
    }

    /// The disk grows, and the label area with it.
    func grow() throws -> Int32 {
      #expect(truncate(path, off_t(PairRecordsTests.grownBytes)) == 0)
      return try move()
    }

    func move() throws -> Int32 {
      export.moveLabel(
        to: Self.label(PairRecordsTests.grownBytes), fd: try #require(export.disk.descriptor))
    }

    func read(_ count: Int, at offset: UInt64) -> [UInt8] {
      let fd = open(path, O_RDONLY)
      defer { close(fd) }
      var bytes = [UInt8](repeating: 0xEE, count: count)
      #expect(pread(fd, &bytes, count, off_t(offset)) == count)
      return bytes
    }

    var survey: Survey? { if case .surveyed(let survey) = orders.perform(disk, .survey) { survey } else { nil } }
  }

  private static func lease(_ sequence: UInt64) -> LeaseRecord {
    LeaseRecord(epoch: Epoch(1), node: node, bootID: 7, sequence: sequence, phase: .held, isGuarded: true)
  }

  @Test("Leases, beats and owner records follow the label area to its new place, and leave the old one alone")
  func follow() throws {
    let room = TemporaryDisks()
    let node = try Node(room.disk("a"))
    let owner = OwnerRecord(epoch: Epoch(1), node: Self.node, bootID: 7, arbiters: [node.disk])
    let beat = { DiskBeat(epoch: Epoch(1), node: Self.node, bootID: 7, sequence: $0, offersHandover: false) }
    #expect(node.orders.perform(node.disk, .writeLease(Self.lease(1), place: 0, isDurable: true)) == .done)
    #expect(node.orders.perform(node.disk, .writeOwner(owner)) == .done)
    #expect(node.orders.perform(node.disk, .writeBeat(beat(1))) == .done)
    #expect(try node.grow() == 0)
    #expect(node.survey?.leases.first == Self.lease(1), "the other node goes on counting from what it saw")
    for sequence in 2...3 as ClosedRange<UInt64> {
      #expect(
        node.orders.perform(node.disk, .writeLease(Self.lease(sequence), place: 0, isDurable: false)) == .done)
      #expect(node.orders.perform(node.disk, .writeBeat(beat(sequence))) == .done)
    }
    #expect(node.orders.perform(node.disk, .writeOwner(owner)) == .done)
    let found = try #require(node.survey)
    #expect(found.leases.first == Self.lease(3) && found.beat == beat(3) && found.owner == owner)
    #expect(node.read(8 << 20, at: 24 << 20).allSatisfy { $0 == 0 }, "initiators' by now")
  }

  @Test("A node that does not have the disk leaves the label where it is, and follows it when the other has moved it")
  func passive() throws {
    let room = TemporaryDisks()
    let active = try Node(room.disk("a"))
    let passive = try Node(beside: active)
    #expect(active.orders.perform(active.disk, .writeLease(Self.lease(1), place: 0, isDurable: true)) == .done)
    let blocks = passive.export.unit.blocks
    #expect(truncate(active.path, off_t(Self.grownBytes)) == 0)
    #expect(try passive.move() == -EACCES)
    #expect(active.read(8 << 20, at: 56 << 20).allSatisfy { $0 == 0 }, "nothing was written")
    #expect(passive.survey?.leases.first == Self.lease(1), "found where it is until it moves")
    #expect(passive.export.unit.blocks == blocks)
    #expect(try active.move() == 0)
    TemporaryDisks.write([UInt8](repeating: 0x77, count: 8 << 20), to: active.path, at: 24 << 20)
    let own = LeaseRecord(epoch: .none, node: Self.other, bootID: 8, sequence: 1, phase: .released, isGuarded: false)
    #expect(passive.orders.perform(passive.disk, .writeLease(own, place: 1, isDurable: true)) == .done)
    #expect(passive.survey?.leases == [Self.lease(1), own])
    #expect(active.read(8 << 20, at: 24 << 20).allSatisfy { $0 == 0x77 }, "initiators' data")
    #expect(passive.export.unit.blocks == UInt64(56 << 20) / 512, "its paths tell the same size as the other's")
    guard case .moving = passive.export.beginReservationRecord([]) else {
      Issue.record("where records go is not known yet")
      return
    }
    #expect(passive.export.reload(afterTakeover: true) == nil)
    guard case .write(_, let offset) = passive.export.beginReservationRecord([]) else {
      Issue.record("it is known where records go")
      return
    }
    #expect(offset >= UInt64(56 << 20))
  }

  @Test("Who takes a disk over that grew since its last look has the new size")
  func reloads() throws {
    let room = TemporaryDisks()
    let first = try Node(room.disk("a"))
    let second = try Node(beside: first)
    #expect(try first.grow() == 0)
    #expect(second.export.reload(afterTakeover: true) == nil)
    #expect(second.export.unit.blocks == UInt64(56 << 20) / 512)
    #expect(second.export.label?.diskBytes == UInt64(Self.grownBytes))
  }

  @Test("Registrations that a loss of power has ended do not come back with a takeover after it")
  func lostRegistrations() throws {
    let room = TemporaryDisks()
    let node = try Node(room.disk("a"))
    let nexus = NexusIdentity(initiatorName: "iqn.2026-01.example:a", isid: 1, relativeTargetPort: 1)
    let action = ReservationAction(.register, key: 0, serviceKey: 7)
    guard case .changed(let effects) = PersistentReservations().applying(action, from: nexus) else {
      Issue.record("not registered")
      return
    }
    let registered = effects.next.encodeRecord()
    let fd = try #require(node.export.disk.descriptor)
    let label = try #require(node.export.label)
    let record = Record(kind: .reservations, sequence: 5, disk: label.disk, payload: registered)
    #expect(LabelStore.write(record, slot: 1, fd: fd, diskBytes: label.diskBytes) == 0)
    #expect(node.export.reload(afterTakeover: true) == nil)
    #expect(node.export.unit.reservationRecord == registered, "a takeover leaves it")
    #expect(node.export.reload(afterTakeover: false) == nil)
    let empty = PersistentReservations().encodeRecord()
    #expect(node.export.unit.reservationRecord == empty)
    #expect(node.export.reload(afterTakeover: true) == nil)
    #expect(node.export.unit.reservationRecord == empty)
  }

  @Test("A disk that grew and whose label nobody has moved is taken over as it is, and grows then")
  func abandoned() throws {
    let room = TemporaryDisks()
    let first = try Node(room.disk("a"))
    let second = try Node(beside: first)
    #expect(truncate(first.path, off_t(Self.grownBytes)) == 0)
    let blocks = second.export.unit.blocks
    #expect(second.orders.perform(second.disk, .writeLease(Self.lease(1), place: 0, isDurable: true)) == .done)
    #expect(second.export.reload(afterTakeover: true) == nil)
    #expect(second.export.unit.blocks == blocks)
    second.export.setAdmitted(true)
    #expect(try second.move() == 0)
    #expect(second.survey?.leases.first == Self.lease(1))
    #expect(second.read(8 << 20, at: 24 << 20).allSatisfy { $0 == 0 })
  }

  @Test("A grown disk's LUN grows when the pair admits the disk, not before")
  func admission() throws {
    let room = TemporaryDisks()
    let a = room.disk("a")
    var status = stat()
    try #require(stat(a, &status) == 0)
    let number = DeviceNumber(status.st_dev)
    let device = { @Sendable (bytes: Int) in
      var device = BlockDevice(name: "a", number: number, bytes: UInt64(bytes))
      device.path = a
      return device
    }
    var access = DiskAccess(judge: { _, _, _ in .blank }) { path, device, known throws(DiskOpening.Refusal) in
      var opening = try DiskOpening(path: path, device: device, knownBytes: known)
      opening.fence = .lease
      return opening
    }
    access.device = { _ in device(Self.grownBytes) }
    let provisioner = try Provisioner(
      options: RunOptions(disks: [], discovery: false, threads: 1), registry: NexusRegistry(), access: access
    ) { _ in
    } announce: { _, _ in
    }
    let isSoon = { (condition: () -> Bool) in
      for _ in 0..<4000 where !condition() { usleep(1000) }
      return condition()
    }
    provisioner.handle(.enumerated)
    #expect(provisioner.firstRound.wait(milliseconds: 5000))
    provisioner.handle(.appeared(device(Self.bytes)))
    #expect(isSoon { !provisioner.sharedExports.isEmpty })
    let export = try #require(provisioner.sharedExports.first)
    let fd = try #require(export.disk.descriptor)
    #expect(truncate(a, off_t(Self.grownBytes)) == 0)
    provisioner.handle(.changed(device(Self.grownBytes)))
    #expect(isSoon { provisioner.reports().first?.sizeBytes == UInt64(Self.grownBytes) })
    #expect(export.unit.blocks == UInt64(24 << 20) / 512)
    #expect(LabelStore.readLabel(fd: fd, diskBytes: UInt64(Self.grownBytes)) == .none)
    export.setAdmitted(true)
    provisioner.admitted(export)
    #expect(isSoon { export.unit.blocks == UInt64(56 << 20) / 512 })
    guard case .label = LabelStore.readLabel(fd: fd, diskBytes: UInt64(Self.grownBytes)) else {
      Issue.record("its label has moved")
      return
    }
  }

  @Test("A label of another cluster, or none, is an answer of its own; one that cannot be read is not")
  func relabelled() throws {
    let room = TemporaryDisks()
    let node = try Node(room.disk("a"))
    let fd = try #require(node.export.disk.descriptor)
    #expect(node.survey != nil && node.orders.problems.isEmpty)
    var other = Node.label(Self.bytes)
    other.cluster = UUID(bytes: [UInt8](repeating: 9, count: 16))
    #expect(LabelStore.initialize(other, fd: fd) == 0)
    #expect(node.orders.perform(node.disk, .survey) == .relabelled)
    #expect(node.orders.problems[node.disk] != nil)
    other = Node.label(Self.bytes)
    other.disk = other.cluster
    #expect(LabelStore.initialize(other, fd: fd) == 0)
    #expect(node.orders.perform(node.disk, .survey) == .relabelled)
    #expect(LabelStore.erase(fd: fd, diskBytes: UInt64(Self.bytes)) == 0)
    #expect(node.orders.perform(node.disk, .survey) == .relabelled)
    #expect(LabelStore.initialize(Node.label(Self.bytes), fd: fd) == 0)
    #expect(node.survey != nil && node.orders.problems.isEmpty)
    for slot in 0...1 {
      let place = LabelArea.offset(of: .label, slot: slot, diskBytes: UInt64(Self.bytes))
      TemporaryDisks.write([UInt8](repeating: 0xFF, count: 4), to: node.path, at: Int(place) + 60)
    }
    #expect(node.orders.perform(node.disk, .survey) == .failed(EBADMSG))
  }

  @Test("A lease that was there and is not to be seen any more does not make the disk free")
  func vanished() throws {
    let room = TemporaryDisks()
    let active = try Node(room.disk("a"))
    let passive = try Node(beside: active)
    #expect(passive.survey?.leases == [nil, nil])
    #expect(active.orders.perform(active.disk, .writeLease(Self.lease(1), place: 0, isDurable: true)) == .done)
    #expect(passive.survey?.leases == [Self.lease(1), nil])
    // As while the area moves by less than it is long.
    let place = Int(LabelArea.offset(of: .lease, slot: 0, diskBytes: UInt64(Self.bytes)))
    let kept = active.read(8192, at: UInt64(place))
    TemporaryDisks.write([UInt8](repeating: 0, count: 8192), to: active.path, at: place)
    #expect(passive.orders.perform(passive.disk, .survey) == .failed(EAGAIN))
    TemporaryDisks.write(kept, to: active.path, at: place)
    #expect(passive.survey?.leases == [Self.lease(1), nil])
  }

  @Test("A disk whose lease moves is not wiped; one whose lease stands still is")
  func wiped() throws {
    let room = TemporaryDisks()
    let path = room.disk("a")
    do {
      let node = try Node(path)
      #expect(node.orders.perform(node.disk, .writeLease(Self.lease(1), place: 0, isDurable: true)) == .done)
    }
    let isOver = ReadyFlag()
    let isBegun = ReadyFlag()
    startThread(name: "renews") {
      let fd = open(path, O_RDWR)
      defer { close(fd) }
      var sequence: UInt64 = 2
      while !isOver.wait(milliseconds: 0) {
        let record = Record(kind: .lease, sequence: sequence, disk: Node.id, payload: Self.lease(sequence).encode())
        _ = LabelStore.write(record, slot: Int(sequence % 2), fd: fd, diskBytes: UInt64(Self.bytes))
        sequence += 1
        isBegun.set()
        usleep(100_000)
      }
    }
    #expect(isBegun.wait(milliseconds: 5000))
    let refusal = #expect(throws: DiskOpening.Refusal.self) {
      try DiskOpening.wipe(path: path, device: nil, former: nil)
    }
    #expect(refusal?.reason.contains("another gateway uses it") == true)
    isOver.set()
    usleep(500_000)
    try DiskOpening.wipe(path: path, device: nil, former: nil)
    let fd = open(path, O_RDONLY)
    defer { close(fd) }
    #expect(LabelStore.readLabel(fd: fd, diskBytes: UInt64(Self.bytes)) == .none)
  }

  @Test("A disk gets a lease only where it can certainly not fence, else it waits, and says for what")
  func judgement() throws {
    let lasting: [FenceObstacle] = [
      .noCommands, .noReservations, .losesRegistrations, .lacksType, .noHostIdentifier,
    ]
    for hasPart in [false, true] {
      for obstacle in lasting { #expect(try Provisioner.fence(by: .unable(obstacle), hasPart: hasPart) == .lease) }
      for failure in [FenceFailure.timedOut, .disturbed, .conflict, .failed(EBUSY), .failed(EIO), .failed(ENXIO)] {
        let refusal = #expect(throws: DiskOpening.Refusal.self) {
          try Provisioner.fence(by: .unable(.noAnswer(failure)), hasPart: hasPart)
        }
        #expect(refusal?.waitsForPair == true && refusal?.isHeld == true)
        #expect(refusal?.reason.contains("persistent reservations: \(FenceObstacle.noAnswer(failure))") == true)
      }
    }
    #expect(try Provisioner.fence(by: .unable(.notPermitted), hasPart: false) == .lease)
    #expect(throws: DiskOpening.Refusal.self) {
      try Provisioner.fence(by: .unable(.notPermitted), hasPart: true)
    }
  }
}
