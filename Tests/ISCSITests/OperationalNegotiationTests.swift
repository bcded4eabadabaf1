import Testing

@testable import ISCSI

@Suite("Operational keys (RFC 7143 §13)")
struct OperationalNegotiationTests {
  /// What a target answers to one operational request of a normal session, without its own declarations.
  private func answers(
    _ keys: [String], transport: TransportCapabilities = .tcp, discovery: Bool = false
  ) -> [String]? {
    var initiator = LoginInitiator(transport: transport)
    let opening = discovery ? LoginInitiator.discovery : LoginInitiator.opening
    _ = initiator.send(from: .security, to: .operational, opening + ["AuthMethod=None"])
    let step = initiator.send(from: .operational, keys)
    return step.answers?.filter { $0 != "MaxRecvDataSegmentLength=262144" }
  }

  private func parameters(
    _ keys: [String], transport: TransportCapabilities = .tcp
  ) throws -> NegotiatedParameters {
    var initiator = LoginInitiator(transport: transport)
    _ = initiator.send(from: .security, to: .operational, LoginInitiator.opening + ["AuthMethod=None"])
    return try #require(initiator.send(from: .operational, to: .fullFeature, keys).result).parameters
  }

  @Test("A digest is the first of the initiator's list that we have (§13.1)")
  func digests() throws {
    #expect(answers(["HeaderDigest=CRC32C,None"]) == ["HeaderDigest=CRC32C"])
    #expect(answers(["HeaderDigest=None,CRC32C"]) == ["HeaderDigest=None"])
    #expect(answers(["DataDigest=Z-other,CRC32C"]) == ["DataDigest=CRC32C"])
    #expect(answers(["DataDigest=crc32c"]) == ["DataDigest=Reject"])
    let result = try parameters(["HeaderDigest=CRC32C,None", "DataDigest=None"])
    #expect(result.headerDigest)
    #expect(!result.dataDigest)
  }

  @Test("No digest over RDMA (RFC 7145 §6.1)")
  func rdmaDigests() {
    #expect(answers(["HeaderDigest=CRC32C,None"], transport: .iser) == ["HeaderDigest=None"])
    #expect(answers(["HeaderDigest=CRC32C"], transport: .iser) == ["HeaderDigest=Reject"])
  }

  @Test("InitialR2T is OR: No with No over TCP, Yes over RDMA (§13.10)")
  func initialR2T() {
    #expect(answers(["InitialR2T=No"]) == ["InitialR2T=No"])
    #expect(answers(["InitialR2T=Yes"]) == ["InitialR2T=Yes"])
    #expect(answers(["InitialR2T=No"], transport: .iser) == ["InitialR2T=Yes"])
  }

  @Test("ImmediateData is AND, and we take it (§13.11)")
  func immediateData() {
    #expect(answers(["ImmediateData=Yes"]) == ["ImmediateData=Yes"])
    #expect(answers(["ImmediateData=No"]) == ["ImmediateData=No"])
  }

