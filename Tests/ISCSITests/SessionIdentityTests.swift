import Testing

@testable import ISCSI

@Suite("Session identity and reinstatement (RFC 7143 §6.3.4, §6.3.5)")
struct SessionIdentityTests {
  private func login(isid: UInt64 = 0x00_02_3D_00_00_01, tsih: UInt16 = 0, cid: UInt16 = 1) throws -> LoginResult {
    var initiator = LoginInitiator()
    initiator.isid = isid
    initiator.tsih = tsih
    initiator.cid = cid
    return try #require(initiator.send(from: .operational, to: .fullFeature, LoginInitiator.opening).result)
  }

  @Test("A session is an initiator name, an ISID and a portal group (§4.4.3)")
  func identity() throws {
    let one = try login().sessionIdentity
    #expect(try login(tsih: 4, cid: 9).sessionIdentity == one)
    #expect(try login(isid: 0x00_02_3D_00_00_02).sessionIdentity != one)
    #expect(one.targetPortalGroupTag == 3)
    #expect(one.initiatorPortName == "iqn.1993-08.org.debian:01:abcdef,i,0x00023d000001")
  }

  @Test("Each row of the table of ISID, TSIH and CID (§6.3.5)")
  func table() throws {
    let session = ExistingSession(tsih: 5, cids: [1])
    let rows: [(tsih: UInt16, cid: UInt16, existing: ExistingSession?, admission: SessionAdmission)] = [
      (0, 1, nil, .newSession),
      (0, 9, nil, .newSession),
      (5, 1, nil, .refused(.sessionDoesNotExist)),
      (0, 1, session, .sessionReinstatement(tsih: 5)),
      (0, 2, session, .sessionReinstatement(tsih: 5)),
      (5, 1, session, .connectionReinstatement(tsih: 5, cid: 1)),
      (5, 2, session, .refused(.tooManyConnections)),
      (6, 1, session, .refused(.sessionDoesNotExist)),
    ]
    for row in rows {
      let result = try login(tsih: row.tsih, cid: row.cid)
      #expect(result.admission(into: row.existing) == row.admission, "\(row)")
    }
    #expect(
      try login(tsih: 5, cid: 2).admission(into: ExistingSession(tsih: 5, cids: [1], maxConnections: 2))
        == .addedConnection(tsih: 5, cid: 2))
  }
}
