/// What makes a session the same one (RFC 7143 §4.4.3): an initiator port, which is a name and an ISID, and the target
/// port, which is a portal group. At most one session with an identity exists.
public struct SessionIdentity: Hashable, Sendable {
  public var initiatorName: ISCSIName
  /// Six bytes in the low end.
  public var isid: UInt64
  public var targetPortalGroupTag: UInt16

  public init(initiatorName: ISCSIName, isid: UInt64, targetPortalGroupTag: UInt16) {
    self.initiatorName = initiatorName
    self.isid = isid
    self.targetPortalGroupTag = targetPortalGroupTag
  }

  /// The SCSI initiator port name, as in an iSCSI TransportID (SPC-5 §7.6.4.6): name, ",i,0x", and 12 digits of ISID.
  public var initiatorPortName: String {
    let digits = String(isid & 0xFFFF_FFFF_FFFF, radix: 16)
    return "\(initiatorName.text),i,0x" + String(repeating: "0", count: 12 - digits.utf8.count) + digits
  }
}

/// A session that has the identity of a login.
public struct ExistingSession: Equatable, Sendable {
  public var tsih: UInt16
  public var cids: Set<UInt16>
  public var maxConnections: Int

  public init(tsih: UInt16, cids: Set<UInt16>, maxConnections: Int = 1) {
    self.tsih = tsih
    self.cids = cids
    self.maxConnections = maxConnections
  }
}

/// What a login does to the sessions there are.
public enum SessionAdmission: Equatable, Sendable {
  case newSession
  /// The old session ends, its tasks with it, before the final Login Response (RFC 7143 §6.3.5).
  case sessionReinstatement(tsih: UInt16)
  /// The old connection ends first, as by a logout of it (RFC 7143 §6.3.4).
  case connectionReinstatement(tsih: UInt16, cid: UInt16)
  case addedConnection(tsih: UInt16, cid: UInt16)
  case refused(LoginStatus)
}

extension LoginResult {
  public var sessionIdentity: SessionIdentity {
    SessionIdentity(initiatorName: initiatorName, isid: isid, targetPortalGroupTag: targetPortalGroupTag)
  }

  /// The row of the table of RFC 7143 §6.3.5 for this login. `existing`: the session that has its identity, if there is
  /// one.
  public func admission(into existing: ExistingSession?) -> SessionAdmission {
    guard let existing else { return tsihRequested == 0 ? .newSession : .refused(.sessionDoesNotExist) }
    if tsihRequested == 0 { return .sessionReinstatement(tsih: existing.tsih) }
    guard tsihRequested == existing.tsih else { return .refused(.sessionDoesNotExist) }
    if existing.cids.contains(cid) { return .connectionReinstatement(tsih: existing.tsih, cid: cid) }
    return existing.cids.count < existing.maxConnections
      ? .addedConnection(tsih: existing.tsih, cid: cid) : .refused(.tooManyConnections)
  }
}
