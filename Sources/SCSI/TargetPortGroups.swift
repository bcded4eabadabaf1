/// Asymmetric access states (SPC-5 table 287).
public enum AsymmetricAccessState: UInt8, Sendable {
  case activeOptimized = 0x0
  case activeNonOptimized = 0x1
  case standby = 0x2
  case unavailable = 0x3
  case transitioning = 0xF
}

/// The target port groups as one immutable snapshot: an ALUA change is a new value, given to the shards with a new
/// `DeviceServer`, followed by ASYMMETRIC ACCESS STATE CHANGED on the nexuses.
public struct TargetPortGroups: Equatable, Sendable {
  public struct Group: Equatable, Sendable {
    /// TARGET PORT GROUP.
    public var id: UInt16
    public var state: AsymmetricAccessState
    public var isPreferred: Bool
    /// RELATIVE TARGET PORT IDENTIFIERs of its ports.
    public var relativeTargetPorts: [UInt16]

    public init(
      id: UInt16, state: AsymmetricAccessState = .activeOptimized, isPreferred: Bool = false,
      relativeTargetPorts: [UInt16]
    ) {
      self.id = id
      self.state = state
      self.isPreferred = isPreferred
      self.relativeTargetPorts = relativeTargetPorts
    }
  }

  /// Bits of the supported states as the descriptor has them (SPC-5 §6.36): T O - - U S AN AO.
  public struct SupportedStates: OptionSet, Sendable {
    public var rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    public static let activeOptimized = SupportedStates(rawValue: 0x01)
    public static let activeNonOptimized = SupportedStates(rawValue: 0x02)
    public static let standby = SupportedStates(rawValue: 0x04)
    public static let unavailable = SupportedStates(rawValue: 0x08)
    public static let transitioning = SupportedStates(rawValue: 0x80)
  }

  public let groups: [Group]
  public let supportedStates: SupportedStates
  /// Whether every group that commands come through here is active: then the warm path asks no further.
  let isAllActive: Bool
  /// Groups of this node's ports; nil: all are.
  private let own: Set<UInt16>?
  /// Initiators may ask for another group (TPGS 11b); else it changes only by itself (01b).
  public let isExplicit: Bool

  /// - Parameters:
  ///   - own: groups of this node's ports; nil: all are.
  ///   - isExplicit: SET TARGET PORT GROUPS is offered.
  public init(
    _ groups: [Group], own: Set<UInt16>? = nil, isExplicit: Bool = false,
    supportedStates: SupportedStates = [
      .activeOptimized, .activeNonOptimized, .standby, .unavailable, .transitioning,
    ]
  ) {
    self.groups = groups
    self.supportedStates = supportedStates
    self.isExplicit = isExplicit
    self.own = own
    isAllActive = groups.allSatisfy {
      $0.state == .activeOptimized || $0.state == .activeNonOptimized || own?.contains($0.id) == false
    }
  }

  /// The state of a group; one that is not in the snapshot is unavailable.
  public func state(of group: UInt16) -> AsymmetricAccessState {
    groups.first { $0.id == group }?.state ?? .unavailable
  }

  /// Whether initiators may have a path to another node.
  var hasOtherNode: Bool { own != nil }

  /// Whether a port is none of this node's.
  func isElsewhere(_ relativeTargetPort: UInt16) -> Bool {
    guard let own else { return false }
    return !groups.contains { own.contains($0.id) && $0.relativeTargetPorts.contains(relativeTargetPort) }
  }

  /// Every relative target port identifier, ascending.
  public var relativeTargetPorts: [UInt16] {
    groups.flatMap(\.relativeTargetPorts).sorted()
  }
}
