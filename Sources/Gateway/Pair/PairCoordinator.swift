import CSystem
import Glibc
import HA
import Reactor
import Synchronization
import Wire

/// Runs the pair's engine: gives it what happens and the time, and has its actions carried out by the links, the disks, the
/// target and the service addresses. It decides nothing itself, and its thread waits for none of them.
final class PairCoordinator: Sendable {
  /// Who carries out what the engine wants. None of these may block for longer than some milliseconds.
  struct Parts: Sendable {
    var send: @Sendable (Heartbeat) -> Void
    var disk: @Sendable (DiskID, UInt64, DiskOrder, Instant) -> Void
    /// The second parameter: a node of the pair had served when this takeover began, so no power was lost.
    var target: @Sendable (TargetOrder, Bool) -> Void
    var addresses: @Sendable (AddressOrder) -> Void
    var watchdog: @Sendable (WatchdogOrder) -> Void
    var keepGuarded: @Sendable (Set<DiskID>) -> Void
    /// After each step, when what follows from it is in force or on its way.
    var stepped: @Sendable (Instant, PairStatus) -> Void
    /// In each step, before what follows from it is done.
    var changed: @Sendable (PairStatus) -> Void
    /// Each transition, with what the log says of it.
    var noted: @Sendable (Transition, String) -> Void
  }

  private struct State {
    var engine: Engine
    var events: [Event] = []
    /// A node of the pair had served when this one began to take over.
    var followsPeer = false
    var history = PairHistory()
    var isStopped = false
  }

  private let state: Mutex<State>
  private let wakeUp = system_eventfd()
  private let ended = ThreadGate()
  private let parts: Parts
  /// Answers of disks that are overdue, and when to look again.
  private let expire: @Sendable (Instant) -> Instant?

  init(engine: Engine, parts: Parts, expire: @escaping @Sendable (Instant) -> Instant?) {
    state = Mutex(State(engine: engine))
    self.parts = parts
    self.expire = expire
  }

  deinit { close(wakeUp) }

  var status: PairStatus { state.withLock { $0.engine.status(at: BootClock.now) } }
  var history: PairHistory { state.withLock { $0.history } }

  /// Tells the engine something, soon.
  func post(_ event: Event) {
    state.withLock { $0.events.append(event) }
    var one: UInt64 = 1
    _ = write(wakeUp, &one, 8)
  }

  func start() {
    startThread(name: "pair") { [self] in
      run()
      ended.open()
    }
  }

  /// The engine has had its last say when this returns, but for a thread that hangs: that is waited for a second.
  func stop() {
    state.withLock { $0.isStopped = true }
    post(.tick)
    _ = ended.wait(until: Deadline(seconds: 1))
  }

  private func run() {
    while true {
      let now = BootClock.now
      let overdue = expire(now)
      let (deadline, hasEvents, isStopped) = state.withLock { state in
        (state.engine.deadline, !state.events.isEmpty, state.isStopped)
      }
      if isStopped { return }
      let next = min(deadline ?? .max, overdue ?? .max)
      if !hasEvents, next > now { sleep(until: next, now) }
      step()
    }
  }

  private func sleep(until next: Instant, _ now: Instant) {
    // Rounded up, for waking too early would only mean waking twice.
    let milliseconds = next == .max ? -1 : Int32(clamping: (next - now + 999_999) / 1_000_000)
    var descriptor = pollfd(fd: wakeUp, events: Int16(POLLIN), revents: 0)
    _ = poll(&descriptor, 1, milliseconds)
    var count: UInt64 = 0
    if descriptor.revents != 0 { _ = read(wakeUp, &count, 8) }
  }

  /// Gives the engine what has happened, and has its wishes carried out in their order.
  private func step() {
    let now = BootClock.now
    let (actions, followsPeer, status, notes) = state.withLock { state in
      var events = state.events
      state.events = []
      if let deadline = state.engine.deadline, deadline <= now { events.append(.tick) }
      var actions: [Action] = []
      var notes: [(Transition, String)] = []
      for event in events {
        let new = state.engine.step(event, at: now)
        for case .note(let transition) in new {
          // From here on, whatever follows of this takeover: what it serves itself says nothing of disks that come late.
          if transition.to == .fencing { state.followsPeer = state.engine.hasSeenService }
          notes.append((transition, state.history.note(transition)))
        }
        actions += new
      }
      return (actions, state.followsPeer, state.engine.status(at: now), notes)
    }
    for (transition, line) in notes { parts.noted(transition, line) }
    parts.changed(status)
    for action in actions { perform(action, followsPeer, now) }
    parts.stepped(now, status)
  }

  private func perform(_ action: Action, _ followsPeer: Bool, _ now: Instant) {
    switch action {
    case .send(let beat): parts.send(beat)
    case .disk(let disk, let number, let order): parts.disk(disk, number, order, now)
    case .target(let order): parts.target(order, followsPeer)
    case .addresses(let order): parts.addresses(order)
    case .watchdog(let order): parts.watchdog(order)
    case .keepGuarded(let disks): parts.keepGuarded(disks)
    case .note: break
    }
  }
}
