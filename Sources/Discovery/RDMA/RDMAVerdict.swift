/// Whether an RDMA device can be used. The rules are in `RDMAInventory.verdict(of:)` and below; they read nothing.
public struct RDMAVerdict: Equatable, Sendable {
  /// What keeps it from being used; empty: nothing.
  public var obstacles: [RDMAObstacle]
  /// What a person should know of a port that can be used.
  public var warnings: [RDMAWarning]

  public init(obstacles: [RDMAObstacle] = [], warnings: [RDMAWarning] = []) {
    self.obstacles = obstacles
    self.warnings = warnings
  }

  public var isUsable: Bool { obstacles.isEmpty }

  /// What keeps one port from being used.
  public static func obstacles(of port: RDMAPort) -> [RDMAObstacle] {
    let up = port.interfaces.filter(\.isUp)
    // RoCE's port is down because its interface is: the cable has nothing to do with it.
    if up.isEmpty, let down = port.interfaces.first { return [.interfaceDown(interface: down.name)] }
    switch port.state {
    case .active: break
    case .initializing where port.linkLayer == .infiniBand, .armed where port.linkLayer == .infiniBand:
      return [.noSubnetManager(port: port.number)]
    default: return [.portDown(port: port.number)]
    }
    guard let first = up.first else { return [.noInterface(port: port.number, linkLayer: port.linkLayer)] }
    return up.contains { !$0.addresses.isEmpty } ? [] : [.noAddress(interface: first.name)]
  }

  /// What is worth knowing of a port without obstacles.
  static func warnings(of port: RDMAPort) -> [RDMAWarning] {
    var found: [RDMAWarning] = []
    if port.linkLayer == .ethernet {
      if port.gids.isEmpty { found.append(.noGID(port: port.number)) }
      if port.gidKinds == [.roceV1] { found.append(.onlyRoCEv1(port: port.number)) }
    }
    let addressed = port.interfaces.filter { !$0.addresses.isEmpty }
    if let first = addressed.first, addressed.allSatisfy({ $0.addresses.allSatisfy(\.isLinkLocal) }) {
      found.append(.onlyLinkLocal(interface: first.name))
    }
    return found
  }
}

/// Something that a person is told about a device: for machines (`code`), and for people.
public protocol RDMAFinding: Sendable {
  /// Stable across releases: the control socket speaks it.
  var code: String { get }
  /// What is the matter, without a full stop: "port 1 is down".
  var sentence: String { get }
  /// What to do about it: "check the cable and the switch".
  var advice: String { get }
}

/// Why an RDMA device cannot be used.
public enum RDMAObstacle: Hashable, RDMAFinding {
  case unsupported(kind: String)
  /// The kernel has made no uverbs node, or udev no file of it.
  case noVerbsNode
  /// The node is there, but not for this process.
  case forbidden(path: String)
  case noConnectionManager
  case memoryLock(bytesMax: UInt64)
  case noPort
  case portDown(port: Int)
  /// InfiniBand's port is up, but nobody has given it an address in the fabric.
  case noSubnetManager(port: Int)
  case noInterface(port: Int, linkLayer: RDMAPort.LinkLayer)
  case interfaceDown(interface: String)
  case noAddress(interface: String)

  public var code: String {
    switch self {
    case .unsupported: "unsupported"
    case .noVerbsNode: "no-verbs-node"
    case .forbidden: "forbidden"
    case .noConnectionManager: "no-connection-manager"
    case .memoryLock: "memory-lock"
    case .noPort: "no-port"
    case .portDown: "port-down"
    case .noSubnetManager: "no-subnet-manager"
    case .noInterface: "no-interface"
    case .interfaceDown: "interface-down"
    case .noAddress: "no-address"
    }
  }

  public var sentence: String {
    switch self {
    case .unsupported(let kind): "its kind (\(KernelText.printable(kind))) makes no connections that iSER can use"
    case .noVerbsNode: "it has no uverbs node in \(RDMAReader.nodeDirectory)"
    case .forbidden(let path): "\(KernelText.printable(path)) may not be opened"
    case .noConnectionManager: "\(RDMAReader.connectionManagerPath) is missing"
    case .memoryLock(let bytes): "only \(bytes >> 10) KiB of memory may be locked"
    case .noPort: "it has no port"
    case .portDown(let port): "port \(port) is down"
    case .noSubnetManager(let port): "port \(port) waits for a subnet manager"
    case .noInterface(let port, _): "port \(port) has no network interface"
    case .interfaceDown(let interface): "interface \(KernelText.printable(interface)) is down"
    case .noAddress(let interface): "interface \(KernelText.printable(interface)) has no address"
    }
  }

  public var advice: String {
    switch self {
    case .unsupported: "use a NIC with RoCE, InfiniBand or iWARP"
    case .noVerbsNode: "modprobe ib_uverbs"
    case .forbidden: "run gatewayd as root, or in the group rdma; a service also needs DeviceAllow=char-infiniband* rw"
    case .noConnectionManager: "modprobe rdma_ucm"
    case .memoryLock: "service: LimitMEMLOCK=infinity; shell: ulimit -l unlimited"
    case .noPort: "look at the driver's messages: dmesg"
    case .portDown: "check the cable and the switch"
    case .noSubnetManager: "start one in the fabric: systemctl start opensm"
    case .noInterface(_, .infiniBand): "modprobe ib_ipoib, and give the new interface an address"
    case .noInterface: "load the driver of its network interface"
    case .interfaceDown(let interface): "ip link set \(KernelText.printable(interface)) up"
    case .noAddress(let interface): "give it one: ip address add ADDRESS/PREFIX dev \(KernelText.printable(interface))"
    }
  }

  /// Whether it is this machine's software that stands in the way, and not a cable or an address that nobody meant to be
  /// there.
  public var isOfSetup: Bool {
    switch self {
    case .noVerbsNode, .forbidden, .noConnectionManager, .memoryLock: true
    case .unsupported, .noPort, .portDown, .noSubnetManager, .noInterface, .interfaceDown, .noAddress: false
    }
  }
}

/// What is not as good as it could be on a device that can be used.
public enum RDMAWarning: Hashable, RDMAFinding {
  case onlyRoCEv1(port: Int)
  case noGID(port: Int)
  case onlyLinkLocal(interface: String)

  public var code: String {
    switch self {
    case .onlyRoCEv1: "only-roce-v1"
    case .noGID: "no-gid"
    case .onlyLinkLocal: "only-link-local"
    }
  }

  public var sentence: String {
    switch self {
    case .onlyRoCEv1(let port): "port \(port) has GIDs of RoCE v1 only, which no router forwards"
    case .noGID(let port): "port \(port) has no GID yet"
    case .onlyLinkLocal(let interface): "interface \(KernelText.printable(interface)) has link-local addresses only"
    }
  }

  public var advice: String {
    switch self {
    case .onlyRoCEv1:
      "initiators on the same network with RoCE v1 get in; else switch RoCE v2 on, in the NIC's settings"
    case .noGID: "if it stays so, set its interface down and up again"
    case .onlyLinkLocal: "give it another, or name the interface on each initiator: fe80::…%IF"
    }
  }
}
