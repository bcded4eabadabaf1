import Glibc
import Testing
import Wire

@testable import Storage

@Suite("Records that the nodes of a pair share")
struct SharedRecordsTests {
  private static let bytes = 17 << 20

  private struct Labelled {
    let file: TemporaryFile
    let label: Label
    let disk: Disk

    init(nodes: [Label.Node] = [], bytes: Int = SharedRecordsTests.bytes) throws {
      file = TemporaryFile(bytes: bytes)
      var label = exampleLabel(diskBytes: UInt64(bytes))
      label.nodes = nodes
      self.label = label
      #expect(LabelStore.initialize(label, fd: file.fd) == 0)
      disk = try Disk.open(path: file.path)
    }

    func place(_ kind: LabelArea.Kind, _ slot: Int) -> UInt64 {
      LabelArea.offset(of: kind, slot: slot, diskBytes: label.diskBytes)
    }
  }

  private static func node(_ number: UInt8, _ name: String = "node") -> Label.Node {
    Label.Node(id: UUID(bytes: [UInt8](repeating: number, count: 16)), name: name)
  }

  @Test("Owner and beat of a fresh area are absent, and so they are in an area that was written before there were such")
  func absent() throws {
    let disk = try Labelled()
    // An older area has beacons here, as it has in every block that was no record's.
    let beacon = LabelBeacon(start: disk.label.exportedBytes, disk: disk.label.disk).encode()
    for kind in [LabelArea.Kind.owner, .beat] {
      #expect(kind.slotBytes == LabelArea.alignment)
      for slot in 0...1 { #expect(disk.file.read(beacon.count, at: disk.place(kind, slot)) == beacon) }
      var cell = RecordCell(kind, on: disk.disk, label: disk.label)
      #expect(try cell.read() == nil)
      #expect(throws: RecordError.absent) {
        try LabelStore.read(kind, fd: disk.file.fd, diskBytes: disk.label.diskBytes, disk: disk.label.disk)
      }
    }
    #expect(LabelStore.prepare(disk.label, fd: disk.file.fd) == 0, "it is complete as it is")
  }

  @Test("Records alternate between their slots; another node reads the newest, and goes on from there")
  func alternates() throws {
    for kind in [LabelArea.Kind.owner, .beat] {
      let disk = try Labelled()
      var first = RecordCell(kind, on: disk.disk, label: disk.label)
      var second = RecordCell(kind, on: disk.disk, label: disk.label)
      for number in 1...5 as ClosedRange<UInt8> {
        try first.write([number, 7])
        #expect(try second.read() == [number, 7])
      }
      try second.write([6])
      // The first has not seen it: told to, it does not write the sequence number that the other has used.
      first.forget()
      try first.write([8])
      #expect(try second.read() == [8])
      let slots = (0...1).map { disk.file.read(4096, at: disk.place(kind, $0)) }
      #expect(try Record.newest(slots, kind: kind, disk: disk.label.disk).record.sequence == 7)
    }
  }

  @Test("A torn record leaves the one before; two damaged ones are told, not taken for none")
  func torn() throws {
    let disk = try Labelled()
    var cell = RecordCell(.owner, on: disk.disk, label: disk.label)
    try cell.write([1])
    try cell.write([2])
    disk.file.write([0xFF], at: disk.place(.owner, 1) + 48)
    #expect(try cell.read() == [1])
    disk.file.write([0xFF], at: disk.place(.owner, 0) + 48)
    #expect(throws: FenceFailure.failed(EBADMSG)) { try cell.read() }
    #expect(throws: FenceFailure.failed(EBADMSG)) { try cell.write([3]) }
  }

  @Test("A payload that does not fit is refused, and one of another disk is none")
  func odd() throws {
    let disk = try Labelled()
    var cell = RecordCell(.beat, on: disk.disk, label: disk.label)
    #expect(throws: FenceFailure.failed(EMSGSIZE)) { try cell.write([UInt8](repeating: 0, count: 4049)) }
    let foreign = Record(kind: .beat, sequence: 9, disk: UUID(bytes: [UInt8](repeating: 9, count: 16)), payload: [1])
    #expect(LabelStore.write(foreign, slot: 0, fd: disk.file.fd, diskBytes: disk.label.diskBytes) == 0)
    #expect(try cell.read() == nil)
  }

  @Test("Who owns a disk is known still after its area has moved")
  func moves() throws {
    let disk = try Labelled()
    var cell = RecordCell(.owner, on: disk.disk, label: disk.label)
    try cell.write([4, 2])
    #expect(ftruncate(disk.file.fd, off_t(40 << 20)) == 0)
    var grown = disk.label
    grown.diskBytes = 40 << 20
    #expect(LabelStore.move(disk.label, to: grown, fd: disk.file.fd) == 0)
    var moved = RecordCell(.owner, on: disk.disk, label: grown)
    #expect(try moved.read() == [4, 2])
    try moved.write([5])
    #expect(try moved.read() == [5])
    let records = try SharedDiskRecords.read(disk.disk)
    #expect(records.label == grown && records.owner == [5] && records.beat == nil)
  }

