import Testing

@testable import ISCSI

@Suite("Text requests in the full-feature phase (RFC 7143 §11.10, §11.11)")
struct TextExchangeTests {
  private static let all = [
    "TargetName=iqn.2024-01.org.example:disks", "TargetAddress=192.0.2.1:3260,3", "TargetAddress=[fe80::1]:3260,4",
  ]

  static func exchange(
    discovery: Bool = true, access: AccessRules = .open, transport: TransportCapabilities = .tcp, portalCount: Int = 2,
    segment: Int = 8192
  ) throws -> TextExchange {
    var initiator = LoginInitiator(transport: transport)
    let rdma = transport.requiresRDMAExtensions ? ["RDMAExtensions=Yes"] : ["MaxRecvDataSegmentLength=\(segment)"]
    let opening = discovery ? LoginInitiator.discovery : LoginInitiator.opening
    let login = try #require(initiator.send(from: .operational, to: .fullFeature, opening + rdma).result)
    var configuration = LoginInitiator.configuration(access)
    if portalCount != 2 {
      configuration.portals = (0..<portalCount).map { Portal(address: "192.0.2.\($0):3260", portalGroupTag: 3) }
    }
    return TextExchange(
      configuration: configuration, transport: transport, localPortal: LoginInitiator.portal, login: login)
  }

  static func header(flags: UInt8 = 0x80, transferTag: UInt32 = .max, byteCount: Int = 0) -> BasicHeaderSegment {
    var header = BasicHeaderSegment(.textRequest, flags: flags, initiatorTaskTag: 0x55)
    header.targetTransferTag = transferTag
    header.dataSegmentLength = byteCount
    return header
  }

  private func ask(
    _ exchange: inout TextExchange, _ keys: [String], flags: UInt8 = 0x80, transferTag: UInt32 = .max
  ) -> TextExchange.Step {
    let data = LoginInitiator.bytes(keys)
    return exchange.receive(
      Self.header(flags: flags, transferTag: transferTag, byteCount: data.count), data: data)
  }

  private func pairs(_ step: TextExchange.Step) -> [String]? {
    guard case .respond(let reply) = step else { return nil }
    return reply.data.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
  }

  @Test("SendTargets=All in a discovery session tells the target and every portal (§13.3)")
  func all() throws {
    var exchange = try Self.exchange()
    let step = ask(&exchange, ["SendTargets=All"])
    #expect(pairs(step) == Self.all)
    guard case .respond(let reply) = step else { return }
    #expect(reply.header.opcode == .textResponse)
    #expect(reply.header.flags == 0x80)
    #expect(reply.header.targetTransferTag == .max)
    #expect(reply.header.initiatorTaskTag == 0x55)
    #expect(reply.header.dataSegmentLength == reply.data.count)
  }

  @Test("SendTargets with our name tells the same in either session, with another name nothing")
  func byName() throws {
    for discovery in [true, false] {
      var exchange = try Self.exchange(discovery: discovery)
      #expect(pairs(ask(&exchange, ["SendTargets=IQN.2024-01.org.example:disks"])) == Self.all)
      #expect(pairs(ask(&exchange, ["SendTargets=iqn.2024-01.org.example:other"])) == [])
      #expect(pairs(ask(&exchange, ["SendTargets=nonsense"])) == [])
    }
  }

  @Test("SendTargets with nothing is for normal sessions, All for discovery (Appendix C)")
  func sessionTypes() throws {
    var normal = try Self.exchange(discovery: false)
    #expect(pairs(ask(&normal, ["SendTargets="])) == Self.all)
    #expect(pairs(ask(&normal, ["SendTargets=All"])) == ["SendTargets=Reject"])
    var discovery = try Self.exchange()
    #expect(pairs(ask(&discovery, ["SendTargets="])) == ["SendTargets=Reject"])
  }

  @Test("An initiator that may not log in sees no target")
  func hidden() throws {
    var exchange = try Self.exchange(access: AccessRules(rules: []))
    #expect(pairs(ask(&exchange, ["SendTargets=All"])) == [])
    #expect(pairs(ask(&exchange, ["SendTargets=\(LoginInitiator.target)"])) == [])
  }

