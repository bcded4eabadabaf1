import Glibc
import Storage
import Testing
import Wire

@Suite("Labels on disks")
struct LabelStoreTests {
  private static let bytes = 17 << 20

  private static func labelled() -> (file: TemporaryFile, label: Label) {
    let file = TemporaryFile(bytes: bytes)
    let label = exampleLabel(diskBytes: UInt64(bytes))
    #expect(LabelStore.initialize(label, fd: file.fd) == 0)
    return (file, label)
  }

  private static func found(_ file: TemporaryFile, diskBytes: Int = bytes) -> LabelFinding {
    LabelStore.readLabel(fd: file.fd, diskBytes: UInt64(diskBytes))
  }

  @Test("A blank disk has no label; one that is too small has none either, and is not read")
  func blank() {
    #expect(Self.found(TemporaryFile(bytes: Self.bytes)) == .none)
    #expect(Self.found(TemporaryFile(bytes: 4096), diskBytes: 4096) == .none)
  }

  @Test("A label that was written is found, and gone once it is erased")
  func initializeAndErase() {
    let (file, label) = Self.labelled()
    #expect(Self.found(file) == .label(label))
    #expect(LabelStore.isOurs(fd: file.fd, diskBytes: UInt64(Self.bytes)))
    #expect(LabelStore.erase(fd: file.fd, diskBytes: UInt64(Self.bytes)) == 0)
    #expect(Self.found(file) == .none)
  }

  @Test("A new label clears the reservations of whoever had the disk before")
  func clearsReservations() throws {
    let (file, label) = Self.labelled()
    let old = Record(kind: .reservations, sequence: 40, disk: label.disk, payload: [1, 2, 3])
    for slot in 0...1 {
      #expect(LabelStore.write(old, slot: slot, fd: file.fd, diskBytes: label.diskBytes) == 0)
    }
    #expect(LabelStore.initialize(label, fd: file.fd) == 0)
    let (record, nextSlot) = try LabelStore.read(
      .reservations, fd: file.fd, diskBytes: label.diskBytes, disk: label.disk)
    #expect(record.payload.isEmpty && record.sequence == 1 && nextSlot == 1)
  }

  @Test("Nothing outside the label area is written by a label")
  func keepsToItsArea() {
    let file = TemporaryFile(bytes: Self.bytes + 1536)
    let label = exampleLabel(diskBytes: UInt64(Self.bytes + 1536))
    let start = Int(LabelArea.start(diskBytes: label.diskBytes))
    file.write([UInt8](repeating: 0xAB, count: Self.bytes + 1536), at: 0)
    #expect(LabelStore.initialize(label, fd: file.fd) == 0)
    #expect(file.read(start, at: 0).allSatisfy { $0 == 0xAB })
    #expect(Self.found(file, diskBytes: Self.bytes + 1536) == .label(label))
  }

  @Test("Either copy of the label is enough; with both damaged the disk is unreadable, not blank")
  func copies() {
    let (file, label) = Self.labelled()
    let places = (0...1).map { LabelArea.offset(of: .label, slot: $0, diskBytes: label.diskBytes) }
    for place in places {
      let before = file.read(4096, at: place)
      file.write([0xFF], at: place + 60)
      #expect(Self.found(file) == .label(label))
      file.write(before, at: place)
    }
    for place in places { file.write([0xFF], at: place + 60) }
    #expect(Self.found(file) == .unreadable("its label is damaged in both copies"))
  }

  @Test("A label of a version that is not known is unreadable, not blank")
  func newer() {
    let (file, label) = Self.labelled()
    for slot in 0...1 {
      file.write([0, 9], at: LabelArea.offset(of: .label, slot: slot, diskBytes: label.diskBytes) + 8)
    }
    guard case .unreadable(let reason, isNewer: true) = Self.found(file) else { return #expect(Bool(false), "read") }
    #expect(reason.contains("written by a newer gatewayd") && reason.contains("version 9"))
  }

  @Test("A label that was copied to a disk of another size is not this disk's")
  func anotherSize() {
    let (file, label) = Self.labelled()
    let larger = TemporaryFile(bytes: 32 << 20)
    let record = file.read(16384, at: LabelArea.offset(of: .label, slot: 1, diskBytes: label.diskBytes))
    larger.write(record, at: LabelArea.offset(of: .label, slot: 1, diskBytes: 32 << 20))
    guard case .unreadable = Self.found(larger, diskBytes: 32 << 20) else { return #expect(Bool(false), "read") }
  }

  @Test("A valid record whose payload is no label is damage")
  func noLabel() {
    let (file, label) = Self.labelled()
    for slot in 0...1 {
      let record = Record(kind: .label, sequence: 9, disk: label.disk, payload: [1, 2, 3])
      #expect(LabelStore.write(record, slot: slot, fd: file.fd, diskBytes: label.diskBytes) == 0)
    }
    #expect(Self.found(file) == .unreadable("its label is damaged in both copies"))
  }

  @Test("Reservation records alternate between their slots and the newest is read, after any number of them")
  func alternate() throws {
    let (file, label) = Self.labelled()
    var slot = 0
    for sequence in 1...5 as ClosedRange<UInt64> {
      let record = Record(
        kind: .reservations, sequence: sequence, disk: label.disk,
        payload: [UInt8](repeating: UInt8(sequence), count: 9000))
      #expect(LabelStore.write(record, slot: slot, fd: file.fd, diskBytes: label.diskBytes) == 0)
      let found = try LabelStore.read(.reservations, fd: file.fd, diskBytes: label.diskBytes, disk: label.disk)
      #expect(found.record == record && found.nextSlot == 1 - slot)
      slot = found.nextSlot
    }
  }

  @Test("Zeroing takes exactly the bytes it is told, of any length")
  func zero() {
    for count in [0, 4096, 1 << 20, (1 << 20) + 4096, 3 << 20] {
      let file = TemporaryFile(bytes: 5 << 20)
      file.write([UInt8](repeating: 7, count: 5 << 20), at: 0)
      #expect(LabelStore.zero(fd: file.fd, offset: 8192, count: UInt64(count)) == 0)
      let bytes = file.read(5 << 20, at: 0)
      #expect(bytes[..<8192].allSatisfy { $0 == 7 } && bytes[(8192 + count)...].allSatisfy { $0 == 7 })
      #expect(bytes[8192..<8192 + count].allSatisfy { $0 == 0 })
    }
  }

  @Test("A disk that cannot be written says so")
  func readOnly() {
    let file = TemporaryFile(bytes: Self.bytes)
    let fd = open(file.path, O_RDONLY)
    defer { close(fd) }
    #expect(LabelStore.initialize(exampleLabel(diskBytes: UInt64(Self.bytes)), fd: fd) == -EBADF)
  }
}
