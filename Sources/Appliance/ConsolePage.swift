import Gateway

/// What the console of the appliance shows: a page that is made of what is known, and of nothing else.
public struct ConsolePage: Sendable {
  public var version: String
  public var hostName: String
  /// `ens3 10.0.0.1/24`, one each.
  public var addresses: [String] = []
  public var slots = Slots(files: [], runningVersion: "")
  /// The disk that the system was started from.
  public var bootDisk: String?
  /// What the start had to say, a line each.
  public var notes: [String] = []
  /// Nil: the daemon does not answer, for this reason.
  public var status: StatusReport?
  public var silence = ""
  /// Why it does not start, if that are the settings: a line each.
  public var settingsProblems: [String] = []
  public var disks: [DiskReport] = []
  public var pair: PairReport?

  public init(version: String, hostName: String) {
    self.version = version
    self.hostName = hostName
  }

  /// Without anything that changes all the time, so that a page that is the same need not be shown again.
  public var text: String {
    var lines = ["gatewayd \(version) on \(hostName)", ""]
    func add(_ title: String, _ texts: [String]) {
      for (index, text) in texts.enumerated() {
        let label = index == 0 ? title : ""
        lines.append(label + String(repeating: " ", count: max(1, 13 - label.count)) + Printable.text(text))
      }
    }
    add("Version", [version + (slots.current.map { " (\($0.state))" } ?? "")])
    add("Other", slots.others.map { "\($0.version) (\($0.state))" })
    add("Started from", [bootDisk ?? "no disk of this machine"])
    add("Notes", notes)
    add("Addresses", addresses.isEmpty ? ["none yet"] : addresses)
    if let status {
      add("Target", [status.targetName])
      add("Portals", status.portals.map { "\($0.address) \($0.transport), \($0.state)" })
      if let rdma = status.rdma { add("iSER", [rdma.listener.text]) }
      add("Sessions", ["\(status.sessions)"])
      add("Pair", pairLines)
      add("Exported", exported(status))
      add(
        "Not exported",
        disks.filter { $0.verdict != .exported }.map { "\($0.path) \($0.verdict.rawValue): \($0.reason)" })
      add("Problems", status.problems)
    } else {
      add("Target", ["gatewayd does not answer: \(silence)"])
      add("Settings", settingsProblems)
    }
    return lines.joined(separator: "\n") + "\n"
  }

  private func exported(_ status: StatusReport) -> [String] {
    let units = status.logicalUnits.map { unit in
      "LUN \(unit.number) \(ByteCount.describe(unit.sizeBytes)) \(unit.path), \(unit.state)"
    }
    return units.isEmpty ? ["nothing yet: plug in a blank disk"] : units
  }

  private var pairLines: [String] {
    guard let pair else { return [] }
    guard pair.isRunning else { return ["alone: \(pair.reason)"] }
    let other =
      pair.peer.map {
        $0.isSilent ? "\($0.name) is silent, was \($0.role)" : "\($0.name) is \($0.role), \($0.linksBothWays) links"
      } ?? "no other node heard"
    let held = pair.hold.isEmpty ? [] : ["takeovers are held: \(pair.hold)"]
    return ["this node is \(pair.role); \(other)"] + held
  }
}
