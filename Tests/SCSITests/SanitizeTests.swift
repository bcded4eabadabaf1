import Testing
import Wire

@testable import SCSI

@Suite("SANITIZE")
struct SanitizeTests {
  private func overwrite(
    _ bench: Bench, count: UInt8 = 1, pattern: [UInt8] = [0xAA], length: UInt16? = nil, flags: UInt8 = 0,
    from nexus: Nexus? = nil
  ) -> Disposition {
    var list: [UInt8] = [count, 0]
    list.append(be: length ?? UInt16(pattern.count))
    list += pattern
    return bench.send(
      [0x48, flags | 0x01, 0, 0, 0, 0, 0, UInt8(list.count >> 8), UInt8(list.count & 0xFF), 0], list,
      from: nexus)
  }

  private func plain(_ bench: Bench, _ action: UInt8, flags: UInt8 = 0, length: UInt8 = 0) -> Disposition {
    bench.send([0x48, flags | action, 0, 0, 0, 0, 0, 0, length, 0])
  }

  private static let ready: [UInt8] = [0, 0, 0, 0, 0, 0]

  @Test("OVERWRITE takes its pattern, count and inversion; IMMED and AUSE come from the CDB (SBC-4 §5.31)")
  func orders() throws {
    let bench = try Bench()
    #expect(
      overwrite(bench, count: 0x83, pattern: [1, 2, 3], flags: 0xA0).answer
        == .sanitize(
          SanitizeOrder(
            method: .overwrite(pattern: [1, 2, 3], passes: 3, inverts: true), isImmediate: true, mayExit: true)))
    bench.unit.endSanitize(.completed)
    #expect(plain(bench, 0x02).answer == .sanitize(SanitizeOrder(method: .blockErase)))
    bench.unit.endSanitize(.completed)
    #expect(plain(bench, 0x1F).answer == .good)
  }

  @Test("PARAMETER LIST LENGTH of 5 to a block and 4 bytes for OVERWRITE, 0 for the others (SBC-4 §5.31.2)")
  func lengths() throws {
    let bench = try Bench()
    for length: UInt8 in 0...4 { #expect(plain(bench, 0x01, length: length).sense == .invalidFieldInCDB(byte: 7)) }
    #expect(bench.send([0x48, 1, 0, 0, 0, 0, 0, 0x02, 0x05, 0]).sense == .invalidFieldInCDB(byte: 7))
    #expect(bench.send([0x48, 1, 0, 0, 0, 0, 0, 0x02, 0x04, 0]).answer == .dataOut(516))
    for action: UInt8 in [0x02, 0x1F] {
      #expect(plain(bench, action, length: 8).sense == .invalidFieldInCDB(byte: 7))
    }
    #expect(overwrite(bench, count: 0).sense == .invalidFieldInParameterList(byte: 0, bit: 4))
    #expect(overwrite(bench, count: 0x21).sense == .invalidFieldInParameterList(byte: 0, bit: 6))
    #expect(overwrite(bench, length: 0).sense == .invalidFieldInParameterList(byte: 2))
    #expect(overwrite(bench, length: 513).sense == .invalidFieldInParameterList(byte: 2))
    #expect(overwrite(bench, length: 2).answer == .sense(.illegalRequest, 0x1A00))
    #expect(bench.send(Self.ready).answer == .good)
  }

  @Test(
    "ZNR, CRYPTOGRAPHIC ERASE and other service actions are INVALID FIELD IN CDB; so is BLOCK ERASE of a thick unit")
  func unsupported() throws {
    let bench = try Bench()
    #expect(plain(bench, 0x02, flags: 0x40).sense == .invalidFieldInCDB(byte: 1, bit: 6))
    for action: UInt8 in 0...0x1F where ![0x01, 0x02, 0x1F].contains(action) {
      #expect(plain(bench, action).sense == .invalidFieldInCDB(byte: 1, bit: 4))
    }
    let thick = try Bench { $0.isThin = false }
    #expect(plain(thick, 0x02).sense == .invalidFieldInCDB(byte: 1, bit: 4))
    // WABEREQ of VPD page B1h: after BLOCK ERASE reads are answered.
    #expect(bench.send([0x12, 1, 0xB1, 0, 64, 0]).data[7] == 0x40)
    #expect(thick.send([0x12, 1, 0xB1, 0, 64, 0]).data[7] == 0x00)
  }

  @Test("While it runs, what needs the medium is NOT READY, SANITIZE IN PROGRESS with its progress (SBC-4 §4.11.2)")
  func running() throws {
    let bench = try Bench()
    _ = overwrite(bench)
    bench.unit.setSanitizeProgress(0x8000)
    let sense = Sense.sanitizeInProgress(0x8000)
    let cdbs: [[UInt8]] = [
      Self.ready, [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], [0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0], [0x1B, 0, 0, 0, 1, 0],
      [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], [0x1A, 8, 0x3F, 0, 255, 0], [0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0],
      [0x48, 0x1F, 0, 0, 0, 0, 0, 0, 0, 0], [0x5E, 0, 0, 0, 0, 0, 0, 0, 8, 0], [0x16, 0, 0, 0, 0, 0],
    ]
    for cdb in cdbs { #expect(bench.send(cdb, from: bench.b).sense == sense, "\(cdb[0])") }
    #expect(!bench.send([0x12, 0, 0, 0, 96, 0]).data.isEmpty)
    #expect(!bench.send([0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0]).data.isEmpty)
    let told = bench.send([0x03, 0, 0, 0, 18, 0]).data
    #expect(told[2] == 0x02 && told[12] == 0x04 && told[13] == 0x1B)
    #expect(Array(told[15...]) == [0x80, 0x80, 0x00])
    bench.unit.reset()
    #expect(bench.b.take(lun: 0) == .logicalUnitReset)
    #expect(bench.send(Self.ready, from: bench.b).sense == sense)
    bench.unit.nexusLost(bench.a)
    bench.unit.endSanitize(.completed)
    #expect(bench.send(Self.ready, from: bench.b).answer == .good)
  }

  @Test("What failed with AUSE can be left by EXIT FAILURE MODE (SBC-4 §4.11.3)")
  func unrestricted() throws {
    let bench = try Bench()
    _ = overwrite(bench, flags: 0x20)
    bench.unit.endSanitize(.failed)
    #expect(bench.send(Self.ready).answer == .sense(.mediumError, 0x3103))
    #expect(bench.send([0x03, 0, 0, 0, 18, 0]).data[12...13] == [0x31, 0x03])
    #expect(plain(bench, 0x1F).answer == .sanitize(SanitizeOrder(method: .exitFailureMode)))
    bench.unit.endSanitize(.notBegun)
    #expect(bench.unit.sanitation == .failed(mayExit: true))
    _ = plain(bench, 0x1F)
    bench.unit.endSanitize(.completed)
    #expect(bench.send(Self.ready).answer == .good)
  }

  @Test("What failed without AUSE ends only by a SANITIZE without AUSE that succeeds (SBC-4 §4.11.3)")
  func restricted() throws {
    let bench = try Bench()
    bench.unit.adopt(.failed(mayExit: false))
    #expect(plain(bench, 0x1F).sense == .invalidFieldInCDB(byte: 1, bit: 4))
    #expect(plain(bench, 0x02, flags: 0x20).sense == .invalidFieldInCDB(byte: 1, bit: 5))
    #expect(bench.send([0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]).answer == .sense(.mediumError, 0x3103))
    #expect(plain(bench, 0x02).answer == .sanitize(SanitizeOrder(method: .blockErase)))
    bench.unit.endSanitize(.failed)
    #expect(bench.unit.sanitation == .failed(mayExit: false))
    _ = plain(bench, 0x02)
    bench.unit.endSanitize(.completed)
    #expect(bench.unit.sanitation == .none)
  }

  @Test("Reservations and write protection come first")
  func refusals() throws {
    let bench = try Bench()
    _ = bench.unit.reserve(for: bench.b)
    #expect(overwrite(bench).answer == .conflict)
    #expect(plain(bench, 0x02).answer == .conflict)
    let readOnly = try Bench { $0.isReadOnly = true }
    #expect(overwrite(readOnly).answer == .sense(.dataProtect, 0x2700))
    #expect(plain(readOnly, 0x02).answer == .sense(.dataProtect, 0x2700))
  }
}
