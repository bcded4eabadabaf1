import Glibc
import SCSI
import Synchronization
import Testing

@testable import Gateway

@Suite("A unit's share of the arena", .serialized)
struct ArenaShareTests {
  private static let target = "iqn.2026-01.example:test"

  /// A gateway of one thread and the least memory there is.
  private static func run(_ disks: [String], _ body: (Gateway, UInt16) throws -> Void) throws {
    var settings = Settings()
    settings.limits.memoryBytes = 16 << 20
    let gateway = Gateway(
      RunOptions(
        settings: settings, listen: [ListenAddress(host: "127.0.0.1", port: 0)],
        disks: try disks.map { try DiskSpecification(parsing: $0) }, discovery: false, targetName: target, threads: 1))
    try gateway.start()
    defer { gateway.stop(within: 5) }
    let address = try #require(gateway.status().portals.first?.address)
    try body(gateway, try #require(UInt16(address.split(separator: ":").last!)))
  }

  private static func initiator(_ port: UInt16, _ name: String) throws -> SmallInitiator {
    let initiator = try SmallInitiator(port: port, target: target, name: "iqn.2026-01.example:\(name)")
    for lun: UInt8 in 0...1 { try initiator.ready(lun: lun) }
    return initiator
  }

  /// READ (10), WRITE (10), VERIFY (10), WRITE SAME (10): operation code, blocks of 512 bytes, immediate data.
  private static let floods: [(operation: UInt8, blocks: UInt16, write: Int, read: Int)] = [
    (0x28, 2048, 0, 1 << 20), (0x2A, 128, 65536, 0), (0x2F, 2048, 0, 0), (0x41, 2048, 512, 0),
  ]

  @Test("While one disk hangs and is asked for more than all buffers, another goes on", arguments: 0..<floods.count)
  func hungDisk(number: Int) throws {
    let flood = Self.floods[number]
    try Self.run(["faulty:64M:hang=0+131072", "memory:16M"]) { gateway, port in
      let cdb = [flood.operation, 0, 0, 0, 0, 0, 0, UInt8(flood.blocks >> 8), UInt8(flood.blocks & 0xFF), 0]
      let flooders = try (0..<3).map { try Self.initiator(port, "flood-\($0)") }
      for flooder in flooders {
        for _ in 0..<110 {
          try flooder.post(cdb, write: [UInt8](repeating: 1, count: flood.write), read: flood.read)
        }
      }
      // What the shares leave, or all of it, is in the disk's hands.
      for _ in 0..<2000 where gateway.status().memory.arenaUsedBytes < 7 << 20 { usleep(1000) }
      #expect(gateway.status().memory.arenaUsedBytes >= 7 << 20)
      let other = try Self.initiator(port, "other")
      let bytes = [UInt8](repeating: 0x5A, count: 65536)
      let begin = ContinuousClock.now
      for block in stride(from: 0, to: 1024, by: 128) {
        #expect(try other.write(bytes, block: UInt32(block), lun: 1) == 0)
        #expect(try other.read(65536, block: UInt32(block), lun: 1).data == bytes)
      }
      #expect(try other.read(1 << 20, block: 0, lun: 1).status == 0)
      #expect(ContinuousClock.now - begin < .seconds(3))
    }
  }

  @Test(
    "What is beyond the share waits, whoever has the arena, and all of it is answered with GOOD",
    arguments: ["slow:64M:5", "memory:64M"])
  func waits(disk: String) throws {
    try Self.run([disk, "memory:16M"]) { _, port in
      let good = Shared(Atomic(0))
      onThreads(3) { thread in
        guard let initiator = try? Self.initiator(port, "load-\(thread)") else { return }
        for _ in 0..<40 { try? initiator.post([0x28, 0, 0, 0, 0, 0, 0, 0x08, 0, 0], read: 1 << 20) }
        // Nobody takes the answers: the senders have what the disk gave back, and the unit nothing that could come back.
        usleep(300_000)
        good.value.add((try? initiator.answers(40))?.count { $0 == 0 } ?? 0, ordering: .relaxed)
      }
      #expect(good.value.load(ordering: .relaxed) == 120)
    }
  }
}
