import Testing

@testable import Discovery

@Suite("RDMA devices in sysfs")
struct RDMAReaderTests {
  @Test("A machine without RDMA has none, and its nodes are not touched")
  func none() {
    let empty = RDMATree()
    empty.forbidden = ["/dev/infiniband/rdma_cm"]
    #expect(empty.read() == RDMAInventory())
  }

  @Test("Soft-RoCE: driver, GIDs with kind and interface, the interface with its addresses")
  func rxe() throws {
    let inventory = RDMATree.rxe().read()
    let device = try #require(inventory.devices.first)
    #expect(device.name == "rxe0" && device.driver == "rxe" && device.kind == .channelAdapter)
    #expect(device.nodeGUID == "506b:4b03:00c3:f0d4" && device.firmware == "16.35.4030" && device.board == nil)
    #expect(device.verbs == RDMANode(path: "/dev/infiniband/uverbs0", access: .usable))
    let port = try #require(device.ports.first)
    #expect(port.number == 1 && port.linkLayer == .ethernet && port.isActive && port.physicalState == "LinkUp")
    #expect(port.gids.map(\.index) == [0, 1] && port.gidKinds == [.roceV2])
    #expect(port.gids.map(\.address.description) == ["fe80::526b:4bff:fec3:f0d4", "192.0.2.1"])
    #expect(port.gids.allSatisfy { $0.interface == "eth0" })
    #expect(port.interfaces.map(\.name) == ["eth0"])
    #expect(port.interfaces[0].addresses.map(\.description) == ["192.0.2.1"])
    #expect(port.interfaces[0].hasCarrier && port.interfaces[0].mtu == 1500)
    #expect(inventory.connectionManager.access == .usable && inventory.lockedBytesMax == nil)
  }

  @Test("Two ports of one function: each has its own interfaces, VLANs among them")
  func twoPorts() throws {
    let inventory = RDMATree.twoPorts().read()
    let device = try #require(inventory.devices.first)
    #expect(device.driver == "mlx5_core" && device.ports.map(\.number) == [1, 2])
    #expect(device.ports.map { $0.interfaces.map(\.name) } == [["ens1f0", "ens1f0.5"], ["ens1f1"]])
    #expect(device.ports[0].gidKinds == [.roceV2, .roceV1])
    #expect(device.ports[0].transportName == "RoCE v2")
  }

  @Test("InfiniBand and iWARP are told from RoCE, whatever word sysfs has for their GIDs")
  func kinds() throws {
    let hca = try #require(RDMATree.infiniBand(state: "4: ACTIVE", physicalState: "5: LinkUp").read().devices.first)
    #expect(hca.ports[0].linkLayer == .infiniBand && hca.ports[0].gidKinds == [.infiniBand])
    #expect(hca.verbs.path == "/dev/infiniband/uverbs3" && hca.ports[0].interfaces.map(\.name) == ["ib0"])
    let rnic = try #require(RDMATree.iWARP().read().devices.first)
    #expect(rnic.kind == .iWARP && rnic.ports[0].linkLayer == .iWARP && rnic.ports[0].gidKinds == [.iWARP])
    #expect(rnic.ports[0].transportName == "iWARP")
  }

  @Test("The memory lock: a limit, no limit, or a privilege that lifts it")
  func memoryLock() {
    let machine = RDMATree.rxe()
    machine.setLock("8388608")
    #expect(machine.read().lockedBytesMax == 8 << 20)
    machine.setLock("8388608", capabilities: "0000000000004000")
    #expect(machine.read().lockedBytesMax == nil)
    machine.setLock("unlimited")
    #expect(machine.read().lockedBytesMax == nil)
  }

  @Test(
    "A GID is eight groups of four digits; zeroes are no GID",
    arguments: [
      ("fe80:0000:0000:0000:0000:0000:0000:0001", "fe80::1"), ("0000:0000:0000:0000:0000:0000:0000:0000", nil),
      ("fe80::1", nil), ("", nil), ("fe80:0000:0000:0000:0000:0000:0000:000g", nil),
      ("fe80:0000:0000:0000:0000:0000:0000:0001:", nil), ("+e80:0000:0000:0000:0000:0000:0000:0001", nil),
    ] as [(String, String?)])
  func gid(text: String, address: String?) {
    #expect(RDMAReader.gid(text)?.description == address)
  }

