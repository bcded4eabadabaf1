import Glibc
import TestSupport
import Testing
import Wire

@testable import Storage

@Suite("Labels that are not at the end of their disk")
struct LabelSearchTests {
  /// A labelled disk of `bytes` that has grown to `grown`; what it held before it had the label.
  private static func disk(_ bytes: Int, grown: Int) -> (file: TemporaryFile, label: Label) {
    let file = TemporaryFile(bytes: bytes)
    let label = exampleLabel(diskBytes: UInt64(bytes))
    #expect(LabelStore.initialize(label, fd: file.fd) == 0)
    #expect(ftruncate(file.fd, off_t(grown)) == 0)
    return (file, label)
  }

  @Test("No block of a label area is zero, nor becomes so by any later record")
  func noGap() {
    let (file, label) = Self.disk(17 << 20, grown: 17 << 20)
    let long = Record(
      kind: .reservations, sequence: 2, disk: label.disk, payload: [UInt8](repeating: 1, count: 60_000))
    #expect(LabelStore.write(long, slot: 1, fd: file.fd, diskBytes: label.diskBytes) == 0)
    let short = Record(kind: .reservations, sequence: 3, disk: label.disk, payload: [1])
    for slot in 0...1 { #expect(LabelStore.write(short, slot: slot, fd: file.fd, diskBytes: label.diskBytes) == 0) }
    let area = file.read(8 << 20, at: label.exportedBytes)
    for offset in stride(from: 0, to: area.count, by: 4096) {
      #expect(area[offset..<offset + 4096].contains { $0 != 0 }, "block at \(offset)")
    }
  }

  @Test("The label of a disk that grew is found, whatever size it had and has, by one read in 8 MiB")
  func everySize() {
    var random = SplitMix(seed: 17)
    let odd = (0..<12).map { _ in Int.random(in: (16 << 20)...(60 << 20), using: &random) }
    // Sizes for which the one place lies in the slots of labels, reservations, moves.
    let slots = [
      0, 4096, 8192, 16384, 20480, 1 << 20, (1 << 20) + 65536, (1 << 20) + 126_976, 2 << 20, (2 << 20) + 4096,
    ]
    for bytes in odd + slots.map({ (40 << 20) - $0 }) {
      let (file, label) = Self.disk(bytes, grown: bytes)
      for growth in [4096, 1 << 20, 8 << 20, 100 << 20, 3 << 30] {
        #expect(ftruncate(file.fd, off_t(bytes + growth)) == 0)
        let size = UInt64(bytes + growth)
        if case .label = LabelStore.readLabel(fd: file.fd, diskBytes: size) { Issue.record("\(bytes) + \(growth)") }
        #expect(LabelSearch.search(fd: file.fd, diskBytes: size) == .grown(label), "\(bytes) + \(growth)")
      }
    }
  }

  @Test("A disk with heads is searched near its end, at whole GiB and at known sizes; the reads are bounded")
  func rotational() {
    let end: UInt64 = 20 << 40
    let places = LabelSearch.Places(diskBytes: end, knownBytes: [5 << 39, 1], extent: .rotational)
    let required = places.prefix(places.required)
    #expect(places.first == LabelArea.start(diskBytes: 5 << 39) && required.count < 30_000)
    #expect(required.contains((7 << 40) - (8 << 20)) && required.contains(end - (63 << 30)))
    #expect(!required.contains(8 << 20) && places.contains(8 << 20))
    #expect(required.allSatisfy { $0 % 4096 == 0 && $0 < end })
    #expect(LabelSearch.Places(diskBytes: end, knownBytes: [], extent: .whole).required == Int(end >> 23))
    let (file, label) = Self.disk((1 << 30) + (3 << 20), grown: 4 << 30)
    let known = [label.diskBytes]
    for (seconds, knownBytes, finding) in [(0, [], nil), (0, known, .grown(label)), (60, [], .grown(label))]
      as [(Int, [UInt64], LabelSearch.Finding?)]
    {
      let extent = LabelSearch.Extent.atLeast(bytes: 1 << 30, seconds: seconds)
      #expect(
        LabelSearch.search(fd: file.fd, diskBytes: 4 << 30, knownBytes: knownBytes, extent: extent) == finding)
    }
  }

  @Test("What is left of an area whose label is damaged is told, and so is anything else that is not zero")
  func remains() {
    let (file, label) = Self.disk(40 << 20, grown: 100 << 20)
    for slot in 0...1 {
      let place = LabelArea.offset(of: .label, slot: slot, diskBytes: label.diskBytes)
      file.write([UInt8](repeating: 0, count: 16384), at: place + 60)
    }
    guard case .remains? = LabelSearch.search(fd: file.fd, diskBytes: 100 << 20) else {
      return #expect(Bool(false), "not found")
    }
    let blank = TemporaryFile(bytes: 100 << 20)
    #expect(LabelSearch.search(fd: blank.fd, diskBytes: 100 << 20) == nil)
    let other = TemporaryFile(bytes: 100 << 20)
    other.write([1], at: (16 << 20) + 100)
    #expect(LabelSearch.search(fd: other.fd, diskBytes: 100 << 20) == .data(at: 16 << 20))
    #expect(LabelSearch.search(fd: other.fd, diskBytes: 100 << 20, ignoresData: true) == nil)
    // What a crash left of this disk's own area is no reason against it.
    let own = TemporaryFile(bytes: 100 << 20)
    own.write(LabelBeacon(start: 92 << 20, disk: label.disk).encode(), at: 96 << 20)
    #expect(LabelSearch.search(fd: own.fd, diskBytes: 100 << 20) == nil)
  }

