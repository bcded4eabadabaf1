import CVerbs
import Glibc
import Reactor

/// A device as one shard uses it: protection domain, completion queues, the memory regions of the shard's arena. It exists
/// while connections of the shard use it, because what was made of a device that is unplugged must be gone before its last
/// connection identifier is: the library closes the device with that. A login without any costs the registration again.
public final class VerbsDevice {
  /// Entries of a completion queue: it serves connections until their queues could fill it, then another one is made.
  private static let queueEntriesMin = 4096

  /// Completion queues with what is reserved of each.
  private struct Queue {
    var queue: UnsafeMutablePointer<ibv_cq>
    var entries: Int
    var reserved: Int
    /// The next completion makes the channel readable.
    var isArmed = true
  }

  /// Which device it is, for comparison and for the control side.
  public let context: UnsafeMutablePointer<ibv_context>
  public let name: String
  public let keys: MemoryKeys
  let domain: UnsafeMutablePointer<ibv_pd>
  let attributes: ibv_device_attr
  private let channel: UnsafeMutablePointer<ibv_comp_channel>
  private var queues: [Queue] = []
  private var regions: [UnsafeMutablePointer<ibv_mr>?]
  private let access: Int32
  /// Identifiers of its connections that exist.
  public internal(set) var endpointCount = 0
  private let work = UnsafeMutablePointer<ibv_wc>.allocate(capacity: 64)

  /// Makes what the device needs for the shard and registers the chunks of its arena that are open.
  public init(_ request: VerbsRequest, pool: BufferPool) throws(VerbsError) {
    guard let context = request.id.pointee.verbs else {
      throw VerbsError("the connection request has no device", ENODEV)
    }
    self.context = context
    name = String(cString: ibv_get_device_name(context.pointee.device))
    var attributes = ibv_device_attr()
    let code = ibv_query_device(context, &attributes)
    guard code == 0 else { throw VerbsError("\(name) does not tell what it can", code) }
    self.attributes = attributes
    guard let domain = ibv_alloc_pd(context) else { throw VerbsError("\(name): no protection domain", errno) }
    guard let channel = ibv_create_comp_channel(context) else {
      let code = errno
      ibv_dealloc_pd(domain)
      throw VerbsError("\(name): no completion channel", code)
    }
    self.domain = domain
    self.channel = channel
    // An iWARP device puts what an RDMA READ brings as if the peer wrote it.
    let isIWARP = context.pointee.device.pointee.transport_type == IBV_TRANSPORT_IWARP
    access = Int32(IBV_ACCESS_LOCAL_WRITE.rawValue | (isIWARP ? IBV_ACCESS_REMOTE_WRITE.rawValue : 0))
    keys = MemoryKeys(chunks: pool.chunksMax)
    regions = Array(repeating: nil, count: pool.chunksMax)
    for descriptor in [channel.pointee.fd, context.pointee.async_fd] {
      _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
    }
    guard pool.forEachOpenChunk({ register($0, $1) }) else {
      let code = errno
      close()
      throw VerbsError(
        "\(name): cannot register memory; raise the limit of locked memory (LimitMEMLOCK=infinity)", code)
    }
  }

  /// The descriptor that is readable when a queue has completions, and that of the device's own events.
  public var completionDescriptor: Int32 { channel.pointee.fd }
  public var eventDescriptor: Int32 { context.pointee.async_fd }
  public var memoryRegionCount: Int { regions.count { $0 != nil } }
  public var completionQueueCount: Int { queues.count }

  // MARK: Memory

  /// Registers a chunk; false when the device refuses, mostly for want of locked memory.
  public func register(_ chunk: UInt16, _ base: UnsafeMutableRawPointer) -> Bool {
    guard let region = ibv_reg_mr(domain, base, BufferPool.chunkBytes, access) else { return false }
    regions[Int(chunk)] = region
    keys[chunk] = region.pointee.lkey
    return true
  }

  public func deregister(_ chunk: UInt16) {
    guard let region = regions[Int(chunk)] else { return }
    ibv_dereg_mr(region)
    regions[Int(chunk)] = nil
    keys[chunk] = 0
  }

  // MARK: Completions

