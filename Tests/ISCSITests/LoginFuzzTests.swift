import TestSupport
import Testing

@testable import ISCSI

/// Logins and text requests made of random parts, with seeds that reproduce them. What is checked holds for any input.
@Suite("Hostile input")
struct LoginFuzzTests {
  private static let keys = [
    "InitiatorName=\(LoginInitiator.name)", "TargetName=\(LoginInitiator.target)", "SessionType=Normal",
    "SessionType=Discovery", "AuthMethod=None", "AuthMethod=CHAP,None", "CHAP_A=5,6,7,8", "CHAP_N=alice", "CHAP_R=0x00",
    "CHAP_R=0bAAAA", "CHAP_I=300", "CHAP_C=0x0102030405060708", "HeaderDigest=CRC32C,None", "DataDigest=None",
    "MaxBurstLength=512", "FirstBurstLength=16777215", "InitialR2T=No", "ImmediateData=Maybe", "MaxConnections=0x10",
    "MaxRecvDataSegmentLength=512", "MaxRecvDataSegmentLength=0", "RDMAExtensions=Yes", "OFMarkInt=1~2",
    "TaskReporting=FastAbort,RFC3720", "X-a=1", "SendTargets=All", "SendTargets=", "InitiatorAlias=", "TargetAlias=a",
    "X#NodeArchitecture=x", "MaxAHSLength=1", "DefaultTime2Wait=4294967296", "=", "A", "K=\u{E9}",
  ]

  private static let opening = Array(keys[0...1])

