/// The operational parameters of a session and its connection. A new value holds the defaults of RFC 7143 §13 and
/// RFC 7145 §6, which are in force for every key that nobody negotiated. The same fields hold our own offers.
public struct NegotiatedParameters: Equatable, Sendable {
  /// CRC32C on headers; false is None (§13.1).
  public var headerDigest = false
  /// CRC32C on data segments; false is None (§13.1).
  public var dataDigest = false
  /// Connections in the session, 1...65535 (§13.2).
  public var maxConnections = 1
  /// No unsolicited Data-Out (§13.10).
  public var initialR2T = true
  /// Data may ride in the SCSI Command PDU (§13.11).
  public var immediateData = true
  /// Bytes the initiator takes in one data segment: our send limit (§13.12).
  public var maxRecvDataSegmentLength = 8192
  /// Bytes we take in one data segment, as declared by us (§13.12).
  public var targetMaxRecvDataSegmentLength = 8192
  /// Bytes in one solicited sequence, 512...16777215 (§13.13).
  public var maxBurstLength = 262_144
  /// Unsolicited bytes of one command, immediate data included; never above `maxBurstLength` (§13.14).
  public var firstBurstLength = 65_536
  /// Seconds before a reconnection, 0...3600 (§13.15).
  public var defaultTime2Wait = 2
  /// Seconds that tasks are kept for reassignment, 0...3600 (§13.16).
  public var defaultTime2Retain = 20
  /// R2Ts outstanding for one command, 1...65535 (§13.17).
  public var maxOutstandingR2T = 1
  /// Data PDUs of a sequence come in offset order (§13.18).
  public var dataPDUInOrder = true
  /// Sequences of a command come in offset order (§13.19).
  public var dataSequenceInOrder = true
  /// 0...2 (§13.20).
  public var errorRecoveryLevel = 0
  /// 1: RFC 7143; 2 would add RFC 7144 (§13.24).
  public var protocolLevel = 1

  /// The connection is iSER-assisted (RFC 7145 §6.3).
  public var rdmaExtensions = false
  /// Bytes the initiator takes in one data segment of a control PDU over RDMA (RFC 7145 §6.5).
  public var initiatorRecvDataSegmentLength = 8192
  /// Bytes we take in one data segment of a control PDU over RDMA (RFC 7145 §6.4).
  public var targetRecvDataSegmentLength = 8192
  /// Unexpected PDUs the initiator has buffers for; 0: no limit declared (RFC 7145 §6.7).
  public var maxOutstandingUnexpectedPDUs = 0
  /// Bytes of additional header segments the initiator takes; 0: no limit (RFC 7145 §6.8).
  public var maxAHSLength = 256
  /// Solicited data only through tagged buffers (RFC 7145 §6.9).
  public var taggedBufferForSolicitedDataOnly = false
  /// The initiator starts with an iSER Hello (RFC 7145 §6.10).
  public var helloRequired = false

  public init() {}
}
