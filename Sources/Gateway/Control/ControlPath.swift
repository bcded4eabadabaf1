import Glibc

/// Where the control socket is when nobody says.
public enum ControlPath {
  /// `sun_path` with its terminating zero (unix(7)).
  public static let byteCountMax = 107
  /// Of the system's own daemon.
  public static let system = "/run/gatewayd/control.sock"

  /// `GATEWAYD_CONTROL`; else `/run/gatewayd/control.sock` for root and for a service with that runtime directory; else
  /// `$XDG_RUNTIME_DIR/gatewayd/control.sock`; else `/tmp/gatewayd-UID/control.sock`.
  public static func standard() -> String {
    standard(environment: { name in getenv(name).map { String(cString: $0) } }, uid: geteuid())
  }

  static func standard(environment: (String) -> String?, uid: uid_t) -> String {
    func value(_ name: String) -> String? { environment(name).flatMap { $0.isEmpty ? nil : $0 } }
    if let told = value("GATEWAYD_CONTROL") { return told }
    // systemd gives RuntimeDirectory= to an unprivileged service this way (systemd.exec(5)).
    if let service = value("RUNTIME_DIRECTORY"), !service.contains(":") { return service + "/control.sock" }
    if uid == 0 { return system }
    if let user = value("XDG_RUNTIME_DIR") { return user + "/gatewayd/control.sock" }
    return "/tmp/gatewayd-\(uid)/control.sock"
  }
}
