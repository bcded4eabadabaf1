import Datamover
import Glibc
import ISCSI
import Reactor

/// Connections over RDMA: requests and events from the connection manager, completions from the devices.
extension Shard {
  /// How long an identifier lingers for the peer's answer to our disconnect.
  static let lingerNs: UInt64 = 1_000_000_000

  // MARK: Connections

  /// Accepts a connection that was let in.
  func serve(_ request: VerbsRequest, peer: String, local: String, ticket: ConnectionTicket) {
    guard !isStopping else { return refuse(request, peer, .shutdown, "shutting down") }
    // Another thread may have let in the next one before it came here.
    guard !ticket.isDisplaced else {
      return refuse(request, peer, .connectionLimit, "it had to give way to a newer one")
    }
    let endpoint: VerbsEndpoint
    do throws(VerbsError) {
      endpoint = try makeEndpoint(request)
    } catch {
      return refuse(request, peer, .rdma, error.description)
    }
    guard
      let connection = attach(
        queuePair: endpoint, keys: endpoint.device.keys, peer: peer, local: local, ticket: ticket)
    else {
      events.add(.connectionRefused(.rdma))
      Log.ofPeers(.notice, "connection from \(peer) over RDMA refused: no memory is left for it")
      endpoint.reject()
      handle.load.subtract(1, ordering: .relaxed)
      verbs.entries[request.number] = VerbsTable.Entry(
        endpoint: endpoint, connection: .max, generation: 0)
      verbs.retired.append(VerbsTable.Retired(number: request.number, deadline: 0))
      return
    }
    connection.endpoint = endpoint
    verbs.entries[request.number] = VerbsTable.Entry(
      endpoint: endpoint, connection: connection.index, generation: connection.generation)
    // The first message may come before we hear that the connection is there.
    guard connection.iser!.postReceives() else {
      endpoint.isDisconnected = true
      return close(connection, .rdmaError, String(cString: strerror(-connection.mover.failure)))
    }
    let code = endpoint.accept(request)
    if code != 0 {
      endpoint.isDisconnected = true
      close(connection, .rdmaError, "not accepted: \(String(cString: strerror(-code)))")
    }
  }

  /// A connection over a queue pair that is there; its receives are to be posted. Nil: there is no memory for it.
  func attach(
    queuePair: any QueuePair, keys: MemoryKeys, peer: String, local: String, ticket: ConnectionTicket
  ) -> Connection? {
    addConnection(port: .iser(configuration.slot), peer: peer, local: local, ticket: ticket) { index, generation in
      ISERMover(
        queuePair: queuePair, keys: keys, connection: index, generation: generation,
        window: configuration.queueDepth, pool: pool)
    }
  }

  func refuse(_ request: VerbsRequest, _ peer: String, _ why: ConnectionRefusal, _ reason: String) {
    events.add(.connectionRefused(why))
    Log.ofPeers(.notice, "connection from \(peer) over RDMA refused: \(reason)")
    handle.load.subtract(1, ordering: .relaxed)
    request.reject()
  }

  /// The queue pair for a request, on its device, which is made ready if no connection uses it yet.
  private func makeEndpoint(_ request: VerbsRequest) throws(VerbsError) -> VerbsEndpoint {
    let depth = Int(configuration.queueDepth)
    let (device, isNew) = try device(for: request)
    do throws(VerbsError) {
      return try VerbsEndpoint(
        request, device: device, sends: 2 * depth + 64, receives: depth + ISERMover.immediateReceives + 1)
    } catch {
      // Before the identifier goes.
      if isNew { closeDevice(device) }
      throw error
    }
  }

  private func device(for request: VerbsRequest) throws(VerbsError) -> (VerbsDevice, isNew: Bool) {
    for case let device? in verbs.places.map(\.device) where device.context == request.context {
      return (device, false)
    }
    let device = try VerbsDevice(request, pool: pool)
    let index = verbs.add(device)
    ring.pollReadable(device.completionDescriptor, token: verbs.token(OperationCode.verbs, index))
    ring.pollReadable(device.eventDescriptor, token: verbs.token(OperationCode.verbsEvent, index))
    observeArena()
    return (device, true)
  }

