import Testing

@testable import ISCSI

@Suite("Login phase (RFC 7143 §6.3, §11.12, §11.13)")
struct LoginMachineTests {
  private let opening = LoginInitiator.opening

  // MARK: The opening

  @Test("A connection that opens with anything but a Login Request is closed without a word (§6.3)")
  func notALogin() {
    for opcode in [Opcode.nopOut, .scsiCommand, .textRequest, .logoutRequest, .init(rawValue: 0x3E)] {
      var initiator = LoginInitiator()
      let header = BasicHeaderSegment(opcode, flags: 0x80, initiatorTaskTag: 1)
      #expect(initiator.machine.receive(header, data: [], random: initiator.random).isClose)
      #expect(initiator.send(from: .operational, opening).isClose, "and stays closed")
    }
  }

  @Test("Anything but a Login Request amid a login is invalid during login (§6.3)")
  func interrupted() {
    var initiator = LoginInitiator()
    _ = initiator.send(from: .security, opening)
    let header = BasicHeaderSegment(.nopOut, flags: 0x80, initiatorTaskTag: 1)
    #expect(initiator.machine.receive(header, data: [], random: initiator.random).failure == .invalidDuringLogin)
  }

  @Test("InitiatorName is in the first request, of every session type (§13.5)")
  func noInitiatorName() {
    for keys in [["TargetName=\(LoginInitiator.target)"], ["SessionType=Discovery"], []] {
      var initiator = LoginInitiator()
      #expect(initiator.send(from: .security, keys).failure == .missingParameter)
    }
  }

  @Test("TargetName is in the first request of a normal session (§13.4)")
  func noTargetName() {
    var initiator = LoginInitiator()
    #expect(initiator.send(from: .security, ["InitiatorName=\(LoginInitiator.name)"]).failure == .missingParameter)
    var discovery = LoginInitiator()
    #expect(discovery.send(from: .security, LoginInitiator.discovery).answers == [])
  }

  @Test("A name that is none of ours is not found, and ours is ours whatever its case")
  func targetName() {
    for name in ["iqn.2024-01.org.example:other", "no name"] {
      var initiator = LoginInitiator()
      let keys = ["InitiatorName=\(LoginInitiator.name)", "TargetName=\(name)"]
      #expect(initiator.send(from: .security, keys).failure == .notFound)
    }
    var initiator = LoginInitiator()
    let keys = ["InitiatorName=\(LoginInitiator.name.uppercased())", "TargetName=IQN.2024-01.ORG.EXAMPLE:DISKS"]
    let result = initiator.send(from: .operational, to: .fullFeature, keys).result
    #expect(result?.initiatorName.text == LoginInitiator.name)
  }

  @Test("An initiator name that is no iSCSI name is the initiator's error (§4.2.7)")
  func badInitiatorName() {
    var initiator = LoginInitiator()
    let keys = ["InitiatorName=host1", "TargetName=\(LoginInitiator.target)"]
    #expect(initiator.send(from: .security, keys).failure == .initiatorError)
  }

  @Test("A session type that we do not have is not supported (§13.21)")
  func sessionType() {
    var initiator = LoginInitiator()
    let keys = ["InitiatorName=\(LoginInitiator.name)", "SessionType=Boot"]
    #expect(initiator.send(from: .security, keys).failure == .sessionTypeNotSupported)
  }

  @Test("An initiator that no rule lets in is not authorised, but may discover (§11.13.5)")
  func denied() {
    let nobody = AccessRules(rules: [])
    var normal = LoginInitiator(nobody)
    #expect(normal.send(from: .security, opening).failure == .authorizationFailure)
    var discovery = LoginInitiator(nobody)
    #expect(discovery.send(from: .operational, to: .fullFeature, LoginInitiator.discovery).result?.isDiscovery == true)
  }

