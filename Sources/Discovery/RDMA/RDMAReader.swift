import Glibc

/// Reads the RDMA devices and what they need from /sys, /proc and /dev.
public struct RDMAReader: Sendable {
  static let nodeDirectory = "/dev/infiniband"
  static let connectionManagerPath = "/dev/infiniband/rdma_cm"
  /// A GID table has at most a few hundred entries; each is a file.
  private static let gidsMax = 1024
  private static let unusedGID = "0000:0000:0000:0000:0000:0000:0000:0000"

  /// "", or a tree made for a test.
  var root: String
  /// The addresses of interfaces that are up.
  var addresses: @Sendable () -> [NetworkInterfaces.Address]
  /// Whether a node can be opened for reading and writing: 0 or errno. Permissions alone do not tell: a service's
  /// DeviceAllow= is not among them.
  var tryOpening: @Sendable (String) -> Int32

  public init(root: String = "") {
    self.init(root: root, addresses: { (try? NetworkInterfaces.read())?.addresses ?? [] })
  }

  init(
    root: String, addresses: @escaping @Sendable () -> [NetworkInterfaces.Address],
    tryOpening: @escaping @Sendable (String) -> Int32 = RDMAReader.open
  ) {
    self.root = root
    self.addresses = addresses
    self.tryOpening = tryOpening
  }

  /// Everything, read now.
  public func read() -> RDMAInventory {
    let names = KernelText.names(in: "\(root)/sys/class/infiniband")
    guard !names.isEmpty else { return RDMAInventory() }
    let addresses = addresses()
    let nodes = verbsNodes()
    let devices = names.map { device($0, addresses: addresses, verbs: nodes[$0]) }
    return RDMAInventory(
      devices: devices, connectionManager: node(Self.connectionManagerPath), lockedBytesMax: lockedBytesMax())
  }

  /// The path of the uverbs node of each device.
  private func verbsNodes() -> [String: String] {
    let directory = "\(root)/sys/class/infiniband_verbs"
    var nodes: [String: String] = [:]
    for name in KernelText.names(in: directory) {
      // The directory has a file "abi_version", too.
      if let device = KernelText.attribute("\(directory)/\(name)/ibdev") {
        nodes[device] = "\(Self.nodeDirectory)/\(name)"
      }
    }
    return nodes
  }

  private func node(_ path: String?) -> RDMANode {
    guard let path else { return RDMANode(access: .absent) }
    return switch tryOpening(root + path) {
    case 0: RDMANode(path: path, access: .usable)
    case EACCES, EPERM: RDMANode(path: path, access: .forbidden)
    default: RDMANode(path: path, access: .absent)
    }
  }

  private static func open(_ path: String) -> Int32 {
    let descriptor = Glibc.open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { return errno }
    close(descriptor)
    return 0
  }

  // MARK: A device

  private func device(_ name: String, addresses: [NetworkInterfaces.Address], verbs: String?) -> RDMADevice {
    let directory = "\(root)/sys/class/infiniband/\(name)"
    let kind = kind(directory)
    let numbers = KernelText.names(in: "\(directory)/ports").compactMap { Int($0) }.sorted()
    let ports = numbers.map { number in
      port(number, of: directory, isOnly: numbers.count == 1, isIWARP: kind == .iWARP, addresses: addresses)
    }
    return RDMADevice(
      name: name, kind: kind, driver: driver(directory), nodeGUID: KernelText.attribute("\(directory)/node_guid"),
      firmware: KernelText.attribute("\(directory)/fw_ver"), board: KernelText.attribute("\(directory)/board_id"),
      ports: ports, verbs: node(verbs))
  }

  /// "1: CA", "4: RNIC" (`enum rdma_node_type`).
  private func kind(_ directory: String) -> RDMADevice.Kind {
    let text = KernelText.attribute("\(directory)/node_type") ?? ""
    return switch Self.number(text) {
    case 1: .channelAdapter
    case 4: .iWARP
    default: .other(Self.word(text) ?? "unknown")
    }
  }

  private func driver(_ directory: String) -> String {
    if let link = KernelText.link("\(directory)/device/driver"), let name = link.split(separator: "/").last {
      return String(name)
    }
    // Devices made of software have no driver behind them; each tells in its own way.
    if KernelText.exists("\(directory)/parent") { return "rxe" }
    let description = KernelText.attribute("\(directory)/node_desc") ?? ""
    return description.hasPrefix("Software iWARP") ? "siw" : description.hasPrefix("rxe") ? "rxe" : "virtual"
  }

  // MARK: A port

  private func port(
    _ number: Int, of device: String, isOnly: Bool, isIWARP: Bool, addresses: [NetworkInterfaces.Address]
  ) -> RDMAPort {
    let directory = "\(device)/ports/\(number)"
    let layer: RDMAPort.LinkLayer =
      switch KernelText.attribute("\(directory)/link_layer") {
      case _ where isIWARP: .iWARP
      case "InfiniBand": .infiniBand
      case "Ethernet": .ethernet
      default: .unknown
      }
    let state = KernelText.attribute("\(directory)/state").flatMap(Self.number)
    let gids = gids(directory, layer)
    let names = interfaces(number, of: device, gids: gids, isOnly: isOnly)
    return RDMAPort(
      number: number, linkLayer: layer, state: state.flatMap(RDMAPort.State.init) ?? .down,
      physicalState: KernelText.attribute("\(directory)/phys_state").flatMap(Self.word),
      rate: KernelText.attribute("\(directory)/rate"), gids: gids,
      interfaces: names.map { interface($0, addresses: addresses) })
  }

