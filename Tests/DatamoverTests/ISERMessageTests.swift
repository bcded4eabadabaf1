import ISCSI
import Testing
import Wire

@testable import Datamover

@Suite("iSER messages (RFC 7145 §9)")
struct ISERMessageTests {
  private static func message(_ bytes: [UInt8], count: Int? = nil, limit: Int = 8192) throws(ISERFault) -> ISERMessage {
    // Room for the headers, whatever came: what was there before is not looked at.
    let room = UnsafeMutableRawPointer.allocate(byteCount: 76, alignment: 8)
    defer { room.deallocate() }
    for index in 0..<76 {
      room.storeBytes(of: index < bytes.count ? bytes[index] : 0xEE, toByteOffset: index, as: UInt8.self)
    }
    return try ISERMessage(at: room, byteCount: count ?? bytes.count, dataSegmentLengthMax: limit)
  }

  private static func fault(_ bytes: [UInt8], count: Int? = nil, limit: Int = 8192) -> ISERFault? {
    do throws(ISERFault) {
      _ = try message(bytes, count: count, limit: limit)
      return nil
    } catch {
      return error
    }
  }

  @Test("A control-type message tells the steering tags and addresses as far as their flags are set (§9.2)")
  func control() throws {
    let header = command(7, flags: 0xE0, expected: 512)
    let bytes = controlMessage(
      header, read: (0x1122_3344, 0x0102_0304_0506_0708), write: (0x5566_7788, 0x0A0B_0C0D_0E0F_1011))
    #expect(bytes[0] == 0x1C && bytes.count == 76)
    guard case .control(let found, let advertised) = try Self.message(bytes) else {
      return #expect(Bool(false), "not a control message")
    }
    #expect(found == header && advertised.hasRead && advertised.hasWrite)
    #expect(advertised.readSTag == 0x1122_3344 && advertised.readVA == 0x0102_0304_0506_0708)
    #expect(advertised.writeSTag == 0x5566_7788 && advertised.writeVA == 0x0A0B_0C0D_0E0F_1011)
    // 0 is a tag like any other; without the flag there is none.
    guard case .control(_, let zero) = try Self.message(controlMessage(header, read: (0, 0), write: (0, 0))),
      case .control(_, let none) = try Self.message(controlMessage(command(7)))
    else { return #expect(Bool(false), "not a control message") }
    #expect(zero.hasRead && zero.hasWrite && !none.hasRead && !none.hasWrite)
  }

  @Test("What is shorter than its headers or its data segment is truncated", arguments: [0, 1, 27, 28, 75])
  func truncated(count: Int) {
    #expect(Self.fault(Array(controlMessage(command(1)).prefix(count))) == .truncated(count))
  }

  @Test("The data segment and additional headers that a header names have come with it")
  func segments() {
    var header = BasicHeaderSegment(.nopOut, flags: 0x80, initiatorTaskTag: 1)
    let bytes = controlMessage(header, data: [UInt8](repeating: 1, count: 100))
    #expect(Self.fault(bytes) == nil && Self.fault(bytes, count: 175) == .truncated(175))
    // Padding does no harm.
    #expect(Self.fault(bytes, count: 180) == nil)
    header.word1 = 2 << 24 | 100
    var additional = bytes
    additional.replaceSubrange(28..<76, with: header.bytes)
    #expect(Self.fault(additional, count: 183) == .truncated(183) && Self.fault(additional, count: 184) == nil)
  }

  @Test("A write of headers alone that names immediate data has all of it in its buffer, as libiscsi 1.19 sends it")
  func dataLeftBehind() throws {
    var header = command(7, flags: 0xA0, expected: 1024)
    header.dataSegmentLength = 1024
    let bytes = controlMessage(header, write: (5, 0x1000)).prefix(28) + header.bytes
    guard case .control(let found, let advertised) = try Self.message(Array(bytes)) else {
      return #expect(Bool(false), "not a control message")
    }
    #expect(found.dataSegmentLength == 0 && found.expectedDataTransferLength == 1024 && advertised.writeVA == 0x1000)
    // With a part of the data, without a buffer, or of another command it is cut short all the same.
    #expect(Self.fault(Array(bytes), count: 80) == .truncated(80))
    let without = controlMessage(command(7)).prefix(28) + header.bytes
    #expect(Self.fault(Array(without)) == .truncated(76))
    var ping = BasicHeaderSegment(.nopOut, flags: 0xA0, initiatorTaskTag: 1)
    ping.dataSegmentLength = 8
    #expect(Self.fault(Array(bytes.prefix(28) + ping.bytes)) == .truncated(76))
  }

  @Test("A data segment is no longer than was negotiated")
  func tooLong() {
    let bytes = controlMessage(
      BasicHeaderSegment(.nopOut, flags: 0x80, initiatorTaskTag: 1), data: [UInt8](repeating: 1, count: 600))
    #expect(Self.fault(bytes, limit: 600) == nil && Self.fault(bytes, limit: 599) == .dataSegmentTooLong(600))
    var header = command(1)
    header.dataSegmentLength = 0xFF_FFFF
    var longest = controlMessage(command(1))
    longest.replaceSubrange(28..<76, with: header.bytes)
    #expect(Self.fault(longest) == .dataSegmentTooLong(0xFF_FFFF))
  }

  @Test("Only control-type, Hello and, from a target, HelloReply exist (§9.1)", arguments: 0...15 as ClosedRange<UInt8>)
  func kinds(nibble: UInt8) {
    var bytes = controlMessage(command(1))
    bytes[0] = nibble << 4
    #expect(Self.fault(bytes) == (nibble == 1 || nibble == 2 ? nil : .unknownMessage(nibble)))
  }

  @Test("Data-Out is refused: InitialR2T=Yes leaves it no room")
  func dataOut() {
    let bytes = controlMessage(
      BasicHeaderSegment(.dataOut, flags: 0x80, initiatorTaskTag: 1), data: [UInt8](repeating: 0, count: 512))
    #expect(Self.fault(bytes) == .unsolicitedDataOut)
  }

  @Test("A command that moves data that is not with it names a buffer that holds it (§7.3.1)")
  func buffers() {
    typealias Place = (key: UInt32, address: UInt64)
    func fault(
      _ flags: UInt8, _ expected: Int, data: Int = 0, read: Place? = nil, write: Place? = nil
    ) -> ISERFault? {
      Self.fault(
        controlMessage(
          command(1, flags: flags, expected: expected), data: [UInt8](repeating: 0, count: data), read: read,
          write: write))
    }
    let here: Place = (1, 0x1000)
    // Reads.
    #expect(fault(0xC0, 512) == .noBuffer && fault(0xC0, 512, write: here) == .noBuffer)
    #expect(fault(0xC0, 512, read: here) == nil && fault(0xC0, 0) == nil)
    #expect(fault(0xC0, 512, read: (1, .max - 511)) == .noBuffer && fault(0xC0, 512, read: (1, .max - 512)) == nil)
    // Writes: only what is not with the command.
    #expect(fault(0xA0, 512) == .noBuffer && fault(0xA0, 512, read: here) == .noBuffer)
    #expect(fault(0xA0, 512, write: here) == nil && fault(0xA0, 512, data: 512) == nil)
    #expect(fault(0xA0, 512, data: 511) == .noBuffer && fault(0xA0, 512, data: 511, write: here) == nil)
    #expect(fault(0xA0, 512, data: 600) == nil, "the command is judged above")
    let nearEnd: Place = (1, .max - 100)
    #expect(
      fault(0xA0, 512, data: 400, write: nearEnd) == .noBuffer && fault(0xA0, 500, data: 400, write: nearEnd) == nil)
    // Both ways.
    #expect(fault(0xE0, 512, read: here) == .noBuffer && fault(0xE0, 512, write: here) == .noBuffer)
    #expect(fault(0xE0, 512, read: here, write: here) == nil)
    // Neither: nothing moves, whatever is expected.
    #expect(fault(0x80, 512) == nil)
  }

