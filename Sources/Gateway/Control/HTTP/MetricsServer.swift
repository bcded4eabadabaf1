import CSystem
import Glibc
import Reactor
import Synchronization

/// The metrics over HTTP/1.1: a thread of its own that is there once an address was set, and sleeps while nobody asks. It has
/// nothing to do with the data path but that the text is made of the shards' reports: one text at a time, whoever asks and how
/// often. Who asks meanwhile gets the same one, and one that is younger than `textAgeMaxNs` is given again.
///
/// A peer costs a place among `connectionsMax`, for as long as `HTTPConnection.Limits` say. When all are taken, the one that has
/// waited longest without having asked anything goes, so that idle connections keep nobody out.
final class MetricsServer: Sendable {
  static let connectionsMax = 64
  static let textAgeMaxNs: UInt64 = 100_000_000
  /// An address that could not be listened on is tried again after this.
  static let retryNs: UInt64 = 5_000_000_000

  /// What its thread is told.
  fileprivate enum Message: Sendable {
    case listen([ListenAddress])
    case made(String?)
    case stop
  }

  private struct State: Sendable {
    var isRunning = false
    var isStopped = false
    var reports: [PortalReport] = []
    var events = EventCounts()
  }

  fileprivate let inbox = Inbox<Message>()
  fileprivate let limits: HTTPConnection.Limits
  fileprivate let make: @Sendable () -> String
  private let state = Mutex(State())

  /// - Parameter make: The text; may take its time, and is called on a thread of its own.
  init(limits: HTTPConnection.Limits = HTTPConnection.Limits(), _ make: @escaping @Sendable () -> String) {
    self.limits = limits
    self.make = make
  }

  /// Where it listens, or why not: an address each.
  var reports: [PortalReport] { state.withLock { $0.reports } }

  /// The answers that were given, by status.
  var events: EventCounts { state.withLock { $0.events } }

  fileprivate func count(_ status: Int) { state.withLock { $0.events.add(.http(status)) } }

  fileprivate func tell(_ reports: [PortalReport]) { state.withLock { $0.reports = reports } }

  /// Listens on these addresses from now on, and on no others. What has not changed goes on.
  func listen(on addresses: [ListenAddress]) {
    let mustStart = state.withLock { state -> Bool in
      guard !state.isStopped, !state.isRunning, !addresses.isEmpty else { return false }
      state.isRunning = true
      return true
    }
    guard state.withLock({ $0.isRunning && !$0.isStopped }) else { return }
    inbox.post(.listen(addresses))
    if mustStart { startThread(name: "metrics") { [self] in MetricsLoop(self).run() } }
  }

  /// Takes the sockets away. What is being answered is cut off.
  func stop() {
    let isRunning = state.withLock { state -> Bool in
      defer { state.isStopped = true }
      return state.isRunning && !state.isStopped
    }
    if isRunning { inbox.post(.stop) }
  }
}

/// The server's thread, and what it alone has.
private final class MetricsLoop {
  private struct Listener {
    var address: ListenAddress
    var fd: Int32 = -1
    /// What it is bound to: with port 0 another one.
    var bound: ListenAddress
    var problem: String?
  }

  private struct Peer {
    var fd: Int32
    /// The address that it came to.
    var listener: ListenAddress
    var connection: HTTPConnection
    var acceptedAt: UInt64
  }

  private let server: MetricsServer
  private var listeners: [Listener] = []
  private var peers: [Peer] = []
  private var text: (response: HTTPResponse, madeAt: UInt64)?
  private var isMaking = false
  private var retryAt: UInt64?
  /// No descriptor was left for a connection: none is taken until then.
  private var pausedUntil: UInt64 = 0
  private var now = system_monotonic_ns()
  private var buffer = [UInt8](repeating: 0, count: HTTPRequestReader.headBytesMax)

  init(_ server: MetricsServer) { self.server = server }

  private var time: Int { Glibc.time(nil) }

