import FoundationEssentials
import Testing

@testable import Discovery
@testable import Gateway

/// A NIC with two ports, of which the second has no cable, and one that has nothing behind it.
let madeInventory: RDMAInventory = {
  let address = NetworkAddress([192, 0, 2, 1])!
  let good = RDMAPort(
    number: 1, linkLayer: .ethernet, state: .active, physicalState: "LinkUp", rate: "100 Gb/sec (4X EDR)",
    gids: [RDMAGID(index: 3, kind: .roceV2, address: address, interface: "eth1")],
    interfaces: [RDMAInterface(name: "eth1", mtu: 1500, addresses: [address])])
  let down = RDMAPort(
    number: 2, linkLayer: .ethernet, state: .down, physicalState: "Disabled",
    interfaces: [RDMAInterface(name: "eth2", hasCarrier: false, operationalState: "down")])
  let node = RDMANode(path: "/dev/infiniband/uverbs0", access: .usable)
  return RDMAInventory(
    devices: [
      RDMADevice(name: "mlx5_0", driver: "mlx5_core", firmware: "16.35", ports: [good, down], verbs: node),
      RDMADevice(name: "mlx5_1", driver: "mlx5_core", ports: [down], verbs: RDMANode(access: .absent)),
    ], connectionManager: RDMANode(path: "/dev/infiniband/rdma_cm", access: .usable))
}()

