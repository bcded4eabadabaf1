import Datamover
import Glibc
import ISCSI
import Reactor
import Synchronization
import Testing

@testable import Gateway

/// A gateway's shards, with connections over RDMA that need no device.
@Suite("A whole gateway over iSER", .serialized)
struct ISERGatewayTests {
  private static let target = "iqn.2026-01.example:test"
  private static let initiator = "iqn.2026-01.example:a"

  private static func run(
    _ disks: [String] = ["memory:16M"], threads: Int = 1, bytesLeft: Int = 0,
    settings: (inout Settings) -> Void = { _ in }, _ body: (Gateway, RDMAInitiator) throws -> Void
  ) throws {
    var options = RunOptions(
      listen: [ListenAddress(host: "127.0.0.1", port: 0)], disks: try disks.map { try DiskSpecification(parsing: $0) },
      discovery: false, targetName: target, threads: threads)
    settings(&options.settings)
    let gateway = Gateway(options)
    try gateway.start()
    let result = Result {
      let initiator = try RDMAInitiator(gateway.shards[0])
      try body(gateway, initiator)
      #expect(initiator.queuePair.offences.isEmpty, "\(initiator.queuePair.offences)")
      // The rule of 128 bytes: initiators post no longer receives after login, whatever they negotiate.
      let late = initiator.queuePair.messages.dropFirst(initiator.loginMessages)
      #expect(late.allSatisfy { $0.bytes.count <= 76 + 128 })
      // Whatever happened, the end gives everything back.
      initiator.holdsReads = false
      initiator.holdsAll = false
      if try !initiator.isEnded() { try initiator.cut() }
      try initiator.wait("the end") { try initiator.isEnded() }
      try initiator.wait("the buffers") { try initiator.bytesInUse() == bytesLeft }
    }
    gateway.stop(within: 2)
    try result.get()
  }