  @Test("Of a disk that has grown the label is found where it was until it has moved, by its nodes' changes too")
  func grown() throws {
    // The new end may lie within the old area, where other records are.
    for growth in [4096, 1 << 20, 4 << 20, 8 << 20, 40 << 20] {
      let disk = try Labelled()
      var cell = RecordCell(.owner, on: disk.disk, label: disk.label)
      try cell.write([4, 2])
      #expect(ftruncate(disk.file.fd, off_t(Self.bytes + growth)) == 0)
      #expect(throws: FenceFailure.self) { try SharedDiskRecords.read(disk.disk) }
      let label = try LabelStore.enroll(Self.node(1), on: disk.disk, as: disk.label)
      #expect(label.nodes == [Self.node(1)] && label.diskBytes == disk.label.diskBytes)
      let records = try SharedDiskRecords.read(disk.disk, former: disk.label)
      #expect(records.label == label && records.owner == [4, 2])
      var other = disk.label
      other.disk = UUID(bytes: [UInt8](repeating: 1, count: 16))
      #expect(throws: FenceFailure.self) { try SharedDiskRecords.read(disk.disk, former: other) }
      var moved = label
      moved.diskBytes = UInt64(Self.bytes + growth)
      #expect(LabelStore.move(label, to: moved, fd: disk.file.fd) == 0)
      #expect(try SharedDiskRecords.read(disk.disk, former: disk.label).label == moved)
    }
  }

  @Test("A node takes the label's free slot, once; a third is refused, and one that is forgotten makes room")
  func enrolls() throws {
    let disk = try Labelled(nodes: [Self.node(1)])
    let both = try LabelStore.enroll(Self.node(2, "second"), on: disk.disk, as: disk.label)
    #expect(both.nodes == [Self.node(1), Self.node(2, "second")])
    let found = LabelStore.readLabel(fd: disk.file.fd, diskBytes: disk.label.diskBytes)
    #expect(found == .label(both))
    let before = (0...1).map { disk.file.read(4096, at: disk.place(.label, $0)) }
    #expect(try LabelStore.enroll(Self.node(2, "second"), on: disk.disk, as: disk.label) == both)
    #expect((0...1).map { disk.file.read(4096, at: disk.place(.label, $0)) } == before, "nothing is written again")
    #expect(throws: FenceFailure.failed(ENOSPC)) {
      try LabelStore.enroll(Self.node(3), on: disk.disk, as: disk.label)
    }
    let one = try LabelStore.forget(Self.node(1).id, on: disk.disk, as: disk.label)
    #expect(one.nodes == [Self.node(2, "second")])
    let third = try LabelStore.enroll(Self.node(3), on: disk.disk, as: disk.label)
    #expect(third.nodes == [Self.node(2, "second"), Self.node(3)])
    #expect(third.pairKey == disk.label.pairKey && third.lun == disk.label.lun)
  }

  @Test("A label that was changed is changed in both copies: damage to one does not bring the old one back")
  func bothCopies() throws {
    for slot in 0...1 {
      let disk = try Labelled()
      let label = try LabelStore.enroll(Self.node(5), on: disk.disk, as: disk.label)
      disk.file.write([0xFF], at: disk.place(.label, slot) + 60)
      #expect(LabelStore.readLabel(fd: disk.file.fd, diskBytes: disk.label.diskBytes) == .label(label))
    }
  }

  @Test("A name that is too long is cut in the label, and the same name again changes nothing")
  func longName() throws {
    let disk = try Labelled()
    let long = Self.node(1, String(repeating: "n", count: 70))
    let label = try LabelStore.enroll(long, on: disk.disk, as: disk.label)
    #expect(label.nodes.first?.name == String(repeating: "n", count: 64))
    #expect(try LabelStore.enroll(long, on: disk.disk, as: disk.label) == label)
  }

  @Test("A disk that has no label, or has become another one, takes no node")
  func another() throws {
    let disk = try Labelled()
    var other = disk.label
    other.disk = UUID(bytes: [UInt8](repeating: 1, count: 16))
    #expect(throws: FenceFailure.failed(ENODATA)) {
      try LabelStore.enroll(Self.node(1), on: disk.disk, as: other)
    }
    let blank = try Disk.open(path: TemporaryFileKeeper.blank.path)
    #expect(throws: FenceFailure.failed(ENODATA)) {
      try LabelStore.enroll(Self.node(1), on: blank, as: disk.label)
    }
    #expect(throws: FenceFailure.failed(ENODATA)) { try SharedDiskRecords.read(blank) }
  }

  private enum TemporaryFileKeeper {
    static let blank = TemporaryFile(bytes: SharedRecordsTests.bytes)
  }

  @Test("A takeover reads label, reservations, owner and beat in one go, with the place of the next reservations")
  func readsAll() throws {
    let disk = try Labelled(nodes: [Self.node(1)])
    var empty = try SharedDiskRecords.read(disk.disk)
    #expect(empty.label == disk.label && empty.reservations == nil && empty.owner == nil && empty.beat == nil)
    #expect(empty.reservationsSequence == 1 && empty.reservationsSlot == 1, "the label came with an empty record")
    let record = Record(kind: .reservations, sequence: 2, disk: disk.label.disk, payload: [9, 9])
    #expect(LabelStore.write(record, slot: 1, fd: disk.file.fd, diskBytes: disk.label.diskBytes) == 0)
    var owner = RecordCell(.owner, on: disk.disk, label: disk.label)
    var beat = RecordCell(.beat, on: disk.disk, label: disk.label)
    try owner.write([1])
    try beat.write([2])
    let full = try SharedDiskRecords.read(disk.disk)
    #expect(full.reservations == [9, 9] && full.reservationsSequence == 2 && full.reservationsSlot == 0)
    #expect(full.owner == [1] && full.beat == [2])
    empty = try SharedDiskRecords.read(disk.disk, withReservations: false)
    #expect(empty.reservations == nil && empty.owner == [1])
  }

  @Test("A disk that may not be written says so")
  func readOnly() throws {
    let labelled = try Labelled()
    let disk = try Disk.open(path: labelled.file.path, writable: false)
    for kind in [LabelArea.Kind.owner, .beat] {
      var cell = RecordCell(kind, on: disk, label: labelled.label)
      #expect(throws: FenceFailure.failed(EBADF)) { try cell.write([1]) }
    }
  }
}
