import Wire

/// The target's side of the login phase of one connection.
public struct LoginMachine: Sendable {
  public init(
    configuration: TargetConfiguration, transport: TransportCapabilities, localPortal: String, initialStatSN: UInt32 = 0
  ) {}

  /// Takes a PDU. `random` gives as many unpredictable bytes as it is asked for.
  public mutating func receive(
    _ header: BasicHeaderSegment, data: [UInt8], random: (Int) -> [UInt8]
  ) -> LoginStep { .close }

  /// The final Login Response, after `established`. MaxCmdSN becomes ExpCmdSN + `commandWindow` - 1.
  public mutating func finish(tsih: UInt16, commandWindow: UInt32) -> LoginReply {
    LoginReply(header: BasicHeaderSegment(), data: [])
  }

  /// A Login Response that ends the login: send it, then close. For what only the composition knows, at any time after a
  /// first request. A redirection (class 1) names where to go in `targetAddress`.
  public mutating func refuse(_ status: LoginStatus, targetAddress: String? = nil) -> LoginReply {
    LoginReply(header: BasicHeaderSegment(), data: [])
  }
}