  @Test("A Version-min above ours is refused (§11.12.4)")
  func version() {
    var initiator = LoginInitiator()
    let data = LoginInitiator.bytes(opening)
    var header = initiator.header(from: .security, byteCount: data.count)
    header.word0 |= 0x0101
    #expect(initiator.machine.receive(header, data: data, random: initiator.random).failure == .unsupportedVersion)
    var newer = LoginInitiator()
    header.word0 &= 0xFFFF_FF00
    let step = newer.machine.receive(header, data: data, random: newer.random)
    #expect(step.reply?.header.byte2 == 0, "Version-max")
    #expect(step.reply?.header.byte3 == 0, "Version-active")
    #expect(step.answers != nil)
  }

  // MARK: Stages

  @Test("Each transition of §6.3 is granted", arguments: [(0, 1), (0, 3), (1, 3)])
  func transitions(from: UInt8, to: UInt8) throws {
    var initiator = LoginInitiator()
    let stage = LoginStage(rawValue: from)!
    let step = initiator.send(from: stage, to: LoginStage(rawValue: to)!, opening)
    let reply = step.reply ?? initiator.machine.finish(tsih: 9, commandWindow: 4)
    #expect(reply.header.flags == 0x80 | from << 2 | to)
    #expect(reply.status == .success)
  }

  @Test("No other stage or transition exists (§11.12.3)")
  func badStages() {
    // T, C, CSG, NSG
    for flags: UInt8 in [0x80, 0x82, 0x84, 0x85, 0x86, 0x08, 0x8B, 0x0C, 0x8F, 0xC1, 0xC7] {
      var initiator = LoginInitiator()
      let data = LoginInitiator.bytes(opening)
      var header = initiator.header(from: .security, byteCount: data.count)
      header.word0 = header.word0 & 0xFF00_FFFF | UInt32(flags) << 16
      let step = initiator.machine.receive(header, data: data, random: initiator.random)
      #expect(step.failure == .initiatorError, "\(flags)")
    }
  }

  @Test("NSG without T says nothing (§11.12.3)")
  func reservedNextStage() {
    var initiator = LoginInitiator()
    let data = LoginInitiator.bytes(opening)
    var header = initiator.header(from: .security, byteCount: data.count)
    header.word0 |= 0x0002_0000
    #expect(initiator.machine.receive(header, data: data, random: initiator.random).answers != nil)
  }

  @Test("A request for another stage than the current one is the initiator's error")
  func wrongStage() {
    var back = LoginInitiator()
    _ = back.send(from: .security, to: .operational, opening)
    #expect(back.send(from: .security, []).failure == .initiatorError)
    var ahead = LoginInitiator()
    _ = ahead.send(from: .security, opening)
    #expect(ahead.send(from: .operational, []).failure == .initiatorError)
  }

  @Test("T is answered with T, and its absence with its absence (§11.13.6)")
  func noTransition() {
    var initiator = LoginInitiator()
    #expect(initiator.send(from: .security, opening).reply?.header.flags == 0x00)
    #expect(initiator.send(from: .security, to: .operational, []).reply?.header.flags == 0x81)
    #expect(initiator.send(from: .operational, []).reply?.header.flags == 0x04)
  }

  @Test("AuthMethod is None where nothing is asked for, and nothing else will do (§12.1)")
  func authMethod() {
    for list in ["None", "CHAP,None", "KRB5,SRP,None"] {
      var initiator = LoginInitiator()
      let step = initiator.send(from: .security, to: .operational, opening + ["AuthMethod=\(list)"])
      #expect(step.answers == ["TargetPortalGroupTag=3", "AuthMethod=None"])
    }
    var initiator = LoginInitiator()
    let step = initiator.send(from: .security, to: .operational, opening + ["AuthMethod=CHAP"])
    #expect(step.failure == .authenticationFailure)
  }

  // MARK: Keys

  @Test("A key comes once in a login, in whichever request (§6.2)")
  func keyTwice() {
    var initiator = LoginInitiator()
    _ = initiator.send(from: .operational, opening + ["MaxBurstLength=8192"])
    #expect(initiator.send(from: .operational, ["MaxBurstLength=8192"]).failure == .initiatorError)
    var both = LoginInitiator()
    #expect(both.send(from: .operational, opening + ["A=1", "A=1"]).failure == .initiatorError)
  }

