import CSystem
import Discovery
import Glibc
import Reactor
import Synchronization

extension NetworkAddress {
  /// What one host can have for itself: its address, and of IPv6 beyond the link the network of 64 bits.
  fileprivate var site: ArraySlice<UInt8> { isIPv6 && !isLinkLocal ? bytes.prefix(8) : bytes[...] }

  fileprivate func isBeside(_ other: NetworkAddress) -> Bool { site == other.site }
}

/// Counts the connections of each peer address, from accept to close, and knows which of them have no session with the target
/// yet. Those ask for no right, so they may take up no place that somebody else needs: the oldest gives way, of
/// those who have half of them or more if there are any.
final class ConnectionLedger: Sendable {
  private struct State {
    var counts: [NetworkAddress: Int] = [:]
    /// Connections without a session, the oldest first.
    var waiting: [(number: UInt64, address: NetworkAddress)] = []
    var nextNumber: UInt64 = 0

    /// The address beside which half of those that wait are, or more: who makes them has to give way, whoever else was there
    /// before.
    var crowd: NetworkAddress? {
      var counts: [ArraySlice<UInt8>: Int] = [:]
      for entry in waiting { counts[entry.address.site, default: 0] += 1 }
      return waiting.first { counts[$0.address.site]! * 2 >= waiting.count }?.address
    }
  }

  private let state = Mutex(State())

  /// A place for a connection of this address, and the number of the connection that has to give way to it, if one has.
  /// - Parameters:
  ///   - limit: places of an address; when they are taken, one of this address gives way.
  ///   - isFull: no place is left for any address.
  /// - Returns: nil if all that could give way have a session.
  func admit(
    _ address: NetworkAddress, limit: Int, isFull: Bool
  ) -> (ticket: ConnectionTicket, displaced: UInt64?)? {
    state.withLock { state in
      let hasPlace = state.counts[address, default: 0] < limit
      var displaced: UInt64?
      if !hasPlace || isFull {
        let crowd = hasPlace ? state.crowd : nil
        guard
          let index = state.waiting.firstIndex(where: { entry in
            hasPlace ? crowd.map(entry.address.isBeside) ?? true : entry.address == address
          })
        else { return nil }
        displaced = state.waiting.remove(at: index).number
      }
      let number = state.nextNumber
      state.nextNumber += 1
      state.counts[address, default: 0] += 1
      state.waiting.append((number, address))
      return (ConnectionTicket(ledger: self, address: address, number: number), displaced)
    }
  }

  fileprivate func isWaiting(_ number: UInt64) -> Bool {
    state.withLock { state in state.waiting.contains { $0.number == number } }
  }

  fileprivate func settle(_ ticket: ConnectionTicket) {
    state.withLock { $0.waiting.removeAll { $0.number == ticket.number } }
  }

  fileprivate func release(_ ticket: ConnectionTicket) {
    state.withLock { state in
      state.waiting.removeAll { $0.number == ticket.number }
      guard let count = state.counts[ticket.address] else { return }
      state.counts[ticket.address] = count > 1 ? count - 1 : nil
    }
  }
}

/// One counted connection; it is given back when the last reference goes.
final class ConnectionTicket: Sendable {
  private let ledger: ConnectionLedger
  let address: NetworkAddress
  /// Its own among all that were ever let in.
  let number: UInt64

  fileprivate init(ledger: ConnectionLedger, address: NetworkAddress, number: UInt64) {
    self.ledger = ledger
    self.address = address
    self.number = number
  }

  deinit { ledger.release(self) }

  /// Whether it has had to give way to another before anybody has seen the connection.
  var isDisplaced: Bool { !ledger.isWaiting(number) }

  /// The connection has a session with the target: it does not give way any more.
  func settle() { ledger.settle(self) }
}

/// The listening sockets: a thread of its own accepts, lets in or turns away, and hands each connection to the shard with
/// the fewest, so that a storm of connections never stands in the way of I/O.
final class Acceptor: Sendable {
  struct Rules: Sendable {
    var access: Settings.Access
    var connectionsPerAddress: Int
    var connectionsMax: Int
  }

  /// A socket that listens.
  struct Listener: Sendable {
    var fd: Int32
    var address: ListenAddress
  }

