import HA

/// `gatewayd metrics`: what the reports say, as counters and gauges. docs/COMMANDS.md has the list.
public enum Metrics {
  /// Where nothing answers: the one thing that is known.
  public static let down = render { $0.isUp(false) }

  static func text(
    status: StatusReport, sessions: [SessionReport], disks: [DiskReport], pair: PairReport,
    observed: Observations = Observations()
  ) -> String {
    render { text in
      text.isUp(true)
      text.gateway(status)
      text.sessions(sessions)
      text.disks(disks)
      text.units(status.logicalUnits)
      text.latencies(observed.latencies)
      text.events(observed.events)
      text.pair(pair)
    }
  }

  private static func render(_ body: (inout MetricsText) -> Void) -> String {
    var text = MetricsText()
    body(&text)
    return text.text
  }
}

extension GatewayControl {
  /// A snapshot of everything that is counted.
  func metrics() -> String {
    let (status, sessions, observed) = look()
    return Metrics.text(status: status, sessions: sessions, disks: disks(), pair: pair(), observed: observed)
  }
}

/// What is counted that no report has.
public struct Observations: Sendable {
  var latencies: [LatencyKey: LatencyHistogram] = [:]
  var events = EventCounts()

  public init() {}
}

// MARK: The gateway

extension MetricsText {
  fileprivate mutating func isUp(_ isUp: Bool) {
    add("gatewayd_up", .gauge, "Whether the daemon answered.", [Sample(isUp)])
  }

  fileprivate mutating func gateway(_ status: StatusReport) {
    add(
      "gatewayd_build_info", .gauge, "The version; always 1.",
      [Sample(1, ["version": status.version, "target": status.targetName])])
    add("gatewayd_uptime_seconds", .gauge, "Since the start of the daemon.", [Sample(status.uptimeSeconds)])
    add("gatewayd_threads", .gauge, "Reactor threads.", [Sample(status.threads)])
    add("gatewayd_problems", .gauge, "What 'gatewayd status' shows as problems.", [Sample(status.problems.count)])
    add(
      "gatewayd_portal_listening", .gauge, "Whether a portal listens.",
      status.portals.map { Sample($0.state == "listening", ["address": $0.address, "transport": $0.transport]) })
    let memory = status.memory
    add("gatewayd_buffer_bytes", .gauge, "Memory set aside for data.", [Sample(memory.arenaBytes)])
    add("gatewayd_buffer_used_bytes", .gauge, "Of this in use.", [Sample(memory.arenaUsedBytes)])
    add("gatewayd_resident_memory_bytes", .gauge, "Resident set of the daemon.", [Sample(memory.residentBytes)])
    add("gatewayd_open_descriptors", .gauge, "Open file descriptors of the daemon.", [Sample(memory.descriptors)])
    guard let rdma = status.rdma else { return }
    add(
      "gatewayd_iser_listening", .gauge, "Whether iSER is served.", [Sample(rdma.listener.state == .listening)])
    add(
      "gatewayd_nic_usable", .gauge, "Whether an RDMA NIC can be used.",
      rdma.nics.map { Sample($0.verdict == .usable, ["nic": $0.name]) })
    add("gatewayd_iser_queue_pairs", .gauge, "RDMA queue pairs.", [Sample(status.iser.queuePairs)])
    add("gatewayd_iser_memory_regions", .gauge, "Registered memory regions.", [Sample(status.iser.memoryRegions)])
  }

  fileprivate mutating func sessions(_ sessions: [SessionReport]) {
    add(
      "gatewayd_sessions", .gauge, "Sessions, by the transport of the leading connection.",
      ["tcp", "iser"].map { transport in
        Sample(sessions.count { $0.transport == transport }, ["transport": transport])
      })
  }

  fileprivate mutating func disks(_ disks: [DiskReport]) {
    add(
      "gatewayd_disks", .gauge, "Disks that are seen, by what became of them.",
      [DiskVerdict.exported, .held, .refused].map { verdict in
        Sample(disks.count { $0.verdict == verdict }, ["verdict": verdict.rawValue])
      })
  }

