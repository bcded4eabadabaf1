import Testing

@testable import ISCSI

/// Whole logins of initiators in the field, written down key by key. "I" and "T" are the two sides, then current and
/// next stage (0 security, 1 operational, 3 full feature), then the keys.
@Suite("Logins of initiators in the field")
struct LoginTranscripts {
  private func play(_ transcript: String, transport: TransportCapabilities = .tcp) throws -> LoginResult? {
    var initiator = LoginInitiator(transport: transport)
    var pending: LoginReply?
    var result: LoginResult?
    for line in transcript.split(separator: "\n").map(String.init) {
      var words = line.split(separator: " ").map(String.init)
      let side = words.removeFirst()
      let stages = words.removeFirst().split(separator: ">").map { LoginStage(rawValue: UInt8($0)!)! }
      let next = stages.count > 1 ? stages[1] : nil
      if side == "I" {
        #expect(pending == nil, "the target's answer is missing before: \(line)")
        let step = initiator.send(from: stages[0], to: next, words)
        result = step.result
        pending = step.result == nil ? step.reply : initiator.machine.finish(tsih: 1, commandWindow: 32)
      } else {
        let reply = try #require(pending)
        pending = nil
        #expect(reply.status == .success)
        #expect(reply.header.flags >> 2 & 3 == stages[0].rawValue)
        #expect(reply.transition == next, "\(line)")
        #expect(reply.pairs == words)
      }
    }
    #expect(pending == nil)
    return result
  }

  @Test("open-iscsi over TCP")
  func openISCSI() throws {
    let result = try play(
      """
      I 0>1 InitiatorName=iqn.1993-08.org.debian:01:abcdef InitiatorAlias=host \
      TargetName=iqn.2024-01.org.example:disks SessionType=Normal AuthMethod=None
      T 0>1 TargetPortalGroupTag=3 AuthMethod=None
      I 1>3 HeaderDigest=None,CRC32C DataDigest=None DefaultTime2Wait=2 DefaultTime2Retain=0 IFMarker=No OFMarker=No \
      ErrorRecoveryLevel=0 InitialR2T=No ImmediateData=Yes MaxBurstLength=16776192 FirstBurstLength=262144 \
      MaxOutstandingR2T=1 MaxConnections=1 DataPDUInOrder=Yes DataSequenceInOrder=Yes MaxRecvDataSegmentLength=262144
      T 1>3 MaxRecvDataSegmentLength=262144 HeaderDigest=None DataDigest=None DefaultTime2Wait=2 DefaultTime2Retain=0 \
      IFMarker=No OFMarker=No ErrorRecoveryLevel=0 InitialR2T=No ImmediateData=Yes MaxBurstLength=1048576 \
      FirstBurstLength=262144 MaxOutstandingR2T=1 MaxConnections=1 DataPDUInOrder=Yes DataSequenceInOrder=Yes
      """)
    let parameters = try #require(result).parameters
    #expect(parameters.maxRecvDataSegmentLength == 262_144)
    #expect(!parameters.initialR2T)
    #expect(result?.initiatorAlias == "host")
  }

  @Test("open-iscsi over iSER: one operational round, RDMAExtensions answered, nothing declared")
  func openISCSIOverRDMA() throws {
    let result = try play(
      """
      I 0>1 InitiatorName=iqn.1993-08.org.debian:01:abcdef InitiatorAlias=host \
      TargetName=iqn.2024-01.org.example:disks SessionType=Normal AuthMethod=None
      T 0>1 TargetPortalGroupTag=3 AuthMethod=None
      I 1>3 HeaderDigest=None DataDigest=None DefaultTime2Wait=2 DefaultTime2Retain=0 IFMarker=No OFMarker=No \
      ErrorRecoveryLevel=0 InitialR2T=No ImmediateData=Yes MaxBurstLength=16776192 FirstBurstLength=262144 \
      MaxOutstandingR2T=1 MaxConnections=1 DataPDUInOrder=Yes DataSequenceInOrder=Yes \
      InitiatorRecvDataSegmentLength=262144 TargetRecvDataSegmentLength=8192 RDMAExtensions=Yes
      T 1>3 HeaderDigest=None DataDigest=None DefaultTime2Wait=2 DefaultTime2Retain=0 IFMarker=No OFMarker=No \
      ErrorRecoveryLevel=0 InitialR2T=Yes ImmediateData=Yes MaxBurstLength=1048576 FirstBurstLength=262144 \
      MaxOutstandingR2T=1 MaxConnections=1 DataPDUInOrder=Yes DataSequenceInOrder=Yes \
      InitiatorRecvDataSegmentLength=262144 TargetRecvDataSegmentLength=8192 RDMAExtensions=Yes
      """, transport: .iser)
    let parameters = try #require(result).parameters
    #expect(parameters.rdmaExtensions)
    #expect(parameters.initialR2T)
    #expect(parameters.targetRecvDataSegmentLength == 8192)
  }

