import CSystem
import Discovery
import Glibc
import ISCSI
import SCSI
import Synchronization

/// What a shard tells of itself.
struct ShardReport: Sendable {
  var sessions: [SessionReport] = []
  var units: [(UInt16, IOCounters)] = []
  var latencies: [LatencyKey: LatencyHistogram] = [:]
  var arenaBytes = 0
  var arenaUsedBytes = 0
  var iser = ISERReport()
  var events = EventCounts()
}

extension IOCounters {
  mutating func add(_ other: IOCounters) {
    readCommands += other.readCommands
    writeCommands += other.writeCommands
    otherCommands += other.otherCommands
    readBytes += other.readBytes
    writtenBytes += other.writtenBytes
    failedCommands += other.failedCommands
    activeCommands += other.activeCommands
  }
}

extension ShardContext {
  /// A report of every shard; of one that does not answer within a second, none.
  func reports() -> [ShardReport] { collect(within: 1_000_000_000) { $0.report() } }
}

extension Shard {
  func report() -> ShardReport {
    if pendingLatencies != nil { settleLatencies() }
    var report = ShardReport(arenaBytes: pool.bytesPopulated, arenaUsedBytes: pool.bytesInUse)
    report.iser = verbs.counts
    report.events = events
    report.iser.connections = connections.count { $0?.iser != nil }
    for case let connection? in connections where connection.phase == .fullFeature {
      report.sessions.append(sessionReport(connection))
    }
    for case let port? in ports where !port.isRemoved {
      var counters = IOCounters()
      counters.readCommands = port.readCommands
      counters.writeCommands = port.writeCommands
      counters.otherCommands = port.otherCommands
      counters.readBytes = port.readBytes
      counters.writtenBytes = port.writtenBytes
      counters.failedCommands = port.failedCommands
      counters.activeCommands = UInt64(port.commands)
      report.units.append((port.export.unit.number, counters))
      for (counter, isOverRDMA) in [(port.latencies.tcp, false), (port.latencies.rdma, true)] {
        guard let counter else { continue }
        for direction in LatencyDirection.allCases where counter.of(direction)[LatencyWord.sum] > 0 {
          let key = LatencyKey(lun: port.export.unit.number, isOverRDMA: isOverRDMA, direction: direction)
          report.latencies[key] = LatencyHistogram(counter.of(direction))
        }
      }
    }
    return report
  }

  private func sessionReport(_ connection: Connection) -> SessionReport {
    var counters = IOCounters()
    counters.readCommands = connection.readCommands
    counters.writeCommands = connection.writeCommands
    counters.otherCommands = connection.otherCommands
    counters.readBytes = connection.readBytes
    counters.writtenBytes = connection.writtenBytes
    counters.failedCommands = connection.failedCommands
    counters.activeCommands = UInt64(connection.commandCount)
    let negotiated = connection.parameters
    let parameters = [
      "HeaderDigest": negotiated.headerDigest ? "CRC32C" : "None",
      "DataDigest": negotiated.dataDigest ? "CRC32C" : "None",
      "InitialR2T": negotiated.initialR2T ? "Yes" : "No",
      "ImmediateData": negotiated.immediateData ? "Yes" : "No",
      "MaxBurstLength": "\(negotiated.maxBurstLength)",
      "FirstBurstLength": "\(negotiated.firstBurstLength)",
      "MaxOutstandingR2T": "\(negotiated.maxOutstandingR2T)",
      "MaxRecvDataSegmentLength": "\(negotiated.maxRecvDataSegmentLength)",
      "ErrorRecoveryLevel": "0",
      "SessionType": connection.result?.isDiscovery == true ? "Discovery" : "Normal",
    ]
    return SessionReport(
      id: connection.tsih, initiator: connection.result?.initiatorName.text ?? "",
      alias: connection.result?.initiatorAlias, address: connection.peer, transport: connection.mover.name,
      ageSeconds: (now - min(connection.acceptedAt, now)) / 1_000_000_000, parameters: parameters, counters: counters)
  }

  // MARK: Stopping

  /// Asks every initiator to log out (RFC 7143 §11.9.1, event 1) and takes no more connections; the loop ends when the
  /// last one has gone.
  func beginStop() {
    isStopping = true
    for case let connection? in connections {
      guard connection.phase == .fullFeature, connection.hasHeard else {
        close(connection, .shutdown, "shutting down")
        continue
      }
      trace(connection, .asyncMessage(.logoutRequest))
      // Parameter 3: log out within so many seconds.
      respond(connection, .asyncMessage(.logoutRequest, parameters: (0, 0, 1)))
    }
  }

  /// Ends the connections to addresses that another node is about to have. Their initiators come back after a second, in place
  /// of the two or more that most wait of themselves.
  func endConnections(to addresses: [NetworkAddress]) {
    let prefixes = addresses.map { $0.targetAddressText + ":" }
    for case let connection? in connections where prefixes.contains(where: connection.local.hasPrefix) {
      drop(connection, .moved, "its address moves to the other node", waitSeconds: 1)
    }
  }

  /// Ends the sessions whose initiator the rules do not let in any more, or give other LUNs: what it is shown is decided when it
  /// logs in. Who has another secret since then is asked for it at the next login. A login that is under way goes by the
  /// rules of its beginning, so it is ended.
  func endSessions(former: AccessRules, access: AccessRules, admits: (NetworkAddress) -> Bool) {
    for case let connection? in connections {
      switch connection.phase {
      case .fullFeature:
        guard let result = connection.result else { continue }
        let now = access.decide(initiatorName: result.initiatorName)
        let isAsBefore = result.isDiscovery ? now != .denied : now != .denied && now.luns == result.luns
        if !isAsBefore || !admits(connection.ticket.address) { drop(connection, .revoked, "its access has changed") }
      case .login, .settling:
        if access != former { close(connection, .revoked, "the rules of access have changed") }
      case .closing: break
      }
    }
  }

  /// Ends a session because an operator wants it; how many there were.
  func endSession(tsih: UInt16) -> Int {
    var count = 0
    for case let connection? in connections where connection.phase == .fullFeature && connection.tsih == tsih {
      drop(connection, .revoked, "an operator has ended it")
      count += 1
    }
    return count
  }

  /// With a message (RFC 7143 §11.9.1, event 3) to who can hear it, which says when the initiator may log in again.
  private func drop(_ connection: Connection, _ cause: EndCause, _ reason: String, waitSeconds: UInt16 = 2) {
    guard connection.phase == .fullFeature, connection.hasHeard else { return close(connection, cause, reason) }
    trace(connection, .asyncMessage(.sessionDrop))
    // Time2Wait and Time2Retain.
    respond(connection, .asyncMessage(.sessionDrop, parameters: (0, waitSeconds, 0)))
    closeAfterSend(connection, cause, reason)
  }

  /// Ends every connection; commands that a disk has in hand are not waited for.
  func closeAll(_ reason: String) {
    for case let connection? in connections { close(connection, .shutdown, reason) }
  }
}
