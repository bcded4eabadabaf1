import CSystem
import Glibc
import HA
import Reactor
import Synchronization

/// The links' thread: sleeps until a beat is to be sent, one comes, an interface changes, or a link falls silent. It does no
/// disk I/O, and no socket can hold it.
final class LinkLoop {
  enum Order: Sendable {
    case send(Heartbeat)
    case call(PeerMessage)
    case stop
  }

  struct Handlers: Sendable {
    var receive: @Sendable (Heartbeat, LinkID) -> Void
    var receiveCall: @Sendable (PeerCall) -> Void
    var linksChanged: @Sendable ([LinkID]) -> Void
  }

  /// Datagrams that are taken from one socket in a turn. Who floods it is looked at again a moment later, so that at real-time
  /// priority something is left of the processor.
  private static let batchMax = 64
  private static let floodPauseNs: Instant = 1_000_000
  /// A burst of changes to the interfaces is looked at once.
  private static let settleNs: Instant = 20_000_000
  private static let retryNs: Instant = 1_000_000_000

  private let table: LinkTableLock
  private let inbox: Inbox<Order>
  private let onLoopback: Bool
  private let handlers: Handlers
  private let changes: Int32
  private var up: [LinkID] = []
  private var look: Instant?
  /// Sockets that are left alone until then.
  private var flooded: (sockets: Set<Int32>, until: Instant)?
  private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: PeerCall.byteCountMax + 1, alignment: 8)

  init(table: LinkTableLock, inbox: Inbox<Order>, onLoopback: Bool, handlers: Handlers) {
    self.table = table
    self.inbox = inbox
    self.onLoopback = onLoopback
    self.handlers = handlers
    changes = system_listen_to_links()
    if changes < 0 { table.note(problem: "changes of interfaces are not seen (\(SystemError.text(-changes)))") }
    lookAtInterfaces()
  }

  deinit {
    buffer.deallocate()
    if changes >= 0 { close(changes) }
  }

  /// Returns after `.stop`.
  func run() {
    while true {
      let ready = sleep()
      let now = LinkClock.now()
      if ready.contains(changes) {
        system_discard_messages(changes)
        look = look ?? now &+ Self.settleNs
      }
      if let look, look <= now { lookAtInterfaces() }
      let news = receive(ready, at: now)
      guard obey() else { break }
      for item in news {
        switch item {
        case .beat(let beat, let link): handlers.receive(beat, link)
        case .call(let call): handlers.receiveCall(call)
        }
      }
      tellIfChanged()
    }
    table.close()
    if !up.isEmpty { handlers.linksChanged([]) }
  }

  // MARK: A turn

  /// The descriptors that have something.
  private func sleep() -> Set<Int32> {
    let now = LinkClock.now()
    var waiting = [inbox.descriptor, changes] + table.descriptors
    if let pause = flooded, pause.until > now {
      waiting.removeAll { pause.sockets.contains($0) }
    } else {
      flooded = nil
    }
    var polled = waiting.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    let next = [table.deadline(at: now), look, flooded?.until].compactMap { $0 }.min()
    let count = poll(&polled, nfds_t(polled.count), Self.milliseconds(from: now, to: next))
    return count > 0 ? Set(polled.filter { $0.revents != 0 }.map(\.fd)) : []
  }

  /// Rounded up; -1: for ever.
  private static func milliseconds(from now: Instant, to next: Instant?) -> Int32 {
    guard let next else { return -1 }
    return next <= now ? 0 : Int32(clamping: (next - now + 999_999) / 1_000_000)
  }

  private func receive(_ ready: Set<Int32>, at now: Instant) -> [LinkTable.News] {
    guard !ready.isEmpty else { return [] }
    var full: Set<Int32> = []
    let buffer = buffer
    let news = table.withLock { (table: inout LinkTable) -> [LinkTable.News] in
      var news: [LinkTable.News] = []
      for (interface, link) in table.links {
        for descriptor in [link.socket.own, link.socket.group] where ready.contains(descriptor) {
          var count = 0
          while count < Self.batchMax, let (length, source) = LinkSocket.receive(descriptor, into: buffer) {
            count += 1
            let bytes = [UInt8](buffer[..<min(length, buffer.count)])
            let item = table.take(
              bytes, from: source, over: interface, byMulticast: descriptor == link.socket.group, at: now)
            if let item { news.append(item) }
          }
          if count == Self.batchMax { full.insert(descriptor) }
        }
      }
      return news
    }
    if !full.isEmpty { flooded = (full, now &+ Self.floodPauseNs) }
    return news
  }

  /// False: the end. Of several beats that wait only the last is true: a thread that was held up sends no old ones.
  private func obey() -> Bool {
    var last: Heartbeat?
    for order in inbox.take() {
      switch order {
      case .send(let beat): last = beat
      case .call(let message): table.withLock { $0.send(message, at: LinkClock.now()) }
      case .stop: return false
      }
    }
    if let last { table.withLock { $0.send(last, at: LinkClock.now()) } }
    return true
  }

  private func lookAtInterfaces() {
    let interfaces = LinkInterfaces.read(onLoopback: onLoopback)
    let now = LinkClock.now()
    let isComplete = table.withLock { $0.adopt(interfaces, at: now) }
    look = isComplete ? nil : now &+ Self.retryNs
  }

  private func tellIfChanged() {
    let now = table.withLock { $0.up(at: LinkClock.now()) }
    guard now != up else { return }
    up = now
    handlers.linksChanged(now)
  }
}

/// The table with its lock: held for microseconds, never while a handler runs.
final class LinkTableLock: Sendable {
  private let table: Mutex<LinkTable>
  private let problems = Mutex<[String]>([])
  private let priorityProblem = Mutex<String?>(nil)

  init(_ table: LinkTable) { self.table = Mutex(table) }

  func withLock<Result: Sendable>(_ body: (inout LinkTable) -> Result) -> Result { table.withLock { body(&$0) } }

  var descriptors: [Int32] { withLock { $0.links.values.flatMap { [$0.socket.own, $0.socket.group] } } }
  func deadline(at now: Instant) -> Instant? { withLock { $0.deadline(at: now) } }
  func close() { withLock { _ = $0.adopt(LinkInterfaces([], onLoopback: false), at: 0) } }

  func note(problem: String) { problems.withLock { $0.append(problem) } }
  func note(priorityProblem problem: String?) { priorityProblem.withLock { $0 = problem } }

  func report(at now: Instant) -> LinksReport {
    var report = withLock { $0.report(at: now) }
    report.problems = problems.withLock { $0 } + report.problems
    report.priorityProblem = priorityProblem.withLock { $0 }
    return report
  }
}

/// CLOCK_BOOTTIME: never goes back, and runs on while the machine sleeps.
enum LinkClock {
  static func now() -> Instant {
    var time = timespec()
    clock_gettime(CLOCK_BOOTTIME, &time)
    return Instant(time.tv_sec) &* 1_000_000_000 &+ Instant(time.tv_nsec)
  }
}
