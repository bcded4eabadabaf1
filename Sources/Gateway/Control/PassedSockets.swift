import Glibc

/// Sockets that the service manager opened and passed (sd_listen_fds(3)).
public enum PassedSockets {
  private static let first: Int32 = 3
  private static let countMax: Int32 = 64

  /// Takes them, close-on-exec: nobody else finds them afterwards. Empty: none were passed to this process.
  public static func take() -> [Int32] {
    defer { for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] { unsetenv(name) } }
    let descriptors = passed(environment: { name in getenv(name).map { String(cString: $0) } }, processID: getpid())
    for descriptor in descriptors { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
    return descriptors
  }

  static func passed(environment: (String) -> String?, processID: pid_t) -> [Int32] {
    guard environment("LISTEN_PID") == String(processID), let count = environment("LISTEN_FDS").flatMap(Int32.init),
      (1...countMax).contains(count)
    else { return [] }
    return (first..<first + count).map { $0 }
  }
}
