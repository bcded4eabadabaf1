/// The pair, as one node sees it.
public struct PairReport: Codable, Sendable, Equatable {
  public struct Peer: Codable, Sendable, Equatable {
    public var node: String
    public var name: String
    public var role: String
    public var epoch: UInt32
    public var heardMillisecondsAgo: UInt64
    /// Links over which it hears us as well.
    public var linksBothWays: Int
    /// How long it may be silent before this node takes over: 600, or more if its beats came late.
    public var silenceLimitMilliseconds: UInt64

    /// Its role is what it was when it was heard last.
    public var isSilent: Bool { heardMillisecondsAgo > max(1000, silenceLimitMilliseconds) }
  }

  /// Takeovers of this node since its start.
  public struct Takeovers: Codable, Sendable, Equatable {
    /// By cause: `alone`, `nobody`, `silent`, `offered`, `alive`, `forced`.
    public var counts: [String: UInt64]
    public var last: Takeover?
    /// How often this node lost the disks to the other, and how often it handed them over.
    public var fenced: UInt64
    public var handedOver: UInt64
  }

  public struct Takeover: Codable, Sendable, Equatable {
    public var cause: String
    public var secondsAgo: Double
    /// From the first doubt about the active, or the order, to service.
    public var seconds: Double
  }

  /// Storage that this node serves and that no other could have: a file, a disk adopted whole, any with the pair turned off.
  public struct UnfencedDisk: Codable, Sendable, Equatable {
    public var lun: UInt16
    public var path: String
  }

  /// A node that is not of the pair.
  public struct Stranger: Codable, Sendable, Equatable {
    public var node: String
    public var name: String
  }

  public struct Disk: Codable, Sendable, Equatable {
    public var disk: String
    public var lun: UInt16
    public var path: String
    /// idle, pending, secured, foreign or refused.
    public var state: String
    public var isArbiter: Bool
    /// How another node would take it over, or why it would not.
    public var takeover = ""
    /// Whoever has it has no watchdog: nobody else takes it by itself.
    public var isUnguarded = false
    /// Why it is not served though it is this node's; empty: nothing is wrong.
    public var problem: String
  }

  public struct Change: Codable, Sendable, Equatable {
    public var from: String
    public var to: String
    public var epoch: UInt32
    public var reason: String
    public var secondsAgo: Double
    /// How long the role before it lasted; nil: since the start, or not known any more.
    public var milliseconds: Double?
  }

  /// False: the settings turn it off, or there is no disk that two nodes could share; then the rest says nothing.
  public var isRunning: Bool
  /// Why it is not.
  public var reason: String
  public var role: String
  public var epoch: UInt32
  public var node: String
  public var name: String
  public var peer: Peer?
  /// Why there are no takeovers by themselves; empty: there are.
  public var hold: String
  /// `operator` or `repetition`; absent: takeovers are not held.
  public var holdReason: String?
  public var links: LinksReport?
  public var droppedMessages: UInt64
  public var disks: [Disk]
  public var addresses: [String]
  public var serviceAddresses: [ServiceAddressReport] = []
  /// What resets this machine if it hangs with a disk that cannot fence.
  public var watchdog = ""
  /// The newest last.
  public var changes: [Change]
  public var takeovers = Takeovers(counts: [:], fenced: 0, handedOver: 0)
  public var unfencedDisks: [UnfencedDisk] = []
  /// Active, and without a sign that it still is: nothing is answered.
  public var waitsForSign = false
  /// The labels name two other nodes.
  public var isRefused = false
  /// A third node that was heard last.
  public var stranger: Stranger?

  static func off(_ reason: String) -> PairReport {
    PairReport(
      isRunning: false, reason: reason, role: "", epoch: 0, node: "", name: "", hold: "", droppedMessages: 0,
      disks: [], addresses: [], changes: [])
  }

  public var text: String {
    guard isRunning else { return "No pair: \(reason).\n" }
    var facts = TextTable([])
    facts.add(["This node", "\(Printable.text(name)): \(role), epoch \(epoch)"])
    facts.add(["", node])
    if let peer {
      let age = peer.heardMillisecondsAgo < 1000 ? "now" : "\(peer.heardMillisecondsAgo / 1000) s ago"
      let role = peer.isSilent ? "silent, was \(peer.role)" : peer.role
      facts.add(["Its peer", "\(Printable.text(peer.name)): \(role), epoch \(peer.epoch), heard \(age)"])
      facts.add(["", "\(peer.node), \(peer.linksBothWays) link(s) both ways"])
    } else {
      facts.add(["Its peer", "none: one is added by itself as soon as it sees the same disks"])
    }
    if !hold.isEmpty { facts.add(["Takeovers", "held: \(hold); 'gatewayd pair resume' ends it"]) }
    if !watchdog.isEmpty { facts.add(["Watchdog", watchdog]) }
    if !addresses.isEmpty { facts.add(["Addresses", addresses.joined(separator: ", ")]) }
    var text = String(facts.text.drop { $0 == "\n" }) + "\n"
    var table = TextTable(["LUN", "PATH", "STATE", "ARBITER", "TAKEOVER", "DISK", "PROBLEM"], numbers: [0])
    for disk in disks {
      table.add([
        "\(disk.lun)", disk.path, disk.state, disk.isArbiter ? "yes" : "-", disk.takeover, disk.disk,
        disk.problem.isEmpty ? "-" : disk.problem,
      ])
    }
    text += table.text
    if let links {
      var table = TextTable(["LINK", "STATE", "LOCAL", "PEER", "LOST", "JITTER"], numbers: [4])
      for link in links.links {
        table.add([
          link.name, link.condition, link.localAddress, link.peerAddress ?? "-", "\(link.lost)",
          "\(link.jitterNs / 1000) us",
        ])
      }
      text += "\n" + table.text
      for problem in links.problems { text += "\nProblem: \(Printable.text(problem))" }
      if !links.problems.isEmpty { text += "\n" }
    }
    guard !changes.isEmpty else { return text }
    var history = TextTable(["AGO", "FROM", "TO", "EPOCH", "AFTER", "REASON"], numbers: [0, 3, 4])
    for change in changes.suffix(10) {
      history.add([
        "\(Int(change.secondsAgo)) s", change.from, change.to, "\(change.epoch)",
        change.milliseconds.map { "\(Int($0)) ms" } ?? "-", Printable.text(change.reason),
      ])
    }
    return text + "\n" + history.text
  }
}
