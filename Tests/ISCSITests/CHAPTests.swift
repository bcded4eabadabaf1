import Testing

@testable import ISCSI

@Suite("CHAP (RFC 7143 §12.1.3)")
struct CHAPTests {
  // Responses computed elsewhere (Python's hashlib): H(identifier || secret || challenge).
  private static let challenge = Array(UInt8(1)...32)
  private static let responses: [(number: Int, initiator: String, target: String)] = [
    (5, "0xd8ace76d4ff5ed2922cb2de794fb4098", "0x150e58a10674cc348dbdcbc834dba984"),
    (
      6, "0xfcdb12e258c59b7aac18993bdc4e6d602b532955",
      "0x64765cc7238b96cb360638eaaa31572e7932e89f"
    ),
    (
      7, "0xd44ecd4356ab5d71f0f98530559d1bf3d4fd5a54d2ada3341f506661ec1229a6",
      "0xf2a6f7c16200b3db2e6ed628bd1d4f8a041ccdb1dc039cb5ab2d69ec92ffae8a"
    ),
    (
      8, "0x447a72d2c0d2e88d19342a13ab105d9150900d049a00a4cb09445637b5511a78",
      "0x45606d906b332a292bb59e45478f7c3c20dfc83705db47df6a63b74c38b96d0b"
    ),
  ]
  private static let wrongMD5 = "0x52a4f0e58785e6f380b686b7ac56603d"
  private static let mutual = ["CHAP_I=7", "CHAP_C=0x808182838485868788898a8b8c8d8e8f"]
  private static let user = CHAPCredential(name: "alice", secret: "initiator-secret")

  private static func rules(
    target: CHAPCredential? = CHAPCredential(name: "gateway", secret: "target-secret-1")
  ) -> AccessRules {
    AccessRules(rules: [
      .init(
        initiator: "*", decision: .allowed(chap: CHAPRequirement(initiators: [user], target: target), luns: [0, 5]))
    ])
  }

