import ISCSI
import Reactor

/// From what waits to work requests. READs have a bound of their own, so that the queue never stalls on one; they go last,
/// because their completion tells that of the answers before them.
extension ISERMover {
  func appendFetches(id: WorkID) {
    while fetchHead < fetches.count, readsUnderWay < readsMax, sendsFree >= 1 {
      let fetch = fetches[fetchHead]
      fetchHead += 1
      var flight = Flight()
      flight.transferTag = fetch.transferTag
      flight.isRead = true
      flight.isSignalled = true
      flight.workCount = 1
      let slot = add(flight)
      readsUnderWay += 1
      chain.append(
        SendWork(
          id: id.with(slot: slot), operation: .read, isSignalled: true, isInline: false,
          localAddress: fetch.destination, byteCount: fetch.count, localKey: fetch.localKey,
          remoteAddress: fetch.remoteAddress, remoteKey: fetch.remoteKey))
    }
    if fetchHead == fetches.count, fetchHead > 0 {
      fetches.removeAll(keepingCapacity: true)
      fetchHead = 0
    } else if fetchHead > 1024 {
      fetches.removeFirst(fetchHead)
      fetchHead = 0
    }
  }

  func appendOutgoing(id: WorkID, expCmdSN: UInt32, maxCmdSN: UInt32) {
    while outgoingHead < outgoing.count, append(outgoing[outgoingHead], id, expCmdSN, maxCmdSN) {
      // Drop the reference to the buffer and data now: the array is emptied only when all of it is out.
      outgoing[outgoingHead] = Outgoing(kind: .raw)
      outgoingHead += 1
    }
    if outgoingHead == outgoing.count, outgoingHead > 0 {
      outgoing.removeAll(keepingCapacity: true)
      outgoingHead = 0
    } else if outgoingHead > 1024 {
      outgoing.removeFirst(outgoingHead)
      outgoingHead = 0
    }
  }

  /// Turns one item into work requests; false when something it needs is not free.
  private func append(_ item: Outgoing, _ id: WorkID, _ expCmdSN: UInt32, _ maxCmdSN: UInt32) -> Bool {
    let works = item.kind == .writeAndSend ? 2 : 1
    guard sendsFree >= works else { return false }
    var flight = Flight()
    flight.isSignalled = mustSignal(item)
    flight.workCount = UInt8(works)
    flight.buffer = item.buffer
    flight.notice = item.notice
    var message: SendWork?
    if item.kind != .write, item.kind != .mark {
      guard let staged = stageMessage(item, &flight, expCmdSN, maxCmdSN) else { return false }
      message = staged
    }
    let slot = add(flight)
    if !flight.isSignalled { unsignalledBytes += Int(item.count) }
    if item.kind != .send, item.kind != .raw {
      chain.append(
        SendWork(
          id: id.with(slot: slot), operation: .write, isSignalled: flight.isSignalled && message == nil,
          isInline: false, localAddress: item.payload, byteCount: item.count,
          localKey: item.buffer.map { keys[$0.chunk] } ?? 0,
          remoteAddress: item.remoteAddress, remoteKey: item.remoteKey))
    }
    if var message {
      message.id = id.with(slot: slot)
      message.isSignalled = flight.isSignalled
      chain.append(message)
    }
    return true
  }

  /// Puts a flight at the end of the circle and returns its place: there is one for each entry of the send queue.
  private func add(_ flight: Flight) -> Int {
    let end = flightHead + flightCount
    let slot = end >= flights.count ? end - flights.count : end
    flights[slot] = flight
    flightCount += 1
    sendsFree -= Int(flight.workCount)
    if flight.isSignalled {
      signalledCount += 1
      unsignalledCount = 0
      unsignalledBytes = 0
    } else {
      unsignalledCount += 1
    }
    return slot
  }

  /// Whether a completion of this is worth its cost: somebody waits for it, much waits for the next one, or what it holds is
  /// getting scarce.
  private func mustSignal(_ item: Outgoing) -> Bool {
    item.wantsCompletion || unsignalledCount + 1 >= Self.unsignalledMax
      || unsignalledBytes + Int(item.count) >= Self.unsignalledBytesMax || sendsFree < limits.sendsMax / 2
      || freeStages.count < Self.unsignalledMax || pool.bytesInUse > pool.bytesMax / 2
  }

  /// Writes a message into staging memory; nil when none is free.
  private func stageMessage(
    _ item: Outgoing, _ flight: inout Flight, _ expCmdSN: UInt32, _ maxCmdSN: UInt32
  ) -> SendWork? {
    let count = item.kind == .raw ? item.data.count : Self.headerBytes + item.data.count
    let place: UnsafeMutableRawPointer
    let chunk: UInt16
    if let stage, count <= Self.stageBytes {
      guard let number = freeStages.popLast() else { return nil }
      flight.stage = number
      place = stage.base + Int(number) * Self.stageBytes
      chunk = stage.chunk
    } else {
      // Of the login, which has one message under way at a time.
      guard isLoginStageFree else { return nil }
      precondition(count <= loginStage.capacity, "a message longer than any initiator has a receive for")
      isLoginStageFree = false
      flight.usesLoginStage = true
      place = loginStage.base
      chunk = loginStage.chunk
    }
    var dataPlace = place
    if item.kind != .raw {
      var header = item.header
      header.expCmdSN = expCmdSN
      header.maxCmdSN = maxCmdSN
      ISERHeader.storeControl(at: place)
      header.store(at: place + ISERHeader.byteCount)
      dataPlace += Self.headerBytes
    }
    if !item.data.isEmpty {
      item.data.withUnsafeBytes { dataPlace.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
    }
    return SendWork(
      id: 0, operation: item.invalidates ? .sendInvalidating : .send, isSignalled: true,
      isInline: count <= limits.inlineBytesMax, localAddress: UInt64(UInt(bitPattern: place)),
      byteCount: UInt32(count), localKey: keys[chunk], remoteAddress: 0,
      remoteKey: item.invalidates ? item.invalidatedKey : 0)
  }
}
