import TestSupport
import Testing
import Wire

@testable import HA

struct CodecTests {
  private let key = [UInt8](repeating: 0x5A, count: 32)

  private func beat(name: String = "node-a", disks: Int = 3) -> Heartbeat {
    Heartbeat(
      cluster: UUID(bytes: Array(1...16)), node: UUID(bytes: Array(17...32)), bootID: 0x0102_0304_0506_0708,
      sequence: 77, role: .active, epoch: Epoch(5), name: name, heardBoot: 9, heardSequence: 10, oldestIO: 11,
      flags: [.reachable, .held], disks: (0..<disks).map { UUID(bytes: [UInt8](repeating: UInt8($0), count: 16)) })
  }

  private func fault(_ bytes: [UInt8], key: [UInt8]) -> HeartbeatFault? {
    do throws(HeartbeatFault) {
      _ = try HeartbeatCodec.decode(bytes, key: key)
      return nil
    } catch {
      return error
    }
  }

  @Test func heartbeatsComeBack() throws {
    for disks in [0, 1, 60] {
      let sent = beat(disks: disks)
      let bytes = HeartbeatCodec.encode(sent, key: key)
      #expect(bytes.count <= 1232)
      #expect(try HeartbeatCodec.decode(bytes, key: key) == sent)
    }
  }

  @Test("What does not fit is cut: names between characters, disks at the sixtieth")
  func cut() throws {
    let bytes = HeartbeatCodec.encode(beat(name: String(repeating: "ä", count: 40), disks: 70), key: key)
    #expect(bytes.count <= HeartbeatCodec.byteCountMax && HeartbeatCodec.byteCountMax <= 1232)
    let read = try HeartbeatCodec.decode(bytes, key: key)
    #expect(read.name == String(repeating: "ä", count: 32))
    #expect(read.disks.count == 60)
    let odd = HeartbeatCodec.encode(beat(name: "a" + String(repeating: "ä", count: 40)), key: key)
    #expect(try HeartbeatCodec.decode(odd, key: key).name == "a" + String(repeating: "ä", count: 31))
  }

  @Test("Every bit of a message is covered by its authenticator")
  func everyBitCounts() {
    let bytes = HeartbeatCodec.encode(beat(disks: 1), key: key)
    for bit in 0..<bytes.count * 8 {
      var changed = bytes
      changed[bit / 8] ^= 1 << UInt8(bit % 8)
      #expect(fault(changed, key: key) != nil)
    }
  }

  @Test func anotherKeyIsNotAuthentic() {
    let bytes = HeartbeatCodec.encode(beat(), key: key)
    #expect(fault(bytes, key: [UInt8](repeating: 0x5B, count: 32)) == .notAuthentic)
  }

  @Test("The authenticator is HMAC-SHA-256, cut to 16 bytes (RFC 4231 §4.3, test case 2)")
  func authenticator() {
    let data = Array("what do ya want for nothing?".utf8)
    let digest: [UInt8] = [
      0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a, 0x04, 0x24, 0x26, 0x08, 0x95, 0x75, 0xc7,
    ]
    #expect(HeartbeatCodec.authenticator(data, count: data.count, key: Array("Jefe".utf8)) == digest)
  }

  @Test func foreignAndShortMessagesAreRefused() {
    let bytes = HeartbeatCodec.encode(beat(), key: key)
    for count in 0..<bytes.count { #expect(fault(Array(bytes[..<count]), key: key) != nil) }
    #expect(fault([UInt8](repeating: 0, count: 500), key: key) == .foreign)
    var newer = bytes
    newer[4] = 2
    #expect(fault(newer, key: key) == .unknownVersion)
    #expect(fault(bytes + [UInt8](repeating: 0, count: 2000), key: key) == .malformed)
  }

  @Test func anyBytesAreRead() {
    var random = SplitMix(seed: 1)
    for _ in 0..<2000 {
      var bytes = random.bytes(Int.random(in: 0..<300, using: &random))
      if bytes.count > 5, random.chance(50) { bytes.replaceSubrange(0..<5, with: [0x67, 0x77, 0x48, 0x42, 1]) }
      #expect(fault(bytes, key: key) != nil)
      if let record = OwnerRecord(decoding: bytes) { #expect(record.encode() == bytes) }
      if let beat = DiskBeat(decoding: bytes) { #expect(beat.encode() == bytes) }
    }
  }

  @Test func recordsComeBack() {
    let node = UUID(bytes: Array(1...16))
    for count in 0...3 {
      let arbiters = (0..<count).map { UUID(bytes: [UInt8](repeating: UInt8($0), count: 16)) }
      let record = OwnerRecord(epoch: Epoch(7), node: node, bootID: 8, arbiters: arbiters)
      #expect(OwnerRecord(decoding: record.encode()) == record)
      #expect(OwnerRecord(decoding: record.encode() + [0]) == nil)
    }
    for offers in [true, false] {
      let beat = DiskBeat(epoch: Epoch(7), node: node, bootID: 8, sequence: 9, offersHandover: offers)
      #expect(DiskBeat(decoding: beat.encode()) == beat)
      #expect(DiskBeat(decoding: []) == nil)
    }
  }
}
