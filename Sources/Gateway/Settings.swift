/// What an operator may change: one value for the whole gateway, checked as a whole before anything of it takes effect.
/// `Settings()` is what runs without a settings file. Every key, its meaning and its default: docs/SETTINGS.md.
public struct Settings: Sendable, Equatable {
  public var target = Target()
  public var discovery = Discovery()
  public var limits = Limits()
  public var access = Access()
  /// `[discovery-auth]`: what an initiator needs in a discovery session; nil: nothing.
  public var discoveryAuthentication: CHAPCredentials?
  public var iser = ISER()
  public var timeouts = Timeouts()
  public var pair = Pair()
  public var metrics = Metrics()
  /// `[[disk]]`, in the order of the file: the first whose name matches a disk decides what kind of LUN it is.
  public var disks: [DiskRule] = []
  /// `[log] level`.
  public var logLevel = LogLevel.info

  public init() {}

  /// `[target]`: what the gateway answers as, and where.
  public struct Target: Sendable, Equatable {
    /// iSCSI name (RFC 7143 §4.2.7); nil: made from the identity of the machine or the disks.
    public var name: String?
    /// TargetAlias, for people; nil: none.
    public var alias: String?
    public var listen = [ListenAddress(host: "::", port: ListenAddress.standardPort)]
    /// Reactor threads; nil: one per processor.
    public var threads: Int?
    /// How long a thread with nothing to do looks for work before it sleeps; 0: not at all. Less latency for more processor
    /// time.
    public var pollNs: UInt64 = 0

    public init() {}
  }

  /// `[discovery]`: which disks are looked at.
  public struct Discovery: Sendable, Equatable {
    public var isEnabled = true
    /// Whether a blank disk is labelled and exported without being asked.
    public var exportsBlank = true
    /// Paths or globs of device nodes and their links that are never touched.
    public var ignore: [String] = []
    /// The same, of the only disks that are touched; nil: every disk may be.
    public var only: [String]?

    public init() {}

    /// Whether any of a disk's names (`/dev/sda`, `/dev/disk/by-id/…`) is one to leave alone.
    public func ignores(_ names: [String]) -> Bool {
      ignore.contains { pattern in names.contains { Glob.matches(pattern, $0) } }
    }

    /// Whether a disk with these names may be touched.
    public func allows(_ names: [String]) -> Bool {
      guard let only else { return true }
      return only.contains { pattern in names.contains { Glob.matches(pattern, $0) } }
    }
  }

  /// `[limits]`: what is set aside or refused above.
  public struct Limits: Sendable, Equatable {
    public var sessions = 256
    /// Connections from one address, in and before full feature phase.
    public var connectionsPerAddress = 32
    /// From accept to full feature phase.
    public var loginTimeoutSeconds = 15
    /// Commands per session (the CmdSN window).
    public var queueDepth = 128
    /// The most memory for data buffers, over all threads; nil: taken from the machine's memory.
    public var memoryBytes: UInt64?

    public init() {}
  }

  /// `[access]`: who may log in and what they see.
  public struct Access: Sendable, Equatable {
    public var networks: [NetworkRule] = [.onLink]
    /// Initiator names or globs.
    public var initiators = ["*"]
    /// What every initiator needs that no rule of `rules` names; nil: nothing.
    public var chap: CHAPCredentials?
    /// `[[access.initiator]]`, in the order of the file: the first whose name matches decides.
    public var rules: [InitiatorRule] = []

    public init() {}
  }

  /// One `[[access.initiator]]`.
  public struct InitiatorRule: Sendable, Equatable {
    /// Initiator name or glob.
    public var name: String
    /// The LUNs it sees; nil: all.
    public var luns: Set<UInt16>?
    /// What it needs; nil: what `[access.chap]` says.
    public var chap: CHAPCredentials?

    public init(name: String, luns: Set<UInt16>? = nil, chap: CHAPCredentials? = nil) {
      self.name = name
      self.luns = luns
      self.chap = chap
    }
  }

  /// One `[[disk]]`: what kind of LUN a disk is, beyond what it is by itself.
  public struct DiskRule: Sendable, Equatable {
    /// A glob for one of its names: its node, a link to it, or what `--disk` says.
    public var name: String
    public var isReadOnly = false
    public var isRemovable = false
    /// False: its blocks cannot be deallocated, whatever it can.
    public var isThin = true
    /// The logical block length that a blank disk gets; nil: its own.
    public var blockBytes: UInt32?

    public init(name: String) { self.name = name }
  }

  /// The rule for a disk with these names.
  public func rule(for names: [String]) -> DiskRule? {
    disks.first { rule in names.contains { Glob.matches(rule.name, $0) } }
  }

  /// `[iser]`: iSCSI over RDMA, beside TCP.
  public struct ISER: Sendable, Equatable {
    /// Whether it is served where a NIC allows.
    public var isEnabled = true

    public init() {}
  }

