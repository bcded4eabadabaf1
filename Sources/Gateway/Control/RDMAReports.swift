import Discovery

// What the control socket tells of RDMA. As in Reports.swift, the field names are the keys of `--json`.

/// Why a NIC cannot be used, or what is not good about it.
public struct NICFinding: Codable, Sendable, Equatable {
  /// `port-down`, `no-address`, `memory-lock`, …
  public var code: String
  /// For a person: "port 1 is down".
  public var reason: String
  /// What to do: "check the cable and the switch".
  public var advice: String
  /// Whether this machine's software is to be set right, and not a cable or an address.
  public var isOfSetup: Bool
}

/// A network interface over a port.
public struct NICInterfaceReport: Codable, Sendable, Equatable {
  public var name: String
  public var isUp: Bool
  public var hasCarrier: Bool
  /// Bytes; 0: not known.
  public var mtu: Int
  public var addresses: [String]
}

/// One entry of a port's GID table.
public struct NICGIDReport: Codable, Sendable, Equatable {
  public var index: Int
  /// `RoCE v2`, `RoCE v1`, `InfiniBand`, `iWARP`.
  public var type: String
  public var address: String
  public var interface: String?
}

/// A port of a NIC.
public struct NICPortReport: Codable, Sendable, Equatable {
  public var number: Int
  /// `Ethernet` (RoCE), `InfiniBand`, `iWARP`, `unknown`.
  public var linkLayer: String
  /// `ACTIVE`, `DOWN`, `INIT`, `ARMED`.
  public var state: String
  public var physicalState: String?
  public var rate: String?
  /// The types among its GIDs, each once.
  public var gidTypes: [String]
  public var gids: [NICGIDReport]
  public var interfaces: [NICInterfaceReport]
  /// RoCE: bytes of data in a packet, at most, by the smallest MTU of its interfaces that have an address; absent: not
  /// known, or not RoCE.
  public var roceMTU: Int?
  /// What keeps this port from being used.
  public var reasons: [NICFinding]
}

/// One RDMA NIC of `gatewayd nics`.
public struct NICReport: Codable, Sendable, Equatable {
  public enum Verdict: String, Codable, Sendable {
    case usable
    case unusable
  }

  public var name: String
  public var driver: String
  public var nodeGUID: String?
  public var firmware: String?
  public var board: String?
  public var verdict: Verdict
  /// Why it cannot be used; empty for one that can.
  public var reasons: [NICFinding]
  public var warnings: [NICFinding]
  public var ports: [NICPortReport]
}

/// Whether the gateway listens over RDMA.
public struct ISERListenerReport: Codable, Sendable, Equatable {
  public enum State: String, Codable, Sendable {
    case off
    case listening
    case failed
  }

  public var state: State
  /// Why it does not listen.
  public var reason: String?
  /// Where initiators reach it over RDMA, `192.0.2.1:3260`.
  public var addresses: [String]

  public init(_ state: ISERState) {
    (self.state, reason, addresses) =
      switch state {
      case .off(let reason): (.off, reason, [])
      case .listening(let addresses): (.listening, nil, addresses)
      case .failed(let reason): (.failed, reason, [])
      }
  }
}

/// The `rdma` section of `gatewayd status`.
public struct RDMAReport: Codable, Sendable, Equatable {
  public var listener: ISERListenerReport
  public var nics: [NICReport]

  public init(listener: ISERListenerReport, nics: [NICReport]) {
    self.listener = listener
    self.nics = nics
  }
}

// MARK: Made of what discovery knows

extension NICFinding {
  init(_ obstacle: RDMAObstacle) {
    self.init(
      code: obstacle.code, reason: obstacle.sentence, advice: obstacle.advice, isOfSetup: obstacle.isOfSetup)
  }

  init(_ warning: RDMAWarning) {
    self.init(code: warning.code, reason: warning.sentence, advice: warning.advice, isOfSetup: false)
  }
}

extension NICReport {
  /// All NICs of an inventory, by name.
  public static func all(_ inventory: RDMAInventory) -> [NICReport] {
    inventory.devices.map { NICReport($0, verdict: inventory.verdict(of: $0)) }
  }

  init(_ device: RDMADevice, verdict: RDMAVerdict) {
    self.init(
      name: device.name, driver: device.driver, nodeGUID: device.nodeGUID, firmware: device.firmware,
      board: device.board, verdict: verdict.isUsable ? .usable : .unusable,
      reasons: verdict.obstacles.map { NICFinding($0) }, warnings: verdict.warnings.map { NICFinding($0) },
      ports: device.ports.map { NICPortReport($0) })
  }
}

extension NICPortReport {
  init(_ port: RDMAPort) {
    let addressed = port.interfaces.filter { !$0.addresses.isEmpty && $0.mtu > 0 }
    self.init(
      number: port.number, linkLayer: port.linkLayer.rawValue, state: port.state.name,
      physicalState: port.physicalState, rate: port.rate, gidTypes: port.gidKinds.map(\.rawValue),
      gids: port.gids.map { gid in
        NICGIDReport(
          index: gid.index, type: gid.kind.rawValue, address: gid.address.description, interface: gid.interface)
      },
      interfaces: port.interfaces.map { interface in
        NICInterfaceReport(
          name: interface.name, isUp: interface.isUp, hasCarrier: interface.hasCarrier, mtu: interface.mtu,
          addresses: interface.addresses.map(\.description))
      },
      roceMTU: port.linkLayer == .ethernet ? addressed.map(\.roceMTU).min() : nil,
      reasons: RDMAVerdict.obstacles(of: port).map { NICFinding($0) })
  }
}
