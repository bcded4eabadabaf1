import CChecksum
import FoundationEssentials
import Glibc
import TestSupport
import Testing
import Wire

@Suite("CRC32C (RFC 7143 §13.1)")
struct CRC32CTests {
  /// The examples of RFC 3720 §B.4, RFC 7143 §A.4: bytes, and the digest in the order in which it travels.
  private static let examples: [(name: String, bytes: [UInt8], digest: [UInt8])] = [
    ("32 bytes of zeroes", [UInt8](repeating: 0, count: 32), [0xAA, 0x36, 0x91, 0x8A]),
    ("32 bytes of ones", [UInt8](repeating: 0xFF, count: 32), [0x43, 0xAB, 0xA8, 0x62]),
    ("32 bytes of incrementing 00..1f", Array(0...31), [0x4E, 0x79, 0xDD, 0x46]),
    ("32 bytes of decrementing 1f..00", (0...31).reversed(), [0x5C, 0xDB, 0x3F, 0x11]),
    (
      "an iSCSI SCSI Read (10) Command PDU",
      [
        0x01, 0xC0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x18,
        0x28, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
      ], [0x56, 0x3A, 0x96, 0xD9]
    ),
  ]

  @Test("The examples of the standard have the standard's digests (RFC 7143 §A.4)", arguments: 0..<examples.count)
  func standard(number: Int) {
    let example = Self.examples[number]
    let crc = CRC32C.of(example.bytes)
    let wire = withUnsafeBytes(of: crc.littleEndian) { Array($0) }
    #expect(wire == example.digest, "\(example.name)")
    let portable = example.bytes.withUnsafeBytes { checksum_crc32c_portable(0, $0.baseAddress, $0.count) }
    #expect(portable == crc, "\(example.name)")
  }

  @Test("Nothing has the digest 0, and continuing with nothing changes nothing")
  func nothing() {
    #expect(CRC32C.of([]) == 0)
    #expect(CRC32C.of([], continuing: 0x1234_5678) == 0x1234_5678)
    #expect(checksum_crc32c_portable(0x1234_5678, nil, 0) == 0x1234_5678)
  }

  /// Every way to compute it that this machine can run, the portable one first.
  private static var forms: UnsafeBufferPointer<checksum_form> {
    var count = 0
    let first = checksum_forms(&count)
    return UnsafeBufferPointer(start: first, count: count)
  }

  private static func name(_ form: checksum_form) -> String { String(cString: form.name) }

