import TestSupport
import Testing
import Wire

@testable import SCSI

@Suite("INQUIRY and vital product data")
struct InquiryTests {
  private func page(_ bench: Bench, _ page: UInt8, from nexus: Nexus? = nil) -> [UInt8] {
    bench.send([0x12, 1, page, 0, 255, 0], from: nexus).data
  }

  @Test("Standard INQUIRY data tells version, TPGS, MULTIP, CMDQUE and who it is (SPC-5 §6.6.2)")
  func standard() throws {
    let data = try Bench().send([0x12, 0, 0, 0, 255, 0]).data
    #expect(data.count == 96 && data[4] == 91)
    #expect(Array(data[..<8]) == [0x00, 0x00, 0x06, 0x12, 91, 0x18, 0x10, 0x02])
    #expect(String(decoding: data[8..<36], as: UTF8.self) == "GATEWAYDTest disk       0.1 ")
    #expect(Array(data[58..<66]) == [0x00, 0xA0, 0x04, 0x60, 0x04, 0xC0, 0x09, 0x60])
  }

  @Test("The allocation length cuts and never adds; a page code without EVPD is refused (SPC-5 §6.6.1)")
  func allocation() throws {
    let bench = try Bench()
    for length: UInt8 in [0, 1, 5, 36, 95, 96, 200] {
      #expect(bench.send([0x12, 0, 0, 0, length, 0]).data.count == min(96, Int(length)))
    }
    #expect(bench.send([0x12, 0, 0x80, 0, 96, 0]).answer == .invalidField)
    #expect(bench.send([0x12, 2, 0, 0, 96, 0]).answer == .invalidField)
  }

  @Test("Page 00h lists ascending what is there, and only that is there (SPC-5 §7.7.16)")
  func supported() throws {
    for bench in [try Bench(), try Bench { $0.isThin = false }] {
      let pages = Array(page(bench, 0x00)[4...])
      #expect(pages == pages.sorted())
      #expect(pages.contains(0xB2) == bench.unit.traits.isThin)
      for code: UInt8 in 0...255 {
        let data = page(bench, code)
        #expect(pages.contains(code) == !data.isEmpty)
        if data.isEmpty { continue }
        #expect(data[1] == code)
        #expect(Int(data[2]) << 8 | Int(data[3]) == data.count - 4)
      }
    }
  }

  @Test("The designators name logical unit, port, group and device, the same for every nexus (SPC-5 §7.7.6)")
  func identification() throws {
    let bench = try Bench()
    let data = page(bench, 0x83)
    #expect(data == page(bench, 0x83, from: bench.b))
    var seen: [UInt8] = []
    var offset = 4
    while offset < data.count {
      seen.append(data[offset + 1] & 0x3F)
      offset += 4 + Int(data[offset + 3])
    }
    #expect(offset == data.count)
    #expect(seen == [0x03, 0x01, 0x06, 0x14, 0x15, 0x18, 0x28])
    #expect(Array(data[4..<12]) == [0x01, 0x03, 0, 16, 0x60, 0x24, 0x75, data[11]])
    let text = String(decoding: data, as: UTF8.self)
    #expect(text.contains("GATEWAYDTest disk       GW0001"))
    #expect(text.contains("iqn.2026-01.org.example:gw,t,0x0001\0"))
  }

  @Test("NAA designators of different UUIDs differ, and begin with 6h and the local company identifier")
  func naa() {
    var random = SplitMix(seed: 3)
    var seen: Set<[UInt8]> = []
    for i in 0..<2000 {
      var uuid = [UInt8](repeating: 0, count: 16)
      // One byte at a time, then at random.
      if i < 16 { uuid[i] = 1 } else { for j in 0..<16 { uuid[j] = .random(in: 0...255, using: &random) } }
      let designator = Designator.naa(uuid)
      #expect(Array(designator.prefix(7)) == [0x01, 0x03, 0, 16, 0x60, 0x24, 0x75])
      #expect(designator.count == 20)
      seen.insert(designator)
    }
    #expect(seen.count == 2000)
  }

  @Test("Block Limits tells the limits that are kept (SBC-4 §6.6.4)")
  func blockLimits() throws {
    let bench = try Bench { $0.unmapGranularity = 8 }
    let data = page(bench, 0xB0)
    #expect(data.count == 64)
    #expect(Array(data[4..<8]) == [0x01, 128, 0, 1])
    #expect(Array(data[8..<16]) == [0, 0, 0x80, 0, 0, 0, 8, 0])
    #expect(Array(data[20..<36]) == [0, 0x10, 0, 0, 0, 0, 1, 0, 0, 0, 0, 8, 0x80, 0, 0, 0])
    #expect(Array(data[36..<44]) == [0, 0, 0, 0, 0, 0, 0xFF, 0xFF])
    #expect(Array(page(try Bench { $0.isThin = false }, 0xB0)[20..<28]) == [0, 0, 0, 0, 0, 0, 0, 0])
  }