  @Test("Order is kept whatever the initiator says (§13.18, §13.19)")
  func order() {
    #expect(
      answers(["DataPDUInOrder=No", "DataSequenceInOrder=No"]) == ["DataPDUInOrder=Yes", "DataSequenceInOrder=Yes"])
  }

  @Test("Bursts, R2Ts, connections, retention and recovery are the smaller of both, Time2Wait the larger (§13)")
  func numbers() {
    #expect(answers(["MaxBurstLength=16776192"]) == ["MaxBurstLength=1048576"])
    #expect(answers(["MaxBurstLength=65536"]) == ["MaxBurstLength=65536"])
    #expect(answers(["MaxBurstLength=0x10000"]) == ["MaxBurstLength=65536"])
    #expect(answers(["MaxOutstandingR2T=65535"]) == ["MaxOutstandingR2T=8"])
    #expect(answers(["MaxConnections=4"]) == ["MaxConnections=1"])
    #expect(answers(["DefaultTime2Wait=2"]) == ["DefaultTime2Wait=2"])
    #expect(answers(["DefaultTime2Retain=60"]) == ["DefaultTime2Retain=0"])
    #expect(answers(["ErrorRecoveryLevel=2"]) == ["ErrorRecoveryLevel=0"])
    #expect(answers(["iSCSIProtocolLevel=2"]) == ["iSCSIProtocolLevel=1"])
    #expect(answers(["iSCSIProtocolLevel=0"]) == ["iSCSIProtocolLevel=0"])
  }

  @Test(
    "A value out of its range or format is rejected, and the default stays (§6.2)",
    arguments: [
      "MaxBurstLength=511", "MaxBurstLength=16777216", "MaxBurstLength=many", "MaxBurstLength=", "FirstBurstLength=0",
      "MaxOutstandingR2T=0", "MaxOutstandingR2T=65536", "MaxConnections=0", "DefaultTime2Wait=3601",
      "DefaultTime2Retain=-1", "ErrorRecoveryLevel=3", "iSCSIProtocolLevel=32", "InitialR2T=yes", "ImmediateData=",
      "DataPDUInOrder=Yes,No", "HeaderDigest=,", "MaxBurstLength=NotUnderstood", "TaskReporting=FastAbort",
    ])
  func rejected(_ key: String) throws {
    let name = key.split(separator: "=")[0]
    #expect(answers([key]) == ["\(name)=Reject"])
    var expected = NegotiatedParameters()
    expected.targetMaxRecvDataSegmentLength = 262_144
    #expect(try parameters([key]) == expected)
  }

  @Test("FirstBurstLength never exceeds MaxBurstLength, whatever the order of the two (§13.14)")
  func firstBurst() throws {
    for keys in [
      ["FirstBurstLength=65536", "MaxBurstLength=8192"], ["MaxBurstLength=8192", "FirstBurstLength=65536"],
    ] {
      let answered = try #require(answers(keys))
      #expect(Set(answered) == ["FirstBurstLength=8192", "MaxBurstLength=8192"])
      #expect(answered.map { $0.prefix(5) } == keys.map { $0.prefix(5) }, "answers come in the order of the offers")
    }
    #expect(try parameters(["MaxBurstLength=8192"]).firstBurstLength == 8192)
    var initiator = LoginInitiator()
    _ = initiator.send(from: .operational, LoginInitiator.opening + ["FirstBurstLength=65536"])
    #expect(initiator.send(from: .operational, ["MaxBurstLength=8192"]).failure == .initiatorError)
  }

  @Test("MaxRecvDataSegmentLength is declared, by each side for itself (§13.12)")
  func maxRecvDataSegmentLength() throws {
    let result = try parameters(["MaxRecvDataSegmentLength=65536"])
    #expect(result.maxRecvDataSegmentLength == 65_536)
    #expect(result.targetMaxRecvDataSegmentLength == 262_144)
    for value in ["511", "16777216", "big", "Reject"] {
      var initiator = LoginInitiator()
      let keys = LoginInitiator.opening + ["MaxRecvDataSegmentLength=\(value)"]
      #expect(initiator.send(from: .operational, keys).failure == .initiatorError)
    }
  }

  @Test("Our declaration is in the first operational response and in no other, and not over RDMA (RFC 7145 §6.2)")
  func declaration() {
    var initiator = LoginInitiator()
    #expect(
      initiator.send(from: .operational, LoginInitiator.opening).answers == [
        "TargetPortalGroupTag=3", "MaxRecvDataSegmentLength=262144",
      ])
    #expect(initiator.send(from: .operational, ["InitialR2T=Yes"]).answers == ["InitialR2T=Yes"])
    var rdma = LoginInitiator(transport: .iser)
    let keys = LoginInitiator.opening + ["MaxRecvDataSegmentLength=1"]
    #expect(rdma.send(from: .operational, keys).answers == ["TargetPortalGroupTag=3"])
  }

  @Test("Without our declaration the default of 8192 bytes stands")
  func noDeclaration() throws {
    var initiator = LoginInitiator()
    let step = initiator.send(from: .security, to: .fullFeature, LoginInitiator.opening + ["AuthMethod=None"])
    #expect(try #require(step.result).parameters == NegotiatedParameters())
  }

  @Test("Markers are a thing of the past (§13.25)")
  func markers() {
    #expect(
      answers(["OFMarker=No", "IFMarker=Yes", "OFMarkInt=2048~8192", "IFMarkInt=1"]) == [
        "OFMarker=No", "IFMarker=No", "OFMarkInt=Reject", "IFMarkInt=Reject",
      ])
  }

  @Test("Keys unknown to us are not understood, private ones included (§6.2, §13.22)")
  func notUnderstood() {
    #expect(
      answers(["X-com.example.fast=Yes", "Y#digest=1", "initialR2T=Yes"]) == [
        "X-com.example.fast=NotUnderstood", "Y#digest=NotUnderstood", "initialR2T=NotUnderstood",
      ])
  }

  @Test("An answer to a key that nobody offered is not answered in turn (§6.2)")
  func noAnswerToAnswers() {
    #expect(answers(["X-other=NotUnderstood", "TargetAlias=NotUnderstood", "Y-other=Reject"]) == [])
  }

  @Test("X#NodeArchitecture and InitiatorAlias are declared and ask for nothing (§13.7, §13.26)")
  func informational() throws {
    #expect(answers(["X#NodeArchitecture=Linux", "InitiatorAlias=host"]) == [])
    var initiator = LoginInitiator()
    let keys = LoginInitiator.opening + ["InitiatorAlias=my host"]
    #expect(initiator.send(from: .operational, to: .fullFeature, keys).result?.initiatorAlias == "my host")
  }

  @Test("What has no meaning in a discovery session is irrelevant there (§13)")
  func irrelevant() {
    let keys = [
      "MaxConnections", "InitialR2T", "ImmediateData", "MaxBurstLength", "FirstBurstLength", "MaxOutstandingR2T",
      "DataPDUInOrder", "DataSequenceInOrder", "TaskReporting",
    ]
    #expect(answers(keys.map { "\($0)=1" }, discovery: true) == keys.map { "\($0)=Irrelevant" })
    #expect(
      answers(["HeaderDigest=None", "DefaultTime2Wait=0", "ErrorRecoveryLevel=0"], discovery: true) == [
        "HeaderDigest=None", "DefaultTime2Wait=0", "ErrorRecoveryLevel=0",
      ])
  }

  @Test("The RDMA keys are irrelevant without RDMAExtensions=Yes (RFC 7145 §6)")
  func rdmaKeysOverTCP() {
    #expect(
      answers(["RDMAExtensions=Yes", "InitiatorRecvDataSegmentLength=262144", "TargetRecvDataSegmentLength=8192"]) == [
        "RDMAExtensions=No", "InitiatorRecvDataSegmentLength=Irrelevant", "TargetRecvDataSegmentLength=Irrelevant",
      ])
  }

  @Test("Over RDMA the two RecvDataSegmentLengths are the smaller of both, wherever RDMAExtensions stands")
  func rdmaKeys() throws {
    let keys = ["InitiatorRecvDataSegmentLength=524288", "TargetRecvDataSegmentLength=65536", "RDMAExtensions=Yes"]
    #expect(
      answers(keys, transport: .iser) == [
        "InitiatorRecvDataSegmentLength=262144", "TargetRecvDataSegmentLength=8192", "RDMAExtensions=Yes",
      ])
    let result = try parameters(keys, transport: .iser)
    #expect(result.maxRecvDataSegmentLength == 262_144)
    #expect(result.targetMaxRecvDataSegmentLength == 8192)
    #expect(result.rdmaExtensions)
  }

  @Test("What an RDMA initiator declares of itself is not answered (RFC 7145 §6.7 to §6.10)")
  func rdmaDeclarations() throws {
    let keys = [
      "RDMAExtensions=Yes", "MaxOutstandingUnexpectedPDUs=0", "MaxAHSLength=0",
      "TaggedBufferForSolicitedDataOnly=Yes", "iSERHelloRequired=Yes",
    ]
    #expect(answers(keys, transport: .iser) == ["RDMAExtensions=Yes"])
    let result = try parameters(keys, transport: .iser)
    #expect(result.maxAHSLength == 0)
    #expect(result.taggedBufferForSolicitedDataOnly)
    #expect(result.helloRequired)
  }

  @Test("Limits below the standard's defaults are lifted to them, so that silence never exceeds them")
  func limits() throws {
    var limits = OfferLimits()
    limits.maxBurstLength = 512
    limits.firstBurstLength = 512
    limits.maxOutstandingR2T = 0
    limits.maxRecvDataSegmentLength = 1 << 30
    var initiator = LoginInitiator(limits: limits)
    let keys = ["MaxBurstLength=1000000", "FirstBurstLength=1000000", "MaxOutstandingR2T=9"]
    let result = try #require(
      initiator.send(from: .operational, to: .fullFeature, LoginInitiator.opening + keys).result)
    #expect(result.parameters.maxBurstLength == 262_144)
    #expect(result.parameters.firstBurstLength == 65_536)
    #expect(result.parameters.maxOutstandingR2T == 1)
    #expect(result.parameters.targetMaxRecvDataSegmentLength == 16_777_215)
  }
}
