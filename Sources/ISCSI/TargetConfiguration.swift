/// A network portal of the target, as SendTargets tells it (RFC 7143 §13.8).
public struct Portal: Hashable, Sendable {
  /// "192.0.2.1:3260" or "[fe80::1]:3260".
  public var address: String
  public var portalGroupTag: UInt16

  public init(address: String, portalGroupTag: UInt16) {
    self.address = address
    self.portalGroupTag = portalGroupTag
  }
}

/// What login and SendTargets know of the target: an immutable snapshot, replaced as a whole.
public struct TargetConfiguration: Sendable {
  public var targetName: ISCSIName
  /// At most 255 bytes; told to initiators that may log in.
  public var targetAlias: String?
  /// Every portal, whatever its transport: a TargetAddress carries none. Empty: the portal that was asked stands alone.
  public var portals: [Portal]
  /// The tag of a portal that is not in `portals`.
  public var portalGroupTag: UInt16
  public var access: AccessRules
  public var limits: OfferLimits

  public init(
    targetName: ISCSIName, targetAlias: String? = nil, portals: [Portal] = [], portalGroupTag: UInt16 = 1,
    access: AccessRules = .open, limits: OfferLimits = OfferLimits()
  ) {
    self.targetName = targetName
    self.targetAlias = targetAlias.map { alias in
      var alias = alias
      while alias.utf8.count > TextKeys.valueByteCountMax { alias.removeLast() }
      return alias
    }
    self.portals = portals
    self.portalGroupTag = portalGroupTag
    self.access = access
    self.limits = limits
  }

  /// The tag of the portal at `address`.
  public func portalGroupTag(of address: String) -> UInt16 {
    portals.first { $0.address == address }?.portalGroupTag ?? portalGroupTag
  }
}

/// Our side of the numeric negotiations. None lies below the standard's default, so that a key which the initiator
/// leaves out never has to be offered by us (over RDMA there is no round for the answer).
public struct OfferLimits: Equatable, Sendable {
  /// Bytes we take in one data segment over TCP.
  public var maxRecvDataSegmentLength = 262_144
  public var maxBurstLength = 1_048_576
  public var firstBurstLength = 262_144
  public var maxOutstandingR2T = 8
  /// Bytes we take in one control PDU over RDMA, immediate data included.
  public var targetRecvDataSegmentLength = 8192
  public var initiatorRecvDataSegmentLength = 262_144
  /// Seconds; the larger side wins, so 0 leaves the choice to the initiator.
  public var defaultTime2Wait = 0
  /// Seconds; without error recovery levels 1 and 2 nothing is retained.
  public var defaultTime2Retain = 0

  public init() {}
}
