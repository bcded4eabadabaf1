// The reports as people read them.

extension StatusReport {
  public var text: String {
    var facts = TextTable([])
    facts.add(["gatewayd", "\(version), up \(Duration.text(seconds: uptimeSeconds)), process \(processID)"])
    facts.add(["Target", targetName + (alias.map { " (\($0))" } ?? "")])
    for (index, portal) in portals.enumerated() {
      facts.add([index == 0 ? "Portals" : "", "\(portal.address) \(portal.transport), \(portal.state)"])
    }
    if let listener = rdma?.listener { facts.add(["iSER", listener.text]) }
    for (index, place) in (metrics ?? []).enumerated() {
      let url = "http://\(place.address)/metrics"
      facts.add([index == 0 ? "Metrics" : "", place.state == "listening" ? url : "\(url), \(place.state)"])
    }
    facts.add(["Sessions", "\(sessions)"])
    facts.add(["Threads", "\(threads)"])
    let resident = memory.residentBytes == 0 ? "" : ", \(ByteCount.describe(memory.residentBytes)) resident"
    let used = ByteCount.describe(memory.arenaUsedBytes)
    facts.add(["Memory", "\(used) of \(ByteCount.describe(memory.arenaBytes)) buffers in use\(resident)"])
    var text = String(facts.text.drop { $0 == "\n" }) + "\n"
    if logicalUnits.isEmpty {
      text += "No LUNs: 'gatewayd disks' says why each disk is not exported.\n"
    } else {
      text += LogicalUnitReport.table(logicalUnits)
    }
    for problem in problems { text += "\nProblem: \(Printable.text(problem))" }
    return problems.isEmpty ? text : text + "\n"
  }
}

extension LogicalUnitReport {
  static func table(_ units: [LogicalUnitReport]) -> String {
    let titles = ["LUN", "SIZE", "BLOCK", "STATE", "READ", "WRITTEN", "FAILED", "P99", "NAA", "SERIAL", "PATH"]
    var table = TextTable(titles, numbers: [0, 1, 2, 4, 5, 6, 7])
    for unit in units {
      let counters = unit.counters
      table.add([
        "\(unit.number)", ByteCount.describe(unit.sizeBytes), "\(unit.blockBytes)", unit.state,
        ByteCount.describe(counters.readBytes), ByteCount.describe(counters.writtenBytes), "\(counters.failedCommands)",
        unit.worstP99.map { Duration.text(nanoseconds: $0) } ?? "-", unit.naa, unit.serial, unit.path,
      ])
    }
    return table.text
  }

  /// Of reads and writes, over the transport where it is worse.
  private var worstP99: UInt64? { latencies?.filter { $0.direction != "other" && $0.commands > 0 }.map(\.p99Ns).max() }
}

extension DiskReport {
  /// All disks, the reasons and what to do about them below.
  public static func text(_ disks: [DiskReport]) -> String {
    guard !disks.isEmpty else { return "No disks.\n" }
    var table = TextTable(["DISK", "SIZE", "VERDICT", "LUN", "MODEL", "SERIAL", "REASON"], numbers: [1, 3])
    for disk in disks {
      table.add([
        disk.path, ByteCount.describe(disk.sizeBytes), disk.verdict.rawValue, disk.lun.map { "\($0)" } ?? "-",
        disk.model.isEmpty ? "-" : disk.model, disk.serial.isEmpty ? "-" : disk.serial, disk.reason,
      ])
    }
    let advice = disks.compactMap { disk in disk.advice.map { "\(disk.path): \($0)" } }.map(Printable.text)
    return table.text + (advice.isEmpty ? "" : "\n" + advice.joined(separator: "\n") + "\n")
  }
}

extension ISERListenerReport {
  public var text: String {
    switch state {
    case .off: ISERState.off(reason ?? "?").text
    case .listening: ISERState.listening(addresses).text
    case .failed: ISERState.failed(reason ?? "?").text
    }
  }
}

extension NICReport {
  /// A row for each port; why one is not usable, and what to do, below.
  public static func text(_ nics: [NICReport]) -> String {
    guard !nics.isEmpty else { return "No RDMA NICs.\n" }
    let titles = [
      "NIC", "DRIVER", "PORT", "LINK", "STATE", "RATE", "INTERFACE", "ADDRESSES", "GIDS", "VERDICT",
    ]
    var table = TextTable(titles, numbers: [2])
    for nic in nics {
      let shown =
        nic.ports.isEmpty
        ? [[String]](repeating: ["-", "-", "-", "-", "-", "-", "-"], count: 1) : nic.ports.map(\.cells)
      for cells in shown { table.add([nic.name, nic.driver] + cells + [nic.verdict.rawValue]) }
    }
    let lines = nics.flatMap { nic in
      (nic.reasons + nic.warnings).map { Printable.text("\(nic.name): \($0.reason): \($0.advice)") }
    }
    return table.text + (lines.isEmpty ? "" : "\n" + lines.joined(separator: "\n") + "\n")
  }
}

extension NICPortReport {
  /// PORT to GIDS of its row.
  fileprivate var cells: [String] {
    func joined(_ texts: [String]) -> String { texts.isEmpty ? "-" : texts.joined(separator: ", ") }
    return [
      "\(number)", linkLayer, state, rate ?? "-", joined(interfaces.map(\.name)),
      joined(interfaces.flatMap(\.addresses)), joined(gidTypes),
    ]
  }
}

extension SessionReport {
  public static func text(_ sessions: [SessionReport]) -> String {
    guard !sessions.isEmpty else { return "No sessions.\n" }
    let titles = ["TSIH", "INITIATOR", "ADDRESS", "VIA", "CONNS", "AGE", "READ", "WRITTEN", "ACTIVE"]
    var table = TextTable(titles, numbers: [0, 4, 5, 6, 7, 8])
    for session in sessions {
      let counters = session.counters
      table.add([
        "\(session.id)", session.initiator, session.address, session.transport, "\(session.connections)",
        Duration.text(seconds: session.ageSeconds), ByteCount.describe(counters.readBytes),
        ByteCount.describe(counters.writtenBytes), "\(counters.activeCommands)",
      ])
    }
    return table.text
  }
}

extension Duration {
  /// `840 ns`, `12 us`, `1.3 ms`, `2.5 s`: three digits at most, of which one behind the point.
  static func text(nanoseconds: UInt64) -> String {
    let units: [(name: String, ns: UInt64)] = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000)]
    guard let unit = units.first(where: { nanoseconds >= $0.ns }) else { return "\(nanoseconds) ns" }
    let tenths = nanoseconds / (unit.ns / 10)
    return tenths >= 100 || tenths % 10 == 0
      ? "\(tenths / 10) \(unit.name)" : "\(tenths / 10).\(tenths % 10) \(unit.name)"
  }

  /// `42 s`, `5 min`, `3 h 20 min`, `12 d 4 h`.
  static func text(seconds: UInt64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400)
    if minutes < 2 { return "\(seconds) s" }
    if hours < 1 { return "\(minutes) min" }
    if days < 1 { return "\(hours) h \(minutes % 60) min" }
    return "\(days) d \(hours % 24) h"
  }
}
