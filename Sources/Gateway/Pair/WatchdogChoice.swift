/// Which watchdog resets this machine when it hangs while it has a disk that cannot fence.
public enum WatchdogChoice: Equatable, Sendable {
  /// The first hardware watchdog that nobody uses; none if there is none.
  case automatic
  /// A device such as /dev/watchdog1.
  case device(String)
  case off

  static let allowed = "\"auto\", \"off\" or the path of a device, such as \"/dev/watchdog\""

  init(parsing text: String) throws(ValueError) {
    switch text {
    case "auto": self = .automatic
    case "off": self = .off
    default:
      guard text.hasPrefix("/dev/") else { throw ValueError("'\(text)' is none of: \(Self.allowed)") }
      self = .device(text)
    }
  }
}