  /// `[timeouts]`.
  public struct Timeouts: Sendable, Equatable {
    /// A silent connection is asked for a sign of life (NOP-In) after this, and closed after as much again; 0: never.
    public var nopIntervalSeconds = 10
    /// A command that its disk has not finished by then is answered with an error. Below the 30 s after which a Linux
    /// initiator starts to abort.
    public var ioDeadlineSeconds = 20

    public init() {}
  }

  /// `[pair]`: the other node that sees the same disks.
  public struct Pair: Sendable, Equatable {
    /// Whether another node with the same disks is looked for. If not, this node serves alone, and never takes over.
    public var isEnabled = true
    /// What only the active node has.
    public var addresses: [ServiceAddress] = []
    /// Whether an initiator may have the pair switch over (SET TARGET PORT GROUPS). Not unless told: one whose view of the
    /// paths is old, or that has lost a cable, would take the disks to and fro.
    public var hasExplicitALUA = false
    /// What resets this machine if it hangs while it has a disk that cannot fence and that another node may take over.
    public var watchdog = WatchdogChoice.automatic

    public init() {}
  }

  /// `[metrics]`: what is counted, over HTTP.
  public struct Metrics: Sendable, Equatable {
    /// Where to listen; empty: nowhere.
    public var listen: [ListenAddress] = []

    public static let standardPort: UInt16 = 9862

    public init() {}
  }
}

/// A text that is never printed: not by `print`, not by string interpolation, not by `dump`.
public struct Secret: Sendable, Equatable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
  public let bytes: [UInt8]

  public init(_ text: String) { bytes = [UInt8](text.utf8) }

  public var description: String { "(secret)" }
  public var debugDescription: String { "(secret)" }
  public var customMirror: Mirror { Mirror(self, children: [(label: String?, value: Any)]()) }
}

/// CHAP (RFC 7143 §12.1.3): what the initiator proves and, if mutual, what the target proves.
public struct CHAPCredentials: Sendable, Equatable {
  /// A CHAP name with its secret.
  public struct Identity: Sendable, Equatable {
    public var user: String
    public var secret: Secret

    public init(user: String, secret: Secret) {
      self.user = user
      self.secret = secret
    }
  }

  /// The initiator's: `user` and `secret`.
  public var initiator: Identity
  /// The target's: `mutual-user` and `mutual-secret`; nil: one-way.
  public var target: Identity?

  public init(initiator: Identity, target: Identity? = nil) {
    self.initiator = initiator
    self.target = target
  }
}

/// Where an initiator may come from.
public enum NetworkRule: Sendable, Equatable {
  /// A network that one of the machine's own interfaces is on.
  case onLink
  case any
  case network(IPNetwork)
}

extension Settings.Access {
  /// What an initiator that is let in needs and sees.
  public struct Admission: Sendable, Equatable {
    /// nil: all.
    public var luns: Set<UInt16>?
    /// nil: no authentication.
    public var chap: CHAPCredentials?
  }

  /// Whether and how the initiator of this name gets in; nil: it does not. The first rule that names it decides; without
  /// one, `initiators` and `chap` do.
  public func admission(of initiatorName: String) -> Admission? {
    if let rule = rules.first(where: { Glob.matches($0.name, initiatorName) }) {
      return Admission(luns: rule.luns, chap: rule.chap ?? chap)
    }
    guard initiators.contains(where: { Glob.matches($0, initiatorName) }) else { return nil }
    return Admission(luns: nil, chap: chap)
  }

  /// Whether a peer's address, 4 or 16 bytes, is one that may connect.
  /// - Parameter isOnLink: Whether the address is on a network of one of our own interfaces.
  public func admits(address: [UInt8], isOnLink: @autoclosure () -> Bool) -> Bool {
    networks.contains { rule in
      switch rule {
      case .any: true
      case .onLink: isOnLink()
      case .network(let network): network.contains(address)
      }
    }
  }
}

extension Settings {
  /// The keys that differ between two settings and take effect only at the next start.
  public static func keysNeedingRestart(from old: Settings, to new: Settings) -> [String] {
    let rows: [(String, Bool)] = [
      ("target.name", old.target.name != new.target.name),
      ("target.listen", old.target.listen != new.target.listen),
      ("target.threads", old.target.threads != new.target.threads),
      ("discovery.enabled", old.discovery.isEnabled != new.discovery.isEnabled),
      ("iser.enabled", old.iser.isEnabled != new.iser.isEnabled),
      ("pair.enabled", old.pair.isEnabled != new.pair.isEnabled),
      ("pair.explicit-alua", old.pair.hasExplicitALUA != new.pair.hasExplicitALUA),
      ("pair.watchdog", old.pair.watchdog != new.pair.watchdog),
      ("disk", old.disks != new.disks),
      ("limits.memory", old.limits.memoryBytes != new.limits.memoryBytes),
    ]
    return rows.filter(\.1).map(\.0)
  }
}