  @Test("Keys of another stage, of the target or of the full-feature phase are the initiator's error (§13)")
  func misplacedKeys() {
    for key in ["MaxBurstLength=8192", "SendTargets=All", "TargetAlias=x", "TargetPortalGroupTag=3"] {
      var initiator = LoginInitiator()
      #expect(initiator.send(from: .security, opening + [key]).failure == .initiatorError, "\(key)")
    }
    for key in ["AuthMethod=None", "CHAP_A=5", "SendTargets=All", "TargetAddress=192.0.2.1:3260,1"] {
      var initiator = LoginInitiator()
      #expect(initiator.send(from: .operational, opening + [key]).failure == .initiatorError, "\(key)")
    }
    for key in ["SessionType=Normal", "TargetName=\(LoginInitiator.target)"] {
      var initiator = LoginInitiator()
      _ = initiator.send(from: .operational, Array(opening[..<2]))
      let repeated = initiator.send(from: .operational, [key])
      #expect(repeated.failure == .initiatorError, "\(key)")
    }
  }

  @Test("Session-wide keys belong to the leading connection (§13)")
  func leadingOnly() {
    var initiator = LoginInitiator()
    initiator.tsih = 5
    #expect(initiator.send(from: .operational, opening + ["MaxBurstLength=8192"]).failure == .initiatorError)
    var other = LoginInitiator()
    other.tsih = 5
    #expect(other.send(from: .operational, opening + ["HeaderDigest=None"]).answers != nil)
  }

  @Test("TargetPortalGroupTag is in the first response of a normal session only (§13.9)")
  func portalGroupTag() {
    var discovery = LoginInitiator()
    #expect(discovery.send(from: .security, LoginInitiator.discovery).answers == [])
    var initiator = LoginInitiator()
    #expect(initiator.send(from: .security, opening).answers == ["TargetPortalGroupTag=3"])
    #expect(initiator.send(from: .security, []).answers == [])
    var elsewhere = LoginMachine(
      configuration: LoginInitiator.configuration(), transport: .tcp, localPortal: "198.51.100.1:3260")
    let data = LoginInitiator.bytes(opening)
    let header = initiator.header(from: .security, byteCount: data.count)
    let step = elsewhere.receive(header, data: data, random: initiator.random)
    #expect(step.answers == ["TargetPortalGroupTag=1"])
  }

