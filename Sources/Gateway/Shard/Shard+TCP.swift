import CSystem
import Datamover
import Glibc
import ISCSI
import Reactor

/// Connections over TCP: bytes in and messages out through the ring.
extension Shard {
  /// Starts serving an accepted socket.
  func serve(fd: Int32, peer: String, local: String, ticket: ConnectionTicket) {
    let connection = addConnection(port: .tcp(configuration.slot), peer: peer, local: local, ticket: ticket) {
      index, generation in
      TCPMover(fd: fd, token: Token(OperationCode.send, index: UInt32(index), generation: generation))
    }
    guard let connection else { return }
    if isStopping { return close(connection, .shutdown, "shutting down") }
    // Another thread may have let in the next one before it came here.
    if ticket.isDisplaced { return displace(connection) }
    armReceive(connection)
  }

  /// Receives on, if the connection takes anything and has no receive yet. Only TCP has to be asked.
  func armReceive(_ connection: Connection) {
    guard let mover = connection.tcp, !mover.isReceiving, !mover.isStarved, connection.isOpen,
      connection.phase != .settling, !connection.closesAfterSend, mover.mayQueue
    else {
      return
    }
    mover.isReceiving = true
    let index = UInt32(connection.index)
    if let place = mover.directPlace(minimum: Self.directReceiveBytes) {
      mover.largeReceives = 0
      ring.receive(
        mover.fd, into: place.baseAddress!, count: place.count,
        token: Token(OperationCode.receiveDirect, index: index, generation: connection.generation))
    } else {
      let isLarge = mover.largeReceives > 0
      ring.receive(
        mover.fd, group: isLarge ? largeReceives.group : receives.group, isDrained: mover.isDrained,
        token: Token(
          isLarge ? OperationCode.receiveLarge : OperationCode.receive, index: index,
          generation: connection.generation))
    }
  }

  /// The connection that a completion of a socket is of.
  @inline(__always)
  private func tcpConnection(_ token: Token) -> (Connection, TCPMover)? {
    guard let connection = connection(token), let mover = connection.tcp else { return nil }
    return (connection, mover)
  }

  /// - Parameter buffers: those that the receive chose from.
  func received(_ completion: Completion, in buffers: borrowing ReceiveBuffers) {
    let buffer = completion.providedBuffer
    guard let (connection, mover) = tcpConnection(completion.token) else {
      if let buffer { buffers.recycle(buffer) }
      return
    }
    mover.isReceiving = false
    mover.isDrained = !completion.leavesMore
    if mover.largeReceives > 0 { mover.largeReceives -= 1 }
    if completion.result >= Self.receiveBuffers.bytes { mover.largeReceives = Self.largeReceives }
    if completion.result > 0, let buffer, connection.isOpen {
      connection.lastHeardAt = now
      consume(connection, mover, UnsafeRawBufferPointer(start: buffers.base(buffer), count: Int(completion.result)))
    }
    if let buffer { buffers.recycle(buffer) }
    if completion.result == -ENOBUFS, buffers.group == largeReceives.group {
      // All of them are in use; of the others there may be some.
      mover.largeReceives = 0
      return finishReceive(connection, mover, -EAGAIN)
    }
    finishReceive(connection, mover, completion.result)
  }

  func receivedDirectly(_ completion: Completion) {
    guard let (connection, mover) = tcpConnection(completion.token) else { return }
    mover.isReceiving = false
    mover.isDrained = false
    if completion.result > 0, connection.isOpen {
      connection.lastHeardAt = now
      mover.didReceive(count: Int(completion.result))
      consume(connection, mover, UnsafeRawBufferPointer(start: nil, count: 0))
    }
    finishReceive(connection, mover, completion.result)
  }

  private func finishReceive(_ connection: Connection, _ mover: TCPMover, _ result: Int32) {
    if connection.phase == .closing { return finishClose(connection) }
    if result > 0 { return armReceive(connection) }
    if result == -ENOBUFS {
      mover.isStarved = true
      starved.append(connection)
      return
    }
    if result == -EINTR || result == -EAGAIN { return armReceive(connection) }
    if result == 0 { return close(connection, .closedByInitiator, "closed by the initiator") }
    closeBroken(connection, -result)
  }

  /// Those whose receive found no buffer try again.
  func retryStarved() {
    let retry = starved
    starved = []
    for connection in retry {
      connection.tcp?.isStarved = false
      armReceive(connection)
    }
  }

  /// Cuts `bytes` into PDUs and acts on each.
  private func consume(_ connection: Connection, _ mover: TCPMover, _ bytes: UnsafeRawBufferPointer) {
    var input = bytes
    while connection.isOpen, !connection.closesAfterSend {
      switch mover.next(&input) {
      case .needMore: return
      case .placement:
        // Its end may come when the login is settled, and it would be another kind of PDU by then.
        guard connection.phase != .settling else { return spokeTooEarly(connection) }
        mover.place(at: place(connection, mover.header, mover.segment(in: input)))
      case .pdu: controlNotify(connection, mover.header)
      case .failed(let fault): return streamFailed(connection, fault)
      }
    }
  }

  private func streamFailed(_ connection: Connection, _ fault: StreamFault) {
    var cause = EndCause.digestError
    switch fault {
    case .headerDigest, .dataDigest:
      events.add(fault == .headerDigest ? .headerDigestError : .dataDigestError)
      trace(connection, .digestError(isHeader: fault == .headerDigest))
    case .dataSegmentTooLong:
      note(connection, .segmentTooLong)
      cause = .protocolError
    }
    close(connection, cause, "stream error: \(fault)")
  }

  /// Decides where the data segment of the PDU at hand goes; nil: it is dropped, or stays where it is.
  private func place(
    _ connection: Connection, _ header: BasicHeaderSegment, _ segment: UnsafeRawPointer?
  ) -> UnsafeMutableRawPointer? {
    if isControlData(connection, header) { return placeControl(connection, header.dataSegmentLength) }
    switch header.opcode {
    case .scsiCommand:
      if let segment {
        connection.placement = .received(segment)
        return nil
      }
      if let buffer = pool.take(immediateBufferBytes(header)) {
        connection.placement = .immediate(buffer)
        return buffer.base
      }
      connection.placement = .dropped
      return nil
    case .dataOut:
      return placeDataOut(connection, header)
    default:
      connection.placement = .dropped
      return nil
    }
  }

  // MARK: Out

  func sent(_ token: Token, _ result: Int32) {
    guard let (connection, mover) = tcpConnection(token) else { return }
    let isWhole = mover.complete(result: result, pool: pool, batches: batches)
    for notice in mover.takeNotices() { sentPiece(Int(notice) - 1) }
    if connection.phase == .closing { return finishClose(connection) }
    guard isWhole else {
      if result < 0 { return closeBroken(connection, -result) }
      return close(connection, .closedByInitiator, "the initiator stopped receiving")
    }
    if mover.hasWaiting || connection.closesAfterSend { touch(connection) }
    // It may have stopped because the initiator did not take its answers.
    armReceive(connection)
  }
}
