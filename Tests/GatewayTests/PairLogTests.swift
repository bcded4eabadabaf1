import Testing
import Wire

@testable import Gateway
@testable import HA

private let ms: Instant = 1_000_000
private let second: Instant = 1_000_000_000

@Suite("What the pair remembers of its changes")
struct PairHistoryTests {
  private func change(
    _ from: Role, _ to: Role, at now: Instant, cause: TakeoverCause? = nil
  ) -> Transition {
    Transition(from: from, to: to, epoch: Epoch(7), reason: "so it is", at: now, cause: cause)
  }

  @Test("A takeover is counted by its cause, and lasts from the first doubt to service")
  func takeover() {
    var history = PairHistory()
    history.note(change(.observing, .passive, at: 1 * second))
    history.note(change(.passive, .suspecting, at: 5 * second))
    history.note(change(.suspecting, .fencing, at: 5 * second + 300 * ms, cause: .silent))
    history.note(change(.fencing, .recovering, at: 5 * second + 350 * ms, cause: .silent))
    #expect(history.lastTakeover == nil)
    let line = history.note(change(.recovering, .active, at: 5 * second + 400 * ms, cause: .silent))
    #expect(line == "pair: recovering -> active, epoch 7: so it is; serves 400 ms after the first doubt")
    #expect(history.takeovers == [.silent: 1])
    let expected = PairHistory.Takeover(cause: .silent, at: 5 * second + 400 * ms, nanoseconds: 400 * ms)
    #expect(history.lastTakeover == expected)
  }

  @Test("A race that was lost does not end the doubt; to hear the active does")
  func doubt() {
    var history = PairHistory()
    history.note(change(.passive, .suspecting, at: 1 * second))
    history.note(change(.suspecting, .fencing, at: 2 * second, cause: .silent))
    history.note(change(.fencing, .observing, at: 3 * second))
    history.note(change(.observing, .fencing, at: 4 * second, cause: .nobody))
    history.note(change(.fencing, .recovering, at: 5 * second, cause: .nobody))
    history.note(change(.recovering, .active, at: 6 * second, cause: .nobody))
    #expect(history.lastTakeover?.nanoseconds == 5 * second)
    history.note(change(.active, .fenced, at: 7 * second))
    history.note(change(.fenced, .observing, at: 8 * second))
    history.note(change(.observing, .passive, at: 9 * second))
    history.note(change(.passive, .fencing, at: 20 * second, cause: .offered))
    history.note(change(.fencing, .recovering, at: 20 * second, cause: .offered))
    history.note(change(.recovering, .active, at: 20 * second + 50 * ms, cause: .offered))
    #expect(history.lastTakeover?.nanoseconds == 50 * ms)
    #expect(history.takeovers == [.nobody: 1, .offered: 1] && history.fenced == 1)
  }

  @Test("A handover that is called off is none, and a node without shared disks has taken over nothing")
  func handover() {
    var history = PairHistory()
    history.note(change(.observing, .active, at: 1 * second))
    history.note(change(.active, .draining, at: 2 * second))
    let line = history.note(change(.draining, .active, at: 2 * second + 100 * ms))
    #expect(line == "pair: draining -> active, epoch 7: so it is; was draining for 100 ms")
    #expect(history.takeovers.isEmpty && history.handedOver == 0)
    history.note(change(.active, .draining, at: 3 * second))
    history.note(change(.draining, .passive, at: 4 * second))
    #expect(history.handedOver == 1)
  }

  @Test("A note without a change says only what it is; the oldest transitions are forgotten")
  func notes() {
    var history = PairHistory()
    #expect(history.note(change(.active, .active, at: second)) == "pair: active, epoch 7: so it is")
    for number in 1...100 as ClosedRange<UInt64> { history.note(change(.active, .active, at: number * second)) }
    #expect(history.transitions.count == PairHistory.transitionsMax)
    #expect(PairHistory.text(999 * ms) == "999 ms" && PairHistory.text(1250 * ms) == "1.2 s")
    #expect(PairHistory.text(600 * second) == "10 min")
  }
}

@Suite("What the log says of the pair")
struct PairNewsTests {
  private let disk = UUID(bytes: [UInt8](repeating: 1, count: 16))
  private let other = UUID(bytes: [UInt8](repeating: 2, count: 16))

  private func status(_ role: Role = .active, disk state: PairStatus.Disk.State = .secured) -> PairStatus {
    var engine = Engine(identity: NodeIdentity(node: disk, bootID: 1, name: "a"), seed: 1)
    var status = engine.status(at: 0)
    _ = engine.step(.tick, at: 1)
    status.role = role
    status.disks = [PairStatus.Disk(id: disk, state: state)]
    return status
  }

  private func peer(_ role: Role, heardAt: Instant) -> PairStatus.Peer {
    PairStatus.Peer(
      node: other, bootID: 2, name: "b", role: role, epoch: Epoch(3), flags: [], heardAt: heardAt, links: [],
      bothWays: [], disks: [], silenceLimit: PairTimers.silence)
  }