  @Test("READ CAPACITY tells the last LBA, alignment and provisioning (SBC-4 §5.20, §5.21)")
  func capacity() throws {
    let bench = try Bench(blocks: 0x1_0000_0001) {
      $0.physicalExponent = 3
      $0.lowestAlignedBlock = 7
    }
    #expect(bench.send([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]).data == [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 2, 0])
    let data = bench.send([0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0]).data
    #expect(data.count == 32)
    #expect(Array(data[..<16]) == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 0, 0, 3, 0xC0, 7])
    #expect(bench.send([0x25, 0, 0, 0, 0, 1, 0, 0, 0, 0]).answer == .invalidField)
    #expect(bench.send([0x9E, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0]).answer == .invalidField)
  }

  @Test("UNMAP takes whole descriptors, all or none (SBC-4 §5.35)")
  func unmap() throws {
    let bench = try Bench(blocks: 1000)
    func list(_ extents: [(UInt64, UInt32)]) -> [UInt8] {
      var list: [UInt8] = []
      list.append(be: UInt16(6 + 16 * extents.count))
      list.append(be: UInt16(16 * extents.count))
      list += [0, 0, 0, 0]
      for (lba, blocks) in extents {
        list.append(be: lba)
        list.append(be: blocks)
        list += [0, 0, 0, 0]
      }
      return list
    }
    func send(_ list: [UInt8]) -> Answer {
      bench.send([0x42, 0, 0, 0, 0, 0, 0, UInt8(list.count >> 8), UInt8(list.count & 0xFF), 0], list).answer
    }
    #expect(
      send(list([(1, 2), (10, 0), (990, 10)])) == .unmap([Extent(lba: 1, blocks: 2), Extent(lba: 990, blocks: 10)]))
    #expect(send(list([(1, 2), (991, 10)])) == .outOfRange)
    #expect(send(list([(.max, 2)])) == .outOfRange)
    #expect(send([]) == .good)
    #expect(send(list([])) == .good)
    #expect(send([0, 6, 0, 0]) == .sense(.illegalRequest, 0x1A00))
    #expect(send(Array(list([(1, 2), (3, 4)]).dropLast())) == .unmap([Extent(lba: 1, blocks: 2)]))
    #expect(send(list([(UInt64, UInt32)](repeating: (0, 1), count: 257))) == .invalidParameter)
    let large = try Bench(blocks: 1 << 40)
    let two = list([(0, 1 << 20), (1 << 30, 1)])
    #expect(large.send([0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0], two).answer == .invalidParameter)
    let thick = try Bench { $0.isThin = false }
    #expect(thick.send([0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]).answer == .sense(.illegalRequest, 0x2000))
  }

  @Test("A disk that does not say what is read after UNMAP has no LBPRZ, and deallocates by UNMAP alone")
  func unknownAfterUnmap() throws {
    let bench = try Bench { $0.readsZeroes = false }
    #expect(bench.send([0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]).data[14] & 0xC0 == 0x80)
    #expect(bench.send([0x12, 1, 0xB2, 0, 8, 0]).data[5] == 0x80)
  }

  @Test("GET LBA STATUS tells extents, split where 32 bits do not hold them, cut to the allocation length")
  func lbaStatus() throws {
    let bench = try Bench()
    let data = bench.server.lbaStatus(
      of: [(Extent(lba: 5, blocks: 1 << 33), mapped: false), (Extent(lba: 9, blocks: 1), mapped: true)],
      allocationLength: 255)
    #expect(Array(data[..<8]) == [0, 0, 0, 68, 0, 0, 0, 0])
    #expect(Array(data[8..<24]) == [0, 0, 0, 0, 0, 0, 0, 5, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0])
    #expect(data.count == 72)
    #expect(
      bench.server.lbaStatus(of: [(Extent(lba: 0, blocks: 1 << 62), mapped: true)], allocationLength: 24).count == 24)
    let thick = try Bench(blocks: 100) { $0.isThin = false }
    let all = thick.send([0x9E, 0x12, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 24, 0, 0]).data
    #expect(Array(all[8...]) == [0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 60, 0, 0, 0, 0])
    #expect(thick.send([0x9E, 0x12, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 24, 0, 0]).answer == .outOfRange)
  }
}
