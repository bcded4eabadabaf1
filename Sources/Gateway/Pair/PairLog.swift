import HA
import Synchronization

/// The pair's lines in the log. Written by a thread of its own: who reads the log may be slow, and the pair must not wait for
/// it. What repeats itself is told once a minute.
final class PairLog: Sendable {
  private struct State: Sendable {
    var news = PairNews()
    var filter = RepeatFilter()
  }

  private let state = Mutex(State())
  private let queue = WorkQueue(name: "pair log")

  /// - Parameter kind: what makes it the same as an earlier line; by default its text.
  func tell(_ level: LogLevel, _ text: String, kind: String? = nil) {
    let omitted = state.withLock { $0.filter.admit(kind ?? text, at: BootClock.now) }
    queue.run {
      switch omitted {
      case nil: Log.debug(text)
      case 0: Self.write(level, text)
      case let count?: Self.write(level, "\(text) (\(count) more of these in between)")
      }
    }
  }

  /// - Parameter line: as `PairHistory.note` has it.
  func tell(_ transition: Transition, _ line: String) {
    let isBad = transition.to == .fenced || transition.to == .suspecting
    let kind = "\(transition.from) \(transition.to) \(transition.reason)"
    tell(isBad && transition.from != transition.to ? .warning : .notice, line, kind: kind)
  }

  func links(_ up: [LinkID], condition: (LinkID) -> String?) {
    let lines = state.withLock { $0.news.lines(of: up, condition: condition) }
    for line in lines { tell(line.level, line.text, kind: line.kind) }
  }

  func status(_ status: PairStatus, name: (DiskID) -> String) {
    let lines = state.withLock { $0.news.lines(of: status, at: BootClock.now, name: name) }
    for line in lines { tell(line.level, line.text, kind: line.kind) }
  }

  private static func write(_ level: LogLevel, _ text: String) {
    switch level {
    case .error: Log.error(text)
    case .warning: Log.warning(text)
    case .notice: Log.notice(text)
    case .info: Log.info(text)
    case .debug: Log.debug(text)
    }
  }
}