@Suite("What is told of RDMA NICs")
struct RDMAReportTests {
  func json(_ report: some Encodable) throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(report), as: UTF8.self)
  }

  @Test("A NIC's JSON has the fields that scripts read")
  func nicJSON() throws {
    let reports = NICReport.all(madeInventory)
    #expect(
      try json(reports[0])
        == #"{"driver":"mlx5_core","firmware":"16.35","name":"mlx5_0","ports":["#
        + #"{"gidTypes":["RoCE v2"],"gids":[{"address":"192.0.2.1","index":3,"interface":"eth1","type":"RoCE v2"}],"#
        + #""interfaces":[{"addresses":["192.0.2.1"],"hasCarrier":true,"isUp":true,"mtu":1500,"name":"eth1"}],"#
        + #""linkLayer":"Ethernet","number":1,"physicalState":"LinkUp","rate":"100 Gb/sec (4X EDR)","reasons":[],"#
        + #""roceMTU":1024,"state":"ACTIVE"},"#
        + #"{"gidTypes":[],"gids":[],"interfaces":[{"addresses":[],"hasCarrier":false,"isUp":true,"mtu":1500,"#
        + #""name":"eth2"}],"linkLayer":"Ethernet","number":2,"physicalState":"Disabled","reasons":["#
        + #"{"advice":"check the cable and the switch","code":"port-down","isOfSetup":false,"reason":"port 2 is down"}],"#
        + #""state":"DOWN"}],"reasons":[],"verdict":"usable","warnings":[]}"#)
    #expect(reports[1].verdict == .unusable && reports[1].reasons.map(\.code) == ["no-verbs-node", "port-down"])
  }

  @Test("The status has the listener's state and the NICs; without the section it is an older gatewayd's")
  func statusJSON() throws {
    var status = ScriptedControl.report
    status.rdma = RDMAReport(listener: ISERListenerReport(.off("no RDMA device")), nics: [])
    let text = try json(status)
    #expect(text.contains(#""rdma":{"listener":{"addresses":[],"reason":"no RDMA device","state":"off"},"nics":[]}"#))
    #expect(try JSONDecoder().decode(StatusReport.self, from: Data(text.utf8)) == status)
    status.rdma = nil
    #expect(try JSONDecoder().decode(StatusReport.self, from: Data(try json(status).utf8)).rdma == nil)
  }

  @Test("The status has one line for iSER")
  func statusText() {
    var status = ScriptedControl.report
    #expect(!status.text.contains("iSER"))
    status.rdma = RDMAReport(listener: ISERListenerReport(.off("no RDMA device")), nics: [])
    #expect(status.text.contains("iSER      off: no RDMA device; TCP only\n"))
    status.rdma?.listener = ISERListenerReport(.listening(["192.0.2.1:3260", "[fd00::1]:3260"]))
    #expect(status.text.contains("iSER      listening on 192.0.2.1:3260, [fd00::1]:3260\n"))
    status.rdma?.listener = ISERListenerReport(.failed("no memory"))
    #expect(status.text.contains("iSER      failed: no memory; TCP only\n"))
  }

  @Test("The table has a row for each port, and below it what to do")
  func table() {
    let lines = NICReport.text(NICReport.all(madeInventory)).split(separator: "\n")
    #expect(lines[0].split(separator: " ").map(String.init).prefix(4) == ["NIC", "DRIVER", "PORT", "LINK"])
    #expect(lines[1].hasPrefix("mlx5_0") && lines[1].contains("192.0.2.1") && lines[1].hasSuffix("usable"))
    #expect(lines[3].hasPrefix("mlx5_1") && lines[3].hasSuffix("unusable"))
    #expect(lines[4] == "mlx5_1: it has no uverbs node in /dev/infiniband: modprobe ib_uverbs")
    #expect(lines[5] == "mlx5_1: port 1 is down: check the cable and the switch" || lines[5].contains("port 2 is down"))
    #expect(NICReport.text([]) == "No RDMA NICs.\n")
  }

  @Test("What a listener says counts only where there is something to listen with")
  func listenerState() {
    let listening = ISERState.listening(["192.0.2.1:3260"])
    func state(_ inventory: RDMAInventory?, _ listener: ISERState, isEnabled: Bool = true) -> ISERState {
      ISERState.of(isEnabled: isEnabled, inventory: inventory, listener: listener)
    }
    #expect(state(madeInventory, listening) == listening)
    #expect(state(RDMAInventory(), listening) == .off("no RDMA device"))
    #expect(state(nil, listening) == .off("looking for RDMA devices"))
    #expect(state(madeInventory, listening, isEnabled: false) == .off("switched off by the settings or by --no-iser"))
    #expect(state(madeInventory, .failed("x")) == .failed("x"))
    #expect(state(RDMAInventory(), .failed("x")) == .off("no RDMA device"))
    var locked = madeInventory
    locked.lockedBytesMax = 65536
    #expect(state(locked, listening) == .off("no RDMA device can be used ('gatewayd nics' says why)"))
  }

  @Test("A listener on every address is reached at each that a NIC has, by family")
  func reachable() throws {
    func endpoint(_ text: String) throws -> RDMAInventory.Endpoint {
      let bytes = try #require(IPNetwork.bytes(ofAddress: text))
      return .init(device: "d", port: 1, interface: "eth1", address: try #require(NetworkAddress(bytes)))
    }
    let endpoints = try ["192.0.2.1", "fd00::1", "fe80::1"].map(endpoint)
    func reached(_ hosts: String...) -> [String] {
      ISERState.reachable(hosts.map { ListenAddress(host: $0, port: 3260) }, endpoints)
    }
    #expect(reached("::", "0.0.0.0") == ["[fd00::1]:3260", "192.0.2.1:3260"])
    #expect(reached("0.0.0.0") == ["192.0.2.1:3260"])
    #expect(reached("192.0.2.1", "192.0.2.9") == ["192.0.2.1:3260"])
    #expect(ISERState.reachable([ListenAddress(host: "::", port: 1)], [endpoints[2]]) == ["[fe80::1]:1"])
  }
}

@Suite("Doctor: RDMA")
struct RDMADoctorTests {
  func checks(
    _ nics: [NICReport], listener: ISERState = .off("x"), _ files: MachineFiles
  ) -> [String: DoctorCheck] {
    let all = RDMAChecks.all(nics, listener: ISERListenerReport(listener), files)
    return Dictionary(all.map { ($0.name, $0) }) { first, _ in first }
  }

