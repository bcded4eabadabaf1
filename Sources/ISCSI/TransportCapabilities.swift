/// What a datamover can and cannot do, as far as login must know it. Nothing above the datamover asks for a transport's
/// name: a difference between TCP and iSER is one of these facts (RFC 7145 §6 tells how each changes a key).
public struct TransportCapabilities: Equatable, Sendable {
  /// Header and data digests exist on this transport (RFC 7145 §6.1: not over RDMA).
  public var allowsDigests: Bool
  /// RDMAExtensions=Yes is answered, and a normal session cannot do without it (RFC 7145 §6.3).
  public var requiresRDMAExtensions: Bool
  /// InitialR2T=Yes is our offer: no unsolicited Data-Out is taken.
  public var forcesInitialR2T: Bool
  /// MaxRecvDataSegmentLength is declared both ways; otherwise it is ignored and the negotiated
  /// InitiatorRecvDataSegmentLength and TargetRecvDataSegmentLength stand for it (RFC 7145 §6.2).
  public var declaresMaxRecvDataSegmentLength: Bool
  /// The most data bytes of a control PDU to the initiator after login, below what it negotiated; nil: no such bound.
  /// Kernel and user-space initiators over RDMA post receives of 128 data bytes whatever they negotiate.
  public var controlDataBytesMax: Int?

  public init(
    allowsDigests: Bool, requiresRDMAExtensions: Bool, forcesInitialR2T: Bool, declaresMaxRecvDataSegmentLength: Bool,
    controlDataBytesMax: Int?
  ) {
    self.allowsDigests = allowsDigests
    self.requiresRDMAExtensions = requiresRDMAExtensions
    self.forcesInitialR2T = forcesInitialR2T
    self.declaresMaxRecvDataSegmentLength = declaresMaxRecvDataSegmentLength
    self.controlDataBytesMax = controlDataBytesMax
  }

  public static let tcp = TransportCapabilities(
    allowsDigests: true, requiresRDMAExtensions: false, forcesInitialR2T: false,
    declaresMaxRecvDataSegmentLength: true, controlDataBytesMax: nil)

  public static let iser = TransportCapabilities(
    allowsDigests: false, requiresRDMAExtensions: true, forcesInitialR2T: true,
    declaresMaxRecvDataSegmentLength: false, controlDataBytesMax: 128)
}
