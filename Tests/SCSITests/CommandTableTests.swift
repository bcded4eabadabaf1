import TestSupport
import Testing
import Wire

@testable import SCSI

@Suite("The command table")
struct CommandTableTests {
  private func operationCodes(_ bench: Bench, options: UInt8, opcode: UInt8 = 0, action: UInt16 = 0) -> Disposition {
    var cdb: [UInt8] = [0xA3, 0x0C, options, opcode]
    cdb.append(be: action)
    cdb.append(be: UInt32(65535))
    return bench.send(cdb + [0, 0])
  }

  @Test("Every row is found by its own CDB, and its length agrees with the group code (SPC-5 §4.2.5.1)")
  func rows() {
    for row in CommandTable.shared.rows {
      #expect(CommandTable.shared.row(for: row.usage).row?.pointee.usage == row.usage)
      let length: UInt8 =
        switch row.opcode >> 5 {
        case 0: 6
        case 1, 2: 10
        case 4: 16
        case 5: 12
        default: 0
        }
      #expect(row.length == length, "\(row.name)")
    }
  }

  @Test("A bit outside the usage mask is INVALID FIELD IN CDB that names it, in every command")
  func usage() throws {
    let bench = try Bench()
    for row in CommandTable.shared.rows {
      for bit in 8..<Int(row.length) * 8 where row.reserved[bit / 8] & (0x80 >> UInt8(bit % 8)) != 0 {
        var cdb = [UInt8](repeating: 0, count: Int(row.length))
        cdb[0] = row.opcode
        cdb[1] = row.serviceAction ?? 0
        cdb[bit / 8] |= 0x80 >> UInt8(bit % 8)
        #expect(
          bench.send(cdb).sense == .invalidFieldInCDB(byte: bit / 8, bit: UInt8(7 - bit % 8)), "\(row.name) \(bit)")
      }
    }
  }

  @Test("Bytes behind the CDB's length are not looked at")
  func padding() throws {
    let cdb: [UInt8] = [0, 0, 0, 0, 0, 0] + [UInt8](repeating: 0xFF, count: 10)
    #expect(try Bench().send(cdb).answer == .good)
  }

  @Test("An unknown operation code is 20/00, an unknown service action INVALID FIELD IN CDB (SPC-5 §4.2.5)")
  func unknown() throws {
    let bench = try Bench()
    #expect(bench.send([0xC0]).answer == .sense(.illegalRequest, 0x2000))
    #expect(bench.send([0x7F]).answer == .sense(.illegalRequest, 0x2000))
    #expect(bench.send([0x5E, 0x04, 0, 0, 0, 0, 0, 0, 8, 0]).sense == .invalidFieldInCDB(byte: 1, bit: 4))
    bench.a.raise(.powerOn, lun: 0)
    #expect(bench.send([0xC0]).answer == .sense(.unitAttention, 0x2900))
  }

  @Test("REPORT SUPPORTED OPERATION CODES lists every row, with timeouts if asked (SPC-5 §6.34.2)")
  func all() throws {
    let bench = try Bench()
    let plain = operationCodes(bench, options: 0).data
    // All but SET TARGET PORT GROUPS, for which there must be a pair, and WRITE ATOMIC, for which the disk must be known.
    #expect(plain.count == 4 + 8 * (CommandTable.shared.rows.count - 2))
    #expect(Array(plain[..<4]) == [0, 0, UInt8((plain.count - 4) >> 8), UInt8((plain.count - 4) & 0xFF)])
    let timed = operationCodes(bench, options: 0x80).data
    #expect(timed.count == 4 + 20 * (CommandTable.shared.rows.count - 2))
    #expect(timed[9] & 0x02 != 0)
    #expect(Array(timed[12..<14]) == [0, 0x0A])
    let thick = try Bench { $0.isThin = false }
    // Without UNMAP and SANITIZE's BLOCK ERASE.
    #expect(operationCodes(thick, options: 0).data.count == plain.count - 16)
  }

  @Test("One command is told with its usage data; how it is asked for must fit it (SPC-5 §6.34.1)")
  func one() throws {
    let bench = try Bench()
    #expect(
      operationCodes(bench, options: 1, opcode: 0x28).data
        == [0, 3, 0, 10, 0x28, 0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F, 0xFF, 0xFF, 0])
    #expect(operationCodes(bench, options: 1, opcode: 0xC0).data == [0, 1, 0, 0])
    #expect(operationCodes(bench, options: 1, opcode: 0x9E).answer == .invalidField)
    #expect(operationCodes(bench, options: 2, opcode: 0x28).answer == .invalidField)
    #expect(operationCodes(bench, options: 2, opcode: 0x9E, action: 0x10).data.count == 20)
    #expect(operationCodes(bench, options: 2, opcode: 0x9E, action: 0x1F).data == [0, 1, 0, 0])
    #expect(operationCodes(bench, options: 3, opcode: 0x28).data.count == 14)
    #expect(operationCodes(bench, options: 3, opcode: 0x28, action: 1).data == [0, 1, 0, 0])
    #expect(operationCodes(bench, options: 0x83, opcode: 0x5F, action: 7).data.count == 26)
    #expect(operationCodes(bench, options: 4, opcode: 0x28).answer == .invalidField)
  }

  @Test("Random CDBs and parameter lists never trap, and data keeps to the allocation length")
  func random() throws {
    var random = SplitMix(seed: 99)
    let bench = try Bench(blocks: 1000)
    let rows = Array(CommandTable.shared.rows)
    for i in 0..<60000 {
      var cdb = (0..<16).map { _ in UInt8.random(in: 0...255, using: &random) }
      if i % 4 != 0, let row = rows.randomElement(using: &random) {
        // Mostly proper CDBs of commands that exist.
        for j in 0..<16 { cdb[j] &= ~row.reserved[j] }
        cdb[0] = row.opcode
        if let action = row.serviceAction { cdb[1] = cdb[1] & 0xE0 | action }
        for j in 2..<16 where Int.random(in: 0..<3, using: &random) != 0 { cdb[j] = 0 }
      }
      let nexus = [bench.a, bench.b].randomElement(using: &random) ?? bench.a
      let count = Int.random(in: 0...64, using: &random)
      let parameters = (0..<count).map { _ in
        Int.random(in: 0..<3, using: &random) == 0 ? UInt8.random(in: 0...255, using: &random) : 0
      }
      let answer = bench.send(cdb, parameters, from: nexus)
      switch answer {
      case .reservationChange(let change, let unit):
        if Bool.random(using: &random) { _ = unit.commit(change) } else { unit.abandon(change) }
      case .medium(let operation, _):
        #expect(operation.lba + operation.blocks <= 1000)
      case .unmap(let extents, _):
        #expect(extents.allSatisfy { $0.lba + $0.blocks <= 1000 && $0.blocks > 0 })
      case .dataOut: Issue.record("asked for a parameter list twice")
      case .wait: Issue.record("waits, though the unit is not suspended")
      case .switchover, .forward: Issue.record("there is no pair")
      case .copy(let order, _): nexus.updateCopies { $0.end(order.token) }
      case .sanitize(_, let unit): unit.endSanitize(Bool.random(using: &random) ? .completed : .notBegun)
      case .status, .checkCondition, .dataIn, .log: break
      }
    }
  }
}