  @Test("Without a list of portals the one that was asked is told")
  func localPortal() throws {
    var exchange = try Self.exchange(portalCount: 0)
    #expect(pairs(ask(&exchange, ["SendTargets=All"]))?.last == "TargetAddress=192.0.2.1:3260,1")
  }

  @Test(
    "A long answer comes in pieces of whole pairs, each fetched by an empty request (§11.11)", arguments: [1, 1000])
  func pieces(_ portalCount: Int) throws {
    var exchange = try Self.exchange(portalCount: portalCount, segment: 512)
    var step = ask(&exchange, ["SendTargets=All"])
    var collected: [UInt8] = []
    var pieceCount = 0
    var tags: Set<UInt32> = []
    while case .respond(let reply) = step {
      collected += reply.data
      pieceCount += 1
      #expect(reply.data.count <= 512)
      #expect(reply.data.last == 0)
      if reply.header.isFinal { break }
      #expect(reply.header.flags == 0x40, "C, and not F")
      #expect(reply.header.targetTransferTag != .max)
      #expect(tags.insert(reply.header.targetTransferTag).inserted)
      step = ask(&exchange, [], transferTag: reply.header.targetTransferTag)
    }
    let expected =
      ["TargetName=\(LoginInitiator.target)"] + (0..<portalCount).map { "TargetAddress=192.0.2.\($0):3260,3" }
    #expect(collected == LoginInitiator.bytes(expected))
    #expect(portalCount == 1 ? pieceCount == 1 : pieceCount > collected.count / 512)
  }

  @Test("Over RDMA a piece has at most 128 bytes, whatever was negotiated")
  func rdmaPieces() throws {
    var exchange = try Self.exchange(transport: .iser, portalCount: 50)
    var step = ask(&exchange, ["SendTargets=All"])
    var pairCount = 0
    while case .respond(let reply) = step {
      #expect(reply.data.count <= 128)
      pairCount += reply.data.count { $0 == 0 }
      if reply.header.isFinal { break }
      step = ask(&exchange, [], transferTag: reply.header.targetTransferTag)
    }
    #expect(pairCount == 51)
  }

  @Test("A request in pieces is answered when it is whole (§11.10.2)")
  func collected() throws {
    var exchange = try Self.exchange()
    let data = Array("SendTargets=All\0".utf8)
    let first = exchange.receive(Self.header(flags: 0x40, byteCount: 5), data: Array(data[..<5]))
    guard case .respond(let asking) = first else {
      Issue.record("\(first)")
      return
    }
    #expect(asking.data == [])
    #expect(asking.header.flags == 0)
    let tag = asking.header.targetTransferTag
    let last = exchange.receive(
      Self.header(transferTag: tag, byteCount: data.count - 5), data: Array(data[5...]))
    #expect(pairs(last) == Self.all)
  }

  @Test("F is answered with F, and its absence with its absence (§11.11.1)")
  func negotiationInSteps() throws {
    var exchange = try Self.exchange()
    guard case .respond(let first) = ask(&exchange, ["MaxRecvDataSegmentLength=4096"], flags: 0) else {
      Issue.record("no answer")
      return
    }
    #expect(first.header.flags == 0)
    #expect(exchange.maxRecvDataSegmentLength == 4096)
    let tag = first.header.targetTransferTag
    let last = ask(&exchange, ["X-other=1"], transferTag: tag)
    #expect(pairs(last) == ["X-other=NotUnderstood"])
    guard case .respond(let reply) = last else { return }
    #expect(reply.header.flags == 0x80)
  }

  @Test("A key comes once in a sequence, and may come again in the next one (§6.2)")
  func keyTwice() throws {
    var exchange = try Self.exchange()
    let key = ["MaxRecvDataSegmentLength=4096"]
    guard case .respond(let first) = ask(&exchange, key, flags: 0) else { return }
    #expect(ask(&exchange, key, transferTag: first.header.targetTransferTag) == .reject(reason: 0x04))
    #expect(pairs(ask(&exchange, key)) == [])
    #expect(pairs(ask(&exchange, key)) == [])
  }