  @Test("Files that say nothing sensible make a device that is not usable, and no trap")
  func garbage() throws {
    let machine = RDMATree()
    machine.addDevice("odd0", nodeType: "\u{1B}[2J", verbs: nil)
    machine.addPort(1, of: "odd0", layer: "?", state: "x", gids: [("?", "zz", "../../etc")])
    machine.tree.write("sys/class/infiniband/odd0/ports/x/state", "4: ACTIVE")
    machine.tree.write("sys/class/infiniband/empty0/fw_ver", "")
    let inventory = machine.read()
    #expect(inventory.devices.map(\.name) == ["empty0", "odd0"])
    #expect(inventory.devices.allSatisfy { !inventory.verdict(of: $0).isUsable })
    #expect(inventory.devices[1].ports.map(\.number) == [1] && inventory.devices[1].ports[0].gids.isEmpty)
  }

  @Test(
    "A RoCE packet's payload is what the interface's MTU leaves after the headers",
    arguments: [(9000, 4096), (4200, 4096), (4191, 2048), (1500, 1024), (1119, 512), (352, 256), (351, 0), (0, 0)])
  func roceMTU(mtu: Int, payload: Int) {
    #expect(RDMAInterface(name: "eth0", mtu: mtu).roceMTU == payload)
  }
}

@Suite("What becomes of an RDMA device")
struct RDMAVerdictTests {
  /// The only device's verdict, after a change to the machine.
  func verdict(_ machine: RDMATree, _ change: (RDMATree) -> Void = { _ in }) throws -> RDMAVerdict {
    change(machine)
    let inventory = machine.read()
    return inventory.verdict(of: try #require(inventory.devices.first))
  }

  @Test("Soft-RoCE, a port of two, InfiniBand and iWARP are usable without a warning")
  func usable() throws {
    let good = [
      RDMATree.rxe(), .twoPorts(), .iWARP(),
      .infiniBand(state: "4: ACTIVE", physicalState: "5: LinkUp", address: [10, 0, 0, 1]),
    ]
    for machine in good { #expect(try verdict(machine) == RDMAVerdict()) }
  }

  @Test("An interface that is down speaks for its port; a port that is down speaks of the cable")
  func down() throws {
    #expect(try verdict(.rxe(isUp: false)).obstacles == [.interfaceDown(interface: "eth0")])
    let unplugged = RDMATree.rxe()
    unplugged.tree.write("sys/class/infiniband/rxe0/ports/1/state", "1: DOWN\n")
    #expect(try verdict(unplugged).obstacles == [.portDown(port: 1)])
    #expect(
      try verdict(.infiniBand(state: "1: DOWN", physicalState: "2: Polling", address: [10, 0, 0, 1])).obstacles
        == [.portDown(port: 1)])
  }

  @Test("InfiniBand's port that is not active yet waits for a subnet manager")
  func subnetManager() throws {
    let machine = RDMATree.infiniBand(state: "2: INIT", physicalState: "5: LinkUp", address: [10, 0, 0, 1])
    #expect(try verdict(machine).obstacles == [.noSubnetManager(port: 1)])
  }

  @Test("Without an address there is nothing to connect to; a link-local one is enough, with a warning")
  func addresses() throws {
    #expect(try verdict(.rxe(address: nil)).obstacles == [.noAddress(interface: "eth0")])
    #expect(
      try verdict(.infiniBand(state: "4: ACTIVE", physicalState: "5: LinkUp")).obstacles
        == [.noAddress(interface: "ib0")])
    let local = try #require(NetworkAddress([0xfe, 0x80] + [UInt8](repeating: 0, count: 13) + [1]))
    let machine = RDMATree.rxe(address: nil)
    machine.addresses = [.init(interface: "eth0", address: local, prefixLength: 64)]
    #expect(try verdict(machine) == RDMAVerdict(warnings: [.onlyLinkLocal(interface: "eth0")]))
  }

  @Test("InfiniBand without IPoIB has no interface to find it by")
  func noInterface() throws {
    let machine = RDMATree()
    machine.addDevice("mlx4_0")
    machine.addPort(1, of: "mlx4_0", layer: "InfiniBand", state: "4: ACTIVE")
    let obstacles = try verdict(machine).obstacles
    #expect(obstacles == [.noInterface(port: 1, linkLayer: .infiniBand)])
    #expect(obstacles[0].advice.hasPrefix("modprobe ib_ipoib"))
  }

