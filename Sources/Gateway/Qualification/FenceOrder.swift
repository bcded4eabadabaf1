import CSystem
import Glibc
import Storage

/// One order to a disk's persistent reservations, as text and answered in text: for tests in the lab, and for whoever has to
/// look into a pair that is stuck.
public struct FenceOrder {
  /// What there is, for the usage.
  public static let usage = """
    probe | keys | holder | register KEY | reserve KEY | preempt OWN VICTIM | preempt-only OWN VICTIM | \
    unregister KEY | write OFFSET
    """

  private let words: [String]
  private let keys: [UInt64]

  /// - Parameter words: an order and its keys ("0x67…" or decimal); nil: there is no such order.
  public init?(_ words: [String]) {
    let counts = [
      "probe": 0, "keys": 0, "holder": 0, "register": 1, "reserve": 1, "preempt": 2, "preempt-only": 2, "unregister": 1,
      "write": 1,
    ]
    let keys = words.dropFirst().compactMap { word in
      word.hasPrefix("0x") ? UInt64(word.dropFirst(2), radix: 16) : UInt64(word)
    }
    guard let first = words.first, counts[first] == keys.count, keys.count == words.count - 1 else { return nil }
    self.words = words
    self.keys = keys
  }

  /// "done", "conflict", "disturbed", "timed-out", "failed: …", or what was asked for; then the milliseconds that it took.
  public func run(path: String) throws(QualificationRefusal) -> (text: String, isDone: Bool) {
    let disk: Disk
    do throws(DiskError) { disk = try Disk.open(path: path) } catch { throw QualificationRefusal(error.description) }
    let begin = system_monotonic_ns()
    let (text, isDone) = answer(disk)
    let microseconds = (system_monotonic_ns() - begin) / 1000
    return ("\(text) (\(microseconds / 1000).\(microseconds / 100 % 10) ms)", isDone)
  }

  private func answer(_ disk: Disk) -> (String, Bool) {
    if words[0] == "probe" {
      switch FenceSupport.probe(disk) {
      case .able(let state): return ("able \(Self.words(state))", true)
      case .unable(let obstacle): return ("unable: \(obstacle)", true)
      }
    }
    do throws(FenceFailure) {
      return (try perform(disk), true)
    } catch {
      switch error {
      case .conflict: return ("conflict", false)
      case .disturbed: return ("disturbed", false)
      case .timedOut: return ("timed-out", false)
      case .failed(let code): return ("failed: \(SystemError.text(code))", false)
      }
    }
  }

  private func perform(_ disk: Disk) throws(FenceFailure) -> String {
    if words[0] == "write" {
      let code = StampedIO.write(disk, byte: 0, at: keys[0] / 4096 * 4096)
      guard code == 0 else { throw FenceFailure(errno: code) }
      return "done"
    }
    guard let fence = Fence(disk) else { throw .failed(EOPNOTSUPP) }
    switch words[0] {
    case "keys": return Self.words(try fence.readState())
    case "holder": return try fence.readReservation().map { "\(Self.hex($0.key)) type \($0.type)" } ?? "none"
    case "register": try fence.register(keys[0])
    case "reserve": try fence.reserve(keys[0])
    case "preempt": try fence.preempt(own: keys[0], victim: keys[1])
    case "preempt-only": try fence.preempt(own: keys[0], victim: keys[1], aborts: false)
    case "unregister": try fence.unregister(keys[0])
    default: throw .failed(EINVAL)
    }
    return "done"
  }

  private static func words(_ state: FenceState) -> String {
    let holder = state.reservation.map { "\(hex($0.key)) type \($0.type)" } ?? "none"
    return "[\(state.keys.map(hex).joined(separator: " "))] holder \(holder)"
  }

  private static func hex(_ key: UInt64) -> String { "0x" + String(key, radix: 16) }
}