  /// Connections beyond the limit while others give way to them.
  private static let givingWayMax = 64
  /// How often it is looked whether some have gone, 2 ms apart.
  private static let patience = 25

  private let context: ShardContext
  private let ledger = ConnectionLedger()
  private let rules: Mutex<Rules>
  private let wake: Int32
  let listeners: [Listener]
  private let finished = Atomic<Bool>(false)
  private let refused = Mutex(EventCounts())

  /// Opens every listening socket, or none. An address that no interface has yet is no reason to serve at none: a cable or
  /// DHCP may be late. Nor is IPv6 where there is none, beside others.
  /// - Parameter passed: sockets that listen already, and from now on belong to it; if there are any, it opens none.
  init(
    addresses: [ListenAddress], passed: [Int32] = [], context: ShardContext, rules: Rules
  ) throws(StartError) {
    self.context = context
    self.rules = Mutex(rules)
    var open = try Self.listeners(passed)
    var failures: [StartError] = []
    for address in addresses where passed.isEmpty {
      do throws(StartError) { open += try Self.listen(address) } catch { failures.append(error) }
    }
    if let fatal = failures.first(where: { $0.code != EAFNOSUPPORT || open.isEmpty }) {
      for listener in open { close(listener.fd) }
      throw fatal
    }
    for failure in failures { Log.warning(failure.description) }
    listeners = open
    wake = system_eventfd()
  }

  deinit { close(wake) }

  /// Addresses that no interface has now.
  var absent: Set<String> {
    guard let interfaces = try? NetworkInterfaces.read() else { return [] }
    let here = Set(interfaces.addresses.map(\.address))
    return Set(
      listeners.compactMap { listener in
        guard let address = SocketAddress(listener.address)?.address, !address.isUnassignable, !here.contains(address)
        else { return nil }
        return listener.address.description
      })
  }

  /// Connections turned away since the start.
  var refusedCount: UInt64 { events.counts.values.reduce(0, +) }

  func set(_ rules: Rules) { self.rules.withLock { $0 = rules } }

