/// The version of the program, as `gatewayd version` prints it.
public enum GatewayVersion {
  public static let current = "0.1.0"
}
