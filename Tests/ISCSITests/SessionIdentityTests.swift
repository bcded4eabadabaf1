import Testing

@testable import ISCSI

@Suite("Session identity (RFC 7143 §4.4.3)")
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
}
