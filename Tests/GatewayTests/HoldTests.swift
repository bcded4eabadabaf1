import Glibc
import HA
import SCSI
import Storage
import Testing
import Wire

@testable import Gateway

@Suite("Commands of a suspended unit wait", .serialized)
struct HoldTests {
  private static let target = "iqn.2026-01.example:test"

  private static func run(_ body: (Gateway, Export, UInt16) throws -> Void) throws {
    let gateway = Gateway(
      RunOptions(
        listen: [ListenAddress(host: "127.0.0.1", port: 0)],
        disks: [try DiskSpecification(parsing: "memory:16M"), try DiskSpecification(parsing: "memory:16M")],
        discovery: false, targetName: target, threads: 2))
    try gateway.start()
    defer { gateway.stop(within: 5) }
    let address = try #require(gateway.status().portals.first?.address)
    try body(gateway, try #require(gateway.exports.first), try #require(UInt16(address.split(separator: ":").last!)))
  }

  private static func initiator(_ port: UInt16, _ name: String = "a") throws -> SmallInitiator {
    let initiator = try SmallInitiator(port: port, target: target, name: "iqn.2026-01.example:\(name)")
    try initiator.ready()
    return initiator
  }

  private static func release(_ gateway: Gateway, _ export: Export) {
    export.unit.setSuspended(false)
    for handle in gateway.shards { handle.post(.perform { $0.retryHeld() }) }
  }

  /// Commands that wait, over all shards.
  private static func heldCount(_ gateway: Gateway) -> Int {
    gateway.context?.sum(within: 5_000_000_000) { $0.held.count } ?? -1
  }

  private static func waitForHeld(_ gateway: Gateway, _ count: Int) {
    for _ in 0..<2000 where heldCount(gateway) != count { usleep(1000) }
    #expect(heldCount(gateway) == count)
  }

  @Test("Writes with their data and reads come through after it, in order")
  func goesOn() throws {
    try Self.run { gateway, export, port in
      let initiator = try Self.initiator(port)
      #expect(try initiator.write([UInt8](repeating: 1, count: 4096), block: 0) == 0)
      export.unit.setSuspended(true)
      for value in 2..<6 as Range<UInt8> {
        try initiator.post(
          [0x2A, 0, 0, 0, 0, 0, 0, 0, 8, 0], write: [UInt8](repeating: value, count: 4096))
      }
      try initiator.post([0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0], read: 4096)
      Self.waitForHeld(gateway, 5)
      Self.release(gateway, export)
      #expect(try initiator.answers(5) == [0, 0, 0, 0, 0])
      #expect(try initiator.read(4096, block: 0).data.allSatisfy { $0 == 5 })
      Self.waitForHeld(gateway, 0)
    }
  }

  @Test("A write that waits with a part of its data has room for the rest")
  func solicited() throws {
    try Self.run { gateway, export, port in
      let initiator = try Self.initiator(port)
      export.unit.setSuspended(true)
      // 64 KiB each, of which 4 KiB come with the command: side by side in the arena, if each has but what is there.
      for number in 0..<4 as Range<UInt8> {
        try initiator.post(
          [0x2A, 0, 0, 0, number / 2, (number & 1) * 128, 0, 0, 128, 0],
          write: (0..<65536).map { UInt8(truncatingIfNeeded: $0 / 4096) &+ 16 * number }, immediate: 4096)
      }
      Self.waitForHeld(gateway, 4)
      Self.release(gateway, export)
      #expect(try initiator.answers(4) == [0, 0, 0, 0])
      for number in 0..<4 as Range<UInt8> {
        let found = try initiator.read(65536, block: UInt32(number) * 128).data
        #expect(found == (0..<65536).map { UInt8(truncatingIfNeeded: $0 / 4096) &+ 16 * number })
      }
      #expect(gateway.status().memory.arenaUsedBytes == 0)
    }
  }

  @Test("INQUIRY and REPORT LUNS are answered meanwhile, and so is another unit")
  func others() throws {
    try Self.run { gateway, export, port in
      let initiator = try Self.initiator(port)
      try initiator.ready(lun: 1)
      export.unit.setSuspended(true)
      #expect(try initiator.command([0x12, 0, 0, 0, 96, 0], read: 96).status == 0)
      #expect(try initiator.command([0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], read: 64).status == 0)
      #expect(try initiator.write([UInt8](repeating: 7, count: 512), block: 0, lun: 1) == 0)
      Self.release(gateway, export)
    }
  }

  @Test("PERSISTENT RESERVE OUT waits as well, and then takes force")
  func reservations() throws {
    try Self.run { gateway, export, port in
      let initiator = try Self.initiator(port)
      export.unit.setSuspended(true)
      var list = [UInt8](repeating: 0, count: 24)
      list[15] = 9
      try initiator.post([0x5F, 0, 0, 0, 0, 0, 0, 0, 24, 0], write: list)
      Self.waitForHeld(gateway, 1)
      #expect(export.unit.reservations.registrants.isEmpty)
      Self.release(gateway, export)
      #expect(try initiator.answers(1) == [0])
      #expect(export.unit.reservations.registrants.map(\.key) == [9])
    }
  }

  @Test("Who goes away takes its commands along, and their memory comes back")
  func goneMeanwhile() throws {
    try Self.run { gateway, export, port in
      var initiator: SmallInitiator? = try Self.initiator(port)
      export.unit.setSuspended(true)
      for _ in 0..<8 {
        try initiator!.post([0x2A, 0, 0, 0, 0, 0, 0, 0, 8, 0], write: [UInt8](repeating: 3, count: 4096))
      }
      Self.waitForHeld(gateway, 8)
      initiator = nil
      for _ in 0..<2000 where !gateway.sessions().isEmpty { usleep(1000) }
      Self.release(gateway, export)
      Self.waitForHeld(gateway, 0)
      let next = try Self.initiator(port, "b")
      #expect(try next.read(4096, block: 0).data.allSatisfy { $0 == 0 })
      #expect(gateway.status().memory.arenaUsedBytes == 0)
    }
  }

  @Test("When the lease of a disk is over, what was begun ends with its connection: late data is not written")
  func leaseOver() throws {
    try Self.run { gateway, export, port in
      let context = try #require(gateway.context)
      let leased = Self.leased(export)
      let disk = try #require(leased.label?.disk)
      let target = PairTarget(context: context, exports: { [leased] }, setActive: { _ in })
      Self.serve(target, disk)
      let begun = { context.sum(within: 5_000_000_000) { $0.commandsBegun(at: export.unit) } }
      let writer = try Self.initiator(port)
      let other = try Self.initiator(port, "b")
      try other.ready(lun: 1)
      let request = try writer.beginWrite([UInt8](repeating: 5, count: 4096), block: 0)
      #expect(context.sum(within: 5_000_000_000) { $0.requestsUnderWay(of: export) } == 0)
      #expect(begun() == 1)
      target.perform(.suspend(disk), afterTakeover: false) { _ in }
      #expect(begun() == 0)
      try? writer.sendData(request)
      #expect(writer.isEnded())
      // Who has nothing under way there keeps its session, and what it sends now waits.
      #expect(try other.write([UInt8](repeating: 7, count: 512), block: 0, lun: 1) == 0)
      try other.post([0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0], read: 4096)
      Self.waitForHeld(gateway, 1)
      #expect(begun() == 0)
      Self.serve(target, disk)
      #expect(try other.answers(1) == [0])
      #expect(try other.read(4096, block: 0).data.allSatisfy { $0 == 0 })
    }
  }

  /// The same unit, as one whose disk cannot fence.
  private static func leased(_ export: Export) -> Export {
    let id = UUID(bytes: [UInt8](repeating: 1, count: 16))
    let label = Label(
      cluster: id, disk: id, lun: 0, nextLUN: 1, diskBytes: 16 << 20, blockBytes: 512,
      pairKey: [UInt8](repeating: 0, count: 32), nodes: [])
    return Export(
      unit: export.unit, disk: export.disk, label: label, byteCount: export.byteCount, isShared: true, fence: .lease)
  }

  private static func serve(_ target: PairTarget, _ disk: UUID) {
    target.perform(.serve(Epoch(1), disks: [disk]), afterTakeover: false) { _ in }
    let isDone = ReadyFlag()
    target.perform(.recover(Epoch(1), disks: []), afterTakeover: false) { _ in isDone.set() }
    #expect(isDone.wait(milliseconds: 5000))
  }

  @Test("The passive node's ports are in standby, the warm path of the active one asks no further")
  func groups() throws {
    var state = PortGroupState()
    #expect(state.groups.groups.map(\.id) == [1])
    state.hasRDMA = true
    #expect(state.groups.groups.map(\.id) == [2, 1])
    (state.isPaired, state.peerHasRDMA) = (true, true)
    let active = state.groups
    #expect(active.groups.map(\.id) == [2, 1, 4, 3])
    #expect(active.groups.map(\.state) == [.activeOptimized, .activeNonOptimized, .standby, .standby])
    // The other node says the same of both.
    (state.slot, state.isActive) = (.second, false)
    #expect(state.groups.groups == active.groups)
  }
}
