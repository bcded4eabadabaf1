/// Text Requests of the full-feature phase (RFC 7143 §11.10, §11.11) on one connection.
public struct TextExchange: Sendable {
  /// A Text Response. StatSN, ExpCmdSN and MaxCmdSN are the sender's to fill in.
  public struct Reply: Equatable, Sendable {
    public var header: BasicHeaderSegment
    public var data: [UInt8]
  }

  public enum Step: Equatable, Sendable {
    case respond(Reply)
    /// A Reject PDU with this reason (RFC 7143 §11.17.1) and the request's header.
    case reject(reason: UInt8)
  }

  /// Bytes the initiator takes in one data segment; a Text Request may declare it anew (RFC 7143 §13.12).
  public private(set) var maxRecvDataSegmentLength: Int

  public init(
    configuration: TargetConfiguration, transport: TransportCapabilities, localPortal: String, login: LoginResult
  ) {
    maxRecvDataSegmentLength = login.parameters.maxRecvDataSegmentLength
  }

  /// Takes a Text Request.
  public mutating func receive(_ header: BasicHeaderSegment, data: [UInt8]) -> Step { .reject(reason: 0x05) }
}