  /// An initiator that has been given CHAP_A=`number`, identifier 0x2A and the challenge 1...32.
  private func challenged(_ access: AccessRules = rules(), algorithms: String = "5") throws -> LoginInitiator {
    var initiator = LoginInitiator(access)
    initiator.random = { _ in [0x2A] + Self.challenge }
    let first = initiator.send(from: .security, LoginInitiator.opening + ["AuthMethod=CHAP,None"])
    #expect(first.answers == ["TargetPortalGroupTag=3", "AuthMethod=CHAP"])
    let second = initiator.send(from: .security, ["CHAP_A=\(algorithms)"])
    let answers = try #require(second.answers)
    #expect(
      Array(answers.dropFirst()) == [
        "CHAP_I=42", "CHAP_C=0x0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20",
      ])
    return initiator
  }

  @Test("A right response lets the initiator through, with each of the four hashes", arguments: 0..<4)
  func oneWay(_ index: Int) throws {
    let vector = Self.responses[index]
    var initiator = try challenged(algorithms: "\(vector.number)")
    let step = initiator.send(
      from: .security, to: .operational, ["CHAP_N=alice", "CHAP_R=\(vector.initiator)"])
    #expect(step.answers == [])
    #expect(step.reply?.transition == .operational)
    let result = try #require(initiator.send(from: .operational, to: .fullFeature, []).result)
    #expect(result.authenticatedName == "alice")
    #expect(result.luns == [0, 5])
  }

  @Test("Asked who we are, we answer with our own name and response", arguments: 0..<4)
  func mutual(_ index: Int) throws {
    let vector = Self.responses[index]
    var initiator = try challenged(algorithms: "\(vector.number)")
    let step = initiator.send(
      from: .security, to: .operational, ["CHAP_N=alice", "CHAP_R=\(vector.initiator)"] + Self.mutual)
    #expect(step.answers == ["CHAP_N=gateway", "CHAP_R=\(vector.target)"])
    #expect(step.reply?.transition == .operational)
  }

  @Test("Base64 is read like hexadecimal, and answered in base64")
  func base64() throws {
    var initiator = try challenged()
    let step = initiator.send(
      from: .security, to: .operational,
      ["CHAP_N=alice", "CHAP_R=0b2KznbU/17Skiyy3nlPtAmA==", "CHAP_I=0x7", "CHAP_C=0bgIGCg4SFhoeIiYqLjI2Ojw=="])
    #expect(step.answers == ["CHAP_N=gateway", "CHAP_R=0bFQ5YoQZ0zDSNvcvINNuphA=="])
  }

  @Test("The first algorithm of the initiator's list that we have is chosen")
  func preference() throws {
    for (list, choice) in [("7,5", "7"), ("5,7,6", "5"), ("9,250,6,5", "6"), ("8,7,6,5", "8")] {
      var initiator = LoginInitiator(Self.rules())
      initiator.random = { _ in [0x2A] + Self.challenge }
      _ = initiator.send(from: .security, LoginInitiator.opening + ["AuthMethod=CHAP"])
      #expect(initiator.send(from: .security, ["CHAP_A=\(list)"]).answers?.first == "CHAP_A=\(choice)")
    }
  }

  @Test("Without an algorithm in common authentication fails")
  func noAlgorithm() {
    var initiator = LoginInitiator(Self.rules())
    _ = initiator.send(from: .security, LoginInitiator.opening + ["AuthMethod=CHAP"])
    #expect(initiator.send(from: .security, ["CHAP_A=9,0x7F"]).failure == .authenticationFailure)
  }

  @Test("A wrong name and a wrong secret get the very same answer")
  func indistinguishable() throws {
    var replies: [LoginReply] = []
    for keys in [
      ["CHAP_N=alice", "CHAP_R=\(Self.wrongMD5)"], ["CHAP_N=mallory", "CHAP_R=\(Self.responses[0].initiator)"],
      ["CHAP_N=alice", "CHAP_R=0x00"], ["CHAP_N=", "CHAP_R=\(Self.responses[0].initiator)"],
    ] {
      var initiator = try challenged()
      let step = initiator.send(from: .security, to: .operational, keys)
      #expect(step.failure == .authenticationFailure)
      replies.append(try #require(step.reply))
    }
    #expect(Set(replies.map { "\($0)" }).count == 1)
  }

  @Test("Our own challenge sent back is refused")
  func reflected() throws {
    var initiator = try challenged()
    let step = initiator.send(
      from: .security, to: .operational,
      [
        "CHAP_N=alice", "CHAP_R=\(Self.responses[0].initiator)", "CHAP_I=7",
        "CHAP_C=\(TextValue.hexText(Self.challenge))",
      ])
    #expect(step.failure == .authenticationFailure)
  }

  @Test("One secret for both directions is refused")
  func identicalSecrets() throws {
    let access = Self.rules(target: CHAPCredential(name: "gateway", secret: "initiator-secret"))
    var initiator = try challenged(access)
    let step = initiator.send(
      from: .security, to: .operational, ["CHAP_N=alice", "CHAP_R=\(Self.responses[0].initiator)"] + Self.mutual)
    #expect(step.failure == .authenticationFailure)
  }

  @Test("Asked who we are without a secret of our own, we refuse")
  func noTargetSecret() throws {
    var initiator = try challenged(Self.rules(target: nil))
    let step = initiator.send(
      from: .security, to: .operational, ["CHAP_N=alice", "CHAP_R=\(Self.responses[0].initiator)"] + Self.mutual)
    #expect(step.failure == .authenticationFailure)
  }

  @Test("A wrong response gets none of ours, whatever else it asks")
  func noAnswerToTheUnproved() throws {
    var initiator = try challenged()
    let step = initiator.send(
      from: .security, to: .operational, ["CHAP_N=alice", "CHAP_R=\(Self.wrongMD5)"] + Self.mutual)
    #expect(step.failure == .authenticationFailure)
    #expect(step.reply?.data == [])
  }

  @Test(
    "Keys missing, out of order or out of format are the initiator's error",
    arguments: [
      ["CHAP_N=alice"], ["CHAP_R=0x00"], ["CHAP_N=alice", "CHAP_R=zero"], ["CHAP_N=alice", "CHAP_R=0x"],
      ["CHAP_N=alice", "CHAP_R=0xd8ace76d4ff5ed2922cb2de794fb4098", "CHAP_I=7"],
      ["CHAP_N=alice", "CHAP_R=0xd8ace76d4ff5ed2922cb2de794fb4098", "CHAP_I=256", "CHAP_C=0x00"],
      ["CHAP_N=alice", "CHAP_R=0xd8ace76d4ff5ed2922cb2de794fb4098", "CHAP_I=7", "CHAP_C=00"], [],
    ])
  func outOfFormat(_ keys: [String]) throws {
    var initiator = try challenged()
    #expect(initiator.send(from: .security, to: .operational, keys).failure == .initiatorError)
  }

  @Test("CHAP keys before the method or its algorithm are the initiator's error")
  func outOfOrder() {
    var early = LoginInitiator(Self.rules())
    #expect(early.send(from: .security, LoginInitiator.opening + ["CHAP_A=5"]).failure == .initiatorError)
    var skipping = LoginInitiator(Self.rules())
    _ = skipping.send(from: .security, LoginInitiator.opening + ["AuthMethod=CHAP"])
    #expect(skipping.send(from: .security, ["CHAP_N=alice", "CHAP_R=0x00"]).failure == .initiatorError)
  }

  @Test("CHAP keys after AuthMethod=None, or after the verdict, are the initiator's error")
  func afterTheVerdict() throws {
    var unasked = LoginInitiator()
    #expect(unasked.send(from: .security, LoginInitiator.opening + ["AuthMethod=None"]).answers?.count == 2)
    #expect(unasked.send(from: .security, ["CHAP_A=5"]).failure == .initiatorError)
    var proved = try challenged()
    _ = proved.send(from: .security, ["CHAP_N=alice", "CHAP_R=\(Self.responses[0].initiator)"])
    #expect(proved.send(from: .security, Self.mutual).failure == .initiatorError)
  }

  @Test("Where CHAP is asked for, nothing gets around it")
  func noWayAround() {
    let opening = LoginInitiator.opening
    var none = LoginInitiator(Self.rules())
    #expect(none.send(from: .security, opening + ["AuthMethod=None"]).failure == .authenticationFailure)
    var silent = LoginInitiator(Self.rules())
    #expect(silent.send(from: .security, to: .operational, opening).failure == .authenticationFailure)
    var direct = LoginInitiator(Self.rules())
    #expect(direct.send(from: .security, to: .fullFeature, opening).failure == .authenticationFailure)
    var skipping = LoginInitiator(Self.rules())
    #expect(skipping.send(from: .operational, to: .fullFeature, opening).failure == .authenticationFailure)
    var early = LoginInitiator(Self.rules())
    let step = early.send(from: .security, to: .fullFeature, opening + ["AuthMethod=CHAP"])
    #expect(step.answers != nil)
    #expect(step.reply?.transition == nil, "T is not granted while CHAP is under way")
    #expect(early.send(from: .operational, to: .fullFeature, []).failure == .initiatorError)
  }

  @Test("T with the list of algorithms is not granted yet")
  func earlyTransition() throws {
    var initiator = LoginInitiator(Self.rules())
    _ = initiator.send(from: .security, to: .operational, LoginInitiator.opening + ["AuthMethod=CHAP"])
    let step = initiator.send(from: .security, to: .operational, ["CHAP_A=5"])
    #expect(try #require(step.reply).transition == nil)
  }

  @Test("A proved initiator may take another round before it goes on")
  func lingering() throws {
    var initiator = try challenged()
    let step = initiator.send(from: .security, ["CHAP_N=alice", "CHAP_R=\(Self.responses[0].initiator)"])
    #expect(try #require(step.reply).transition == nil)
    #expect(initiator.send(from: .security, to: .fullFeature, []).result?.authenticatedName == "alice")
  }

  @Test("Discovery has an authentication of its own")
  func discovery() {
    let access = AccessRules(
      rules: [], otherwise: .allowed(chap: nil, luns: nil), discovery: CHAPRequirement(initiators: [Self.user]))
    var discovery = LoginInitiator(access)
    #expect(
      discovery.send(from: .operational, to: .fullFeature, LoginInitiator.discovery).failure == .authenticationFailure)
    var normal = LoginInitiator(access)
    #expect(normal.send(from: .operational, to: .fullFeature, LoginInitiator.opening).result != nil)
  }

  @Test("An empty secret proves nobody")
  func emptySecret() throws {
    let access = AccessRules(rules: [
      .init(
        initiator: "*",
        decision: .allowed(
          chap: CHAPRequirement(initiators: [CHAPCredential(name: "alice", secret: "")]), luns: nil))
    ])
    var initiator = try challenged(access)
    let response = CHAPAlgorithm.md5.response(identifier: 0x2A, secret: [], challenge: Self.challenge)
    let keys = ["CHAP_N=alice", "CHAP_R=\(TextValue.hexText(response))"]
    #expect(initiator.send(from: .security, to: .operational, keys).failure == .authenticationFailure)
  }
}
