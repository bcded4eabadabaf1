import Glibc

@testable import Discovery

/// A machine's RDMA devices as files, and everything a reader asks besides.
final class RDMATree {
  let tree = TemporaryTree()
  var addresses: [NetworkInterfaces.Address] = []
  /// Nodes that may not be opened.
  var forbidden: Set<String> = []

  init() {
    setLock("unlimited")
    addConnectionManager()
  }

  func addConnectionManager() { tree.write("dev/infiniband/rdma_cm", "") }

  func setLock(_ limit: String, capabilities: String = "0000000000000000") {
    tree.write(
      "proc/self/limits",
      """
      Limit                     Soft Limit           Hard Limit           Units
      Max locked memory         \(limit)             \(limit)             bytes
      """)
    tree.write("proc/self/status", "Name:\tx\nCapEff:\t\(capabilities)\n")
  }

  func remove(_ name: String) { unlink("\(tree.path)/\(name)") }

  /// A device's own files, and its uverbs node.
  func addDevice(_ name: String, nodeType: String = "1: CA", verbs: Int? = 0) {
    let directory = "sys/class/infiniband/\(name)"
    tree.write("\(directory)/node_type", "\(nodeType)\n")
    tree.write("\(directory)/node_guid", "506b:4b03:00c3:f0d4\n")
    tree.write("\(directory)/fw_ver", "16.35.4030\n")
    guard let verbs else { return }
    tree.write("sys/class/infiniband_verbs/abi_version", "6\n")
    tree.write("sys/class/infiniband_verbs/uverbs\(verbs)/ibdev", "\(name)\n")
    tree.write("dev/infiniband/uverbs\(verbs)", "")
  }

  /// A port, with a GID table of 8 entries of which the first are in use: kind, GID, interface.
  func addPort(
    _ number: Int, of device: String, layer: String, state: String, physicalState: String = "5: LinkUp",
    rate: String = "100 Gb/sec (4X EDR)", gids: [(String, String, String?)] = []
  ) {
    let port = "sys/class/infiniband/\(device)/ports/\(number)"
    tree.write("\(port)/link_layer", "\(layer)\n")
    tree.write("\(port)/state", "\(state)\n")
    tree.write("\(port)/phys_state", "\(physicalState)\n")
    tree.write("\(port)/rate", "\(rate)\n")
    for index in 0..<8 { tree.write("\(port)/gids/\(index)", "0000:0000:0000:0000:0000:0000:0000:0000\n") }
    for (index, (kind, gid, interface)) in gids.enumerated() {
      tree.write("\(port)/gids/\(index)", "\(gid)\n")
      tree.write("\(port)/gid_attrs/types/\(index)", "\(kind)\n")
      if let interface { tree.write("\(port)/gid_attrs/ndevs/\(index)", "\(interface)\n") }
    }
  }

  /// A network interface; `address`: its IPv4 address, if any.
  func addInterface(_ name: String, isUp: Bool = true, mtu: Int = 1500, devPort: Int = 0, address: [UInt8]? = nil) {
    let directory = "sys/class/net/\(name)"
    tree.write("\(directory)/flags", isUp ? "0x1003\n" : "0x1002\n")
    tree.write("\(directory)/mtu", "\(mtu)\n")
    tree.write("\(directory)/dev_port", "\(devPort)\n")
    tree.write("\(directory)/operstate", isUp ? "up\n" : "down\n")
    if isUp { tree.write("\(directory)/carrier", "1\n") }
    if let address = address.flatMap({ NetworkAddress($0) }) {
      addresses.append(.init(interface: name, address: address, prefixLength: 24))
    }
  }

  /// The PCI function behind a device: its driver and the interfaces on it.
  func addFunction(_ device: String, driver: String, interfaces: [String]) {
    let directory = "sys/class/infiniband/\(device)/device"
    tree.link("\(directory)/driver", to: "../../../bus/pci/drivers/\(driver)")
    for name in interfaces { tree.makeDirectories("\(directory)/net/\(name)") }
  }

