/// A kind of initiator, as `gatewayd doctor --initiator` names it.
public enum InitiatorKind: String, Codable, Sendable, CaseIterable {
  case linux
  case linuxServiceAddress = "linux-service-address"
  case vmware
  case windows
  /// libiscsi and QEMU, which have no multipath of their own.
  case libiscsi
}

/// How long an initiator waits when something fails.
public struct InitiatorStall: Codable, Sendable, Equatable {
  public enum Basis: String, Codable, Sendable {
    /// In the lab (docs/HA.md).
    case measured
    /// Added up.
    case timers = "by its timers"
    /// Nothing is known.
    case unknown = "not known"
  }

  public var fault: String
  public var stall: String
  public var basis: Basis

  /// `kill -9 of the active: 6.0 s (measured)`.
  public var text: String { "\(fault): \(stall)" + (basis == .unknown ? "" : " (\(basis.rawValue))") }
}

/// All that an initiator needs for this target, as one block to paste there, and what it means.
public struct InitiatorGuide: Codable, Sendable, Equatable {
  /// What is known of the target.
  public struct Target: Sendable, Equatable {
    public var name: String
    /// `10.0.0.1:3260`: of this node, and where the other one is not known, a word in its place.
    public var portals: [String]
    /// Of this node, over RDMA; empty: it serves TCP only.
    public var rdmaPortals: [String]
    /// `10.0.0.5:3260`; empty: the settings name none.
    public var servicePortals: [String]
    public var lun: UInt16
    public var isPair: Bool

    public init(
      name: String, portals: [String], rdmaPortals: [String] = [], servicePortals: [String] = [], lun: UInt16 = 0,
      isPair: Bool
    ) {
      self.name = name
      self.portals = portals
      self.rdmaPortals = rdmaPortals
      self.servicePortals = servicePortals
      self.lun = lun
      self.isPair = isPair
    }
  }

  /// Stands for the other node, whose address for initiators only its own settings tell.
  public static let otherNode = "OTHER-NODE:3260"

  public var kind: InitiatorKind
  public var title: String
  /// What has to be replaced or known first, a sentence each.
  public var notes: [String]
  /// To be pasted as it is; lines that begin with `#` are comments to the shell that takes it.
  public var commands: [String]
  public var stalls: [InitiatorStall]

  public init(_ kind: InitiatorKind, _ target: Target) {
    switch kind {
    case .linux: self = .linux(target)
    case .linuxServiceAddress: self = .linuxServiceAddress(target)
    case .vmware: self = .vmware(target)
    case .windows: self = .windows(target)
    case .libiscsi: self = .libiscsi(target)
    }
  }

  init(
    _ kind: InitiatorKind, title: String, notes: [String] = [], commands: [String], stalls: [InitiatorStall]
  ) {
    self.kind = kind
    self.title = title
    self.notes = notes
    self.commands = commands
    self.stalls = stalls
  }

  /// The whole, each line that is no command behind a `#`: so all of it can be pasted.
  public var text: String {
    let lines = ["# \(title)"] + notes.map { "# \($0)" } + commands + ["# To expect, until the application goes on:"]
    return (lines + stalls.map { "#   \($0.text)" }).map { Printable.text($0) + "\n" }.joined()
  }
}
