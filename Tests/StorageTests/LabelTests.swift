import Storage
import TestSupport
import Testing
import Wire

/// A label with everything in it.
func exampleLabel(diskBytes: UInt64, lun: UInt16 = 5, names: [String] = ["gateway-a"]) -> Label {
  Label(
    cluster: UUID(random: Array(0..<16)), disk: UUID(random: Array(16..<32)), lun: lun, nextLUN: lun + 1,
    diskBytes: diskBytes, blockBytes: 512, pairKey: Array(100..<132),
    nodes: names.enumerated().map { number, name in
      Label.Node(id: UUID(random: Array(repeating: UInt8(number), count: 16)), name: name)
    })
}

@Suite("Labels")
struct LabelTests {
  @Test("A label that is written reads as the same, with no, one and two nodes")
  func roundTrip() {
    for names in [[], ["a"], ["gateway-a", "gateway-b"], ["", String(repeating: "é", count: 32)]] {
      let label = exampleLabel(diskBytes: 1 << 40, names: names)
      #expect(Label(decoding: label.encode()) == label)
    }
  }

  @Test("A node's name that is too long is cut between characters, so that the label still reads")
  func longName() throws {
    for padding in 0..<4 {
      let name = String(repeating: "x", count: padding) + String(repeating: "日本", count: 20)
      let read = try #require(Label(decoding: exampleLabel(diskBytes: 1 << 30, names: [name]).encode()))
      #expect(name.hasPrefix(read.nodes[0].name) && read.nodes[0].name.utf8.count > 60)
    }
  }

  @Test("A label of any other length is refused, and so is every field out of range")
  func refused() {
    let good = exampleLabel(diskBytes: 1 << 30).encode()
    for count in 0..<good.count { #expect(Label(decoding: Array(good[..<count])) == nil, "\(count) bytes") }
    #expect(Label(decoding: good + [0]) == nil)
    let changes: [(String, (inout [UInt8]) -> Void)] = [
      ("LUN above 16383", { $0.store(be: UInt16(16384), at: 32) }),
      ("next LUN above 16384", { $0.store(be: UInt16(16385), at: 34) }),
      ("disk too small", { $0.store(be: LabelArea.diskBytesMin - 1, at: 36) }),
      ("disk too large", { $0.store(be: UInt64(1) << 63, at: 36) }),
      ("blocks of no size", { $0.store(be: UInt32(0), at: 44) }),
      ("blocks of 520 bytes", { $0.store(be: UInt32(520), at: 44) }),
      ("three nodes", { $0.store(be: UInt16(3), at: 80) }),
      ("no node, but bytes of one", { $0.store(be: UInt16(0), at: 80) }),
      ("a name longer than its field", { $0.store(be: UInt16(65), at: 98) }),
      ("a name that is not UTF-8", { $0[100] = 0xFF }),
    ]
    for (name, change) in changes {
      var bytes = good
      change(&bytes)
      #expect(Label(decoding: bytes) == nil, "\(name)")
    }
  }

  @Test("What initiators see and the label area never overlap, and the area ends on the disk", arguments: [512, 4096])
  func arithmetic(unit: UInt64) {
    var random = SplitMix(seed: unit)
    var sizes: [UInt64] = [LabelArea.diskBytesMin, LabelArea.diskBytesMin + unit, (1 << 63) - 4096, 3 << 40]
    for _ in 0..<500 { sizes.append((LabelArea.diskBytesMin + random.next() % (1 << 50)) / unit * unit + unit) }
    for bytes in sizes {
      let start = LabelArea.start(diskBytes: bytes)
      #expect(start % LabelArea.alignment == 0 && start + LabelArea.byteCount <= bytes)
      #expect(bytes - start - LabelArea.byteCount < LabelArea.alignment)
      var places: [Range<UInt64>] = []
      for kind in LabelArea.Kind.allCases {
        for slot in 0...1 {
          let offset = LabelArea.offset(of: kind, slot: slot, diskBytes: bytes)
          let place = offset..<offset + kind.slotBytes
          #expect(offset % LabelArea.alignment == 0 && place.lowerBound >= start && place.upperBound <= bytes)
          #expect(!places.contains { $0.overlaps(place) })
          places.append(place)
        }
      }
      #expect(exampleLabel(diskBytes: bytes).exportedBytes == start)
    }
  }

  @Test("A UUID is read in both forms and told in one, and nothing else is a UUID (RFC 9562)")
  func uuid() {
    let id = UUID(bytes: Array(0xF0...0xFF))
    #expect(id.description == "f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff")
    #expect(UUID(id.description) == id && UUID("F0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF") == id)
    for text in [
      "", "f0", "f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfef", "f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeffa",
      "g0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", "+0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", String(repeating: "é", count: 16),
      "f0f1f2f3-f4f5-f6f7-f8f9fafbfcfdfeff--",
    ] { #expect(UUID(text) == nil, "\(text)") }
    let version4 = UUID(random: [UInt8](repeating: 0xFF, count: 16))
    #expect(version4.bytes[6] >> 4 == 4 && version4.bytes[8] >> 6 == 2)
  }
}
