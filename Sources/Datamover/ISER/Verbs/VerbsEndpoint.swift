import CVerbs
import Glibc

/// One connection of the RDMA connection manager with its queue pair. It owns both: the queue pair until `terminate`, the
/// identifier until `destroy`.
public final class VerbsEndpoint: QueuePair {
  /// Entries of one posted chain at most.
  private static let chainMax = 64
  /// The iSER CM message (RFC 7145's Annex for InfiniBand, IBTA A12): zero-based addresses are not used; SEND with
  /// Invalidate is not.
  private static let noZeroBasedAddresses: UInt8 = 0x80
  private static let noInvalidation: UInt8 = 0x40
  /// What a message after login takes, which is worth sending inline.
  private static let inlineBytesWanted: UInt32 = 204

  public let number: UInt64
  public let limits: QueuePairLimits
  public let device: VerbsDevice
  public let port: UInt8
  /// The number of the queue pair on its device.
  public let queuePairNumber: UInt32
  private let id: UnsafeMutablePointer<rdma_cm_id>
  private let completionQueue: UnsafeMutablePointer<ibv_cq>
  private let entries: Int
  private var hasQueuePair = true
  private var isDestroyed = false
  /// The device is gone: there is nobody to tell.
  public var isRemoved = false
  /// The peer has ended the connection, or never began it: nothing more is to be waited for.
  public var isDisconnected = false
  private let sends: UnsafeMutablePointer<ibv_send_wr>
  private let receives: UnsafeMutablePointer<ibv_recv_wr>
  private let segments: UnsafeMutablePointer<ibv_sge>

  /// Makes the queue pair for a connection request.
  /// - Parameters:
  ///   - sends, receives: work requests that it should hold; fewer where the device has less.
  public init(_ request: VerbsRequest, device: VerbsDevice, sends: Int, receives: Int) throws(VerbsError) {
    let depth = Int(device.attributes.max_qp_wr)
    let sendsMax = min(sends, depth)
    let receivesMax = min(receives, depth)
    let readsMax = min(Int(request.readsMax), Int(device.attributes.max_qp_init_rd_atom))
    guard readsMax > 0 else { throw VerbsError("the initiator lets nobody read from it", EPROTO) }
    guard receivesMax >= ISERMover.receivesMin, sendsMax >= 2 else {
      throw VerbsError("\(device.name) has queues of \(depth) entries", ENOSPC)
    }
    entries = sendsMax + receivesMax
    guard let queue = device.reserveQueue(entries: entries) else {
      throw VerbsError("\(device.name) has no completion queue left", errno)
    }
    var attributes = ibv_qp_init_attr()
    attributes.send_cq = queue
    attributes.recv_cq = queue
    attributes.qp_type = IBV_QPT_RC
    attributes.cap.max_send_wr = UInt32(sendsMax)
    attributes.cap.max_recv_wr = UInt32(receivesMax)
    attributes.cap.max_send_sge = 1
    attributes.cap.max_recv_sge = 2
    attributes.cap.max_inline_data = Self.inlineBytesWanted
    var code = rdma_create_qp(request.id, device.domain, &attributes)
    if code != 0 {
      // Not every device sends so much inline.
      attributes.cap.max_inline_data = 0
      code = rdma_create_qp(request.id, device.domain, &attributes)
    }
    guard code == 0 else {
      let code = errno
      device.unreserveQueue(queue, entries: entries)
      throw VerbsError("\(device.name) has no queue pair left", code)
    }
    let canInvalidate = device.attributes.device_cap_flags & UInt32(IBV_DEVICE_MEM_MGT_EXTENSIONS.rawValue) != 0
    limits = QueuePairLimits(
      sendsMax: sendsMax, receivesMax: receivesMax, inlineBytesMax: Int(attributes.cap.max_inline_data),
      readsMax: readsMax, mayInvalidate: canInvalidate && request.peerFlags & Self.noInvalidation == 0)
    id = request.id
    number = request.number
    port = request.id.pointee.port_num
    queuePairNumber = request.id.pointee.qp.pointee.qp_num
    completionQueue = queue
    self.device = device
    device.endpointCount += 1
    // Last: where an initializer throws, nobody frees what it has allocated.
    self.sends = .allocate(capacity: Self.chainMax)
    self.receives = .allocate(capacity: Self.chainMax)
    segments = .allocate(capacity: 2 * Self.chainMax)
    self.sends.initialize(repeating: ibv_send_wr(), count: Self.chainMax)
    self.receives.initialize(repeating: ibv_recv_wr(), count: Self.chainMax)
  }

  deinit {
    sends.deallocate()
    receives.deallocate()
    segments.deallocate()
  }