  var reader: RDMAReader {
    let (addresses, root) = (addresses, tree.path)
    let forbidden = Set(forbidden.map { root + $0 })
    return RDMAReader(root: root, addresses: { addresses }) { path in
      forbidden.contains(path) ? EACCES : access(path, F_OK) == 0 ? 0 : ENOENT
    }
  }

  func read() -> RDMAInventory { reader.read() }
}

/// Made machines.
extension RDMATree {
  static let mapped = "0000:0000:0000:0000:0000:ffff:c000:0201"
  static let linkLocal = "fe80:0000:0000:0000:526b:4bff:fec3:f0d4"

  /// Soft-RoCE over eth0 with 192.0.2.1.
  static func rxe(isUp: Bool = true, address: [UInt8]? = [192, 0, 2, 1]) -> RDMATree {
    let machine = RDMATree()
    machine.addDevice("rxe0")
    machine.tree.write("sys/class/infiniband/rxe0/parent", "eth0\n")
    machine.addPort(
      1, of: "rxe0", layer: "Ethernet", state: isUp ? "4: ACTIVE" : "1: DOWN",
      physicalState: isUp ? "5: LinkUp" : "3: Disabled", rate: "2.5 Gb/sec (1X SDR)",
      gids: [("RoCE v2", linkLocal, "eth0")] + (address == nil ? [] : [("RoCE v2", mapped, "eth0")]))
    machine.addInterface("eth0", isUp: isUp, address: isUp ? address : nil)
    return machine
  }

  /// One PCI function with two Ethernet ports: the first in use on a VLAN, the second without a cable.
  static func twoPorts() -> RDMATree {
    let machine = RDMATree()
    machine.addDevice("mlx5_0")
    machine.addFunction("mlx5_0", driver: "mlx5_core", interfaces: ["ens1f0", "ens1f1"])
    machine.addPort(
      1, of: "mlx5_0", layer: "Ethernet", state: "4: ACTIVE",
      gids: [
        ("IB/RoCE v1", linkLocal, "ens1f0"), ("RoCE v2", linkLocal, "ens1f0"), ("RoCE v2", mapped, "ens1f0.5"),
      ])
    machine.addPort(
      2, of: "mlx5_0", layer: "Ethernet", state: "1: DOWN", physicalState: "3: Disabled",
      gids: [("RoCE v2", linkLocal, "ens1f1")])
    machine.addInterface("ens1f0", mtu: 9000)
    machine.addInterface("ens1f0.5", mtu: 9000, address: [192, 0, 2, 1])
    machine.addInterface("ens1f1", devPort: 1)
    return machine
  }

  /// An InfiniBand HCA with an IPoIB interface.
  static func infiniBand(state: String, physicalState: String, address: [UInt8]? = nil) -> RDMATree {
    let machine = RDMATree()
    machine.addDevice("mlx4_0", verbs: 3)
    machine.addFunction("mlx4_0", driver: "mlx4_core", interfaces: ["ib0"])
    machine.addPort(
      1, of: "mlx4_0", layer: "InfiniBand", state: state, physicalState: physicalState, rate: "40 Gb/sec (4X QDR)",
      gids: [("IB/RoCE v1", "fe80:0000:0000:0000:0002:c903:0010:0001", nil)])
    machine.addInterface("ib0", mtu: 2044, address: address)
    return machine
  }

  /// An iWARP NIC.
  static func iWARP() -> RDMATree {
    let machine = RDMATree()
    machine.addDevice("cxgb4_0", nodeType: "4: RNIC")
    machine.addFunction("cxgb4_0", driver: "cxgb4", interfaces: ["eth2"])
    machine.addPort(
      1, of: "cxgb4_0", layer: "Ethernet", state: "4: ACTIVE",
      gids: [("IB/RoCE v1", "0007:4300:0000:0000:0000:0000:0000:0000", nil)])
    machine.addInterface("eth2", address: [198, 51, 100, 7])
    return machine
  }
}
