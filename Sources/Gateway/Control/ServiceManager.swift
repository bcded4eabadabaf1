import Glibc

/// What systemd is told (sd_notify(3)): one datagram each to `NOTIFY_SOCKET`. Without that variable, nothing.
public struct ServiceManager: Sendable {
  /// A path, or `@` and a name in the abstract namespace; nil: nobody listens.
  private let address: [UInt8]?
  /// How often `WATCHDOG=1` is due: half of WATCHDOG_USEC (sd_watchdog_enabled(3)); nil: nobody watches, and no thread
  /// need wake for it.
  public let watchdogSeconds: Double?

  /// From NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.
  public init() {
    self.init(environment: { name in getenv(name).map { String(cString: $0) } }, processID: getpid())
  }

  init(environment: (String) -> String?, processID: pid_t) {
    let path = environment("NOTIFY_SOCKET").map { [UInt8]($0.utf8) } ?? []
    let isGood = path.count > 1 && path.count <= ControlPath.byteCountMax && "/@".utf8.contains(path[0])
    address = isGood ? path : nil
    let isForUs = environment("WATCHDOG_PID").map { $0 == String(processID) } ?? true
    let microseconds = environment("WATCHDOG_USEC").flatMap(UInt64.init) ?? 0
    watchdogSeconds = isGood && isForUs && microseconds > 0 ? Double(microseconds) / 2e6 : nil
  }

  public func ready(_ status: String) { send("READY=1\nSTATUS=\(Self.oneLine(status))") }
  public func status(_ text: String) { send("STATUS=\(Self.oneLine(text))") }
  public func watchdog() { send("WATCHDOG=1") }
  public func stopping() { send("STOPPING=1\nSTATUS=Stopping") }

  /// `READY=1` ends it. The time makes it good for Type=notify-reload too.
  public func reloading() {
    send("RELOADING=1\nMONOTONIC_USEC=\(Deadline.now() / 1000)\nSTATUS=Reading the settings")
  }

  private static func oneLine(_ text: String) -> String { String(text.map { $0.isNewline ? " " : $0 }) }

  private func send(_ text: String) {
    guard let address else { return }
    let type = Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    let descriptor = socket(AF_UNIX, type, 0)
    guard descriptor >= 0 else { return }
    defer { close(descriptor) }
    var target = sockaddr_un()
    target.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &target.sun_path) {
      $0.copyBytes(from: address)
      // A leading zero is the abstract namespace, where the length counts (unix(7)).
      if address[0] == UInt8(ascii: "@") { $0[0] = 0 }
    }
    let length = socklen_t(MemoryLayout<sa_family_t>.size + address.count)
    let bytes = [UInt8](text.utf8)
    _ = withUnsafePointer(to: &target) {
      // A `sockaddr_un` is read through `sockaddr` by every call that takes one.
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        sendto(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL), $0, length)
      }
    }
  }
}
