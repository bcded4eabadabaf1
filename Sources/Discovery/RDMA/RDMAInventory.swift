/// Everything about RDMA at one moment: the devices, and what the machine and this process allow.
public struct RDMAInventory: Equatable, Sendable {
  /// By name.
  public var devices: [RDMADevice]
  /// /dev/infiniband/rdma_cm. Not looked at where there are no devices: a look may load its module.
  public var connectionManager: RDMANode
  /// Most bytes that this process may lock in memory; nil: no limit, or none that could be read.
  public var lockedBytesMax: UInt64?

  /// Below this no useful number of buffers can be registered.
  public static let lockedBytesNeeded: UInt64 = 64 << 20

  public init(
    devices: [RDMADevice] = [], connectionManager: RDMANode = RDMANode(access: .absent), lockedBytesMax: UInt64? = nil
  ) {
    self.devices = devices
    self.connectionManager = connectionManager
    self.lockedBytesMax = lockedBytesMax
  }

  /// An address that initiators reach over RDMA.
  public struct Endpoint: Hashable, Sendable {
    public var device: String
    public var port: Int
    public var interface: String
    public var address: NetworkAddress

    public init(device: String, port: Int, interface: String, address: NetworkAddress) {
      self.device = device
      self.port = port
      self.interface = interface
      self.address = address
    }
  }

  /// The addresses of all ports that can be used, each interface's once, link-local ones last.
  public var endpoints: [Endpoint] {
    var seen: Set<String> = []
    let all = devices.filter { verdict(of: $0).isUsable }.flatMap { device in
      device.ports.filter { RDMAVerdict.obstacles(of: $0).isEmpty }.flatMap { port in
        port.interfaces.filter(\.isUp).flatMap { interface in
          interface.addresses.filter { seen.insert("\($0)%\(interface.name)").inserted }.map {
            Endpoint(device: device.name, port: port.number, interface: interface.name, address: $0)
          }
        }
      }
    }
    return all.filter { !$0.address.isLinkLocal } + all.filter(\.address.isLinkLocal)
  }

  /// What stands in the way of every device alike.
  private var obstacles: [RDMAObstacle] {
    var found: [RDMAObstacle] = []
    switch connectionManager.access {
    case .usable: break
    case .absent: found.append(.noConnectionManager)
    case .forbidden: found.append(.forbidden(path: connectionManager.path ?? RDMAReader.connectionManagerPath))
    }
    if let lockedBytesMax, lockedBytesMax < Self.lockedBytesNeeded {
      found.append(.memoryLock(bytesMax: lockedBytesMax))
    }
    return found
  }

  /// Whether the device can be used, and if not, everything that keeps it from that.
  ///
  /// One good port is enough. The ports of a device that has one are not held against it.
  public func verdict(of device: RDMADevice) -> RDMAVerdict {
    if case .other(let kind) = device.kind { return RDMAVerdict(obstacles: [.unsupported(kind: kind)]) }
    var found: [RDMAObstacle] = []
    switch device.verbs.access {
    case .usable: break
    case .absent: found.append(.noVerbsNode)
    case .forbidden: found.append(.forbidden(path: device.verbs.path ?? RDMAReader.nodeDirectory))
    }
    found += obstacles
    let good = device.ports.filter { RDMAVerdict.obstacles(of: $0).isEmpty }
    if device.ports.isEmpty { found.append(.noPort) }
    if good.isEmpty { found += device.ports.flatMap(RDMAVerdict.obstacles(of:)) }
    return RDMAVerdict(obstacles: found, warnings: good.flatMap(RDMAVerdict.warnings(of:)))
  }

  /// Whether any device can be used.
  public var isUsable: Bool { devices.contains { verdict(of: $0).isUsable } }
}
