import TestSupport
import Testing
import Wire

@Suite("Big-endian loads and stores")
struct BigEndianTests {
  private static let bytes: [UInt8] = [0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF, 0xFE, 0xDC]

  @Test("A load takes the bytes from the highest to the lowest, at any offset up to the last that fits")
  func span() {
    let span = Self.bytes.span.bytes
    #expect(span.byte(0) == 0x01 && span.byte(9) == 0xDC)
    #expect(span.be16(0) == 0x0123 && span.be16(8) == 0xFEDC)
    #expect(span.be24(0) == 0x012345 && span.be24(7) == 0xEF_FEDC)
    #expect(span.be32(1) == 0x2345_6789 && span.be32(6) == 0xCDEF_FEDC)
    #expect(span.be64(0) == 0x0123_4567_89AB_CDEF && span.be64(2) == 0x4567_89AB_CDEF_FEDC)
  }

  @Test("The pointer forms read the same as the checked ones")
  func pointers() {
    let span = Self.bytes.span.bytes
    Self.bytes.withUnsafeBytes { memory in
      for offset in 0...2 {
        #expect(memory.baseAddress!.be16(offset) == span.be16(offset))
        #expect(memory.baseAddress!.be32(offset) == span.be32(offset))
        #expect(memory.baseAddress!.be64(offset) == span.be64(offset))
      }
    }
  }

  @Test("What is stored is what is loaded, and nothing beside it changes")
  func stores() {
    var memory = [UInt8](repeating: 0xEE, count: 24)
    memory.withUnsafeMutableBytes {
      $0.baseAddress!.store(be32: 0x0102_0304, at: 3)
      $0.baseAddress!.store(be64: 0x1122_3344_5566_7788, at: 11)
    }
    #expect(memory[0..<3] == [0xEE, 0xEE, 0xEE] && memory[7..<11] == [0xEE, 0xEE, 0xEE, 0xEE])
    #expect(memory[19..<24].allSatisfy { $0 == 0xEE })
    #expect(memory.span.bytes.be32(3) == 0x0102_0304 && memory.span.bytes.be64(11) == 0x1122_3344_5566_7788)
  }

  @Test("Appending and storing in an array write the same bytes for every width")
  func arrays() {
    var random = SplitMix(seed: 4)
    for _ in 0..<200 {
      let value = random.next()
      var appended: [UInt8] = []
      appended.append(be: UInt8(truncatingIfNeeded: value))
      appended.append(be: UInt16(truncatingIfNeeded: value))
      appended.append(be: UInt32(truncatingIfNeeded: value))
      appended.append(be: value)
      var stored = [UInt8](repeating: 0, count: 15)
      stored.store(be: UInt8(truncatingIfNeeded: value), at: 0)
      stored.store(be: UInt16(truncatingIfNeeded: value), at: 1)
      stored.store(be: UInt32(truncatingIfNeeded: value), at: 3)
      stored.store(be: value, at: 7)
      #expect(appended == stored)
      let span = stored.span.bytes
      #expect(span.byte(0) == UInt8(truncatingIfNeeded: value) && span.be16(1) == UInt16(truncatingIfNeeded: value))
      #expect(span.be32(3) == UInt32(truncatingIfNeeded: value) && span.be64(7) == value)
    }
  }

  @Test("Text is padded to its field, or cut to it")
  func text() {
    var bytes: [UInt8] = []
    bytes.append(text: "AB", paddedTo: 4)
    bytes.append(text: "ABCDEF", paddedTo: 4)
    bytes.append(text: "", paddedTo: 2, with: 0)
    #expect(bytes == [0x41, 0x42, 0x20, 0x20, 0x41, 0x42, 0x43, 0x44, 0, 0])
  }

  @Test("A load that begins inside but ends outside traps, as does one before the start")
  func outside() async {
    await #expect(processExitsWith: .failure) { _ = [UInt8](repeating: 0, count: 4).span.bytes.be32(1) }
    await #expect(processExitsWith: .failure) { _ = [UInt8](repeating: 0, count: 8).span.bytes.be64(1) }
    await #expect(processExitsWith: .failure) { _ = [UInt8](repeating: 0, count: 4).span.bytes.be16(-1) }
    await #expect(processExitsWith: .failure) { _ = [UInt8](repeating: 0, count: 4).span.bytes.be16(.max) }
  }
}
