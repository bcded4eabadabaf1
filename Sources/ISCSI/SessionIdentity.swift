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

extension LoginResult {
  public var sessionIdentity: SessionIdentity {
    SessionIdentity(initiatorName: initiatorName, isid: isid, targetPortalGroupTag: targetPortalGroupTag)
  }
}
