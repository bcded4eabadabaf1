import CSystem
import CVerbs
import Glibc
import Reactor
import Synchronization

/// A request for a connection over RDMA. Whoever has it accepts it through a `VerbsEndpoint`, or rejects it.
public struct VerbsRequest: @unchecked Sendable {
  // The identifier belongs to whoever has the request: it is handed from the listener's thread to a shard's, once.
  let id: UnsafeMutablePointer<rdma_cm_id>
  /// Names the connection in the listener's events; never used twice.
  public let number: UInt64
  /// `sockaddr_in` or `sockaddr_in6` of the initiator, and of ours that it came to.
  public let peer: [UInt8]
  public let local: [UInt8]
  /// Byte 0 of the iSER CM message: what the initiator does not support.
  let peerFlags: UInt8
  /// RDMA READs that we may have under way, and that the peer would.
  let readsMax: UInt8
  let readsAsked: UInt8
  let contexts: VerbsContexts

  /// Which device it came through.
  public var context: UnsafeMutablePointer<ibv_context>? { id.pointee.verbs }

  /// Says who hears the events of this connection. Only on the listener's thread, before anybody else has the request.
  public func setOwner(shard: Int) {
    id.pointee.context = UnsafeMutableRawPointer(bitPattern: UInt(number << 16 | UInt64(shard)))
  }

  /// Refuses the connection. Before an endpoint was made of it.
  public func reject() {
    rdma_reject(id, nil, 0)
    let context = id.pointee.verbs
    rdma_destroy_id(id)
    contexts.release(context)
  }
}

/// What the connection manager tells of a connection.
public enum VerbsEvent: Equatable, Sendable {
  case established
  case disconnected
  case timeWaitEnded
  case deviceRemoved
  /// It did not come to be.
  case failed
}

/// The listening side of the RDMA connection manager: one thread that hands requests and events to their owners and does
/// nothing else. It listens for every device there is and will be; without any it does not even start, and is tried again
/// when one comes.
public final class VerbsListener: Sendable {
  public enum State: Equatable, Sendable {
    /// There is nothing to listen with, and why.
    case off(String)
    case listening
    case failed(String)
  }

  /// An address to listen on, as `sockaddr_in` or `sockaddr_in6`.
  public struct Address: Sendable {
    public var bytes: [UInt8]
    public var text: String

    public init(bytes: [UInt8], text: String) {
      self.bytes = bytes
      self.text = text
    }
  }

  private struct Channel: @unchecked Sendable {
    // Made by `start`, then the thread's alone.
    let channel: UnsafeMutablePointer<rdma_event_channel>
    var listeners: [(id: UnsafeMutablePointer<rdma_cm_id>, address: Address)]
    /// Addresses that no device has yet.
    var missing: [Address]
  }

  private struct Parts: Sendable {
    var state = State.off("not started")
    var isStopping = false
  }

  private static let backlog: Int32 = 128
  /// How often it is looked whether the last identifier on a vanished device is destroyed.
  private static let vanishedMs: Int32 = 50

  private let addresses: [Address]
  private let onRequest: @Sendable (VerbsRequest) -> Void
  private let onEvent: @Sendable (_ shard: Int, _ number: UInt64, VerbsEvent) -> Void
  private let parts = Mutex(Parts())
  private let wake: Int32
  private let contexts = VerbsContexts()

  public init(
    addresses: [Address], onRequest: @escaping @Sendable (VerbsRequest) -> Void,
    onEvent: @escaping @Sendable (_ shard: Int, _ number: UInt64, VerbsEvent) -> Void
  ) {
    self.addresses = addresses
    self.onRequest = onRequest
    self.onEvent = onEvent
    wake = system_eventfd()
  }

  deinit { close(wake) }

  public var state: State { parts.withLock { $0.state } }