  @Test("A node that is not there names its module, one that may not be opened names who may")
  func nodes() throws {
    #expect(try verdict(.rxe()) { $0.remove("dev/infiniband/uverbs0") }.obstacles == [.noVerbsNode])
    #expect(
      try verdict(.rxe()) { $0.remove("sys/class/infiniband_verbs/uverbs0/ibdev") }.obstacles == [.noVerbsNode])
    #expect(try verdict(.rxe()) { $0.remove("dev/infiniband/rdma_cm") }.obstacles == [.noConnectionManager])
    let forbidden = try verdict(.rxe()) { $0.forbidden = ["/dev/infiniband/uverbs0", "/dev/infiniband/rdma_cm"] }
    #expect(
      forbidden.obstacles == [
        .forbidden(path: "/dev/infiniband/uverbs0"), .forbidden(path: "/dev/infiniband/rdma_cm"),
      ])
  }

  @Test("A small memory lock is a reason, 64 MiB is not")
  func memoryLock() throws {
    #expect(try verdict(.rxe()) { $0.setLock("8388608") }.obstacles == [.memoryLock(bytesMax: 8 << 20)])
    #expect(try verdict(.rxe()) { $0.setLock("67108864") }.isUsable)
  }

  @Test("RoCE v1 alone is a warning, and so is a port without any GID")
  func gids() throws {
    let old = RDMATree.rxe()
    for index in 0...1 { old.tree.write("sys/class/infiniband/rxe0/ports/1/gid_attrs/types/\(index)", "IB/RoCE v1\n") }
    #expect(try verdict(old) == RDMAVerdict(warnings: [.onlyRoCEv1(port: 1)]))
    let bare = RDMATree.rxe()
    for index in 0...1 {
      bare.tree.write("sys/class/infiniband/rxe0/ports/1/gids/\(index)", "0000:0000:0000:0000:0000:0000:0000:0000\n")
    }
    #expect(try verdict(bare) == RDMAVerdict(warnings: [.noGID(port: 1)]))
  }

  @Test("A kind of device that iSER cannot use, and one without ports")
  func unsupported() throws {
    let machine = RDMATree()
    machine.addDevice("usnic_0", nodeType: "6: usNIC UDP")
    #expect(try verdict(machine).obstacles == [.unsupported(kind: "usNIC UDP")])
    let bare = RDMATree()
    bare.addDevice("mlx5_0")
    #expect(try verdict(bare).obstacles == [.noPort])
  }

  @Test("All reasons are told at once, each with a code of its own and what to do")
  func texts() throws {
    let machine = RDMATree.rxe(isUp: false)
    machine.setLock("65536")
    machine.remove("dev/infiniband/uverbs0")
    machine.remove("dev/infiniband/rdma_cm")
    let obstacles = try verdict(machine).obstacles
    #expect(obstacles.map(\.code) == ["no-verbs-node", "no-connection-manager", "memory-lock", "interface-down"])
    #expect(obstacles.allSatisfy { !$0.advice.isEmpty && $0.sentence.last != "." })
    #expect(obstacles.map(\.isOfSetup) == [true, true, true, false])
  }

  @Test("The addresses to listen on are those of usable ports, link-local ones last")
  func endpoints() throws {
    let machine = RDMATree.twoPorts()
    let local = try #require(NetworkAddress([0xfe, 0x80] + [UInt8](repeating: 0, count: 13) + [1]))
    machine.addresses.insert(.init(interface: "ens1f0", address: local, prefixLength: 64), at: 0)
    machine.addresses.append(.init(interface: "ens1f1", address: local, prefixLength: 64))
    let endpoints = machine.read().endpoints
    #expect(
      endpoints.map { "\($0.device)/\($0.port) \($0.interface) \($0.address)" } == [
        "mlx5_0/1 ens1f0.5 192.0.2.1", "mlx5_0/1 ens1f0 fe80::1",
      ])
    machine.remove("dev/infiniband/rdma_cm")
    #expect(machine.read().endpoints.isEmpty && !machine.read().isUsable)
  }

  @Test("The log has a line for what changed: usable, not usable and why, gone")
  func news() {
    let up = RDMATree.rxe().read()
    #expect(up.news(since: nil) == ["NIC rxe0: usable, RoCE v2 on eth0 192.0.2.1"])
    #expect(up.news(since: up).isEmpty)
    let down = RDMATree.rxe(isUp: false).read()
    #expect(down.news(since: up) == ["NIC rxe0: not usable: interface eth0 is down; ip link set eth0 up"])
    #expect(RDMAInventory().news(since: down) == ["NIC rxe0 gone"])
    #expect(
      RDMATree.twoPorts().read().news(since: up) == [
        "NIC rxe0 gone", "NIC mlx5_0: usable, RoCE v2 on ens1f0.5 192.0.2.1",
      ])
    // A fact that is nobody's news.
    var renamed = up
    renamed.devices[0].firmware = "1"
    #expect(renamed != up && renamed.news(since: up).isEmpty)
  }
}
