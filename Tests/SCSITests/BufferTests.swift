import Testing
import Wire

@testable import SCSI

@Suite("READ BUFFER and WRITE BUFFER")
struct BufferTests {
  private func read(
    _ bench: Bench, mode: UInt8, id: UInt8 = 0, offset: UInt32 = 0, length: UInt32 = 4096, from nexus: Nexus? = nil
  ) -> Disposition {
    bench.send([0x3C, mode, id] + Self.be24(offset) + Self.be24(length) + [0], from: nexus)
  }

  private func write(
    _ bench: Bench, mode: UInt8, id: UInt8 = 0, offset: UInt32 = 0, _ data: [UInt8], from nexus: Nexus? = nil
  ) -> Disposition {
    bench.send([0x3B, mode, id] + Self.be24(offset) + Self.be24(UInt32(data.count)) + [0], data, from: nexus)
  }

  private static func be24(_ value: UInt32) -> [UInt8] {
    [UInt8(truncatingIfNeeded: value >> 16), UInt8(truncatingIfNeeded: value >> 8), UInt8(truncatingIfNeeded: value)]
  }

  @Test("The descriptors tell 4096 bytes of any offset; another buffer has none (SPC-5 §6.18.5, §6.18.9)")
  func descriptors() throws {
    let bench = try Bench()
    #expect(read(bench, mode: 0x03).data == [0, 0, 0x10, 0])
    #expect(read(bench, mode: 0x03, id: 1).data == [0, 0, 0, 0])
    #expect(read(bench, mode: 0x0B).data == [1, 0, 0x10, 0])
    #expect(read(bench, mode: 0x0B, length: 2).data == [1, 0])
  }

  @Test("What a nexus echoes is its own, as long as it was written (SPC-5 §6.18.8)")
  func echo() throws {
    let bench = try Bench()
    #expect(read(bench, mode: 0x0A).answer == .sense(.illegalRequest, 0x2C00))
    #expect(write(bench, mode: 0x0A, [1, 2, 3]).answer == .good)
    #expect(write(bench, mode: 0x0A, [9], from: bench.b).answer == .good)
    #expect(read(bench, mode: 0x0A).data == [1, 2, 3])
    #expect(read(bench, mode: 0x0A, length: 2).data == [1, 2])
    #expect(read(bench, mode: 0x0A, from: bench.b).data == [9])
    #expect(read(bench, mode: 0x0A, from: bench.c).answer == .sense(.illegalRequest, 0x2C00))
  }

  @Test("Echo data that was written over is told, once it was there (SPC-5 §6.18.8, EBOS)")
  func overwritten() throws {
    let bench = try Bench()
    _ = write(bench, mode: 0x0A, [1, 2, 3])
    _ = write(bench, mode: 0x02, offset: 2, [7, 7])
    #expect(read(bench, mode: 0x0A).answer == .sense(.abortedCommand, 0x3F0F))
    #expect(write(bench, mode: 0x0A, [4]).answer == .good)
    #expect(read(bench, mode: 0x0A).data == [4])
    var buffer = NexusBuffer()
    buffer.write([1], at: 0, isEcho: true, lun: 0)
    buffer.write([2, 3], at: 0, isEcho: true, lun: 5)
    #expect(buffer.echo(of: 0) == .overwritten)
    #expect(buffer.echo(of: 5) == .written([2, 3]))
    #expect(buffer.bytes(of: 0) == nil)
  }

  @Test("Data mode reads what was written at its offset, zeroes before it and behind it (SPC-5 §6.18.4, §6.49.5)")
  func data() throws {
    let bench = try Bench()
    #expect(read(bench, mode: 0x02).data == [UInt8](repeating: 0, count: 4096))
    #expect(write(bench, mode: 0x02, offset: 4094, [5, 6]).answer == .good)
    #expect(read(bench, mode: 0x02, offset: 4092).data == [0, 0, 5, 6])
    #expect(read(bench, mode: 0x02, offset: 4096).data == [])
  }

  @Test("Microcode, other modes, other buffers and what is beyond the capacity are refused at their field")
  func refusals() throws {
    let bench = try Bench()
    for mode: UInt8 in 0...0x1F where ![0x02, 0x0A].contains(mode) {
      #expect(write(bench, mode: mode, [1]).sense == .invalidFieldInCDB(byte: 1, bit: 4))
    }
    for mode: UInt8 in 0...0x1F where ![0x02, 0x03, 0x0A, 0x0B].contains(mode) {
      #expect(read(bench, mode: mode).sense == .invalidFieldInCDB(byte: 1, bit: 4))
    }
    #expect(read(bench, mode: 0x02, id: 1).sense == .invalidFieldInCDB(byte: 2))
    #expect(read(bench, mode: 0x02, offset: 4097).sense == .invalidFieldInCDB(byte: 3))
    #expect(write(bench, mode: 0x02, offset: 4097, []).sense == .invalidFieldInCDB(byte: 3))
    let long = [UInt8](repeating: 1, count: 4097)
    #expect(write(bench, mode: 0x0A, long).sense == .invalidFieldInCDB(byte: 6))
    #expect(write(bench, mode: 0x02, offset: 1, Array(long.dropLast())).sense == .invalidFieldInCDB(byte: 6))
    #expect(bench.send([0x3B, 0x0A, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0]).sense == .invalidFieldInCDB(byte: 6))
  }

  @Test("FORMAT UNIT is no command here (SBC-4 §5.4)")
  func format() throws {
    #expect(try Bench().send([0x04, 0, 0, 0, 0, 0]).answer == .sense(.illegalRequest, 0x2000))
  }

  @Test("REPORT TIMESTAMP tells the machine's time, or that there is none (SPC-5 §6.37)")
  func timestamp() throws {
    let bench = try Bench()
    let cdb: [UInt8] = [0xA3, 0x0F, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0]
    #expect(bench.send(cdb).data == [0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    let server = DeviceServer(
      deviceName: "iqn.2026-01.org.example:gw", registry: bench.registry, portGroups: bench.server.portGroups,
      clock: { 0x0102_0304_0506 })
    let answer = server.execute(Request(cdb: CDB(cdb), lun: 0), nexus: bench.a, map: bench.map)
    #expect(answer.data == [0, 10, 3, 0, 1, 2, 3, 4, 5, 6, 0, 0])
  }
}