  @Test("A machine without RDMA is in order; hardware whose module is missing is named")
  func none() throws {
    #expect(RDMAChecks.all([], listener: nil, try MadeMachine().files).map(\.outcome) == [.note])
    let machine = try MadeMachine(
      ["/sys/class/net/eth1/mtu": "1500"], links: ["/sys/class/net/eth1/device/driver": "../../drivers/mlx5_core"])
    #expect(RDMAChecks.all([], listener: nil, machine.files)[0].advice == "modprobe mlx5_ib")
  }

  @Test("A NIC is fine, not usable for want of a cable (a note) or of a module (a problem)")
  func nics() throws {
    let machine = try MadeMachine(["/sys/module/ib_uverbs/refcnt": "1"])
    let found = checks(NICReport.all(madeInventory), listener: .listening(["192.0.2.1:3260"]), machine.files)
    #expect(found["NIC mlx5_0"]?.outcome == .fine && found["NIC mlx5_1"]?.outcome == .problem)
    #expect(found["NIC mlx5_1"]?.advice == "modprobe ib_uverbs\ncheck the cable and the switch")
    #expect(found["GIDs mlx5_0/1"]?.finding == "RoCE v2")
    #expect(found["MTU mlx5_0/1"]?.outcome == .note && found["MTU mlx5_0/2"] == nil)
    #expect(found["MTU mlx5_0/1"]?.advice?.hasPrefix("ip link set eth1 mtu 4200\n") == true)
    #expect(found["PFC/ECN mlx5_0/1"]?.finding.hasPrefix("not readable here") == true)
    #expect(found["RDMA modules"]?.advice == "modprobe -a rdma_ucm")
    #expect(found["iSER"]?.outcome == .fine)
    var unplugged = madeInventory
    unplugged.devices = [unplugged.devices[1]]
    unplugged.devices[0].verbs.access = .usable
    #expect(checks(NICReport.all(unplugged), machine.files)["NIC mlx5_1"]?.outcome == .note)
  }

  @Test("MTU and GIDs of RoCE: small packets are a problem, v1 alone a note; ECN is told where it can be read")
  func roce() throws {
    var inventory = madeInventory
    inventory.devices[0].ports[0].interfaces[0].mtu = 900
    inventory.devices[0].ports[0].gids[0].kind = .roceV1
    let machine = try MadeMachine([
      "/sys/class/net/eth1/ecn/roce_np/enable/3": "1\n", "/sys/class/net/eth1/ecn/roce_np/enable/4": "0\n",
    ])
    let found = checks(NICReport.all(inventory), listener: .failed("x"), machine.files)
    #expect(found["MTU mlx5_0/1"]?.outcome == .problem && found["GIDs mlx5_0/1"]?.outcome == .note)
    #expect(found["NIC mlx5_0"]?.outcome == .note && found["iSER"]?.outcome == .problem)
    #expect(found["PFC/ECN mlx5_0/1"]?.finding.hasPrefix("ECN is on for priorities 3;") == true)
    inventory.devices[0].ports[0].interfaces[0].mtu = 9000
    inventory.devices[0].driver = "rxe"
    let software = checks(NICReport.all(inventory), machine.files)
    #expect(software["MTU mlx5_0/1"]?.outcome == .fine && software["PFC/ECN mlx5_0/1"] == nil)
  }

  @Test("Commands for iSER come beside TCP's, and multipath knows our disks by their INQUIRY data")
  func guides() {
    let target = InitiatorGuide.Target(
      name: "iqn.2024-01.a:b", portals: ["192.0.2.1:3260"], rdmaPortals: ["192.0.2.9:3260"], isPair: false)
    let commands = InitiatorGuide(.linux, target).commands
    #expect(commands.contains("attach '192.0.2.9:3260' iser") && commands.contains("attach '192.0.2.1:3260' default"))
    #expect(commands.contains("    vendor \"\(DiscoveryPolicy().ownVendor)\"") && commands.contains("    prio alua"))
    #expect(InitiatorGuide(.vmware, target).notes.contains { $0.contains("esxcli rdma iser add") })
  }
}