  @Test("MaxRecvDataSegmentLength is declared anew, within its range (§13.12)")
  func declared() throws {
    var exchange = try Self.exchange()
    #expect(pairs(ask(&exchange, ["MaxRecvDataSegmentLength=512"])) == [])
    #expect(exchange.maxRecvDataSegmentLength == 512)
    #expect(ask(&exchange, ["MaxRecvDataSegmentLength=511"]) == .reject(reason: 0x04))
    #expect(exchange.maxRecvDataSegmentLength == 512)
    var rdma = try Self.exchange(transport: .iser)
    #expect(pairs(ask(&rdma, ["MaxRecvDataSegmentLength=1"])) == [])
  }

  @Test("Keys of login are rejected, unknown ones not understood (§6.2, §13)")
  func otherKeys() throws {
    var exchange = try Self.exchange()
    #expect(
      pairs(ask(&exchange, ["MaxBurstLength=8192", "InitiatorName=x", "X-a=1", "Y-b=NotUnderstood"])) == [
        "MaxBurstLength=Reject", "InitiatorName=Reject", "X-a=NotUnderstood",
      ])
  }

  @Test("A tag that is not ours, or not now, is a protocol error (§11.10.4)")
  func wrongTag() throws {
    var exchange = try Self.exchange(portalCount: 200, segment: 512)
    #expect(ask(&exchange, [], transferTag: 1) == .reject(reason: 0x04))
    guard case .respond(let first) = ask(&exchange, ["SendTargets=All"]) else { return }
    let tag = first.header.targetTransferTag
    #expect(ask(&exchange, [], transferTag: tag + 1) == .reject(reason: 0x04))
    #expect(ask(&exchange, [], transferTag: tag) == .reject(reason: 0x04), "the answer is forgotten")
  }

  @Test("A new request ends the one before (§11.10.4)")
  func replaced() throws {
    var exchange = try Self.exchange(portalCount: 200, segment: 512)
    guard case .respond(let first) = ask(&exchange, ["SendTargets=All"]) else { return }
    #expect(pairs(ask(&exchange, ["SendTargets=x"])) == [])
    #expect(ask(&exchange, [], transferTag: first.header.targetTransferTag) == .reject(reason: 0x04))
  }

  @Test("Text while an answer is being fetched is a protocol error (§11.11.2)")
  func textAmidAnswer() throws {
    var exchange = try Self.exchange(portalCount: 200, segment: 512)
    guard case .respond(let first) = ask(&exchange, ["SendTargets=All"]) else { return }
    #expect(ask(&exchange, ["X-a=1"], transferTag: first.header.targetTransferTag) == .reject(reason: 0x04))
  }

  @Test("F with C, a wrong length, an AHS or another opcode is an invalid field (§11.17.1)")
  func invalidFields() throws {
    var exchange = try Self.exchange()
    #expect(exchange.receive(Self.header(flags: 0xC0), data: []) == .reject(reason: 0x09))
    #expect(exchange.receive(Self.header(byteCount: 1), data: []) == .reject(reason: 0x09))
    var header = Self.header()
    header.word1 |= 0x0100_0000
    #expect(exchange.receive(header, data: []) == .reject(reason: 0x09))
    header = Self.header()
    header.word0 = 0x0080_0000
    #expect(exchange.receive(header, data: []) == .reject(reason: 0x09))
  }

  @Test("A request without end is refused after 64 KiB or 64 pieces")
  func limits() throws {
    for (byteCount, takenCount) in [(8192, 8), (0, 64)] {
      var exchange = try Self.exchange()
      let data = [UInt8](repeating: 0, count: byteCount)
      var tag = UInt32.max
      var count = 0
      while case .respond(let reply) = exchange.receive(
        Self.header(flags: 0x40, transferTag: tag, byteCount: byteCount), data: data)
      {
        count += 1
        tag = reply.header.targetTransferTag
      }
      #expect(count == takenCount)
    }
  }

  @Test("Text that cannot be read is a protocol error")
  func malformed() throws {
    var exchange = try Self.exchange()
    #expect(exchange.receive(Self.header(byteCount: 3), data: [0x41, 0x3D, 0x31]) == .reject(reason: 0x04))
  }
}