  /// A completion queue with room for so many more entries; nil when the device has none.
  func reserveQueue(entries: Int) -> UnsafeMutablePointer<ibv_cq>? {
    for index in queues.indices where queues[index].entries - queues[index].reserved >= entries {
      queues[index].reserved += entries
      return queues[index].queue
    }
    let wanted = min(max(entries, Self.queueEntriesMin), Int(attributes.max_cqe))
    guard wanted >= entries, let queue = ibv_create_cq(context, Int32(wanted), nil, channel, 0) else { return nil }
    queues.append(Queue(queue: queue, entries: wanted, reserved: entries))
    ibv_req_notify_cq(queue, 0)
    return queue
  }

  func unreserveQueue(_ queue: UnsafeMutablePointer<ibv_cq>, entries: Int) {
    guard let index = queues.firstIndex(where: { $0.queue == queue }) else { return }
    queues[index].reserved -= entries
  }

  /// The channel was readable: takes the events from it, one for each queue that was armed. Asks no further: that would be a
  /// system call to hear that there is none.
  public func takeEvents() {
    var queue: UnsafeMutablePointer<ibv_cq>?
    var owner: UnsafeMutableRawPointer?
    repeat {
      guard ibv_get_cq_event(channel, &queue, &owner) == 0 else { return }
      ibv_ack_cq_events(queue, 1)
      if let index = queues.firstIndex(where: { $0.queue == queue }) { queues[index].isArmed = false }
    } while queues.contains(where: \.isArmed)
  }

  /// Copies completions to `into`; 0 when there are none and the next one will make the channel readable.
  /// - Parameter arming: false leaves the queues silent: for who polls anyway.
  public func poll(into: UnsafeMutablePointer<WorkCompletion>, limit: Int, arming: Bool) -> Int {
    var count = 0
    for index in queues.indices where !queues[index].isArmed {
      count += poll(queues[index].queue, into: into + count, limit: limit - count)
    }
    guard count == 0, arming else { return count }
    for index in queues.indices where !queues[index].isArmed {
      ibv_req_notify_cq(queues[index].queue, 0)
      // What came before it was armed makes no event.
      let found = poll(queues[index].queue, into: into + count, limit: limit - count)
      queues[index].isArmed = found == 0
      count += found
    }
    return count
  }

  private func poll(
    _ queue: UnsafeMutablePointer<ibv_cq>, into: UnsafeMutablePointer<WorkCompletion>, limit: Int
  ) -> Int {
    var count = 0
    while count < limit {
      let taken = Int(ibv_poll_cq(queue, Int32(min(64, limit - count)), work))
      guard taken > 0 else { break }
      for index in 0..<taken {
        into[count + index] = WorkCompletion(
          id: work[index].wr_id, status: work[index].status.rawValue, byteCount: work[index].byte_len)
      }
      count += taken
      // Fewer than asked for: it is empty.
      if taken < 64 { break }
    }
    return count
  }

  /// The verbs' words for a status.
  public static func text(ofStatus status: UInt32) -> String {
    String(cString: ibv_wc_status_str(ibv_wc_status(rawValue: status)))
  }

  /// What a device tells of itself.
  public enum Event: Sendable {
    case deviceFailed
    case portDown(UInt8)
    case queuePairFailed(number: UInt32)
  }

  /// The next event of the device that ends connections; nil: there is none.
  public func takeDeviceEvent() -> Event? {
    var event = ibv_async_event()
    while ibv_get_async_event(context, &event) == 0 {
      defer { ibv_ack_async_event(&event) }
      switch event.event_type {
      case IBV_EVENT_DEVICE_FATAL, IBV_EVENT_CQ_ERR: return .deviceFailed
      case IBV_EVENT_PORT_ERR: return .portDown(UInt8(truncatingIfNeeded: event.element.port_num))
      case IBV_EVENT_QP_FATAL, IBV_EVENT_QP_REQ_ERR, IBV_EVENT_QP_ACCESS_ERR:
        return .queuePairFailed(number: event.element.qp.pointee.qp_num)
      default: break
      }
    }
    return nil
  }

  /// Gives everything back to the device. No queue pair of it may be left.
  public func close() {
    for chunk in regions.indices { deregister(UInt16(chunk)) }
    for entry in queues { ibv_destroy_cq(entry.queue) }
    queues = []
    ibv_destroy_comp_channel(channel)
    ibv_dealloc_pd(domain)
  }

  deinit { work.deallocate() }
}

/// What the verbs refused, with a positive errno.
public struct VerbsError: Error, CustomStringConvertible {
  public let description: String
  public let code: Int32

  init(_ what: String, _ code: Int32) {
    description = "\(what) (\(String(cString: strerror(code))))"
    self.code = code
  }
}