  /// Accepts the connection; its first receive must be posted. Returns 0 or a negative errno.
  public func accept(_ request: VerbsRequest) -> Int32 {
    // Always said explicitly: an absent message reads as "may invalidate".
    var message: [UInt8] = [Self.noZeroBasedAddresses | (limits.mayInvalidate ? 0 : Self.noInvalidation), 0, 0, 0]
    var parameters = rdma_conn_param()
    // We answer no READs; what the peer asks for is granted as far as the device goes.
    parameters.responder_resources = UInt8(
      min(Int(request.readsAsked), Int(device.attributes.max_qp_rd_atom), Int(UInt8.max)))
    parameters.initiator_depth = UInt8(min(limits.readsMax, Int(UInt8.max)))
    parameters.flow_control = 1
    // A peer that has no receive posted is waited for; keep-alive ends those who never post one.
    parameters.rnr_retry_count = 7
    return message.withUnsafeMutableBytes { bytes in
      parameters.private_data = UnsafeRawPointer(bytes.baseAddress)
      parameters.private_data_len = UInt8(bytes.count)
      return rdma_accept(id, &parameters) == 0 ? 0 : -errno
    }
  }

  // MARK: Work

  public func post(_ work: UnsafeBufferPointer<SendWork>) -> Int32 {
    guard hasQueuePair else { return -ENOTCONN }
    var done = 0
    while done < work.count {
      let count = min(work.count - done, Self.chainMax)
      for index in 0..<count { fill(index, work[done + index], isLast: index == count - 1) }
      var bad: UnsafeMutablePointer<ibv_send_wr>?
      let code = ibv_post_send(id.pointee.qp, sends, &bad)
      guard code == 0 else { return code > 0 ? -code : code }
      done += count
    }
    return 0
  }

  private func fill(_ index: Int, _ work: SendWork, isLast: Bool) {
    segments[index] = ibv_sge(addr: work.localAddress, length: work.byteCount, lkey: work.localKey)
    let entry = sends + index
    entry.pointee.wr_id = work.id
    entry.pointee.next = isLast ? nil : entry + 1
    entry.pointee.sg_list = segments + index
    // A segment of no bytes means 2 GiB to some devices.
    entry.pointee.num_sge = work.byteCount > 0 ? 1 : 0
    var flags = work.isSignalled ? IBV_SEND_SIGNALED.rawValue : 0
    if work.isInline { flags |= IBV_SEND_INLINE.rawValue }
    entry.pointee.send_flags = flags
    switch work.operation {
    case .send: entry.pointee.opcode = IBV_WR_SEND
    case .sendInvalidating:
      entry.pointee.opcode = IBV_WR_SEND_WITH_INV
      entry.pointee.invalidate_rkey = work.remoteKey
    case .write, .read:
      entry.pointee.opcode = work.operation == .write ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ
      entry.pointee.wr.rdma.remote_addr = work.remoteAddress
      entry.pointee.wr.rdma.rkey = work.remoteKey
    }
  }

  public func post(_ work: UnsafeBufferPointer<ReceiveWork>) -> Int32 {
    guard hasQueuePair else { return -ENOTCONN }
    var done = 0
    while done < work.count {
      let count = min(work.count - done, Self.chainMax)
      for index in 0..<count {
        let item = work[done + index]
        let segment = segments + 2 * index
        segment[0] = ibv_sge(addr: item.headerAddress, length: item.headerBytes, lkey: item.headerKey)
        segment[1] = ibv_sge(addr: item.dataAddress, length: item.dataBytes, lkey: item.dataKey)
        let entry = receives + index
        entry.pointee.wr_id = item.id
        entry.pointee.next = index == count - 1 ? nil : entry + 1
        entry.pointee.sg_list = segment
        entry.pointee.num_sge = 2
      }
      var bad: UnsafeMutablePointer<ibv_recv_wr>?
      let code = ibv_post_recv(id.pointee.qp, receives, &bad)
      guard code == 0 else { return code > 0 ? -code : code }
      done += count
    }
    return 0
  }

  // MARK: The end

  /// Tells the peer (there is no reset in RDMA: else it would wait for its own time-outs) and destroys the queue pair.
  public func terminate() {
    guard hasQueuePair else { return }
    hasQueuePair = false
    if !isRemoved { rdma_disconnect(id) }
    rdma_destroy_qp(id)
    device.unreserveQueue(completionQueue, entries: entries)
  }

  /// Refuses the connection instead of accepting it.
  public func reject() {
    guard hasQueuePair else { return }
    hasQueuePair = false
    rdma_destroy_qp(id)
    device.unreserveQueue(completionQueue, entries: entries)
    rdma_reject(id, nil, 0)
    isDisconnected = true
  }

  /// Whether it has a queue pair still.
  public var isActive: Bool { hasQueuePair }

  /// Destroys the identifier. Nothing is heard of it afterwards. If it is the last of its device, the device must be closed
  /// before.
  public func destroy() {
    guard !isDestroyed else { return }
    terminate()
    isDestroyed = true
    device.endpointCount -= 1
    rdma_destroy_id(id)
  }
}