  /// Starts to listen if it does not yet, and on those addresses that no device had so far: to be called when a device has
  /// come or changed. Never fatal: the state tells. Returns whether it listens.
  @discardableResult
  public func start() -> Bool {
    parts.withLock { parts in
      if parts.state == .listening {
        wakeThread()
        return true
      }
      guard !parts.isStopping else { return false }
      switch open() {
      case .success(let channel):
        parts.state = .listening
        startThread(name: "rdma-cm") { [self] in run(channel) }
        return true
      case .failure(let error):
        let isMissing = error.code == ENODEV || error.code == ENOENT || error.code == ENOSYS
        parts.state = isMissing ? .off("no RDMA device") : .failed(error.description)
        return false
      }
    }
  }

  /// Takes no more connections; those there are go on being told of.
  public func stop() {
    parts.withLock { $0.isStopping = true }
    wakeThread()
  }

  private func wakeThread() {
    var one: UInt64 = 1
    _ = write(wake, &one, 8)
  }

  private func open() -> Result<Channel, VerbsError> {
    guard let channel = rdma_create_event_channel() else {
      return .failure(VerbsError("the RDMA connection manager does not answer", errno))
    }
    // A request that the library itself drops leaves nothing to get: the thread must not wait for the next one then.
    _ = fcntl(channel.pointee.fd, F_SETFL, fcntl(channel.pointee.fd, F_GETFL) | O_NONBLOCK)
    var opened = Channel(channel: channel, listeners: [], missing: addresses)
    // One address that no device has does not spoil the others.
    guard let error = listenOnMissing(&opened), opened.listeners.isEmpty else { return .success(opened) }
    rdma_destroy_event_channel(channel)
    return .failure(error)
  }

  /// Tries the addresses that are not listened on. Returns the last failure.
  private func listenOnMissing(_ opened: inout Channel) -> VerbsError? {
    var error: VerbsError?
    for address in opened.missing {
      switch listen(address, opened.channel) {
      case .success(let id):
        opened.listeners.append((id, address))
        contexts.retain(id.pointee.verbs)
        opened.missing.removeAll { $0.text == address.text }
      case .failure(let failure): error = failure
      }
    }
    return error
  }

  private func listen(
    _ address: Address, _ channel: UnsafeMutablePointer<rdma_event_channel>
  ) -> Result<UnsafeMutablePointer<rdma_cm_id>, VerbsError> {
    var identifier: UnsafeMutablePointer<rdma_cm_id>?
    guard rdma_create_id(channel, &identifier, nil, RDMA_PS_TCP) == 0, let id = identifier else {
      return .failure(VerbsError("no identifier to listen on \(address.text) with", errno))
    }
    var one: Int32 = 1
    let size = MemoryLayout<Int32>.size
    let level = Int32(RDMA_OPTION_ID)
    _ = rdma_set_option(id, level, Int32(RDMA_OPTION_ID_REUSEADDR), &one, size)
    // Each family has a listener of its own, so that neither depends on the other.
    _ = rdma_set_option(id, level, Int32(RDMA_OPTION_ID_AFONLY), &one, size)
    var bytes = address.bytes
    let code = bytes.withUnsafeMutableBytes { bytes in
      rdma_bind_addr(id, bytes.baseAddress!.assumingMemoryBound(to: sockaddr.self))
    }
    guard code == 0, rdma_listen(id, Self.backlog) == 0 else {
      let error = VerbsError("cannot listen on \(address.text) over RDMA", errno)
      rdma_destroy_id(id)
      return .failure(error)
    }
    return .success(id)
  }

  // MARK: The thread