  /// The entries in use. An unused one reads as zeroes, and its attributes not at all.
  private func gids(_ port: String, _ layer: RDMAPort.LinkLayer) -> [RDMAGID] {
    let indices = KernelText.names(in: "\(port)/gids").compactMap { Int($0) }.sorted().prefix(Self.gidsMax)
    return indices.compactMap { index in
      // Nearly all of a thousand: they are not taken apart.
      guard let text = KernelText.attribute("\(port)/gids/\(index)"), text != Self.unusedGID,
        let address = Self.gid(text)
      else { return nil }
      let type = KernelText.attribute("\(port)/gid_attrs/types/\(index)")
      let kind: RDMAGID.Kind =
        switch (layer, type) {
        case (.iWARP, _): .iWARP
        case (.infiniBand, _): .infiniBand
        case (_, "RoCE v2"): .roceV2
        // "IB/RoCE v1": one word for both.
        default: .roceV1
        }
      return RDMAGID(
        index: index, kind: kind, address: address,
        interface: KernelText.attribute("\(port)/gid_attrs/ndevs/\(index)"))
    }
  }

  /// The names of the network interfaces over a port: of its GIDs (that is where VLANs and bonds are), of a software
  /// device's parent, and of the same piece of hardware.
  private func interfaces(_ port: Int, of device: String, gids: [RDMAGID], isOnly: Bool) -> [String] {
    var names = gids.compactMap(\.interface)
    if let parent = KernelText.attribute("\(device)/parent") { names.append(parent) }
    for name in KernelText.names(in: "\(device)/device/net") {
      // Ports of one PCI function are told apart by dev_port, from 0.
      let index = KernelText.number("\(root)/sys/class/net/\(name)/dev_port").map { Int(clamping: $0) }
      if isOnly || index == port - 1 { names.append(name) }
    }
    var seen: Set<String> = []
    return names.filter { !$0.utf8.contains(UInt8(ascii: "/")) && seen.insert($0).inserted }
  }

  private func interface(_ name: String, addresses: [NetworkInterfaces.Address]) -> RDMAInterface {
    let directory = "\(root)/sys/class/net/\(name)"
    let flags = KernelText.attribute("\(directory)/flags").flatMap { UInt32($0.dropFirst(2), radix: 16) } ?? 0
    let own = addresses.filter { $0.interface == name }.map(\.address)
    return RDMAInterface(
      name: name, isUp: flags & UInt32(IFF_UP) != 0,
      // Reading it fails while the interface is down.
      hasCarrier: KernelText.number("\(directory)/carrier") == 1,
      operationalState: KernelText.attribute("\(directory)/operstate"),
      mtu: Int(clamping: KernelText.number("\(directory)/mtu") ?? 0),
      addresses: own.filter { !$0.isLinkLocal } + own.filter(\.isLinkLocal))
  }

  // MARK: Texts

  /// The number of "4: ACTIVE".
  static func number(_ text: String) -> Int? { Int(text.prefix { $0 != ":" }) }

  /// The word of "4: ACTIVE".
  static func word(_ text: String) -> String? {
    let parts = text.split(separator: ":", maxSplits: 1)
    return parts.count == 2 ? KernelText.trimmed(parts[1].utf8) : nil
  }

  /// Eight groups of four hexadecimal digits; nil if it is anything else, or unspecified.
  static func gid(_ text: String) -> NetworkAddress? {
    let groups = text.split(separator: ":", omittingEmptySubsequences: false)
    let numbers = groups.compactMap { group in
      // The initialiser takes a sign, too.
      group.utf8.count == 4 && group.allSatisfy(\.isHexDigit) ? UInt16(group, radix: 16) : nil
    }
    guard groups.count == 8, numbers.count == 8, numbers.contains(where: { $0 != 0 }) else { return nil }
    return NetworkAddress(numbers.flatMap { [UInt8($0 >> 8), UInt8(truncatingIfNeeded: $0)] })
  }

  // MARK: The memory lock

  /// CAP_IPC_LOCK, bit 14 (capability.h): its holder locks what it likes.
  private static let lockCapability: UInt64 = 1 << 14

  private func lockedBytesMax() -> UInt64? {
    func row(_ file: String, _ title: String) -> Substring? {
      KernelText.text(of: "\(root)/proc/self/\(file)", limit: 16384)?.split(separator: "\n")
        .first { $0.hasPrefix(title) }?.dropFirst(title.count)
    }
    let capabilities = row("status", "CapEff:").flatMap { UInt64(KernelText.trimmed($0.utf8), radix: 16) } ?? 0
    if capabilities & Self.lockCapability != 0 { return nil }
    let soft = row("limits", "Max locked memory")?.split(separator: " ").first
    return soft.flatMap { UInt64($0) }
  }
}