  /// Every device of the shard knows every chunk of its arena.
  private func observeArena() {
    guard verbs.places.contains(where: { $0.device != nil }) else {
      pool.chunkOpened = nil
      pool.chunkClosed = nil
      return
    }
    pool.chunkOpened = { [verbs] chunk, base in
      for (index, place) in verbs.places.enumerated() {
        guard let device = place.device, !device.register(chunk, base) else { continue }
        for other in verbs.places[..<index] { other.device?.deregister(chunk) }
        return false
      }
      return true
    }
    pool.chunkClosed = { [verbs] chunk in
      for place in verbs.places { place.device?.deregister(chunk) }
    }
  }

  private func closeDevice(_ device: VerbsDevice) {
    guard let index = verbs.index(of: device) else { return }
    for operation in [OperationCode.verbs, OperationCode.verbsEvent] {
      ring.cancel(verbs.token(operation, index), token: Token(OperationCode.cancel, index: 0, generation: 0))
    }
    verbs.places[index].device = nil
    observeArena()
    device.close()
  }

  /// The connection of an endpoint is gone: its identifier follows when the peer knows, or after a while.
  func retire(_ endpoint: VerbsEndpoint) {
    verbs.retired.append(VerbsTable.Retired(number: endpoint.number, deadline: now + Self.lingerNs))
    scheduleTick(at: now + Self.lingerNs)
  }

  /// Destroys the identifiers that nobody waits for any more.
  func destroyRetired() {
    let waiting = verbs.retired
    verbs.retired = []
    for item in waiting {
      guard let entry = verbs.entries[item.number] else { continue }
      let endpoint = entry.endpoint
      guard endpoint.isDisconnected || endpoint.isRemoved || item.deadline <= now else {
        verbs.retired.append(item)
        scheduleTick(at: item.deadline)
        continue
      }
      verbs.entries[item.number] = nil
      // The library closes a device that is gone with the last identifier: ours of it goes before.
      if endpoint.device.endpointCount == 1 { closeDevice(endpoint.device) }
      endpoint.destroy()
    }
  }

  // MARK: Events

  func verbsEvent(_ number: UInt64, _ event: VerbsEvent) {
    guard let entry = verbs.entries[number] else { return }
    let live = connection(index: entry.connection, generation: entry.generation)
    switch event {
    case .established: break
    case .timeWaitEnded: entry.endpoint.isDisconnected = true
    case .disconnected:
      entry.endpoint.isDisconnected = true
      if let live { close(live, .closedByInitiator, "closed by the initiator") }
    case .failed:
      entry.endpoint.isDisconnected = true
      if let live { close(live, .rdmaError, "the RDMA connection failed") }
    case .deviceRemoved:
      entry.endpoint.isRemoved = true
      if let live { close(live, .deviceGone, "the RDMA device \(entry.endpoint.device.name) is gone") }
    }
  }

  /// Whether a poll found something to read. The descriptors of a device that is gone only tell of errors, without end: they
  /// are not polled again.
  private func isReadable(_ result: Int32) -> Bool { result > 0 && result & Int32(POLLIN) != 0 }

  func verbsEventReadable(_ token: Token, _ result: Int32) {
    guard isReadable(result), let device = verbs.device(token) else { return }
    while let event = device.takeDeviceEvent() {
      // Whichever shard read it: it concerns them all.
      let context = UInt(bitPattern: device.context)
      for handle in self.context.handles { handle.post(.perform { $0.deviceEvent(context, event) }) }
    }
    ring.pollReadable(device.eventDescriptor, token: token)
  }

  /// Ends the connections that an event of a device concerns.
  private func deviceEvent(_ context: UInt, _ event: VerbsDevice.Event) {
    for entry in Array(verbs.entries.values) {
      let endpoint = entry.endpoint
      guard UInt(bitPattern: endpoint.device.context) == context,
        let live = connection(index: entry.connection, generation: entry.generation)
      else { continue }
      switch event {
      case .deviceFailed: close(live, .deviceGone, "the RDMA device \(endpoint.device.name) has failed")
      case .portDown(let port) where port == endpoint.port:
        close(live, .deviceGone, "port \(port) of the RDMA device \(endpoint.device.name) is down")
      case .queuePairFailed(let number) where number == endpoint.queuePairNumber:
        close(live, .rdmaError, "its queue pair has failed")
      case .portDown, .queuePairFailed: break
      }
    }
  }