  private func run(_ opened: Channel) {
    var opened = opened
    var next: UInt64 = 1
    var polls = [
      pollfd(fd: opened.channel.pointee.fd, events: Int16(POLLIN), revents: 0),
      pollfd(fd: wake, events: Int16(POLLIN), revents: 0),
    ]
    var isWaiting = false
    while true {
      let count = poll(&polls, nfds_t(polls.count), isWaiting ? Self.vanishedMs : -1)
      if isWaiting { isWaiting = contexts.closeVanished() }
      guard count > 0 else { continue }
      if polls[1].revents != 0 {
        var count: UInt64 = 0
        _ = read(wake, &count, 8)
        if parts.withLock({ $0.isStopping }) {
          for listener in opened.listeners { destroy(listener.id) }
          opened.listeners = []
        } else {
          isWaiting = contexts.closeVanished()
          _ = listenOnMissing(&opened)
        }
      }
      if polls[0].revents != 0 { handleEvent(&opened, &next) }
    }
  }

  private func handleEvent(_ opened: inout Channel, _ next: inout UInt64) {
    var pointer: UnsafeMutablePointer<rdma_cm_event>?
    guard rdma_get_cm_event(opened.channel, &pointer) == 0, let event = pointer else { return }
    if event.pointee.event == RDMA_CM_EVENT_CONNECT_REQUEST {
      let request = request(event.pointee, number: next)
      contexts.retain(request.context)
      next += 1
      // Acknowledged first: an identifier cannot be destroyed under an event.
      rdma_ack_cm_event(event)
      return onRequest(request)
    }
    let id = event.pointee.id
    let owner = UInt64(UInt(bitPattern: event.pointee.id.pointee.context))
    let meaning = Self.meaning(event.pointee.event)
    rdma_ack_cm_event(event)
    if meaning == .deviceRemoved, let place = opened.listeners.firstIndex(where: { $0.id == id }) {
      return giveUp(place, &opened)
    }
    if let meaning, owner != 0 { onEvent(Int(owner & 0xFFFF), owner >> 16, meaning) }
  }

  private func destroy(_ id: UnsafeMutablePointer<rdma_cm_id>) {
    let context = id.pointee.verbs
    rdma_destroy_id(id)
    contexts.release(context)
  }

  /// Lets go of a listener whose device goes: one on an address of a device holds it open, and the removal waits for that.
  /// Its address is tried again when a device comes.
  private func giveUp(_ place: Int, _ opened: inout Channel) {
    let listener = opened.listeners.remove(at: place)
    destroy(listener.id)
    opened.missing.append(listener.address)
  }

  private func request(_ event: rdma_cm_event, number: UInt64) -> VerbsRequest {
    let parameters = event.param.conn
    let flags =
      parameters.private_data_len > 0
      ? parameters.private_data.map { $0.load(as: UInt8.self) } ?? 0 : 0
    return VerbsRequest(
      id: event.id, number: number, peer: Self.bytes(rdma_get_peer_addr(event.id)),
      local: Self.bytes(rdma_get_local_addr(event.id)), peerFlags: flags, readsMax: parameters.initiator_depth,
      readsAsked: parameters.responder_resources, contexts: contexts)
  }

  private static func bytes(_ address: UnsafeMutablePointer<sockaddr>?) -> [UInt8] {
    guard let address else { return [] }
    let isIPv6 = address.pointee.sa_family == sa_family_t(AF_INET6)
    let count = isIPv6 ? MemoryLayout<sockaddr_in6>.size : MemoryLayout<sockaddr_in>.size
    return Array(UnsafeRawBufferPointer(start: address, count: count))
  }

  private static func meaning(_ event: rdma_cm_event_type) -> VerbsEvent? {
    switch event {
    case RDMA_CM_EVENT_ESTABLISHED: .established
    case RDMA_CM_EVENT_DISCONNECTED: .disconnected
    case RDMA_CM_EVENT_TIMEWAIT_EXIT: .timeWaitEnded
    case RDMA_CM_EVENT_DEVICE_REMOVAL: .deviceRemoved
    case RDMA_CM_EVENT_CONNECT_ERROR, RDMA_CM_EVENT_UNREACHABLE, RDMA_CM_EVENT_REJECTED, RDMA_CM_EVENT_ADDR_CHANGE:
      .failed
    default: nil
    }
  }
}