  /// Random bytes at an address that is a multiple of 64.
  private static func memory(_ count: Int, seed: UInt64) -> UnsafeMutableRawPointer {
    var random = SplitMix(seed: seed)
    let memory = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 64)
    for i in 0..<count {
      memory.storeBytes(of: UInt8(truncatingIfNeeded: random.next()), toByteOffset: i, as: UInt8.self)
    }
    return memory
  }

  @Test("A processor with the instructions for them has the fast forms, and the last one is in use")
  func formsAreThere() throws {
    #expect(Self.name(Self.forms[0]) == "portable")
    #if os(Linux) && arch(x86_64)
      let text = try String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)
      let flags = Set(text.split(separator: "\n").first { $0.hasPrefix("flags") }?.split(separator: " ") ?? [])
      var expected = ["portable"]
      if flags.contains("sse4_2") {
        expected.append("three streams")
        if flags.isSuperset(of: ["pclmulqdq", "vpclmulqdq", "avx2"]) { expected.append("folding, AVX2") }
        if flags.isSuperset(of: ["pclmulqdq", "vpclmulqdq", "avx512f", "avx512vl"]) {
          expected.append("folding, AVX-512")
        }
      }
      #expect(Self.forms.map(Self.name) == expected)
    #endif
  }

  @Test("Every form agrees with the tables for every length up to 1024 at every alignment, and copies what it reads")
  func everyLength() {
    let source = Self.memory(1024 + 128, seed: 4)
    let target = UnsafeMutableRawPointer.allocate(byteCount: 1024 + 128, alignment: 64)
    defer {
      source.deallocate()
      target.deallocate()
    }
    for form in Self.forms.dropFirst() {
      for count in 0...1024 {
        for start in count % 7 == 0 ? Array(0..<64) : [0, count & 63] {
          let crc = UInt32(truncatingIfNeeded: count &* 0x9E37_79B9)
          let expected = checksum_crc32c_portable(crc, source + start, count)
          let place = target + 1 + (start &* 13 & 31)
          memset(target, 0xA5, 1024 + 128)
          guard form.crc(crc, source + start, count) == expected,
            form.copy(crc, place, source + start, count) == expected,
            memcmp(place, source + start, count) == 0,
            (place - 1).load(as: UInt8.self) == 0xA5, (place + count).load(as: UInt8.self) == 0xA5
          else {
            Issue.record("\(Self.name(form)): \(count) bytes at \(start)")
            return
          }
        }
      }
    }
  }

  @Test("Every form agrees with the tables for long runs, and for their parts wherever they are cut")
  func longRuns() {
    var random = SplitMix(seed: 5)
    let room = 1 << 20
    let source = Self.memory(room, seed: 6)
    let target = UnsafeMutableRawPointer.allocate(byteCount: room, alignment: 64)
    defer {
      source.deallocate()
      target.deallocate()
    }
    for _ in 0..<12 {
      let start = Int(random.next() % 200)
      let count = Int(random.next() % UInt64(room - 200))
      let expected = checksum_crc32c_portable(1, source + start, count)
      for form in Self.forms {
        #expect(form.crc(1, source + start, count) == expected, "\(Self.name(form)): \(count) bytes at \(start)")
        memset(target, 0, room)
        var crc: UInt32 = 1
        var done = 0
        while done < count {
          let part = min(1 + Int(random.next() % 100_000), count - done)
          crc = form.copy(crc, target + done, source + start + done, part)
          done += part
        }
        #expect(crc == expected && memcmp(target, source + start, count) == 0, "\(Self.name(form))")
      }
    }
  }

  @Test("What is in use agrees with the tables for every length from 0 to 40000, at any alignment")
  func hardwareIsPortable() {
    var random = SplitMix(seed: 1)
    let memory = Self.memory(40000 + 64, seed: 1)
    defer { memory.deallocate() }
    // The tables' digest of a long run grows byte by byte, so that every length costs one step, not one pass.
    for start in [0, 1, 7, 8, 63] {
      var expected = UInt32(truncatingIfNeeded: random.next())
      let origin = expected
      for count in 0...40000 {
        // Each length at one of the starts; near the seams of the three streams (8 KiB, 256 bytes) at all of them.
        if count % 5 == [0, 1, 7, 8, 63].firstIndex(of: start)! || count % 768 < 9 || count % 24576 < 9 {
          for form in Self.forms.dropFirst() {
            let found = form.crc(origin, memory + start, count)
            if found != expected {
              Issue.record("\(Self.name(form)): \(count) bytes at \(start) continuing from \(origin)")
              return
            }
          }
        }
        expected = checksum_crc32c_portable(expected, memory + start + count, 1)
      }
    }
  }

  @Test("The tables' digest of eight bytes at once is that of each byte by itself")
  func tablesByByte() {
    var random = SplitMix(seed: 2)
    let bytes = (0..<4096).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    bytes.withUnsafeBytes { memory in
      var single: UInt32 = 0
      for (count, _) in bytes.enumerated() {
        #expect(checksum_crc32c_portable(0, memory.baseAddress, count) == single)
        single = checksum_crc32c_portable(single, memory.baseAddress! + count, 1)
      }
    }
  }

  @Test("The digest of a whole is that of its parts continued, wherever it is cut")
  func continuation() {
    var random = SplitMix(seed: 3)
    let bytes = (0..<30000).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    bytes.withUnsafeBytes { memory in
      let whole = CRC32C.of(memory.baseAddress!, count: memory.count)
      for _ in 0..<500 {
        var crc: UInt32 = 0
        var done = 0
        while done < memory.count {
          let part = min(Int(random.next() % 20000), memory.count - done)
          crc = CRC32C.of(memory.baseAddress! + done, count: part, continuing: crc)
          done += part
        }
        #expect(crc == whole)
      }
    }
  }

  @Test("A flipped bit changes the digest, wherever it is")
  func flips() {
    var bytes = [UInt8](repeating: 0x5A, count: 1000)
    let whole = CRC32C.of(bytes)
    for bit in 0..<bytes.count * 8 {
      bytes[bit / 8] ^= 1 << UInt8(bit % 8)
      #expect(CRC32C.of(bytes) != whole)
      bytes[bit / 8] ^= 1 << UInt8(bit % 8)
    }
  }
}
