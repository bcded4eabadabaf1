import HA
import Wire

/// What the log says of the pair beside its transitions: found by comparing what it was with what it is. No clock, no I/O.
struct PairNews: Sendable {
  struct Line: Sendable, Equatable {
    var level: LogLevel
    var text: String
    /// What makes it the same as an earlier one, whatever durations it tells.
    var kind: String

    init(_ level: LogLevel, _ text: String, kind: String? = nil) {
      self.level = level
      self.text = "pair: " + text
      self.kind = kind ?? text
    }
  }

  private var before: PairStatus?
  private var isHeard = false
  private var up: [LinkID] = []
  private var unsureSince: Instant?
  private var suspendedSince: [DiskID: Instant] = [:]

  // MARK: Links

  /// - Parameter condition: how a link is, in words; nil: it is not there any more.
  mutating func lines(of links: [LinkID], condition: (LinkID) -> String?) -> [Line] {
    defer { up = links }
    let came = links.filter { !up.contains($0) }.map { Line(.notice, "link \($0) is up") }
    let gone = up.filter { !links.contains($0) }
      .map { Line(.warning, "link \($0) is down: \(condition($0) ?? "its interface is gone")") }
    return gone + came
  }

  // MARK: The rest

  /// - Parameter name: what an operator knows a disk by.
  mutating func lines(of status: PairStatus, at now: Instant, name: (DiskID) -> String) -> [Line] {
    defer { before = status }
    return peer(status, now) + hold(status) + places(status) + lease(status, now) + disks(status, now, name)
  }

  private mutating func peer(_ status: PairStatus, _ now: Instant) -> [Line] {
    guard let peer = status.peer else {
      isHeard = false
      return []
    }
    let silence = now - min(peer.heardAt, now)
    let wasHeard = isHeard
    isHeard = silence < peer.silenceLimit
    guard let old = before?.peer, old.node == peer.node else {
      return [Line(.notice, "the other node is \(peer.name) (\(peer.node)): \(peer.role), epoch \(peer.epoch)")]
    }
    var lines: [Line] = []
    if wasHeard, !isHeard {
      let text = "\(peer.name) is not heard any more: \(PairHistory.text(silence)) of silence"
      lines.append(Line(.warning, text, kind: "not heard"))
    } else if !wasHeard, isHeard {
      let silence = PairHistory.text(peer.heardAt - min(old.heardAt, peer.heardAt))
      lines.append(Line(.notice, "\(peer.name) is heard again, after \(silence)", kind: "heard again"))
    }
    // What lies between is a moment, and that node's own log tells of it.
    if old.role != peer.role, peer.role == .active || peer.role == .passive {
      lines.append(Line(.info, "\(peer.name) is \(peer.role), epoch \(peer.epoch)"))
    }
    return lines
  }

  private func hold(_ status: PairStatus) -> [Line] {
    guard status.hold != before?.hold else { return [] }
    return switch status.hold {
    case nil: [Line(.notice, "takeovers by themselves again")]
    case .byOperator:
      [Line(.notice, "no takeovers by themselves, by an operator's order, until 'gatewayd pair resume'")]
    case .byRepetition:
      [
        Line(
          .warning,
          "three takeovers within ten minutes: from now on only from a silent active, until 'gatewayd pair resume'")
      ]
    }
  }

  /// Who has no place in the labels.
  private func places(_ status: PairStatus) -> [Line] {
    var lines: [Line] = []
    if status.isRefused, before?.isRefused != true {
      lines.append(
        Line(
          .error,
          "the labels of all shared disks name two other nodes: this one takes nothing; "
            + "to free a place, on the active node: gatewayd pair forget UUID"))
    }
    if let stranger = status.stranger, stranger != before?.stranger {
      lines.append(
        Line(
          .warning,
          "node \(stranger.name) (\(stranger.node)) is refused: the labels name another; "
            + "if that is gone for good: gatewayd pair forget UUID"))
    }
    return lines
  }

  private mutating func lease(_ status: PairStatus, _ now: Instant) -> [Line] {
    if status.isUnsure, unsureSince == nil {
      unsureSince = now
      return [Line(.warning, "no sign that this node is still the active one: all commands wait")]
    }
    guard !status.isUnsure, let since = unsureSince else { return [] }
    unsureSince = nil
    let text = "commands waited \(PairHistory.text(now - since)) for a sign; now it is \(status.role)"
    return [Line(.notice, text, kind: "commands waited")]
  }

  /// Of a node that was active and is. What a takeover does with all disks is told by its transitions.
  private mutating func disks(_ status: PairStatus, _ now: Instant, _ name: (DiskID) -> String) -> [Line] {
    guard let before, before.role == .active, status.role == .active else {
      suspendedSince = [:]
      return []
    }
    return status.disks.compactMap { disk in
      let old = before.disks.first { $0.id == disk.id }?.state
      guard old != disk.state else { return nil }
      switch disk.state {
      case .secured:
        let since = suspendedSince.removeValue(forKey: disk.id)
        let wait = since.map { ", after \(PairHistory.text(now - $0))" } ?? ""
        return Line(.notice, "\(name(disk.id)) is admitted: it is this node's\(wait)", kind: "admitted \(disk.id)")
      case .pending where old == .secured:
        suspendedSince[disk.id] = now
        return Line(.warning, "\(name(disk.id)) is suspended: its registration is gone; it is taken again")
      case .foreign, .refused:
        // A note of the engine tells that, and why.
        suspendedSince[disk.id] = suspendedSince[disk.id] ?? now
        return nil
      case .pending, .idle: return nil
      }
    }
  }
}

/// Lines that come again and again: the first few are told, then one a minute, with how many were left out.
struct RepeatFilter: Sendable {
  static let burst = 3
  static let period: Instant = 60_000_000_000
  /// Kinds of lines that are remembered.
  static let countMax = 64

  private struct Entry: Sendable {
    var count: Int
    var toldAt: Instant
    var omitted: Int
  }

  private var entries: [String: Entry] = [:]

  /// - Returns: How many were left out since the last; nil: this one is left out, too.
  mutating func admit(_ text: String, at now: Instant) -> Int? {
    guard var entry = entries[text] else {
      if entries.count >= Self.countMax, let oldest = entries.min(by: { $0.value.toldAt < $1.value.toldAt })?.key {
        entries[oldest] = nil
      }
      entries[text] = Entry(count: 1, toldAt: now, omitted: 0)
      return 0
    }
    defer { entries[text] = entry }
    let isLate = now >= entry.toldAt + Self.period
    guard isLate || entry.count < Self.burst else {
      entry.omitted += 1
      return nil
    }
    // After a quiet time it is news again.
    let omitted = entry.omitted
    entry = Entry(count: isLate && omitted == 0 ? 1 : entry.count + 1, toldAt: now, omitted: 0)
    return omitted
  }
}