  // MARK: Completions

  func verbsReadable(_ token: Token, _ result: Int32) {
    guard isReadable(result), let device = verbs.device(token) else { return }
    device.takeEvents()
    drain(device, arming: configuration.pollNs == 0)
    ring.pollReadable(device.completionDescriptor, token: token)
  }

  /// Polling instead of sleeping, until nothing has come for a while.
  func pollVerbs() {
    let isOver = verbs.pollsUntil <= now
    if isOver { verbs.pollsUntil = 0 }
    for place in verbs.places {
      if let device = place.device { drain(device, arming: isOver) }
    }
  }

  /// Takes what has completed. With `arming` the next completion makes the descriptor readable.
  private func drain(_ device: VerbsDevice, arming: Bool) {
    var hasFound = false
    while true {
      let count = device.poll(into: verbs.batch, limit: VerbsTable.batchMax, arming: arming)
      guard count > 0 else { break }
      hasFound = true
      for index in 0..<count { completed(verbs.batch[index]) }
    }
    if hasFound || !arming, configuration.pollNs > 0 {
      verbs.pollsUntil = hasFound ? now + configuration.pollNs : max(verbs.pollsUntil, now + 1)
    }
  }

  /// Work of a connection has completed.
  func completed(_ completion: WorkCompletion) {
    let work = completion.work
    guard work.connection < connections.count, let connection = connections[work.connection],
      connection.generation & 0xFF_FFFF == work.generation, connection.isOpen, let mover = connection.iser
    else { return }
    guard completion.status == 0 else {
      return close(connection, .rdmaError, "RDMA: \(VerbsDevice.text(ofStatus: completion.status))")
    }
    do throws(ISERFault) {
      if work.isReceive {
        try received(connection, mover, work.slot, Int(completion.byteCount))
      } else {
        try sent(connection, mover, work.slot)
      }
    } catch {
      note(connection, .iserMessage)
      close(connection, .protocolError, "not an iSER message: \(error)")
    }
  }

  private func received(
    _ connection: Connection, _ mover: ISERMover, _ slot: Int, _ byteCount: Int
  ) throws(ISERFault) {
    connection.lastHeardAt = now
    let message = try mover.accept(slot: slot, byteCount: byteCount)
    touch(connection)
    switch message {
    case .pdu(let header, let advertised):
      guard !connection.closesAfterSend else { break }
      connection.advertised = advertised
      place(connection, mover, slot, header)
      controlNotify(connection, header)
    case .hello: break
    case .refusedHello:
      note(connection, .iserMessage)
      closeAfterSend(connection, .protocolError, "no version of iSER in common")
    }
    mover.recycle(slot: slot)
  }

  /// The data segment of a PDU that lies in a receive's buffer: immediate data changes its owner, unless it is only the
  /// beginning of a larger transfer.
  private func place(_ connection: Connection, _ mover: ISERMover, _ slot: Int, _ header: BasicHeaderSegment) {
    connection.placement = .none
    let count = header.dataSegmentLength
    guard count > 0 else { return }
    let data = mover.data(ofSlot: slot, header)
    if isControlData(connection, header) {
      placeControl(connection, count)?.copyMemory(from: data, byteCount: count)
      return
    }
    connection.placement = .dropped
    guard header.opcode == .scsiCommand else { return }
    // The command is refused for its additional headers, not for want of memory.
    if header.additionalHeaderBytes > 0 { return connection.placement = .none }
    let bytes = immediateBufferBytes(header)
    if bytes <= ISERMover.dataBytes {
      if let buffer = mover.takeData(ofSlot: slot, pool: pool) { connection.placement = .immediate(buffer) }
    } else if let buffer = pool.take(bytes) {
      buffer.base.copyMemory(from: data, byteCount: count)
      connection.placement = .immediate(buffer)
    }
  }

  private func sent(_ connection: Connection, _ mover: ISERMover, _ slot: Int) throws(ISERFault) {
    let outcome = try mover.completed(slot: slot, pool: pool)
    connection.sendingSince = now
    switch outcome {
    case .arrived(let tag): dataArrived(tag)
    case .sent(let notice): if notice != 0 { sentPiece(Int(notice) - 1) }
    }
    if mover.hasWaiting || connection.closesAfterSend { touch(connection) }
  }
}