  func run() {
    while true {
      let listening = listeners.filter { $0.fd >= 0 }
      let takes = pausedUntil <= now
      var polls = [pollfd(fd: server.inbox.descriptor, events: Int16(POLLIN), revents: 0)]
      polls += listening.map { pollfd(fd: $0.fd, events: takes ? Int16(POLLIN) : 0, revents: 0) }
      polls += peers.map { pollfd(fd: $0.fd, events: Self.events($0.connection), revents: 0) }
      let asked = peers.count
      _ = poll(&polls, nfds_t(polls.count), timeout())
      now = system_monotonic_ns()
      if polls[0].revents != 0 {
        for message in server.inbox.take() {
          guard take(message) else { return closeAll() }
        }
      }
      // Those that were asked about are still at their places: the ended ones go last.
      for index in 0..<asked where polls[1 + listening.count + index].revents != 0 && peers[index].fd >= 0 {
        serve(index)
      }
      for index in peers.indices where peers[index].connection.deadline <= now && peers[index].fd >= 0 { expire(index) }
      if let text, text.madeAt + MetricsServer.textAgeMaxNs <= now { self.text = nil }
      removeEnded()
      for (index, listener) in listening.enumerated() where polls[1 + index].revents != 0 { acceptAll(listener) }
      if let retryAt, retryAt <= now { open(listeners.map(\.address)) }
    }
  }

  private static func events(_ connection: HTTPConnection) -> Int16 {
    if connection.readable > 0 { return Int16(POLLIN) }
    return connection.phase == .sending ? Int16(POLLOUT) : 0
  }

  /// Milliseconds until something is due; -1: nothing is.
  private func timeout() -> Int32 {
    var due = peers.map(\.connection.deadline)
    if let retryAt { due.append(retryAt) }
    if let text { due.append(text.madeAt + MetricsServer.textAgeMaxNs) }
    if pausedUntil > now { due.append(pausedUntil) }
    guard let next = due.min() else { return -1 }
    let current = system_monotonic_ns()
    return next <= current ? 0 : Int32(clamping: (next - current) / 1_000_000 + 1)
  }

  /// False: it is over.
  private func take(_ message: MetricsServer.Message) -> Bool {
    switch message {
    case .listen(let addresses): open(addresses)
    case .made(let text): made(text)
    case .stop: return false
    }
    return true
  }

  // MARK: Listening

  /// Closes what is not wanted any more, opens what is not open.
  private func open(_ addresses: [ListenAddress]) {
    let former = listeners
    for listener in former where listener.fd >= 0 && !addresses.contains(listener.address) {
      close(listener.fd)
      Log.info("no metrics at http://\(listener.bound)/metrics any more")
      for index in peers.indices where peers[index].listener == listener.address { end(index) }
    }
    listeners = addresses.map { address in
      let known = former.first { $0.address == address }
      if let known, known.fd >= 0 { return known }
      return Self.opened(address, formerly: known?.problem)
    }
    retryAt = listeners.contains { $0.fd < 0 } ? now + MetricsServer.retryNs : nil
    server.tell(
      listeners.map {
        PortalReport(address: $0.bound.description, transport: "http", state: $0.problem ?? "listening")
      })
  }

  private static func opened(_ address: ListenAddress, formerly: String?) -> Listener {
    var listener = Listener(address: address, bound: address)
    guard let socketAddress = SocketAddress(address) else {
      listener.problem = "not an address of this machine"
      return listener
    }
    // "[::]" stands for every address, those of IPv4 too.
    let fd = socketAddress.withBytes { system_listen($0, $1, address.host == "::" ? 0 : 1, 0) }
    guard fd >= 0 else {
      listener.problem = SystemError.text(-fd)
      // Once, not at each try.
      if listener.problem != formerly { Log.warning("no metrics at \(address): \(SystemError.text(-fd))") }
      return listener
    }
    listener.fd = fd
    if let local = SocketAddress.local(of: fd) { listener.bound.port = local.port }
    Log.info("metrics at http://\(listener.bound)/metrics")
    return listener
  }

