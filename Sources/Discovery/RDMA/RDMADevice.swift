/// One RDMA device as sysfs describes it at one moment.
public struct RDMADevice: Equatable, Sendable {
  /// What the device speaks, by its node type; the port's link layer alone does not tell iWARP from RoCE.
  public enum Kind: Equatable, Sendable {
    /// A channel adapter: InfiniBand or RoCE, as the link layer of each port says.
    case channelAdapter
    /// An iWARP NIC (RNIC): RDMA over TCP.
    case iWARP
    /// Something that RDMA-CM makes no reliable connections on (a switch, usNIC, EFA); with the kernel's word for it.
    case other(String)
  }

  /// "mlx5_0", "rxe0".
  public var name: String
  public var kind: Kind
  /// The kernel driver, "mlx5_core"; for software devices "rxe" or "siw".
  public var driver: String
  /// "506b:4b03:00c3:f0d4"; nil: not told.
  public var nodeGUID: String?
  public var firmware: String?
  /// The maker's name of the board.
  public var board: String?
  public var ports: [RDMAPort]
  /// The node through which a process uses the device.
  public var verbs: RDMANode

  public init(
    name: String, kind: Kind = .channelAdapter, driver: String, nodeGUID: String? = nil, firmware: String? = nil,
    board: String? = nil, ports: [RDMAPort], verbs: RDMANode
  ) {
    self.name = name
    self.kind = kind
    self.driver = driver
    self.nodeGUID = nodeGUID
    self.firmware = firmware
    self.board = board
    self.ports = ports
    self.verbs = verbs
  }
}

/// A device node below /dev/infiniband, and whether this process can use it.
public struct RDMANode: Equatable, Sendable {
  public enum Access: Equatable, Sendable {
    case usable
    /// It is not there, or nothing is behind it.
    case absent
    /// It is there, but may not be opened for reading and writing.
    case forbidden
  }

  /// "/dev/infiniband/uverbs0"; nil: the kernel has made none.
  public var path: String?
  public var access: Access

  public init(path: String? = nil, access: Access) {
    self.path = path
    self.access = access
  }
}

/// A port of an RDMA device.
public struct RDMAPort: Equatable, Sendable {
  /// `enum ib_port_state` of the kernel. Anything but `active` carries no data.
  public enum State: Int, Sendable {
    case noChange = 0, down, initializing, armed, active, activeDefer

    /// As sysfs spells it.
    public var name: String {
      switch self {
      case .noChange: "NOP"
      case .down: "DOWN"
      case .initializing: "INIT"
      case .armed: "ARMED"
      case .active: "ACTIVE"
      case .activeDefer: "ACTIVE_DEFER"
      }
    }
  }

  public enum LinkLayer: String, Sendable {
    case infiniBand = "InfiniBand"
    /// RoCE, or iWARP on an iWARP device.
    case ethernet = "Ethernet"
    case iWARP = "iWARP"
    case unknown = "unknown"
  }

  /// From 1.
  public var number: Int
  public var linkLayer: LinkLayer
  public var state: State
  /// "LinkUp", "Polling", "Disabled".
  public var physicalState: String?
  /// "100 Gb/sec (4X EDR)".
  public var rate: String?
  /// The entries of the GID table that are in use.
  public var gids: [RDMAGID]
  /// The network interfaces over the port: those of its GIDs first.
  public var interfaces: [RDMAInterface]

  public init(
    number: Int, linkLayer: LinkLayer, state: State, physicalState: String? = nil, rate: String? = nil,
    gids: [RDMAGID] = [], interfaces: [RDMAInterface] = []
  ) {
    self.number = number
    self.linkLayer = linkLayer
    self.state = state
    self.physicalState = physicalState
    self.rate = rate
    self.gids = gids
    self.interfaces = interfaces
  }

  public var isActive: Bool { state == .active }

  /// The kinds of its GIDs, each once, the most capable first.
  public var gidKinds: [RDMAGID.Kind] {
    RDMAGID.Kind.allCases.filter { kind in gids.contains { $0.kind == kind } }
  }
}

/// An entry of a port's GID table: an address that RDMA connections are made from.
public struct RDMAGID: Equatable, Sendable {
  public enum Kind: String, Sendable, CaseIterable {
    /// UDP over IP: can be routed.
    case roceV2 = "RoCE v2"
    /// Straight over Ethernet: one network only.
    case roceV1 = "RoCE v1"
    case infiniBand = "InfiniBand"
    case iWARP = "iWARP"
  }

  public var index: Int
  public var kind: Kind
  /// 128 bits; RoCE makes them of the interface's IP address.
  public var address: NetworkAddress
  public var interface: String?

  public init(index: Int, kind: Kind, address: NetworkAddress, interface: String? = nil) {
    self.index = index
    self.kind = kind
    self.address = address
    self.interface = interface
  }
}

/// A network interface over a port: RDMA-CM finds the port by an address of it.
public struct RDMAInterface: Equatable, Sendable {
  public var name: String
  /// Set up by the administrator (IFF_UP).
  public var isUp: Bool
  public var hasCarrier: Bool
  /// "up", "down", "lowerlayerdown", "unknown".
  public var operationalState: String?
  /// Bytes of the largest packet; 0: not told.
  public var mtu: Int
  /// Of an interface that is up; link-local ones last.
  public var addresses: [NetworkAddress]

  public init(
    name: String, isUp: Bool = true, hasCarrier: Bool = true, operationalState: String? = "up", mtu: Int = 1500,
    addresses: [NetworkAddress] = []
  ) {
    self.name = name
    self.isUp = isUp
    self.hasCarrier = hasCarrier
    self.operationalState = operationalState
    self.mtu = mtu
    self.addresses = addresses
  }

  /// The largest payload of a RoCE packet on this interface: 256, 512, 1024, 2048 or 4096 bytes; 0: none fits. As the
  /// kernel's iboe_get_mtu has it: what is left after 96 bytes of headers (GRH, UDP, BTH, XRC, AtomicETH, ICRC).
  public var roceMTU: Int { [4096, 2048, 1024, 512, 256].first { $0 + 96 <= mtu } ?? 0 }
}
