import Datamover
import ISCSI
import Reactor

/// What comes in, whatever brought it: connections, PDUs, and their data segments.
extension Shard {
  /// A place in the table for a new connection, and its login machine; nil when it could have no datamover.
  func addConnection(
    port: TargetPort, peer: String, local: String, ticket: ConnectionTicket, _ makeMover: (Int, UInt32) -> Mover?
  ) -> Connection? {
    connectionGeneration &+= 1
    let index = freeConnections.last ?? connections.count
    guard let mover = makeMover(index, connectionGeneration) else { return nil }
    let connection = Connection(
      index: index, generation: connectionGeneration, mover: mover, port: port, peer: peer, local: local,
      ticket: ticket, target: configuration.target, units: map.units, now: now)
    if freeConnections.popLast() == nil { connections.append(connection) } else { connections[index] = connection }
    // Whoever comes over loopback is told the portal it came to: the others may not be reachable for it. So is one who
    // comes to a service address, for it wants no portal that stays with a node.
    let isListed = connection.target.portals.contains { $0.address == local }
    if ticket.address.isLoopback || !isListed { connection.target.portals = [] }
    connection.login = LoginMachine(
      configuration: connection.target, transport: connection.mover.capabilities, localPortal: local)
    scheduleTick(at: now + configuration.loginTimeoutNs)
    trace(connection, .accepted)
    return connection
  }

  /// Control_Notify (RFC 5047): a PDU is complete, its data segment where `placement` says.
  func controlNotify(_ connection: Connection, _ header: BasicHeaderSegment) {
    switch connection.phase {
    case .fullFeature: fullFeaturePDU(connection, header)
    case .login: loginPDU(connection, header)
    // Nothing may come between the last Login Request and its response (RFC 7143 §6.3).
    case .settling: spokeTooEarly(connection)
    case .closing: break
    }
  }

  func spokeTooEarly(_ connection: Connection) {
    note(connection, .tooEarly)
    close(connection, .protocolError, "spoke before its login was answered")
  }

  // MARK: Data segments

  /// Whether a data segment is text or a ping's rather than a command's. Logout, task management and SNACK carry none: the
  /// PDU's handler judges.
  func isControlData(_ connection: Connection, _ header: BasicHeaderSegment) -> Bool {
    guard connection.phase == .fullFeature else { return true }
    return switch header.opcode {
    case .nopOut, .textRequest, .loginRequest: true
    default: false
    }
  }

  /// Bytes of the buffer for immediate data: it is that of the command's first piece, so that the rest of its data can join
  /// what is here.
  func immediateBufferBytes(_ header: BasicHeaderSegment) -> Int {
    min(max(Int(header.expectedDataTransferLength), header.dataSegmentLength), BufferPool.pieceBytes)
  }

  func placeControl(_ connection: Connection, _ count: Int) -> UnsafeMutableRawPointer? {
    connection.placement = .control
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 8)
    connection.control = memory
    return memory.baseAddress
  }

  /// The control data of the PDU at hand, which is the caller's from here on.
  func takeControl(_ connection: Connection) -> [UInt8] {
    guard case .control = connection.placement, let memory = connection.control else { return [] }
    connection.placement = .none
    connection.control = nil
    defer { memory.deallocate() }
    return Array(memory)
  }
}