  private func acceptAll(_ listener: Listener) {
    // It may have been closed by a message of this turn.
    guard listeners.contains(where: { $0.fd == listener.fd && $0.address == listener.address }) else { return }
    // Not for ever: the others have their turn too.
    for _ in 0..<64 {
      let fd = accept(listener.fd, nil, nil)
      guard fd >= 0 else {
        if [EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(errno) { pausedUntil = now + 200_000_000 }
        return
      }
      _ = fcntl(fd, F_SETFD, FD_CLOEXEC)
      _ = fcntl(fd, F_SETFL, O_NONBLOCK)
      guard makeRoom() else {
        close(fd)
        continue
      }
      peers.append(
        Peer(
          fd: fd, listener: listener.address, connection: HTTPConnection(limits: server.limits, at: now),
          acceptedAt: now))
    }
  }

  /// False: all places are of connections that have asked something.
  private func makeRoom() -> Bool {
    guard peers.count >= MetricsServer.connectionsMax else { return true }
    let candidates = peers.indices.filter {
      peers[$0].connection.phase == .reading || peers[$0].connection.phase == .lingering
    }
    // Those that have said nothing before those that have begun, then the oldest.
    let oldest = candidates.min { left, right in
      let (one, other) = (peers[left], peers[right])
      guard one.connection.isIdle == other.connection.isIdle else { return one.connection.isIdle }
      return one.acceptedAt < other.acceptedAt
    }
    guard let oldest else { return false }
    end(oldest)
    removeEnded()
    return true
  }

  // MARK: Peers

  private func serve(_ index: Int) {
    switch peers[index].connection.phase {
    case .reading, .lingering: receive(index)
    case .sending: send(index)
    // Nothing was asked for: an error, or the peer is gone.
    case .waiting, .ended: end(index)
    }
  }

  private func receive(_ index: Int) {
    let count = recv(peers[index].fd, &buffer, min(buffer.count, peers[index].connection.readable), 0)
    guard count >= 0 else {
      if errno != EAGAIN, errno != EINTR { end(index) }
      return
    }
    if let request = peers[index].connection.receive(buffer[..<count], at: now, time: time) {
      answer(index, request)
    } else if peers[index].connection.phase == .sending {
      send(index)
    }
    finish(index)
  }

  private func send(_ index: Int) {
    let fd = peers[index].fd
    var isBroken = false
    while true {
      let request = peers[index].connection.send(at: now, time: time) { bytes in
        let count = bytes.withUnsafeBytes { Glibc.send(fd, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
        if count < 0, errno != EAGAIN, errno != EINTR { isBroken = true }
        return count
      }
      if isBroken { return end(index) }
      guard let request else { break }
      // One answer waits for its text, or is sent at once: then the one behind it is looked at.
      route(index, request)
    }
    for status in peers[index].connection.takeAnswered() { server.count(status) }
    if peers[index].connection.phase == .lingering { shutdown(fd, Int32(SHUT_WR)) }
    finish(index)
  }

  private func finish(_ index: Int) { if peers[index].connection.phase == .ended { end(index) } }

  private func answer(_ index: Int, _ request: HTTPRequest) {
    route(index, request)
    if peers[index].connection.phase == .sending { send(index) }
  }

  /// Answers, or has the metrics made.
  private func route(_ index: Int, _ request: HTTPRequest) {
    switch request.path {
    case "/metrics":
      if let text, text.madeAt + MetricsServer.textAgeMaxNs > now {
        return peers[index].connection.answer(text.response, at: now, time: time)
      }
      makeText()
    case "/": peers[index].connection.answer(.page, at: now, time: time)
    case "/healthz":
      peers[index].connection.answer(HTTPResponse(type: "text/plain; charset=utf-8", text: "ok\n"), at: now, time: time)
    default: peers[index].connection.answer(HTTPResponse(status: 404), at: now, time: time)
    }
  }

  private func makeText() {
    guard !isMaking else { return }
    isMaking = true
    let (inbox, make) = (server.inbox, server.make)
    // A gateway that does not answer costs one thread, however many ask.
    if !ControlThread.start({ inbox.post(.made(make())) }) { inbox.post(.made(nil)) }
  }

  private func made(_ made: String?) {
    isMaking = false
    let response = made.map { HTTPResponse(type: HTTPResponse.metricsType, text: $0) } ?? HTTPResponse(status: 503)
    text = made.map { _ in (response, now) }
    for index in peers.indices {
      guard case .waiting = peers[index].connection.phase else { continue }
      peers[index].connection.answer(response, at: now, time: time)
      send(index)
    }
  }

  private func expire(_ index: Int) {
    peers[index].connection.expire(at: now, time: time)
    if peers[index].connection.phase == .sending { send(index) } else { finish(index) }
  }

  /// Its place in the list stays until `removeEnded`.
  private func end(_ index: Int) {
    guard peers[index].fd >= 0 else { return }
    Glibc.close(peers[index].fd)
    peers[index].fd = -1
  }

  private func removeEnded() { peers.removeAll { $0.fd < 0 } }

  private func closeAll() {
    for listener in listeners where listener.fd >= 0 { close(listener.fd) }
    for index in peers.indices { end(index) }
    server.tell([])
  }
}