  @Test("TargetAlias is told once the initiator is let in (§13.6)")
  func alias() {
    var initiator = LoginInitiator(alias: "the disks")
    #expect(initiator.send(from: .security, to: .operational, opening).answers == ["TargetPortalGroupTag=3"])
    #expect(
      initiator.send(from: .operational, []).answers == ["TargetAlias=the disks", "MaxRecvDataSegmentLength=262144"])
  }

  @Test("An alias over 255 bytes is cut between characters (§13.6)")
  func longAlias() throws {
    let alias = TargetConfiguration(
      targetName: ISCSIName(LoginInitiator.target)!, targetAlias: String(repeating: "é", count: 200)
    ).targetAlias
    #expect(alias == String(repeating: "é", count: 127))
  }

  // MARK: Fields

  @Test("Responses carry the request's ISID, TSIH and tag, and StatSN counts them (§11.13)")
  func fields() throws {
    var initiator = LoginInitiator()
    let first = try #require(initiator.send(from: .security, to: .operational, opening).reply).header
    #expect(first.opcode == .loginResponse)
    #expect(first.lun >> 16 == initiator.isid)
    #expect(first.lun & 0xFFFF == 0)
    #expect(first.initiatorTaskTag == 7)
    #expect(first.statSN == 0x5000)
    #expect(first.expCmdSN == 0x100)
    let result = try #require(initiator.send(from: .operational, to: .fullFeature, []).result)
    #expect(result.isid == initiator.isid)
    #expect(result.cid == 1)
    #expect(result.initialCmdSN == 0x100)
    #expect(result.statSN == 0x5002)
    #expect(result.targetPortalGroupTag == 3)
    let last = initiator.machine.finish(tsih: 0xABCD, commandWindow: 64)
    #expect(last.header.statSN == 0x5001)
    #expect(last.header.lun == initiator.isid << 16 | 0xABCD)
    #expect(last.header.expCmdSN == 0x100)
    #expect(last.header.maxCmdSN == 0x13F)
    #expect(last.header.flags == 0x87)
  }

  @Test("Numbers wrap: a login at the end of the CmdSN space is like any other (RFC 1982)")
  func wrap() throws {
    var initiator = LoginInitiator()
    initiator.cmdSN = .max
    _ = try #require(initiator.send(from: .operational, to: .fullFeature, opening).result)
    let last = initiator.machine.finish(tsih: 1, commandWindow: 8).header
    #expect(last.expCmdSN == .max)
    #expect(last.maxCmdSN == 6)
  }

  @Test("A login with a TSIH tells which session and CID it is for (§6.3.4)")
  func existingSession() throws {
    var initiator = LoginInitiator()
    initiator.tsih = 0x77
    initiator.cid = 4
    let result = try #require(initiator.send(from: .operational, to: .fullFeature, opening).result)
    #expect(result.tsihRequested == 0x77)
    #expect(result.cid == 4)
    let refusal = initiator.machine.refuse(.sessionDoesNotExist)
    #expect(refusal.header.word9 == 0x020A_0000)
    #expect(refusal.header.statSN == 0x5000)
    #expect(refusal.data == [])
  }

  @Test("The identity of a login stays the same in all its requests (§4.2.3, §11.12)")
  func identity() {
    let changes: [(inout LoginInitiator) -> Void] = [
      { $0.isid += 1 }, { $0.tsih += 1 }, { $0.cid += 1 }, { $0.initiatorTaskTag += 1 },
    ]
    for change in changes {
      var initiator = LoginInitiator()
      _ = initiator.send(from: .operational, opening)
      change(&initiator)
      #expect(initiator.send(from: .operational, []).failure == .initiatorError)
    }
  }

  @Test("Commands follow the CmdSN of the last Login Request: each is immediate and takes no number (§11.12.8)")
  func lastCmdSN() {
    var initiator = LoginInitiator()
    _ = initiator.send(from: .security, to: .operational, opening)
    initiator.cmdSN = 0x105
    #expect(initiator.send(from: .operational, to: .fullFeature, []).result?.initialCmdSN == 0x105)
    #expect(initiator.machine.finish(tsih: 1, commandWindow: 1).header.expCmdSN == 0x105)
  }

  @Test("A refusal has its status, no stage and no keys (§11.13.5)")
  func refusalFields() throws {
    var initiator = LoginInitiator()
    let reply = try #require(initiator.send(from: .security, to: .operational, ["SessionType=Discovery"]).reply)
    #expect(reply.status == .missingParameter)
    #expect(reply.header.flags == 0)
    #expect(reply.header.word9 == 0x0207_0000)
    #expect(reply.header.lun >> 16 == initiator.isid)
    #expect(reply.data == [])
    #expect(initiator.machine.refusalReason == "no InitiatorName")
    #expect(initiator.send(from: .security, opening).isClose, "nothing follows a refusal")
  }

  @Test("A redirection names the address to go to (§11.13.5)")
  func redirection() throws {
    var initiator = LoginInitiator()
    _ = try #require(initiator.send(from: .security, to: .operational, opening).reply)
    let reply = initiator.machine.refuse(.targetMovedTemporarily, targetAddress: "192.0.2.9:3260")
    #expect(reply.status == .targetMovedTemporarily)
    #expect(reply.pairs == ["TargetAddress=192.0.2.9:3260"])
    #expect(reply.header.dataSegmentLength == reply.data.count)
  }

  @Test("A PDU between `established` and `finish` closes the connection: nobody has been let in yet")
  func impatient() {
    var initiator = LoginInitiator()
    #expect(initiator.send(from: .operational, to: .fullFeature, opening).result != nil)
    #expect(initiator.send(from: .operational, []).isClose)
  }

  // MARK: Bounds

  @Test("Keys may come in several requests with C, even cut amid a value (§11.12.2)")
  func continued() throws {
    var initiator = LoginInitiator()
    let data = LoginInitiator.bytes(opening + ["MaxBurstLength=65536"])
    for part in [data[..<10], data[10..<70], data[70..<100]] {
      let header = initiator.header(from: .operational, isContinued: true, byteCount: part.count)
      let step = initiator.machine.receive(header, data: Array(part), random: initiator.random)
      #expect(step.answers == [], "an empty answer asks for the rest")
      #expect(step.reply?.header.flags == 0x04)
    }
    let header = initiator.header(from: .operational, to: .fullFeature, byteCount: data.count - 100)
    let step = initiator.machine.receive(header, data: Array(data[100...]), random: initiator.random)
    #expect(try #require(step.result).parameters.maxBurstLength == 65_536)
    #expect(initiator.machine.finish(tsih: 1, commandWindow: 1).pairs.contains("MaxBurstLength=65536"))
  }

  @Test("A request of more than 8192 bytes, of another length than it says, or with an AHS is the initiator's error")
  func lengths() {
    let fits = [UInt8](repeating: 0, count: 8192)
    for (byteCount, data) in [(8193, fits + [0]), (8191, fits), (0, [0]), (1, [])] {
      var initiator = LoginInitiator()
      let header = initiator.header(from: .operational, isContinued: true, byteCount: byteCount)
      #expect(initiator.machine.receive(header, data: data, random: initiator.random).failure == .initiatorError)
    }
    var initiator = LoginInitiator()
    let header = initiator.header(from: .operational, isContinued: true, byteCount: 8192)
    #expect(initiator.machine.receive(header, data: fits, random: initiator.random).answers == [])
    var extended = LoginInitiator()
    var longHeader = header
    longHeader.word1 |= 0x0100_0000
    #expect(extended.machine.receive(longHeader, data: fits, random: initiator.random).failure == .initiatorError)
  }

  @Test("A request that is not immediate is the initiator's error (§11.12)")
  func notImmediate() {
    var initiator = LoginInitiator()
    let data = LoginInitiator.bytes(opening)
    var header = initiator.header(from: .security, byteCount: data.count)
    header.word0 &= ~0x4000_0000
    #expect(initiator.machine.receive(header, data: data, random: initiator.random).failure == .initiatorError)
  }

  @Test("A login takes at most 64 KiB")
  func totalBytes() {
    var initiator = LoginInitiator()
    let header = initiator.header(from: .operational, isContinued: true, byteCount: 8192)
    let data = [UInt8](repeating: 0, count: 8192)
    for _ in 0..<8 {
      #expect(initiator.machine.receive(header, data: data, random: initiator.random).answers == [])
    }
    let one = initiator.header(from: .operational, isContinued: true, byteCount: 1)
    #expect(initiator.machine.receive(one, data: [0], random: initiator.random).failure == .initiatorError)
  }

  @Test("A login takes at most 32 requests")
  func totalRequests() {
    var initiator = LoginInitiator()
    #expect(initiator.send(from: .security, opening).answers != nil)
    for _ in 1..<32 { #expect(initiator.send(from: .security, []).answers != nil) }
    #expect(initiator.send(from: .security, to: .fullFeature, []).failure == .initiatorError)
  }

  @Test("Text that cannot be read is the initiator's error (§6.1)")
  func malformedText() {
    for text in ["InitiatorName", "=x\0", "InitiatorName=\(LoginInitiator.name)"] {
      var initiator = LoginInitiator()
      let data = Array(text.utf8)
      let header = initiator.header(from: .security, byteCount: data.count)
      #expect(initiator.machine.receive(header, data: data, random: initiator.random).failure == .initiatorError)
    }
  }

  @Test("Over RDMA a normal session needs RDMAExtensions=Yes (RFC 7145 §6.3)")
  func rdmaExtensions() {
    var silent = LoginInitiator(transport: .iser)
    #expect(silent.send(from: .operational, to: .fullFeature, opening).failure == .missingParameter)
    var refusing = LoginInitiator(transport: .iser)
    let keys = opening + ["RDMAExtensions=No"]
    #expect(refusing.send(from: .operational, to: .fullFeature, keys).failure == .initiatorError)
    var discovery = LoginInitiator(transport: .iser)
    #expect(discovery.send(from: .operational, to: .fullFeature, LoginInitiator.discovery).result != nil)
  }
}