  private static func listeners(_ passed: [Int32]) throws(StartError) -> [Listener] {
    try passed.map { fd throws(StartError) in
      guard system_is_tcp_listener(fd) != 0, let local = SocketAddress.local(of: fd) else {
        throw StartError("socket \(fd), which the service manager passed, is no TCP socket that listens", code: EINVAL)
      }
      // A connection may be gone again before it is accepted.
      _ = fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK)
      return Listener(fd: fd, address: ListenAddress(host: "\(local.address)", port: local.port))
    }
  }

  /// "[::]" stands for every address: IPv6 and IPv4 each get a socket, so that neither depends on the other.
  private static func listen(_ address: ListenAddress) throws(StartError) -> [Listener] {
    guard address.host == "::" else { return [try open(address)] }
    let six: Listener
    do throws(StartError) {
      six = try open(address)
    } catch {
      // A machine without IPv6 still serves IPv4.
      guard error.code == EAFNOSUPPORT || error.code == EADDRNOTAVAIL else { throw error }
      return [try open(ListenAddress(host: "0.0.0.0", port: address.port))]
    }
    do throws(StartError) {
      return [six, try open(ListenAddress(host: "0.0.0.0", port: six.address.port))]
    } catch {
      close(six.fd)
      throw error
    }
  }

  private static func open(_ address: ListenAddress) throws(StartError) -> Listener {
    guard let socketAddress = SocketAddress(address) else {
      throw StartError("\(address): not an address of this machine", code: EADDRNOTAVAIL)
    }
    let fd = socketAddress.withBytes { system_listen($0, $1, 1, 1) }
    guard fd >= 0 else {
      let hint = fd == -EADDRINUSE ? "; another target (tgt, LIO, a second gatewayd) has this port" : ""
      throw StartError("cannot listen on \(address): \(String(cString: strerror(-fd)))\(hint)", code: -fd)
    }
    var actual = address
    if address.port == 0, let local = SocketAddress.local(of: fd) { actual.port = local.port }
    return Listener(fd: fd, address: actual)
  }

  func start() {
    startThread(name: "accept") { [self] in run() }
  }

  /// Closes the listening sockets; no connection is accepted after this returns.
  func stop() {
    var one: UInt64 = 1
    _ = write(wake, &one, 8)
    while !finished.load(ordering: .acquiring) { usleep(500) }
  }

  private func run() {
    var polls = listeners.map { pollfd(fd: $0.fd, events: Int16(POLLIN), revents: 0) }
    polls.append(pollfd(fd: wake, events: Int16(POLLIN), revents: 0))
    while true {
      guard poll(&polls, nfds_t(polls.count), -1) > 0 else { continue }
      if polls[polls.count - 1].revents != 0 { break }
      for entry in polls where entry.revents != 0 { acceptOne(entry.fd) }
    }
    for listener in listeners { close(listener.fd) }
    finished.store(true, ordering: .releasing)
  }

  private func acceptOne(_ listener: Int32) {
    let fd = accept(listener, nil, nil)
    guard fd >= 0 else {
      // Out of descriptors: wait for one rather than spin; the connection stays in the backlog.
      if errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM { usleep(50_000) }
      return
    }
    _ = fcntl(fd, F_SETFD, FD_CLOEXEC)
    guard let peer = SocketAddress.peer(of: fd), let local = SocketAddress.local(of: fd) else {
      close(fd)
      return
    }
    guard let ticket = admit(peer, isPatient: true) else {
      close(fd)
      return
    }
    system_tune_connection(fd)
    takeShard().post(.connection(fd: fd, peer: peer.text, local: local.text, ticket: ticket))
  }

  /// The interfaces are read, which takes longer than all else here, only if the address does not say it by itself.
  private static func isOnLink(_ address: NetworkAddress) -> Bool {
    if NetworkInterfaces(addresses: []).isOnLink(address) { return true }
    return (try? NetworkInterfaces.read())?.isOnLink(address) ?? false
  }

  /// Lets a peer in by the network rule and the limits, whatever it came over; nil: turned away, counted and said.
  /// - Parameter isPatient: whether it may take a moment.
  func admit(_ peer: SocketAddress, isPatient: Bool) -> ConnectionTicket? {
    let rules = self.rules.withLock { $0 }
    var total = connectionCount
    // A burst may come faster than the shards end those that give way: the rest of it stays in the backlog for a moment.
    for _ in 0..<(isPatient ? Self.patience : 0) where total >= rules.connectionsMax + Self.givingWayMax {
      usleep(2000)
      total = connectionCount
    }
    let isFull = total >= rules.connectionsMax
    // One that gives way is still there for a while; if a shard does not come round to it, there is an end. Before the
    // network is looked at, which takes longer.
    guard total < rules.connectionsMax + Self.givingWayMax else {
      return refuse(peer, .connectionLimit, "\(total) connections are open already")
    }
    guard rules.access.admits(address: peer.address.bytes, isOnLink: Self.isOnLink(peer.address)) else {
      return refuse(peer, .network, "its network is not one that [access] networks admits")
    }
    guard let (ticket, displaced) = ledger.admit(peer.address, limit: rules.connectionsPerAddress, isFull: isFull)
    else {
      return isFull
        ? refuse(peer, .connectionLimit, "\(total) connections are open already")
        : refuse(peer, .addressLimit, "it has \(rules.connectionsPerAddress) already")
    }
    if let displaced {
      for handle in context.handles { handle.post(.perform { $0.giveWay(displaced) }) }
    }
    return ticket
  }

  private func refuse(_ peer: SocketAddress, _ why: ConnectionRefusal, _ reason: String) -> ConnectionTicket? {
    refused.withLock { $0.add(.connectionRefused(why)) }
    Log.ofPeers(.notice, "connection from \(peer.text) refused: \(reason)")
    return nil
  }

  /// Those that were turned away, by why.
  var events: EventCounts { refused.withLock { $0 } }

  private var connectionCount: Int { context.handles.reduce(0) { $0 + $1.load.load(ordering: .relaxed) } }

  /// The shard for the next connection: the one with the fewest, which has one more from now on.
  func takeShard() -> ShardHandle {
    let shard = context.handles.min { $0.load.load(ordering: .relaxed) < $1.load.load(ordering: .relaxed) }!
    shard.load.add(1, ordering: .relaxed)
    return shard
  }
}
