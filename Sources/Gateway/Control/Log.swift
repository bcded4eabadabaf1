import CSystem
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
/// time. Any thread may log, and none waits; a line is one write(2), so lines never mix. Not for the warm path. Never a secret.
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

  /// A line that a peer can bring about as often as it likes: only so many are written (`LogAllowance`).
  static func ofPeers(_ level: LogLevel, _ message: @autoclosure () -> String) {
    guard isWritten(level) else { return }
    switch allowance.withLock({ $0.ask(now: system_monotonic_ns()) }) {
    case .write(let leftOut):
      if leftOut > 0 { notice("\(leftOut) lines about connections were left out") }
      write(level, message)
    case .leaveOut(let isFirst):
      guard isFirst else { return }
      notice("\(LogAllowance.lines) lines about connections in a minute: others are only counted (gatewayd metrics)")
    }
  }

  private static let allowance = Mutex(LogAllowance())

  private static func isWritten(_ level: LogLevel) -> Bool { level.rawValue <= threshold.load(ordering: .relaxed) }

  private static func write(_ level: LogLevel, _ message: () -> String) {
    guard isWritten(level) else { return }
    let line = line(prefix: prefix(level), message: message())
    unread.withLock { unread in
      if unread > 0 {
        let lost = Self.line(prefix: prefix(.warning), message: "\(unread) lines were lost: nobody read them")
        guard send(lost) else { return unread += 1 }
        unread = 0
      }
      if !send(line) { unread += 1 }
    }
  }

  /// Lines that found no room.
  private static let unread = Mutex<UInt64>(0)

  private static func prefix(_ level: LogLevel) -> String {
    isJournal ? "<\(level.rawValue)>" : "\(WallClock.text(WallClock.nanoseconds)) \(level.name): "
  }

  /// Whoever reads the lines may have stopped, as a journal whose disk hangs: nobody here waits for it. A pipe or a socket that
  /// takes anything takes a line whole. Not by O_NONBLOCK, which others with the same standard error would have too.
  private static func send(_ line: [UInt8]) -> Bool {
    var entry = pollfd(fd: STDERR_FILENO, events: Int16(POLLOUT), revents: 0)
    guard poll(&entry, 1, 0) > 0 else { return false }
    _ = line.withUnsafeBytes { Glibc.write(STDERR_FILENO, $0.baseAddress, $0.count) }
    return true
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

/// How many lines those may bring about who need no right for it: logins, refusals, ends of connections. A journal limits a
/// service by leaving out whatever comes next, and that could be what an operator has to know.
struct LogAllowance: Sendable {
  enum Answer: Equatable, Sendable {
    /// After so many that were left out before.
    case write(leftOut: Int)
    case leaveOut(isFirst: Bool)
  }

  /// Twice what 256 sessions write that all end and come back.
  static let lines = 1024
  static let periodNs: UInt64 = 60_000_000_000

  private var begunAt: UInt64 = 0
  private var written = 0
  private var leftOut = 0

  /// - Parameter now: of the monotonic clock, in ns.
  mutating func ask(now: UInt64) -> Answer {
    guard now < begunAt + Self.periodNs, begunAt > 0 else {
      defer {
        begunAt = now
        written = 1
        leftOut = 0
      }
      return .write(leftOut: leftOut)
    }
    if written < Self.lines {
      written += 1
      return .write(leftOut: 0)
    }
    leftOut += 1
    return .leaveOut(isFirst: leftOut == 1)
  }
}
