import CSystem
import Datamover
import Glibc
import ISCSI
import Reactor
import SCSI
import Wire

/// Login, the session's requests other than SCSI's, and the end of connections.
extension Shard {
  static func random(_ count: Int) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
      system_random(buffer.baseAddress, UInt64(count))
      initialized = count
    }
  }

  // MARK: Login

  func loginPDU(_ connection: Connection, _ header: BasicHeaderSegment) {
    let data = takeControl(connection)
    guard var machine = connection.login else { return close(connection, .protocolError, "no login in progress") }
    let step = machine.receive(header, data: data, random: Self.random)
    connection.login = machine
    switch step {
    case .respond(let reply):
      traceStage(connection, reply)
      send(connection, reply)
    case .established(let result):
      connection.phase = .settling
      connection.result = result
      settle(connection, retriesLeft: 2)
    case .fail(let reply):
      let reason = machine.refusalReason ?? "status \(reply.status.rawValue)"
      Log.ofPeers(.notice, "login of \(connection.peer) refused: \(reason)")
      noteRefusal(connection, reply.status, machine.refusalReason)
      send(connection, reply)
      closeAfterSend(connection, .loginRefused, "login refused")
    case .close:
      note(connection, .noLogin)
      close(connection, .protocolError, machine.refusalReason ?? "not an iSCSI login")
    }
  }

  /// A transition that a Login Response agrees to (RFC 7143 §11.13.3).
  private func traceStage(_ connection: Connection, _ reply: LoginReply) {
    let flags = reply.header.flags
    if flags & 0x80 != 0 { trace(connection, .loginStage(from: flags >> 2 & 3, to: flags & 3)) }
  }

  private func noteRefusal(_ connection: Connection, _ status: LoginStatus, _ reason: String?) {
    events.add(.loginRefused(status))
    trace(connection, .loginRefused(status, reason))
  }

  private func send(_ connection: Connection, _ reply: LoginReply) {
    connection.mover.sendControl(reply.header, data: reply.data)
    touch(connection)
  }

  /// Finds the session's place among all sessions: reinstatement ends an older one first (RFC 7143 §6.3.5).
  private func settle(_ connection: Connection, retriesLeft: Int) {
    guard let result = connection.result else { return }
    guard result.tsihRequested == 0 else {
      // One connection a session, and sessions do not outlive their connection (ErrorRecoveryLevel 0).
      let isKnown = context.sessions.entry(tsih: result.tsihRequested) != nil
      return refuse(connection, isKnown ? .tooManyConnections : .sessionDoesNotExist)
    }
    let key =
      result.isDiscovery
      ? nil
      : SessionTable.Key(
        initiatorName: InitiatorName(result.initiatorName.text), isid: result.isid,
        portalGroupTag: result.targetPortalGroupTag)
    let claim = context.sessions.claim(
      key, shard: handle.index, connection: connection.index, generation: connection.generation,
      sessionsMax: configuration.sessionsMax)
    switch claim {
    case .granted(let tsih): establish(connection, result, tsih: tsih)
    case .full: refuse(connection, .outOfResources)
    case .occupied(let old) where old.key == nil:
      // Each ends another one, so there is an end to it.
      reinstate(old, for: connection, retriesLeft: retriesLeft)
    case .occupied(let old):
      guard retriesLeft > 0 else { return refuse(connection, .targetError) }
      trace(connection, .reinstates)
      reinstate(old, for: connection, retriesLeft: retriesLeft - 1)
    }
  }

  /// Ends the older session on its shard, then goes on here.
  private func reinstate(_ old: SessionTable.Entry, for connection: Connection, retriesLeft: Int) {
    let home = handle
    let index = connection.index
    let generation = connection.generation
    context.handles[old.shard].post(
      .perform { shard in
        let resume: @Sendable () -> Void = {
          home.post(
            .perform { shard in
              guard let connection = shard.connection(index: index, generation: generation),
                connection.phase == .settling
              else { return }
              shard.settle(connection, retriesLeft: retriesLeft)
            })
        }
        guard let older = shard.connection(index: old.connection, generation: old.generation) else { return resume() }
        older.onClosed.append(resume)
        if old.key != nil {
          shard.close(older, .reinstated, "reinstated by a new login")
        } else {
          shard.displace(older)
        }
      })
  }

  /// Ends the connection of this number, which another needs the place of, unless it has a session by now.
  func giveWay(_ number: UInt64) {
    for case let connection? in connections where connection.ticket.number == number && connection.nexus == nil {
      // One that has proven who it is will have its session in a moment.
      if connection.phase != .settling { displace(connection) }
    }
    turnAwayWaiting(number)
  }

  func displace(_ connection: Connection) {
    close(connection, .displaced, "it had to give way to a newer one")
  }

  /// The connection of this name; nil if it is gone, or never was (-1).
  func connection(index: Int, generation: UInt32) -> Connection? {
    guard connections.indices.contains(index), let connection = connections[index], connection.generation == generation
    else { return nil }
    return connection
  }

  private func refuse(_ connection: Connection, _ status: LoginStatus) {
    guard var machine = connection.login else { return }
    let reply = machine.refuse(status)
    Log.ofPeers(.notice, "login of \(connection.name) refused: status \(String(status.rawValue, radix: 16))")
    connection.phase = .login
    noteRefusal(connection, status, nil)
    send(connection, reply)
    closeAfterSend(connection, .loginRefused, "login refused")
  }

  private func establish(_ connection: Connection, _ result: LoginResult, tsih: UInt16) {
    guard var machine = connection.login else { return }
    let depth = min(result.isDiscovery ? 8 : configuration.queueDepth, connection.mover.commandsMax)
    connection.tsih = tsih
    guard connection.mover.enable(result.parameters, window: depth, pool: pool) else {
      events.add(.noBuffer(.login))
      return refuse(connection, .outOfResources)
    }
    let reply = machine.finish(tsih: tsih, commandWindow: depth)
    connection.login = nil
    connection.phase = .fullFeature
    connection.parameters = result.parameters
    if let requests = connection.mover.requestsForDataMax { connection.parameters.maxOutstandingR2T = requests }
    connection.statSN = result.statSN
    connection.window = CommandWindow(initialCmdSN: result.initialCmdSN, depth: depth)
    connection.text = TextExchange(
      configuration: connection.target, transport: connection.mover.capabilities, localPortal: connection.local,
      login: result)
    if !result.isDiscovery {
      let nexus = Nexus(
        identity: NexusIdentity(
          initiatorName: result.initiatorName.text, isid: result.isid,
          relativeTargetPort: connection.port.relativeIdentifier),
        id: UInt64(handle.index) << 32 | UInt64(connection.generation),
        targetPortGroup: connection.port.group)
      connection.nexus = nexus
      connection.ticket.settle()
      connection.units = visibleUnits(result.luns)
      // What a session has set up (SPC-2 reservations, what prevents removal) went with the one before, and more with a restart.
      let wasHere = context.sessions.remember(nexus.identity)
      nexus.raise(wasHere ? .nexusLoss : .powerOn, luns: connection.units.numbers)
      context.registry.attach(nexus)
    }
    scheduleTick(at: now + watchNs)
    trace(connection, .authenticated(result.authenticatedName))
    traceStage(connection, reply)
    trace(connection, .fullFeature(tsih: tsih))
    send(connection, reply)
    let kind = result.isDiscovery ? " for discovery" : ""
    Log.ofPeers(.info, "session \(tsih) of \(connection.name) over \(connection.mover.name) established\(kind)")
    armReceive(connection)
  }

  // MARK: Full feature phase

  @inline(__always)
  func fullFeaturePDU(_ connection: Connection, _ header: BasicHeaderSegment) {
    if !connection.hasHeard {
      // It speaks with digests that the Login Response, which still waits, must not have.
      guard !connection.mover.hasWaiting else { return spokeTooEarly(connection) }
      hearFirst(connection)
    }
    switch header.opcode {
    case .scsiCommand: scsiCommand(connection, header)
    case .dataOut: dataOut(connection, header)
    default: sessionRequest(connection, header)
    }
  }

  private func hearFirst(_ connection: Connection) {
    connection.hasHeard = true
    connection.mover.beginFullFeature(connection.parameters)
  }

  private func sessionRequest(_ connection: Connection, _ header: BasicHeaderSegment) {
    // A NOP-Out that only answers our ping takes no CmdSN; its tag is reserved (RFC 7143 §11.18.1).
    if header.opcode == .nopOut, header.initiatorTaskTag == BasicHeaderSegment.reservedTag {
      _ = takeControl(connection)
      connection.placement = .none
      if header.targetTransferTag == connection.pingTag { connection.pingedAt = 0 }
      return
    }
    let data = takeControl(connection)
    connection.placement = .none
    switch connection.window.admit(cmdSN: header.cmdSN, isImmediate: header.isImmediate) {
    case .deliver: break
    case .ignore: return events.add(.outsideWindow)
    case .gap: return protocolError(connection, header, .cmdSNGap, "CmdSN \(header.cmdSN) leaves a gap")
    }
    // These are answered at once, so their place in the window is free at once.
    if !header.isImmediate { connection.window.release() }
    switch header.opcode {
    case .nopOut: nopOut(connection, header, data)
    case .textRequest: textRequest(connection, header, data)
    case .taskManagementRequest: taskManagement(connection, header)
    case .logoutRequest: logout(connection, header)
    case .snackRequest: reject(connection, header, .snackReject)
    default: protocolError(connection, header, .opcode, "opcode \(header.opcode.rawValue) is not an initiator's")
    }
  }

  /// Queues a response that carries a StatSN.
  func respond(_ connection: Connection, _ header: BasicHeaderSegment, data: [UInt8] = []) {
    var header = header
    header.statSN = connection.statSN
    connection.statSN &+= 1
    connection.mover.sendControl(header, data: data)
    touch(connection)
  }

  private func nopOut(_ connection: Connection, _ header: BasicHeaderSegment, _ data: [UInt8]) {
    let echo = Array(
      data.prefix(
        min(
          connection.parameters.maxRecvDataSegmentLength, connection.mover.capabilities.controlDataBytesMax ?? .max)))
    respond(
      connection,
      .nopIn(
        lun: header.lun, initiatorTaskTag: header.initiatorTaskTag, targetTransferTag: BasicHeaderSegment.reservedTag),
      data: echo)
  }

  private func textRequest(_ connection: Connection, _ header: BasicHeaderSegment, _ data: [UInt8]) {
    guard var text = connection.text else { return }
    let step = text.receive(header, data: data)
    connection.text = text
    connection.mover.setMaxRecvDataSegmentLength(text.maxRecvDataSegmentLength)
    connection.parameters.maxRecvDataSegmentLength = text.maxRecvDataSegmentLength
    switch step {
    case .respond(let reply): respond(connection, reply.header, data: reply.data)
    case .reject(let reason): reject(connection, header, RejectReason(rawValue: reason))
    }
  }

  private func logout(_ connection: Connection, _ header: BasicHeaderSegment) {
    // Reason 0: the session, 1: a connection, 2: removal for recovery (RFC 7143 §11.14.1).
    let reason = header.flags & 0x7F
    let response: UInt8
    switch reason {
    case 0: response = 0
    case 1: response = UInt16(truncatingIfNeeded: header.word5 >> 16) == connection.result?.cid ? 0 : 1
    default: response = 2
    }
    trace(connection, .logout(reason: response == 0 ? reason : .max))
    respond(
      connection, .logoutResponse(initiatorTaskTag: header.initiatorTaskTag, response: response))
    if response == 0 { closeAfterSend(connection, .logout, "logged out") }
  }

  func reject(_ connection: Connection, _ header: BasicHeaderSegment, _ reason: RejectReason) {
    events.add(.rejected(reason))
    trace(connection, .rejected(reason))
    respond(connection, .reject(reason), data: header.bytes)
  }

  /// The initiator broke the protocol: told why, then the connection ends (RFC 7143 §7.12, ErrorRecoveryLevel 0).
  func protocolError(
    _ connection: Connection, _ header: BasicHeaderSegment, _ fault: ProtocolFault, _ reason: String
  ) {
    note(connection, fault)
    reject(connection, header, .protocolError)
    closeAfterSend(connection, .protocolError, "protocol error: \(reason)")
  }

  /// Counts what an initiator did against the protocol, and remembers it of the connection.
  func note(_ connection: Connection, _ fault: ProtocolFault) {
    events.add(.protocolError(fault))
    trace(connection, .protocolError(fault))
  }

  // MARK: The end

  func closeAfterSend(_ connection: Connection, _ cause: EndCause, _ reason: String) {
    connection.closesAfterSend = true
    connection.endCause = cause
    connection.mover.finishSending()
    connection.closeReason = reason
    touch(connection)
  }

  /// Ends a connection; the rest follows when its datamover has come to rest.
  func close(_ connection: Connection, _ cause: EndCause, _ reason: String) {
    guard connection.phase != .closing else { return }
    events.add(.connectionEnded(cause))
    trace(connection, .ended(cause, reason))
    if connection.result != nil {
      Log.ofPeers(.info, "session \(connection.tsih) of \(connection.name) ended: \(reason)")
    } else {
      Log.debug("connection of \(connection.peer) ended: \(reason)")
    }
    connection.phase = .closing
    connection.mover.terminate()
    finishClose(connection)
  }

  /// Its socket, or what a send made of it, gave this positive errno.
  func closeBroken(_ connection: Connection, _ code: Int32) {
    close(connection, connection.iser == nil ? EndCause(errno: code) : .rdmaError, String(cString: strerror(code)))
  }

  /// The second half of the end, when nothing is left in flight for the connection.
  func finishClose(_ connection: Connection) {
    guard connection.phase == .closing, connection.mover.isQuiet,
      connections[connection.index] === connection
    else { return }
    starved.removeAll { $0 === connection }
    connection.mover.discard(pool: pool)
    releasePlacement(connection)
    for tag in connection.mover.takeUnfinished() { endArrival(tag) }
    abortAll(of: connection)
    // Pieces that were to be sent: with their commands aborted they only go back.
    for notice in connection.mover.takeNotices() { sentPiece(Int(notice) - 1) }
    endedTraces.add(connection.traceSubject, connection.trace)
    connections[connection.index] = nil
    freeConnections.append(connection.index)
    connection.mover.release(pool: pool)
    if let endpoint = connection.endpoint { retire(endpoint) }
    handle.load.subtract(1, ordering: .relaxed)
    if connection.tsih != 0 { context.sessions.release(tsih: connection.tsih) }
    if let nexus = connection.nexus {
      for export in map.exports { export.unit.nexusLost(nexus) }
      context.registry.detach(nexus)
    }
    for body in connection.onClosed { body() }
    connection.onClosed = []
  }

  private func releasePlacement(_ connection: Connection) {
    let placement = connection.placement
    connection.placement = .none
    switch placement {
    case .immediate(let buffer): pool.give(buffer)
    case .piece(let number, _):
      pieces[number].pointee.isReceiving = false
      let index = Int(pieces[number].pointee.command)
      if commands[index].pointee.isAborted { finishAborted(index) }
    case .none, .control, .dropped, .received: break
    }
  }

  // MARK: Timers

  func scheduleTick(at deadline: UInt64) {
    nextTick = min(nextTick ?? .max, deadline)
  }

  /// Looks at every deadline there is; the next look is at the earliest of them.
  func runTimers() {
    nextTick = nil
    for case let connection? in connections { runTimers(connection) }
    runDrainTimers()
    runCommandDeadlines()
    runHoldTimers()
    if trimAt != 0, trimAt <= now {
      pool.trim()
      trimAt = pool.emptyChunks > 0 ? now + Self.trimNs : 0
    }
    if trimAt != 0 { scheduleTick(at: trimAt) }
    if !parked.isEmpty || !parkedCommands.isEmpty {
      mayUnpark = true
      scheduleTick(at: now + 20_000_000)
    }
  }

  private func runTimers(_ connection: Connection) {
    switch connection.phase {
    case .login, .settling:
      let deadline = connection.acceptedAt + configuration.loginTimeoutNs
      guard deadline <= now else { return scheduleTick(at: deadline) }
      close(connection, .loginTimeout, "did not log in within \(configuration.loginTimeoutNs / 1_000_000_000) s")
    case .fullFeature:
      guard !endIfStalled(connection), configuration.nopIntervalNs > 0 else { return }
      runPing(connection)
    case .closing: break
    }
  }

  /// How often a connection is looked at.
  private var watchNs: UInt64 {
    configuration.nopIntervalNs > 0 ? min(configuration.nopIntervalNs, Self.watchNsMax) : Self.watchNsMax
  }
  private static let watchNsMax: UInt64 = 10_000_000_000

  /// Bytes that count as a sign that an initiator takes what is sent to it. Where others wait for buffers that is more than a few:
  /// what it leaves lying is theirs.
  private var leastTaken: UInt64 { hasShareWaiters || pool.isShort ? 256 << 10 : 1 }

  /// An initiator may speak and yet take nothing, which holds buffers that others wait for.
  private func endIfStalled(_ connection: Connection) -> Bool {
    scheduleTick(at: now + watchNs)
    guard connection.mover.isInFlight else { return false }
    if let taken = connection.mover.bytesTaken?.count, taken &- connection.bytesTaken >= leastTaken {
      connection.bytesTaken = taken
      connection.sendingSince = now
      // It cannot answer a ping that is behind what it is taking.
      connection.lastHeardAt = now
    }
    guard connection.sendingSince + 2 * watchNs <= now else { return false }
    close(connection, .stalled, "it has taken no data for \((now - connection.sendingSince) / 1_000_000_000) s")
    return true
  }

  /// A silent initiator is asked for a sign of life, and dropped if it gives none.
  private func runPing(_ connection: Connection) {
    let interval = configuration.nopIntervalNs
    if connection.pingedAt != 0, connection.lastHeardAt > connection.pingedAt { connection.pingedAt = 0 }
    if connection.pingedAt != 0 {
      let deadline = connection.pingedAt + interval
      guard deadline <= now else { return scheduleTick(at: deadline) }
      // The ping may be behind much that the kernel has, of which the initiator takes some.
      if let (taken, hasMore) = connection.mover.bytesTaken, hasMore, taken &- connection.takenAtPing >= leastTaken {
        connection.takenAtPing = taken
        connection.pingedAt = now
        return scheduleTick(at: now + interval)
      }
      events.add(.keepAliveMissed)
      trace(connection, .keepAliveMissed)
      return close(connection, .keepAlive, "no sign of life for \((now - connection.lastHeardAt) / 1_000_000_000) s")
    }
    let due = connection.lastHeardAt + interval
    guard due <= now else { return scheduleTick(at: due) }
    scheduleTick(at: now + interval)
    // Before the initiator has spoken nothing unsolicited is sent, but its silence counts.
    connection.pingedAt = now
    guard connection.hasHeard else { return }
    events.add(.keepAliveSent)
    trace(connection, .keepAlive(count: 1))
    connection.pingTag = connection.pingTag &+ 1 & 0x7FFF_FFFF
    var header = BasicHeaderSegment.nopIn(
      lun: 0, initiatorTaskTag: BasicHeaderSegment.reservedTag, targetTransferTag: connection.pingTag)
    header.statSN = connection.statSN  // not advanced (RFC 7143 §11.19.1)
    connection.mover.sendControl(header)
    if let taken = connection.mover.bytesTaken { connection.takenAtPing = taken.count }
    touch(connection)
  }
}
