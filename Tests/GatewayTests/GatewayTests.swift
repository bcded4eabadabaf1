import Glibc
import Synchronization
import Testing

@testable import Gateway

@Suite("A whole gateway", .serialized)
struct GatewayTests {
  private static let target = "iqn.2026-01.example:test"

  private static func options(_ disks: [String], threads: Int) throws -> RunOptions {
    RunOptions(
      listen: [ListenAddress(host: "127.0.0.1", port: 0)], disks: try disks.map { try DiskSpecification(parsing: $0) },
      discovery: false, targetName: target, threads: threads)
  }

  /// Starts one, lets `body` use its port, stops it; gives the seconds that the stop took.
  private static func run(
    _ disks: [String], threads: Int = 2, _ body: (Gateway, UInt16) throws -> Void
  ) throws -> Double {
    let gateway = Gateway(try options(disks, threads: threads))
    try gateway.start()
    let address = try #require(gateway.status().portals.first?.address)
    let port = try #require(UInt16(address.split(separator: ":").last!))
    let result = Result { try body(gateway, port) }
    let begin = ContinuousClock.now
    gateway.stop(within: 5)
    let took = ContinuousClock.now - begin
    try result.get()
    #expect(throws: SmallInitiator.Failure.self) {
      _ = try SmallInitiator(port: port, target: target, name: "iqn.2026-01.example:late")
    }
    return Double(took.components.seconds) + Double(took.components.attoseconds) / 1e18
  }

  @Test("It starts, serves what was written, tells of its session and its disks, and ends", arguments: [1, 2, 3])
  func life(threads: Int) throws {
    let took = try Self.run(["memory:16M", "null:1G"], threads: threads) { gateway, port in
      let initiator = try SmallInitiator(port: port, target: Self.target, name: "iqn.2026-01.example:a")
      try initiator.ready()
      try initiator.ready(lun: 1)
      let bytes = (0..<4096).map { UInt8(truncatingIfNeeded: $0 &* 7) }
      #expect(try initiator.write(bytes, block: 9) == 0)
      let found = try initiator.read(4096, block: 9)
      #expect(found.status == 0 && found.data == bytes)
      #expect(try initiator.read(512, block: 8).data.allSatisfy { $0 == 0 })
      // Larger than an initiator's default MaxRecvDataSegmentLength: several PDUs.
      #expect(try initiator.read(60 << 10, block: 0, lun: 1).status == 0)
      #expect(try initiator.read(512, block: 1 << 30).status == 2, "beyond the end: CHECK CONDITION")
      let status = gateway.status()
      #expect(status.threads == threads && status.sessions == 1 && status.logicalUnits.map(\.number) == [0, 1])
      #expect(gateway.sessions().map(\.initiator) == ["iqn.2026-01.example:a"])
      // Whatever this machine has: the section is there, and agrees with the NICs.
      #expect(status.rdma?.listener.state != .failed && status.rdma?.nics.map(\.name) == gateway.nics().map(\.name))
      #expect(gateway.disks().map(\.verdict) == [.exported, .exported])
    }
    #expect(took < 4)
  }

  @Test("Initiators on several threads each read back what they wrote, and meet in the same disk")
  func manyInitiators() throws {
    _ = try Self.run(["memory:16M"], threads: 2) { gateway, port in
      let failures = Shared(Atomic(0))
      onThreads(4) { thread in
        do {
          let initiator = try SmallInitiator(port: port, target: Self.target, name: "iqn.2026-01.example:\(thread)")
          try initiator.ready()
          for round in 0..<100 as Range<UInt32> {
            let bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: UInt32(thread) * 50 + round), count: 4096)
            let block = UInt32(thread) * 4096 + round * 8
            guard try initiator.write(bytes, block: block) == 0, try initiator.read(4096, block: block).data == bytes
            else { throw SmallInitiator.Failure(what: "round \(round)") }
          }
        } catch {
          Issue.record("initiator \(thread): \(error)")
          failures.value.add(1, ordering: .relaxed)
        }
      }
      #expect(failures.value.load(ordering: .relaxed) == 0)
      let initiator = try SmallInitiator(port: port, target: Self.target, name: "iqn.2026-01.example:last")
      try initiator.ready()
      for thread in 0..<4 as Range<UInt32> {
        let expected = UInt8(truncatingIfNeeded: thread * 50 + 99)
        #expect(try initiator.read(4096, block: thread * 4096 + 99 * 8).data.allSatisfy { $0 == expected })
      }
      #expect(gateway.status().logicalUnits[0].counters.writeCommands == 400)
    }
  }

  @Test(
    "COMPARE AND WRITE waits for reads that are being sent from the disk's memory, but not for who takes nothing",
    arguments: [true, false])
  func atomicBesideReads(isTaken: Bool) throws {
    _ = try Self.run(["memory:64M"], threads: 2) { gateway, port in
      let reader = try SmallInitiator(port: port, target: Self.target, name: "iqn.2026-01.example:reader")
      let writer = try SmallInitiator(port: port, target: Self.target, name: "iqn.2026-01.example:writer")
      for initiator in [reader, writer] { try initiator.ready() }
      // Far more than sockets hold.
      for _ in 0..<40 { try reader.post([0x28, 0, 0, 0, 0, 0, 0, 0x08, 0, 0], read: 1 << 20) }
      usleep(200_000)
      var cdb = [UInt8](repeating: 0, count: 16)
      (cdb[0], cdb[13]) = (0x89, 1)
      let data = [UInt8](repeating: 0, count: 512) + [UInt8](repeating: 7, count: 512)
      try writer.post(cdb, write: data)
      if isTaken { #expect(try reader.answers(40).allSatisfy { $0 == 0 }) }
      #expect(try writer.answers(1) == [0])
      #expect(try writer.read(512, block: 0).data == Array(data[512...]))
      for _ in 0..<2000 where gateway.sessions().count != (isTaken ? 2 : 1) { usleep(1000) }
      #expect(gateway.sessions().count == (isTaken ? 2 : 1))
    }
  }

  @Test("A login to another target's name is refused, and leaves nothing behind")
  func wrongTarget() throws {
    _ = try Self.run(["null:1G"], threads: 1) { gateway, port in
      for _ in 0..<5 {
        #expect(throws: SmallInitiator.Failure.self) {
          _ = try SmallInitiator(port: port, target: "iqn.2026-01.example:other", name: "iqn.2026-01.example:a")
        }
      }
      #expect(gateway.sessions().isEmpty)
    }
  }

  @Test("It ends in time with a command that its disk never answers")
  func hangingDisk() throws {
    let took = try Self.run(["faulty:16M:hang=64+8"], threads: 1) { gateway, port in
      let hung = Shared(Atomic(0))
      let initiator = try SmallInitiator(port: port, target: Self.target, name: "iqn.2026-01.example:a")
      try initiator.ready()
      onThreads(1) { _ in
        guard let other = try? SmallInitiator(port: port, target: Self.target, name: "iqn.2026-01.example:b") else {
          return
        }
        guard (try? other.ready()) != nil, (try? other.post(block: 64)) != nil else { return }
        hung.value.add(1, ordering: .relaxed)
      }
      #expect(hung.value.load(ordering: .relaxed) == 1)
      #expect(try initiator.read(512, block: 0).status == 0)
    }
    #expect(took < 5)
  }

  @Test("Told to serve TCP only it says so, whatever NICs there are")
  func withoutISER() throws {
    var options = try Self.options(["null:1G"], threads: 1)
    options.iser = false
    let gateway = Gateway(options)
    try gateway.start()
    #expect(gateway.status().rdma?.listener.state == .off)
    #expect(gateway.status().rdma?.listener.reason == "switched off by the settings or by --no-iser")
    gateway.stop(within: 5)
  }

  @Test("A port that is taken keeps it from starting, with the reason, and what it had opened is let go")
  func portInUse() throws {
    let room = TemporaryDisks()
    let disk = room.disk("a")
    _ = try Self.run(["null:1G"], threads: 1) { _, port in
      var options = try Self.options([disk], threads: 1)
      options.listen = [ListenAddress(host: "127.0.0.1", port: port)]
      let error = #expect(throws: StartError.self) { try Gateway(options).start() }
      #expect(error?.code == EADDRINUSE)
    }
    _ = try Self.run([disk], threads: 1) { gateway, _ in #expect(gateway.disks().first?.verdict == .exported) }
  }

  @Test("A labelled file is let go when it ends: the next start has it, with what was written")
  func restart() throws {
    let room = TemporaryDisks()
    let disk = room.disk("a")
    let bytes = [UInt8](repeating: 0x3C, count: 4096)
    _ = try Self.run([disk]) { _, port in
      let initiator = try SmallInitiator(port: port, target: Self.target, name: "iqn.2026-01.example:a")
      try initiator.ready()
      #expect(try initiator.write(bytes, block: 16) == 0)
    }
    _ = try Self.run([disk]) { _, port in
      let initiator = try SmallInitiator(port: port, target: Self.target, name: "iqn.2026-01.example:a")
      try initiator.ready()
      #expect(try initiator.read(4096, block: 16).data == bytes)
    }
  }
}
