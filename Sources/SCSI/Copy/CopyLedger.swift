/// The copies of one nexus: those under way, and what is kept of those that are done until the session ends or others take
/// their place. RECEIVE COPY RESULTS tells of it (SPC-4 §6.25).
public struct CopyLedger: Sendable {
  /// MAXIMUM CONCURRENT COPIES.
  static let concurrentMax = 16
  static let keptMax = 16

  enum State: Equatable, Sendable {
    case running
    case done
    case failed(CopyFailure)
  }

  struct Entry: Sendable {
    var token: UInt64
    /// LIST IDENTIFIER; nil: nobody can ask for it.
    var list: UInt8?
    var isKept: Bool
    var state = State.running
    var segments: UInt16 = 0
    var byteCount: UInt64 = 0
  }

  private(set) var entries: [Entry] = []
  private var tokens: UInt64 = 0

  /// Begins a copy; throws why there cannot be one now.
  mutating func begin(list: UInt8?, isKept: Bool) throws(Sense) -> UInt64 {
    if let list {
      if entries.contains(where: { $0.list == list && $0.state == .running }) { throw .operationInProgress }
      entries.removeAll { $0.list == list }
    }
    guard entries.count(where: { $0.state == .running }) < Self.concurrentMax else { throw .insufficientResources }
    let oldest = entries.firstIndex { $0.state != .running }
    if let oldest, entries.count >= Self.concurrentMax + Self.keptMax { entries.remove(at: oldest) }
    tokens += 1
    entries.append(Entry(token: tokens, list: list, isKept: isKept))
    return tokens
  }

  /// Some of it is done.
  public mutating func progress(_ token: UInt64, byteCount: UInt64, segments: UInt16) {
    guard let i = entries.firstIndex(where: { $0.token == token }) else { return }
    entries[i].byteCount = byteCount
    entries[i].segments = segments
  }

  /// It is done, or has failed.
  public mutating func end(_ token: UInt64, _ failure: CopyFailure? = nil) {
    guard let i = entries.firstIndex(where: { $0.token == token }) else { return }
    entries[i].state = failure.map(State.failed) ?? .done
    if entries[i].list == nil || !entries[i].isKept { entries.remove(at: i) }
  }

  /// It was aborted: nothing is kept (SPC-4 §5.17.4).
  public mutating func abandon(_ token: UInt64) {
    entries.removeAll { $0.token == token && $0.state == .running }
  }

  func entry(list: UInt8) -> Entry? { entries.first { $0.list == list } }
}