  fileprivate mutating func units(_ units: [LogicalUnitReport]) {
    add(
      "gatewayd_lun_info", .gauge, "What a LUN is; always 1.",
      units.map { unit in
        Sample(1, ["lun": "\(unit.number)", "naa": unit.naa, "serial": unit.serial, "path": unit.path])
      })
    func each(_ value: (LogicalUnitReport) -> UInt64) -> [Sample] {
      units.map { Sample(value($0), ["lun": "\($0.number)"]) }
    }
    add("gatewayd_lun_size_bytes", .gauge, "Size of a LUN.", each(\.sizeBytes))
    add(
      "gatewayd_lun_usable", .gauge, "Whether a LUN is online or read-only.",
      units.map { Sample(["online", "read-only"].contains($0.state), ["lun": "\($0.number)"]) })
    add(
      "gatewayd_lun_commands_total", .counter, "Commands that were finished, by what they do.",
      units.flatMap { unit in
        [
          Sample(unit.counters.readCommands, ["lun": "\(unit.number)", "kind": "read"]),
          Sample(unit.counters.writeCommands, ["lun": "\(unit.number)", "kind": "write"]),
          Sample(unit.counters.otherCommands, ["lun": "\(unit.number)", "kind": "other"]),
        ]
      })
    add("gatewayd_lun_read_bytes_total", .counter, "Bytes read by initiators.", each(\.counters.readBytes))
    add("gatewayd_lun_written_bytes_total", .counter, "Bytes written by initiators.", each(\.counters.writtenBytes))
    add(
      "gatewayd_lun_failed_commands_total", .counter, "Commands that ended in other than GOOD.",
      each(\.counters.failedCommands))
    add("gatewayd_lun_active_commands", .gauge, "Commands in flight now.", each(\.counters.activeCommands))
  }
}

// MARK: Latencies

extension MetricsText {
  fileprivate mutating func latencies(_ latencies: [LatencyKey: LatencyHistogram]) {
    add(
      "gatewayd_command_seconds", "From the arrival of a command to its answer, by LUN, transport and what it does.",
      latencies.sorted { $0.key < $1.key }.map { key, histogram in
        ([("lun", "\(key.lun)"), ("transport", key.transport), ("direction", "\(key.direction)")], histogram)
      })
  }
}

// MARK: What is refused, and what is unusual

extension MetricsText {
  fileprivate mutating func events(_ events: EventCounts) {
    for family in EventFamily.all {
      let seen = events.counts.keys.filter { family.labels($0) != nil && !family.known.contains($0) }
      let samples = (family.known + seen).compactMap { event in
        family.labels(event).map { Sample(events[event], $0) }
      }
      add(family.name, .counter, family.help, samples.sorted { $0.order < $1.order })
    }
  }
}

// MARK: The pair

extension MetricsText {
  fileprivate mutating func pair(_ pair: PairReport) {
    add("gatewayd_pair_running", .gauge, "Whether there is a disk that a pair could share.", [Sample(pair.isRunning)])
    add(
      "gatewayd_pair_unfenced_disks", .gauge, "Exported disks that nobody takes over by itself.",
      [Sample(pair.unfencedDisks.count + pair.disks.count(where: \.isUnguarded))])
    guard pair.isRunning else { return }
    let roles = Role.allCases.map { "\($0)" }
    add("gatewayd_pair_role", states: roles, label: "role", now: pair.role, "What this node is to the pair.")
    add(
      "gatewayd_pair_epoch", .gauge, "Epoch of this node, or the highest that it knows.", [Sample(UInt64(pair.epoch))])
    add(
      "gatewayd_pair_hold", states: ["operator", "repetition"], label: "reason", now: pair.holdReason,
      "Whether takeovers by themselves are held.")
    add(
      "gatewayd_pair_waiting_for_sign", .gauge, "Whether commands wait until this node knows that it is still active.",
      [Sample(pair.waitsForSign)])
    peer(pair.peer, roles)
    takeovers(pair.takeovers)
    add(
      "gatewayd_pair_disks", .gauge, "Shared disks, by whether they are this node's.",
      ["idle", "pending", "secured", "foreign", "refused", "unknown"].map { state in
        Sample(pair.disks.count { $0.state == state }, ["state": state])
      })
    add(
      "gatewayd_pair_arbiters", .gauge, "Disks of which a majority decides who takes over.",
      [Sample(pair.disks.count(where: \.isArbiter))])
    add(
      "gatewayd_pair_service_address_held", .gauge, "Whether a service address is on this node.",
      pair.serviceAddresses.map { Sample($0.interface != nil, ["address": $0.address]) })
    links(pair)
  }