  private func data(_ generator: inout SplitMix, isFirst: Bool) -> [UInt8] {
    var chosen = isFirst && generator.chance(90) ? Self.opening : []
    for _ in 0..<Int.random(in: 0...5, using: &generator) { chosen.append(Self.keys.randomElement(using: &generator)!) }
    var bytes = LoginInitiator.bytes(chosen)
    if generator.chance(5), !bytes.isEmpty {
      bytes[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
    }
    if generator.chance(2) { bytes += generator.bytes(Int.random(in: 0...9000, using: &generator)) }
    if generator.chance(3) { bytes.removeLast(min(bytes.count, 3)) }
    return bytes
  }

  private func header(
    _ generator: inout SplitMix, _ initiator: LoginInitiator, stage: UInt8, byteCount: Int
  ) -> BasicHeaderSegment {
    var header = initiator.header(from: .security, byteCount: byteCount)
    var flags = stage << 2
    if generator.chance(50) { flags |= 0x80 | (stage == 0 && generator.chance(60) ? 1 : 3) }
    if generator.chance(8) { flags = flags & 0x0C | 0x40 }
    if generator.chance(2) { flags = UInt8.random(in: 0...255, using: &generator) }
    header.word0 = header.word0 & 0xFF00_FFFF | UInt32(flags) << 16
    if generator.chance(2) { header.word0 ^= 1 << UInt32.random(in: 0..<32, using: &generator) }
    if generator.chance(2) { header.word1 ^= 1 << UInt32.random(in: 0..<32, using: &generator) }
    if generator.chance(1) { header.word6 ^= 1 }
    return header
  }

  /// Plays one random login; returns its result if there is one, after checking each step.
  private func play(
    _ generator: inout SplitMix, _ access: AccessRules, _ transport: TransportCapabilities
  ) -> LoginResult? {
    var initiator = LoginInitiator(access, transport: transport, alias: "alias")
    var stage: UInt8 = generator.chance(50) ? 0 : 1
    for round in 0..<40 {
      let data = data(&generator, isFirst: round == 0)
      let header = header(&generator, initiator, stage: stage, byteCount: data.count)
      switch initiator.machine.receive(header, data: data, random: { [UInt8](repeating: 9, count: $0) }) {
      case .respond(let reply):
        check(reply, isRefusal: false)
        if let next = reply.transition { stage = next.rawValue }
      case .fail(let reply):
        check(reply, isRefusal: true)
        if !initiator.send(from: .security, Self.opening).isClose { Issue.record("a refusal was not the end") }
        return nil
      case .close:
        return nil
      case .established(let result):
        check(initiator.machine.finish(tsih: 1, commandWindow: 1), isRefusal: false)
        return result
      }
    }
    Issue.record("a login without end")
    return nil
  }

  private func check(_ reply: LoginReply, isRefusal: Bool) {
    let isSound =
      reply.data.count <= 8192 && reply.header.dataSegmentLength == reply.data.count
      && reply.header.opcode == .loginResponse && (reply.status != .success) == isRefusal
      && (try? TextKeys(parsing: reply.data)) != nil
    if !isSound { Issue.record("\(reply)") }
  }

  @Test("A random login ends, answers within bounds, and establishes only what is legal", arguments: [UInt64(11), 12])
  func randomLogins(seed: UInt64) {
    var generator = SplitMix(seed: seed)
    var establishedCount = 0
    for _ in 0..<2000 * fuzzFactor {
      let isRDMA = generator.chance(20)
      guard let result = play(&generator, .open, isRDMA ? .iser : .tcp) else { continue }
      establishedCount += 1
      let parameters = result.parameters
      let isLegal =
        parameters.firstBurstLength <= parameters.maxBurstLength && parameters.maxConnections == 1
        && parameters.maxRecvDataSegmentLength >= 512 && (!isRDMA || result.isDiscovery || parameters.rdmaExtensions)
        && !(isRDMA && parameters.headerDigest) && ISCSIName(result.initiatorName.text) == result.initiatorName
      if !isLegal { Issue.record("\(result)") }
    }
    #expect(establishedCount > 100)
  }

  @Test("No random login gets past CHAP")
  func randomLoginsAgainstCHAP() {
    var generator = SplitMix(seed: 13)
    let user = CHAPCredential(name: "alice", secret: "initiator-secret")
    let requirement = CHAPRequirement(initiators: [user])
    let access = AccessRules(
      rules: [], otherwise: .allowed(chap: requirement, luns: nil), discovery: requirement)
    for _ in 0..<2000 * fuzzFactor {
      if let result = play(&generator, access, .tcp) { Issue.record("\(result)") }
    }
  }

  @Test("Headers of random bytes end the login or are answered within bounds")
  func randomHeaders() {
    var generator = SplitMix(seed: 14)
    for _ in 0..<4000 * fuzzFactor {
      var initiator = LoginInitiator()
      var bytes = generator.bytes(48)
      if generator.chance(80) { bytes[0] = 0x43 }
      if generator.chance(80) { bytes.replaceSubrange(3...4, with: [0, 0]) }
      let data = LoginInitiator.bytes(Self.opening)
      if generator.chance(80) { bytes.replaceSubrange(5...7, with: [0, 0, UInt8(data.count)]) }
      let header = bytes.withUnsafeBytes { BasicHeaderSegment(at: $0.baseAddress!) }
      let step = initiator.machine.receive(header, data: data, random: { [UInt8](repeating: 0, count: $0) })
      if let reply = step.reply { check(reply, isRefusal: step.failure != nil) }
    }
  }

  @Test("Random text requests are answered within bounds or rejected", arguments: [UInt64(21), 22])
  func randomText(seed: UInt64) throws {
    var generator = SplitMix(seed: seed)
    var pieceCount = 0
    for _ in 0..<150 * fuzzFactor {
      let isRDMA = generator.chance(50)
      var exchange = try TextExchangeTests.exchange(
        discovery: generator.chance(50), transport: isRDMA ? .iser : .tcp,
        portalCount: Int.random(in: 0...60, using: &generator), segment: 512)
      var tag = UInt32.max
      for _ in 0..<40 {
        let data = generator.chance(40) ? [] : data(&generator, isFirst: false)
        let flags: UInt8 = [0x80, 0x80, 0x80, 0x00, 0x40, 0xC0].randomElement(using: &generator)!
        let header = TextExchangeTests.header(
          flags: flags, transferTag: generator.chance(80) ? tag : .max, byteCount: data.count)
        guard case .respond(let reply) = exchange.receive(header, data: data) else {
          tag = .max
          continue
        }
        let limit = isRDMA ? 128 : exchange.maxRecvDataSegmentLength
        tag = reply.header.targetTransferTag
        let isContinued = reply.header.flags & 0x40 != 0
        let isSound =
          reply.data.count <= limit
          && reply.header.dataSegmentLength == reply.data.count && reply.header.isFinal == (tag == .max)
          && !(reply.header.isFinal && (isContinued || flags & 0x80 == 0))
        if !isSound { Issue.record("\(reply)") }
        if isContinued { pieceCount += 1 }
      }
    }
    #expect(pieceCount > 50)
  }
}
