import Glibc
import Synchronization

/// How much a line matters, with the priorities of syslog(3).
public enum LogLevel: Int, Sendable, Comparable, CaseIterable {
  case error = 3
  case warning = 4
  case notice = 5
  case info = 6
  case debug = 7

  public var name: String { "\(self)" }

  public init?(name: String) {
    guard let level = Self.allCases.first(where: { $0.name == name }) else { return nil }
    self = level
  }

  /// More severe is smaller, as syslog has it.
  public static func < (left: LogLevel, right: LogLevel) -> Bool { left.rawValue < right.rawValue }
}

/// One line per event to standard error: with journald's `<N>` prefix (sd-daemon(3)) when a journal reads it, else with the
/// time. Any thread may log; a line is one write(2), so lines never mix. Not for the warm path. Never a secret.
public enum Log {
  private static let threshold = Atomic<Int>(LogLevel.info.rawValue)
  private static let isJournal = getenv("JOURNAL_STREAM") != nil
  /// Longer lines are cut: what a peer sends must not fill the journal.
  static let byteCountMax = 2048

  /// The least severe level that is written.
  public static var level: LogLevel {
    get { LogLevel(rawValue: threshold.load(ordering: .relaxed)) ?? .info }
    set { threshold.store(newValue.rawValue, ordering: .relaxed) }
  }

  public static func error(_ message: @autoclosure () -> String) { write(.error, message) }
  public static func warning(_ message: @autoclosure () -> String) { write(.warning, message) }
  public static func notice(_ message: @autoclosure () -> String) { write(.notice, message) }
  public static func info(_ message: @autoclosure () -> String) { write(.info, message) }
  public static func debug(_ message: @autoclosure () -> String) { write(.debug, message) }

  private static func write(_ level: LogLevel, _ message: () -> String) {
    guard level.rawValue <= threshold.load(ordering: .relaxed) else { return }
    let prefix = isJournal ? "<\(level.rawValue)>" : "\(WallClock.text(WallClock.nanoseconds)) \(level.name): "
    let line = line(prefix: prefix, message: message())
    _ = line.withUnsafeBytes { Glibc.write(STDERR_FILENO, $0.baseAddress, $0.count) }
  }

  /// The bytes of one line: control characters escaped, cut at the limit, with the newline.
  static func line(prefix: String, message: String) -> [UInt8] {
    var line: [UInt8] = []
    line.reserveCapacity(256)
    line += prefix.utf8
    for scalar in message.unicodeScalars {
      if line.count >= byteCountMax {
        line += "…".utf8
        break
      }
      Printable.append(scalar, to: &line)
    }
    line.append(UInt8(ascii: "\n"))
    return line
  }
}