  private mutating func peer(_ peer: PairReport.Peer?, _ roles: [String]) {
    add("gatewayd_pair_peer_known", .gauge, "Whether another node was heard.", [Sample(peer != nil)])
    guard let peer else { return }
    add(
      "gatewayd_pair_peer_info", .gauge, "The other node; always 1.",
      [Sample(1, ["node": peer.node, "name": peer.name])])
    add("gatewayd_pair_peer_role", states: roles, label: "role", now: peer.role, "What the other node said it is.")
    add(
      "gatewayd_pair_peer_heard_age_seconds", .gauge, "Since the last beat of the other node.",
      [Sample(seconds: Double(peer.heardMillisecondsAgo) / 1000)])
    add(
      "gatewayd_pair_silence_limit_seconds", .gauge, "Silence after which this node takes over; rises with late beats.",
      [Sample(seconds: Double(peer.silenceLimitMilliseconds) / 1000)])
  }

  private mutating func takeovers(_ takeovers: PairReport.Takeovers) {
    add(
      "gatewayd_pair_takeovers_total", .counter, "Takeovers of this node since its start, by cause.",
      TakeoverCause.allCases.map { Sample(takeovers.counts[$0.rawValue] ?? 0, ["cause": $0.rawValue]) })
    add(
      "gatewayd_pair_fenced_total", .counter, "How often this node lost the disks to the other.",
      [
        Sample(takeovers.fenced)
      ])
    add(
      "gatewayd_pair_handovers_total", .counter, "How often this node handed the disks over.",
      [
        Sample(takeovers.handedOver)
      ])
    guard let last = takeovers.last else { return }
    add(
      "gatewayd_pair_last_takeover_seconds", .gauge,
      "How long the last takeover took, from the first doubt to service.",
      [Sample(seconds: last.seconds, ["cause": last.cause])])
    add("gatewayd_pair_last_takeover_age_seconds", .gauge, "Since then.", [Sample(seconds: last.secondsAgo)])
  }

  private mutating func links(_ pair: PairReport) {
    guard let report = pair.links else { return }
    add(
      "gatewayd_pair_links_up", .gauge, "Links that work both ways.", [Sample(report.links.count(where: \.isUp))])
    func each(_ value: (LinkReport) -> Sample) -> [Sample] { report.links.map(value) }
    add("gatewayd_pair_link_up", .gauge, "Whether a link works both ways.", each { Sample($0.isUp, ["link": $0.name]) })
    add("gatewayd_pair_link_sent_total", .counter, "Beats sent.", each { Sample($0.sent, ["link": $0.name]) })
    add(
      "gatewayd_pair_link_send_failures_total", .counter, "Beats that the kernel did not take.",
      each { Sample($0.sendFailures, ["link": $0.name]) })
    add(
      "gatewayd_pair_link_received_total", .counter, "Beats received since the other node's start.",
      each { Sample($0.received, ["link": $0.name]) })
    // One that comes late is taken off again, so this is no counter.
    add(
      "gatewayd_pair_link_lost_beats", .gauge, "Beats lost since the other node's start.",
      each { Sample($0.lost, ["link": $0.name]) })
    add(
      "gatewayd_pair_link_jitter_seconds", .gauge, "Smoothed change of the time between beats.",
      each { Sample(seconds: Double($0.jitterNs) / 1e9, ["link": $0.name]) })
    add(
      "gatewayd_pair_link_longest_gap_seconds", .gauge, "The longest time between two beats in the last minutes.",
      each { Sample(seconds: Double($0.longestGapNs) / 1e9, ["link": $0.name]) })
    let drops = report.drops
    let reasons: KeyValuePairs = [
      "foreign": drops.foreign, "not_authentic": drops.notAuthentic, "malformed": drops.malformed,
      "other_cluster": drops.otherCluster, "own": drops.own, "same_node": drops.sameNode, "stale": drops.stale,
      "no_key": drops.noKey, "not_peer": pair.droppedMessages,
    ]
    add(
      "gatewayd_pair_dropped_messages_total", .counter, "Messages that changed nothing, by why.",
      reasons.map { Sample($0.value, ["reason": $0.key]) })
  }
}

extension LinkReport {
  var isUp: Bool { condition == LinkRecord.Condition.up.rawValue }
}
