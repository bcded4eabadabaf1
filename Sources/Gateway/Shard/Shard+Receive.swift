import Datamover
import Glibc
import ISCSI
import Reactor
import Wire

/// Bytes in: framing, and where each data segment goes.
extension Shard {
  /// Starts serving an accepted socket.
  func serve(fd: Int32, peer: String, local: String, ticket: ConnectionTicket) {
    connectionGeneration &+= 1
    let index = freeConnections.popLast() ?? connections.count
    let connection = Connection(
      index: index, generation: connectionGeneration, fd: fd, peer: peer, local: local, ticket: ticket,
      target: configuration.target, units: map.units, now: now)
    if index == connections.count { connections.append(connection) } else { connections[index] = connection }
    // Whoever comes over loopback is told the portal it came to: the others may not be reachable for it.
    if ticket.address.isLoopback { connection.target.portals = [] }
    connection.login = LoginMachine(configuration: connection.target, transport: .tcp, localPortal: local)
    scheduleTick(at: now + configuration.loginTimeoutNs)
    if isStopping { return close(connection, "shutting down") }
    armReceive(connection)
  }

  func armReceive(_ connection: Connection) {
    guard !connection.isReceiving, !connection.isStarved, connection.isOpen, connection.phase != .settling,
      !connection.closesAfterSend, connection.sender.mayQueue
    else {
      return
    }
    connection.isReceiving = true
    let index = UInt32(connection.index)
    if let place = connection.receiver.directPlace(minimum: Self.directReceiveBytes) {
      ring.receive(
        connection.fd, into: place.baseAddress!, count: place.count,
        token: Token(OperationCode.receiveDirect, index: index, generation: connection.generation))
    } else {
      ring.receive(
        connection.fd, group: receives.group,
        token: Token(OperationCode.receive, index: index, generation: connection.generation))
    }
  }

  func received(_ completion: Completion) {
    let buffer = completion.providedBuffer
    guard let connection = connection(completion.token) else {
      if let buffer { receives.recycle(buffer) }
      return
    }
    connection.isReceiving = false
    if completion.result > 0, let buffer, connection.isOpen {
      connection.lastHeardAt = now
      consume(connection, UnsafeRawBufferPointer(start: receives.base(buffer), count: Int(completion.result)))
    }
    if let buffer { receives.recycle(buffer) }
    finishReceive(connection, completion.result)
  }

  func receivedDirectly(_ completion: Completion) {
    guard let connection = connection(completion.token) else { return }
    connection.isReceiving = false
    if completion.result > 0, connection.isOpen {
      connection.lastHeardAt = now
      connection.receiver.didReceive(count: Int(completion.result))
      consume(connection, UnsafeRawBufferPointer(start: nil, count: 0))
    }
    finishReceive(connection, completion.result)
  }

  private func finishReceive(_ connection: Connection, _ result: Int32) {
    if connection.phase == .closing { return finishClose(connection) }
    if result > 0 { return armReceive(connection) }
    if result == -ENOBUFS {
      connection.isStarved = true
      starved.append(connection)
      return
    }
    if result == -EINTR || result == -EAGAIN { return armReceive(connection) }
    close(connection, result == 0 ? "closed by the initiator" : String(cString: strerror(-result)))
  }

  /// Cuts `bytes` into PDUs and acts on each.
  private func consume(_ connection: Connection, _ bytes: UnsafeRawBufferPointer) {
    var input = bytes
    while connection.isOpen, !connection.closesAfterSend {
      switch connection.receiver.next(&input) {
      case .needMore:
        return
      case .placement:
        place(connection)
      case .pdu:
        let header = connection.receiver.header
        if connection.phase == .fullFeature {
          fullFeaturePDU(connection, header)
        } else if connection.phase == .login {
          loginPDU(connection, header)
        } else {
          // Nothing may come between the last Login Request and its response (RFC 7143 §6.3).
          return close(connection, "spoke before its login was answered")
        }
      case .failed(let fault):
        return close(connection, "stream error: \(fault)")
      }
    }
  }

  /// Decides where the data segment of the PDU at hand goes.
  private func place(_ connection: Connection) {
    let header = connection.receiver.header
    let count = header.dataSegmentLength
    guard connection.phase == .fullFeature else { return placeControl(connection, count) }
    switch header.opcode {
    case .scsiCommand:
      // The buffer is that of the command's first piece, so that the rest of its data can join what is here.
      let bytes = min(max(Int(header.expectedDataTransferLength), count), BufferPool.pieceBytes)
      if let buffer = pool.take(bytes) {
        connection.placement = .immediate(buffer)
        connection.receiver.place(at: buffer.base)
      } else {
        connection.placement = .dropped
        connection.receiver.place(at: nil)
      }
    case .dataOut:
      placeDataOut(connection, header)
    case .nopOut, .textRequest, .loginRequest:
      placeControl(connection, count)
    default:
      // Logout, task management, SNACK carry none; the PDU handler judges.
      connection.placement = .dropped
      connection.receiver.place(at: nil)
    }
  }

  private func placeControl(_ connection: Connection, _ count: Int) {
    connection.placement = .control
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 8)
    connection.control = memory
    connection.receiver.place(at: memory.baseAddress)
  }

  /// The control data of the PDU at hand, which is the caller's from here on.
  func takeControl(_ connection: Connection) -> [UInt8] {
    guard case .control = connection.placement, let memory = connection.control else { return [] }
    connection.placement = .none
    connection.control = nil
    defer { memory.deallocate() }
    return Array(memory)
  }

  // MARK: Out

  func sent(_ token: Token, _ result: Int32) {
    guard let connection = connection(token) else { return }
    let isWhole = connection.sender.complete(result: result, pool: pool, batches: batches)
    for notice in connection.sender.takeNotices() { sentPiece(Int(notice) - 1) }
    if connection.phase == .closing { return finishClose(connection) }
    guard isWhole else {
      return close(connection, result < 0 ? String(cString: strerror(-result)) : "the initiator stopped receiving")
    }
    if connection.sender.hasWaiting || connection.closesAfterSend { touch(connection) }
    // It may have stopped because the initiator did not take its answers.
    armReceive(connection)
  }
}