  @Test("A Hello tells its versions and iSER-IRD (§9.3); the reply ours, iSER-ORD and whether it is a refusal (§9.4)")
  func hello() throws {
    guard case .hello(let hello) = try Self.message(helloMessage(max: 3, min: 1, reads: 0x0203)) else {
      return #expect(Bool(false), "not a Hello")
    }
    #expect(hello.versionMax == 3 && hello.versionMin == 1 && hello.readsMax == 0x0203 && hello.isOurs)
    #expect(hello.reply(readsMax: 0x0102) == [0x30, 0x11, 1, 2] + [UInt8](repeating: 0, count: 24))
    for (max, min) in [(0, 0), (2, 2), (15, 2), (0, 1)] as [(UInt8, UInt8)] {
      guard case .hello(let other) = try Self.message(helloMessage(max: max, min: min)) else {
        return #expect(Bool(false), "not a Hello")
      }
      #expect(!other.isOurs && other.reply(readsMax: 1)[0] == 0x31)
    }
  }

  @Test("A target's header is control-type and advertises nothing")
  func targetHeader() {
    var bytes = [UInt8](repeating: 0xFF, count: 28)
    bytes.withUnsafeMutableBytes { ISERHeader.storeControl(at: $0.baseAddress!) }
    #expect(bytes == [0x10] + [UInt8](repeating: 0, count: 27))
  }
}