  private static func pattern(_ count: Int, _ seed: UInt8 = 1) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) &+ seed }
  }

  @Test("Login answers RDMAExtensions=Yes and InitialR2T=Yes, and no key of the stream transports (RFC 7145 §6)")
  func login() throws {
    try Self.run { gateway, initiator in
      let answer = try initiator.login(Self.target, Self.initiator)
      #expect(answer.header.opcode == .loginResponse && answer.header.word9 >> 16 == 0 && answer.header.flags == 0x87)
      let keys = String(decoding: answer.data, as: UTF8.self).split(separator: "\0").map(String.init)
      for key in ["RDMAExtensions=Yes", "InitialR2T=Yes", "ImmediateData=Yes", "TargetRecvDataSegmentLength=8192"] {
        #expect(keys.contains(key), "\(keys)")
      }
      #expect(!keys.contains { $0.hasPrefix("MaxRecvDataSegmentLength") })
      // For the whole window, before the answer.
      #expect(initiator.queuePair.receives.count == 128 + 17)
      #expect(gateway.sessions().map(\.transport) == ["iser"])
    }
  }

  @Test(
    "What was written is read back, with none, some or all of it immediate",
    arguments: [512, 4096, 8192, 65536, 1 << 20, (1 << 20) + 512])
  func readsAndWrites(count: Int) throws {
    try Self.run { _, initiator in
      try initiator.login(Self.target, Self.initiator)
      try initiator.ready()
      for (round, immediate) in [0, 512, 4096, 8192].enumerated() where immediate <= count {
        let bytes = Self.pattern(count, UInt8(round))
        #expect(try initiator.write(bytes, block: 16, immediate: immediate) == 0)
        let found = try initiator.read(count, block: 16)
        #expect(found.status == 0 && found.data == bytes, "\(count) bytes, \(immediate) of them immediate")
      }
      let history = initiator.queuePair.history
      #expect(history.filter { $0.operation == .read }.allSatisfy { $0.byteCount <= 262_144 })
    }
  }

  @Test("Many commands at a time, over few READs, all come to their end")
  func manyCommands() throws {
    try Self.run { _, initiator in
      try initiator.login(Self.target, Self.initiator)
      try initiator.ready()
      let tags = try (0..<64).map { try initiator.postWrite(Self.pattern(16384, UInt8($0)), block: UInt32($0) * 32) }
      for tag in tags { #expect(try initiator.answer(tag).header.byte3 == 0) }
      for number in 0..<64 as Range<UInt32> {
        #expect(try initiator.read(16384, block: number * 32).data == Self.pattern(16384, UInt8(number)))
      }
    }
  }

  // MARK: Ends of commands

  /// A write whose READs are under way; its tag.
  private static func writeUnderWay(_ initiator: RDMAInitiator, _ count: Int = 65536) throws -> UInt32 {
    initiator.holdsReads = true
    let tag = try initiator.postWrite(pattern(count), block: 64)
    try initiator.wait("a READ") { try initiator.posted().contains(.read) }
    return tag
  }

  @Test(
    "ABORT TASK and resets are answered when the READs of what they end have completed: the initiator takes its buffers back",
    arguments: [1, 2, 4, 5, 6] as [UInt8])
  func abortWhileReading(function: UInt8) throws {
    try Self.run { _, initiator in
      try initiator.login(Self.target, Self.initiator)
      try initiator.ready()
      let write = try Self.writeUnderWay(initiator)
      let tag = try initiator.manage(function, about: write)
      for _ in 0..<100 {
        try initiator.pump()
        let posted = try initiator.posted()
        try #require(posted.allSatisfy { $0 == .read })
        usleep(2000)
      }
      initiator.holdsReads = false
      let answer = try initiator.answer(tag, milliseconds: 1000)
      #expect(answer.header.opcode == .taskManagementResponse && answer.header.byte2 == 0)
      #expect(!initiator.queuePair.messages.contains { $0.header.initiatorTaskTag == write })
      // Nothing of it is written.
      try initiator.ready()
      #expect(try initiator.read(65536, block: 64).data.allSatisfy { $0 == 0 })
    }
  }

  @Test("The answer to ABORT TASK does not wait for a READ that never ends")
  func abortBounded() throws {
    try Self.run { _, initiator in
      try initiator.login(Self.target, Self.initiator)
      try initiator.ready()
      let write = try Self.writeUnderWay(initiator)
      let begin = ContinuousClock.now
      _ = try initiator.manage(1, about: write)
      try initiator.wait("the answer", milliseconds: 4000) { try initiator.posted().contains(.send) }
      #expect((.milliseconds(1400)...(.milliseconds(3500))).contains(ContinuousClock.now - begin))
    }
  }

  @Test(
    "A connection that ends while an abort waits for its READs takes the abort with it", arguments: [1, 5] as [UInt8])
  func cutWhileAborting(function: UInt8) throws {
    try Self.run { _, initiator in
      try initiator.login(Self.target, Self.initiator)
      try initiator.ready()
      let write = try Self.writeUnderWay(initiator)
      let tag = try initiator.manage(function, about: write)
      try initiator.cut()
      #expect(try initiator.isEnded())
      let drains = try initiator.onShard { $0.drains.count }
      #expect(drains == 0 && !initiator.queuePair.messages.contains { $0.header.initiatorTaskTag == tag })
    }
  }

  @Test("An aborted read is answered behind what it has on its way")
  func abortRead() throws {
    try Self.run { _, initiator in
      try initiator.login(Self.target, Self.initiator)
      try initiator.ready()
      initiator.holdsAll = true
      let read = try initiator.post(RDMAInitiator.cdb(0x28, 0, 2 << 20), read: 2 << 20)
      try initiator.wait("WRITEs") { try initiator.posted().count == 4 }
      let tag = try initiator.manage(1, about: read)
      try initiator.wait("the answer") { try initiator.posted().count == 5 }
      #expect(try initiator.posted() == [.write, .write, .write, .write, .send])
      initiator.holdsAll = false
      #expect(try initiator.answer(tag).header.byte2 == 0)
      #expect(!initiator.queuePair.messages.contains { $0.header.initiatorTaskTag == read })
    }
  }

  @Test("A command whose disk hangs is not answered while READs of it are under way")
  func deadlineWhileReading() throws {
    // The disk keeps the first piece, and the command with it the others.
    try Self.run(
      ["faulty:16M:hang=64+8"], bytesLeft: 4 * BufferPool.pieceBytes, settings: { $0.timeouts.ioDeadlineSeconds = 1 }
    ) { _, initiator in
      try initiator.login(Self.target, Self.initiator)
      try initiator.ready()
      initiator.holdsReads = true
      let write = try initiator.postWrite(Self.pattern(1 << 20), block: 64)
      try initiator.wait("READs") { try initiator.posted().count == 4 }
      // The first piece is fetched, and hangs on the disk.
      try initiator.onShard { [queuePair = initiator.queuePair] shard in
        if let completion = queuePair.completeSend() { shard.completed(completion) }
      }
      let begin = ContinuousClock.now
      while ContinuousClock.now - begin < .milliseconds(1500) {
        let posted = try initiator.posted()
        // A machine that stood still proves nothing.
        if ContinuousClock.now - begin < .milliseconds(2000) { try #require(posted.allSatisfy { $0 == .read }) }
        usleep(20_000)
      }
      initiator.holdsReads = false
      let answer = try initiator.answer(write, milliseconds: 1500)
      #expect(answer.header.byte3 == 2 && answer.data[4] & 0xF == 4, "HARDWARE ERROR")
    }
  }

  @Test("Immediate data for which there is no memory is dropped, and its command ends with TASK SET FULL")
  func immediateDropped() throws {
    try Self.run(settings: { $0.limits.memoryBytes = 16 << 20 }) { _, initiator in
      try initiator.login(Self.target, Self.initiator)
      try initiator.ready()
      let held = Held()
      try initiator.onShard { held.takeAll($0.pool) }
      #expect(try initiator.write(Self.pattern(4096), block: 8, immediate: 4096) == 0x28)
      #expect(try initiator.write(Self.pattern(65536), block: 8, immediate: 4096) == 0x28)
      // Without immediate data it waits for memory.
      let waiting = try initiator.postWrite(Self.pattern(4096, 9), block: 8)
      try initiator.pump()
      try initiator.onShard { held.giveAll($0.pool) }
      #expect(try initiator.answer(waiting).header.byte3 == 0)
      #expect(try initiator.read(4096, block: 8).data == Self.pattern(4096, 9))
    }
  }

  @Test("A login for whose window there is no memory is refused with status 0302, out of resources")
  func loginWithoutMemory() throws {
    try Self.run(settings: { $0.limits.memoryBytes = 16 << 20 }) { gateway, initiator in
      let held = Held()
      try initiator.onShard { held.takeAll($0.pool) }
      let answer = try initiator.login(Self.target, Self.initiator)
      #expect(answer.header.opcode == .loginResponse && answer.header.word9 >> 16 == 0x0302)
      try initiator.wait("the end") { try initiator.isEnded() }
      try initiator.onShard { held.giveAll($0.pool) }
      #expect(gateway.sessions().isEmpty)
    }
  }

  // MARK: Ends of connections

  @Test("A write that announces unsolicited data, for which iSER has no PDU, is fetched all the same")
  func notFinal() throws {
    try Self.run { _, initiator in
      try initiator.login(Self.target, Self.initiator)
      try initiator.ready()
      let bytes = Self.pattern(65536)
      let tag = try initiator.post(
        RDMAInitiator.cdb(0x2A, 0, 65536), write: bytes, immediate: 4096, isFinal: false)
      #expect(try initiator.answer(tag).header.byte3 == 0)
      #expect(try initiator.read(65536, block: 0).data == bytes)
    }
  }

  @Test("A connection that is cut with READs and WRITEs under way gives everything back", arguments: [0, 1, 2, 3])
  func cut(round: Int) throws {
    try Self.run { _, initiator in
      try initiator.login(Self.target, Self.initiator)
      try initiator.ready()
      initiator.holdsReads = true
      for number in 0..<12 as Range<UInt32> {
        if number % 3 == UInt32(round % 3) {
          _ = try initiator.post(RDMAInitiator.cdb(0x28, 0, 1 << 19), read: 1 << 19)
        } else {
          _ = try initiator.postWrite(Self.pattern(1 << 18), block: 512 * number, immediate: round == 3 ? 4096 : 0)
        }
      }
      try initiator.wait("READs") { try initiator.posted().contains(.read) }
      try initiator.cut()
      #expect(try initiator.isEnded())
    }
  }

  @Test("A peer that reads or writes beyond what it gave ends its own connection")
  func wrongRange() throws {
    try Self.run { _, initiator in
      try initiator.login(Self.target, Self.initiator)
      try initiator.ready()
      let tag = try Self.writeUnderWay(initiator)
      try initiator.onShard { [queuePair = initiator.queuePair] _ in queuePair.regions = [:] }
      initiator.holdsReads = false
      try initiator.wait("the end") { try initiator.isEnded() }
      #expect(!initiator.queuePair.messages.contains { $0.header.initiatorTaskTag == tag })
    }
  }

  @Test("Logout is answered, and the answer has arrived, before the connection ends (RFC 7143 §11.15)")
  func logout() throws {
    try Self.run { gateway, initiator in
      try initiator.login(Self.target, Self.initiator)
      try initiator.ready()
      initiator.holdsAll = true
      let header = initiator.request(0x06, isImmediate: true)
      try initiator.send(controlMessage(header))
      try initiator.wait("the answer") { try initiator.posted() == [.send] }
      usleep(20_000)
      #expect(try !initiator.isEnded())
      initiator.holdsAll = false
      let answer = try initiator.answer(header.initiatorTaskTag)
      #expect(answer.header.opcode == .logoutResponse && answer.header.byte2 == 0)
      try initiator.wait("the end") { try initiator.isEnded() }
      #expect(gateway.sessions().isEmpty)
    }
  }

  @Test("Whoever speaks before its login is answered is cut off (RFC 7143 §6.3)")
  func earlySpeech() throws {
    try Self.run(threads: 2) { gateway, initiator in
      // An older session of the same name, on the other shard: the new login waits for its end.
      let older = try RDMAInitiator(gateway.shards[1])
      try older.login(Self.target, Self.initiator)
      let request = initiator.loginRequest(Self.target, Self.initiator)
      let ping = controlMessage(initiator.request(0x00))
      let phases = try initiator.onShard { [queuePair = initiator.queuePair, index = initiator.name.index] shard in
        guard let connection = shard.connections[index] else { return [] as [String] }
        for message in [request, ping] {
          guard let completion = queuePair.deliver(message) else { return ["no receive"] }
          shard.completed(completion)
          connection.iser!.postReceives()
        }
        return ["\(connection.phase)"]
      }
      #expect(phases == ["closing"])
      #expect(initiator.queuePair.messages.isEmpty)
      try older.wait("the end of the older") { try older.isEnded() }
    }
  }

  @Test("A second login of the same name ends the first session, whichever shard has it")
  func reinstatement() throws {
    try Self.run(threads: 2) { gateway, initiator in
      let older = try RDMAInitiator(gateway.shards[1])
      try older.login(Self.target, Self.initiator)
      try older.ready()
      older.holdsReads = true
      _ = try older.postWrite(Self.pattern(65536), block: 0)
      try older.wait("a READ") { try older.posted().contains(.read) }
      let answer = try initiator.login(Self.target, Self.initiator)
      #expect(answer.header.word9 >> 16 == 0)
      #expect(try older.isEnded())
      try older.wait("the buffers") { try older.bytesInUse() == 0 }
      try initiator.ready()
    }
  }

  @Test("Data-Out, a Hello after others, and what is no message end the connection", arguments: 0..<4)
  func faults(number: Int) throws {
    try Self.run { _, initiator in
      try initiator.login(Self.target, Self.initiator)
      try initiator.ready()
      let message = [
        controlMessage(initiator.request(0x05), data: Self.pattern(512)), helloMessage(), [0x40] + Self.pattern(75),
        Array(controlMessage(initiator.request(0x00)).prefix(60)),
      ][number]
      try initiator.send(message)
      #expect(try initiator.isEnded())
    }
  }

  @Test("A Hello after login is answered; one without our version too, and then the connection ends (RFC 7145 §5.1.3)")
  func hello() throws {
    try Self.run { _, initiator in
      try initiator.login(Self.target, Self.initiator)
      try initiator.send(helloMessage(reads: 2))
      try initiator.wait("the reply") { initiator.queuePair.messages.count == 2 }
      #expect(initiator.queuePair.messages[1].bytes.prefix(4).elementsEqual([0x30, 0x11, 0, 2]))
      initiator.queuePair.messages.removeLast()
      try initiator.ready()
      #expect(try initiator.write(Self.pattern(1 << 20), block: 0) == 0)
    }
    try Self.run { _, initiator in
      try initiator.login(Self.target, Self.initiator)
      try initiator.send(helloMessage(max: 3, min: 2))
      try initiator.wait("the end") { try initiator.isEnded() }
      #expect(initiator.queuePair.messages[1].bytes.first == 0x31)
    }
  }

  @Test("An event of a connection that had no memory finds none, rather than a place of the table")
  func noConnection() throws {
    try Self.run { _, initiator in
      let isNone = try initiator.onShard { $0.connection(index: -1, generation: 0) == nil }
      #expect(isNone)
    }
  }

  // MARK: Small messages

  @Test("A long answer to a Text Request comes in pieces of 128 bytes with C (RFC 7143 §11.11.2)")
  func text() throws {
    try Self.run { _, initiator in
      try initiator.login(Self.target, Self.initiator)
      try initiator.ready()
      let keys = (0..<20).map { "X-example.number\($0)=1" }
      var header = initiator.request(0x04)
      try initiator.send(controlMessage(header, data: Array(keys.joined(separator: "\0").utf8) + [0]))
      var collected: [UInt8] = []
      var pieces = 0
      while true {
        let answer = try initiator.answer(header.initiatorTaskTag)
        #expect(answer.header.opcode == .textResponse && answer.data.count <= 128)
        collected += answer.data
        pieces += 1
        try initiator.onShard { [queuePair = initiator.queuePair] _ in queuePair.messages.removeLast() }
        guard answer.header.flags & 0x40 != 0 else { break }
        let tag = header.initiatorTaskTag
        header = initiator.request(0x04)
        header.word4 = tag
        header.word5 = answer.header.word5
        try initiator.send(controlMessage(header))
      }
      let answers = String(decoding: collected, as: UTF8.self).split(separator: "\0").map(String.init)
      #expect(pieces > 3 && answers == (0..<20).map { "X-example.number\($0)=NotUnderstood" })
    }
  }

  @Test("Sense, Reject and the echo of a ping carry at most 128 bytes")
  func smallMessages() throws {
    try Self.run { _, initiator in
      try initiator.login(Self.target, Self.initiator)
      try initiator.ready()
      let sense = try initiator.answer(try initiator.post(RDMAInitiator.cdb(0x28, .max, 512), read: 512))
      #expect(sense.header.byte3 == 2 && (20...128).contains(sense.data.count))
      var ping = initiator.request(0x00)
      ping.word5 = BasicHeaderSegment.reservedTag
      try initiator.send(controlMessage(ping, data: Self.pattern(4000)))
      let echo = try initiator.answer(ping.initiatorTaskTag)
      #expect(echo.header.opcode == .nopIn && echo.data == Self.pattern(128))
      try initiator.send(controlMessage(initiator.request(0x10)))
      let reject = try initiator.answer(BasicHeaderSegment.reservedTag)
      #expect(reject.header.opcode == .reject && reject.data.count == 48)
    }
  }
}

/// All of a pool's memory, held back.
private final class Held: @unchecked Sendable {
  // Only touched on the shard's thread.
  private var buffers: [Buffer] = []

  func takeAll(_ pool: BufferPool) {
    for bytes in BufferPool.classes.reversed() { while let buffer = pool.take(bytes) { buffers.append(buffer) } }
  }

  func giveAll(_ pool: BufferPool) {
    for buffer in buffers { pool.give(buffer) }
    buffers = []
  }
}