  @Test("A read that fails is no proof of anything")
  func unreadable() {
    let file = TemporaryFile(bytes: 20 << 20)
    // The disk is shorter than was said.
    guard case .unreadable? = LabelSearch.search(fd: file.fd, diskBytes: 100 << 20) else {
      return #expect(Bool(false), "taken for blank")
    }
  }
}

@Suite("Moving a label to the new end of its disk")
struct LabelMoveTests {
  private static let oldBytes = 40 << 20

  private static func grown(by growth: Int) -> (file: TemporaryFile, old: Label, new: Label) {
    let file = TemporaryFile(bytes: oldBytes)
    let old = exampleLabel(diskBytes: UInt64(oldBytes))
    #expect(LabelStore.initialize(old, fd: file.fd) == 0)
    let reservations = Record(kind: .reservations, sequence: 9, disk: old.disk, payload: [1, 2, 3])
    #expect(LabelStore.write(reservations, slot: 1, fd: file.fd, diskBytes: old.diskBytes) == 0)
    #expect(ftruncate(file.fd, off_t(oldBytes + growth)) == 0)
    var new = old
    new.diskBytes += UInt64(growth)
    return (file, old, new)
  }

  private static func reservations(_ file: TemporaryFile, _ label: Label) -> Record? {
    try? LabelStore.read(.reservations, fd: file.fd, diskBytes: label.diskBytes, disk: label.disk).record
  }

  @Test("It comes with its reservations, and the old place reads as zeroes", arguments: [1 << 20, 8 << 20, 60 << 20])
  func move(growth: Int) {
    let (file, old, new) = Self.grown(by: growth)
    #expect(LabelStore.move(old, to: new, fd: file.fd) == 0)
    #expect(LabelStore.readLabel(fd: file.fd, diskBytes: new.diskBytes) == .label(new))
    #expect(Self.reservations(file, new)?.payload == [1, 2, 3])
    let count = Int(min(8 << 20, new.exportedBytes - old.exportedBytes))
    #expect(file.read(count, at: old.exportedBytes) == [UInt8](repeating: 0, count: count))
    #expect(LabelSearch.search(fd: file.fd, diskBytes: new.diskBytes) == nil)
  }

  @Test("A crash before the old place was cleared is made good before the disk is exported, once", arguments: [1, 60])
  func crash(growth: Int) {
    let (file, old, new) = Self.grown(by: growth << 20)
    let clearing = LabelStore.Clearing(of: old, for: new)
    let reservations = Self.reservations(file, old)!
    #expect(LabelStore.initialize(new, carried: [reservations], clearing: clearing, fd: file.fd) == 0)
    // Here it crashes: initiators would see the old label, pair key and all.
    let key = file.read(Int(clearing.count), at: old.exportedBytes)
    #expect(key.contains { $0 != 0 })
    #expect(LabelStore.prepare(new, fd: file.fd) == 0)
    let count = Int(clearing.count)
    #expect(file.read(count, at: old.exportedBytes) == [UInt8](repeating: 0, count: count))
    #expect(Self.reservations(file, new)?.payload == [1, 2, 3])
    // From now on the place is the initiators'.
    file.write([7], at: old.exportedBytes)
    #expect(LabelStore.prepare(new, fd: file.fd) == 0)
    #expect(file.read(1, at: old.exportedBytes) == [7])
  }

  @Test("A crash before the area was filled is made good, without touching its records")
  func unfilled() {
    let (file, old, _) = Self.grown(by: 0)
    for gap in LabelBeacon.gaps {
      file.write([UInt8](repeating: 0, count: gap.count), at: old.exportedBytes + gap.lowerBound)
    }
    #expect(LabelStore.prepare(old, fd: file.fd) == 0)
    let area = file.read(8 << 20, at: old.exportedBytes)
    #expect(stride(from: 0, to: area.count, by: 4096).allSatisfy { area[$0..<$0 + 4096].contains { $0 != 0 } })
    #expect(Self.reservations(file, old)?.sequence == 9)
  }

  @Test("A record that asks for more than an area, or for a place outside the LUN, clears nothing")
  func wrongClearing() {
    let (file, old, _) = Self.grown(by: 0)
    let first = file.read(4096, at: old.exportedBytes)
    for (start, count) in [(old.exportedBytes, 4096), (0, 16 << 20), (1, 4096), (.max - 4095, 8192)]
      as [(UInt64, UInt64)]
    {
      let record = Record(
        kind: .move, sequence: 3, disk: old.disk,
        payload: LabelStore.Clearing(start: start, count: count).encode())
      #expect(LabelStore.write(record, slot: 0, fd: file.fd, diskBytes: old.diskBytes) == 0)
      #expect(LabelStore.prepare(old, fd: file.fd) == -EIO)
    }
    #expect(file.read(4096, at: old.exportedBytes) == first)
  }
}