  private func texts(_ lines: [PairNews.Line]) -> [String] { lines.map { "\($0.level.name) \($0.text)" } }

  @Test("A link that comes or goes has a line, and one that stays has none")
  func links() {
    var news = PairNews()
    let (four, six) = (LinkID("eth0/4"), LinkID("eth0/6"))
    #expect(texts(news.lines(of: [four]) { _ in "up" }) == ["notice pair: link eth0/4 is up"])
    #expect(news.lines(of: [four]) { _ in "up" }.isEmpty)
    let changed = news.lines(of: [six]) { $0 == four ? "one way" : "up" }
    #expect(texts(changed) == ["warning pair: link eth0/4 is down: one way", "notice pair: link eth0/6 is up"])
    #expect(texts(news.lines(of: []) { _ in nil }) == ["warning pair: link eth0/6 is down: its interface is gone"])
  }

  @Test("The other node has a line when it comes, falls silent and is heard again, not with every beat")
  func peer() {
    var news = PairNews()
    var now = status()
    #expect(news.lines(of: now, at: second) { _ in "" }.isEmpty)
    now.peer = peer(.observing, heardAt: 2 * second)
    #expect(
      texts(news.lines(of: now, at: 2 * second) { _ in "" }) == [
        "notice pair: the other node is b (\(other)): observing, epoch 3"
      ])
    now.peer = peer(.passive, heardAt: 3 * second)
    #expect(texts(news.lines(of: now, at: 3 * second) { _ in "" }) == ["info pair: b is passive, epoch 3"])
    #expect(news.lines(of: now, at: 3 * second + 500 * ms) { _ in "" }.isEmpty)
    #expect(
      texts(news.lines(of: now, at: 3 * second + 600 * ms) { _ in "" }) == [
        "warning pair: b is not heard any more: 600 ms of silence"
      ])
    #expect(news.lines(of: now, at: 9 * second) { _ in "" }.isEmpty)
    now.peer = peer(.passive, heardAt: 10 * second)
    #expect(
      texts(news.lines(of: now, at: 10 * second) { _ in "" }) == [
        "notice pair: b is heard again, after 7.0 s"
      ])
  }

  @Test("A disk that an active loses and gets back has two lines, with how long it took; a takeover has none of these")
  func disks() {
    var news = PairNews()
    let name = { (_: DiskID) in "LUN 0" }
    #expect(news.lines(of: status(.fencing, disk: .pending), at: 0, name: name).isEmpty)
    #expect(news.lines(of: status(), at: second, name: name).isEmpty)
    #expect(
      texts(news.lines(of: status(disk: .pending), at: 2 * second, name: name)) == [
        "warning pair: LUN 0 is suspended: its registration is gone; it is taken again"
      ])
    #expect(
      texts(news.lines(of: status(), at: 2 * second + 40 * ms, name: name)) == [
        "notice pair: LUN 0 is admitted: it is this node's, after 40 ms"
      ])
    #expect(news.lines(of: status(.passive, disk: .idle), at: 3 * second, name: name).isEmpty)
  }

  @Test("Hold, the wait for a sign, and nodes without a place are told once")
  func others() {
    var news = PairNews()
    var now = status()
    func next(_ at: Instant) -> [String] { texts(news.lines(of: now, at: at) { _ in "" }) }
    #expect(next(0).isEmpty)
    now.hold = .byRepetition
    #expect(next(1).count == 1 && next(2).isEmpty)
    now.hold = nil
    #expect(next(3) == ["notice pair: takeovers by themselves again"])
    now.isUnsure = true
    #expect(next(4 * ms) == ["warning pair: no sign that this node is still the active one: all commands wait"])
    #expect(next(5 * ms).isEmpty)
    now.isUnsure = false
    #expect(next(24 * ms) == ["notice pair: commands waited 20 ms for a sign; now it is active"])
    now.isRefused = true
    now.stranger = PairStatus.Stranger(node: other, name: "c")
    #expect(next(second).count == 2 && next(2 * second).isEmpty)
  }

  @Test("What repeats itself is told three times, then once a minute with how often it was not")
  func repetition() {
    var filter = RepeatFilter()
    #expect((0..<3).map { filter.admit("x", at: $0 * second) } == [0, 0, 0])
    #expect((3..<60).allSatisfy { filter.admit("x", at: $0 * second) == nil })
    #expect(filter.admit("y", at: 60 * second) == 0)
    #expect(filter.admit("x", at: 62 * second) == 57)
    #expect(filter.admit("x", at: 63 * second) == nil)
    // After a quiet minute it is news.
    #expect(filter.admit("x", at: 200 * second) == 1)
    #expect(filter.admit("x", at: 300 * second) == 0 && filter.admit("x", at: 301 * second) == 0)
    for number in 0..<1000 { _ = filter.admit("\(number)", at: 400 * second) }
  }
}