  @Test("libiscsi, and QEMU with it, over TCP")
  func libiscsi() throws {
    let result = try play(
      """
      I 0>1 InitiatorName=iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-test InitiatorAlias=iscsi-test \
      TargetName=iqn.2024-01.org.example:disks SessionType=Normal AuthMethod=None
      T 0>1 TargetPortalGroupTag=3 AuthMethod=None
      I 1>3 HeaderDigest=None,CRC32C DataDigest=None InitialR2T=No ImmediateData=Yes MaxBurstLength=262144 \
      FirstBurstLength=262144 MaxRecvDataSegmentLength=262144 DataPDUInOrder=Yes DefaultTime2Wait=2 \
      DefaultTime2Retain=0 IFMarker=No OFMarker=No MaxConnections=1 MaxOutstandingR2T=1 ErrorRecoveryLevel=0 \
      DataSequenceInOrder=Yes
      T 1>3 MaxRecvDataSegmentLength=262144 HeaderDigest=None DataDigest=None InitialR2T=No ImmediateData=Yes \
      MaxBurstLength=262144 FirstBurstLength=262144 DataPDUInOrder=Yes DefaultTime2Wait=2 DefaultTime2Retain=0 \
      IFMarker=No OFMarker=No MaxConnections=1 MaxOutstandingR2T=1 ErrorRecoveryLevel=0 DataSequenceInOrder=Yes
      """)
    #expect(try #require(result).parameters.firstBurstLength == 262_144)
  }

  @Test("Windows: digests preferred, recovery level 2 offered, a longer list of R2Ts")
  func windows() throws {
    let result = try play(
      """
      I 0>1 InitiatorName=iqn.1991-05.com.microsoft:my_host SessionType=Normal \
      TargetName=iqn.2024-01.org.example:disks AuthMethod=None
      T 0>1 TargetPortalGroupTag=3 AuthMethod=None
      I 1>3 HeaderDigest=CRC32C,None DataDigest=CRC32C,None ErrorRecoveryLevel=2 InitialR2T=No ImmediateData=Yes \
      MaxRecvDataSegmentLength=65536 MaxBurstLength=262144 FirstBurstLength=65536 MaxConnections=1 DataPDUInOrder=Yes \
      DataSequenceInOrder=Yes DefaultTime2Wait=0 DefaultTime2Retain=60 MaxOutstandingR2T=16
      T 1>3 MaxRecvDataSegmentLength=262144 HeaderDigest=CRC32C DataDigest=CRC32C ErrorRecoveryLevel=0 InitialR2T=No \
      ImmediateData=Yes MaxBurstLength=262144 FirstBurstLength=65536 MaxConnections=1 DataPDUInOrder=Yes \
      DataSequenceInOrder=Yes DefaultTime2Wait=0 DefaultTime2Retain=0 MaxOutstandingR2T=8
      """)
    let parameters = try #require(result).parameters
    #expect(parameters.headerDigest && parameters.dataDigest)
    #expect(parameters.maxRecvDataSegmentLength == 65_536)
  }

  @Test("A discovery session")
  func discovery() throws {
    let result = try play(
      """
      I 0>1 InitiatorName=iqn.1993-08.org.debian:01:abcdef SessionType=Discovery AuthMethod=None
      T 0>1 AuthMethod=None
      I 1>3 HeaderDigest=None DataDigest=None DefaultTime2Wait=2 DefaultTime2Retain=0 IFMarker=No OFMarker=No \
      ErrorRecoveryLevel=0 MaxRecvDataSegmentLength=32768
      T 1>3 MaxRecvDataSegmentLength=262144 HeaderDigest=None DataDigest=None DefaultTime2Wait=2 DefaultTime2Retain=0 \
      IFMarker=No OFMarker=No ErrorRecoveryLevel=0
      """)
    #expect(try #require(result).isDiscovery)
    #expect(result?.parameters.maxRecvDataSegmentLength == 32_768)
  }
}
