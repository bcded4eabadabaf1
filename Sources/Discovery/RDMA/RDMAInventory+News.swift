// What is said of the devices in the log: a line each, and only when it has changed.

extension RDMAInventory {
  /// "NIC rxe0: usable, RoCE v2 on eth1 192.0.2.1", "NIC mlx5_0: not usable: port 1 is down; check the cable …".
  public func headline(of device: RDMADevice) -> String {
    let verdict = verdict(of: device)
    let name = "NIC \(KernelText.printable(device.name))"
    guard verdict.isUsable else {
      let reasons = verdict.obstacles.map { "\($0.sentence); \($0.advice)" }
      return "\(name): not usable: \(reasons.joined(separator: ". "))"
    }
    let ports = device.ports.filter { RDMAVerdict.obstacles(of: $0).isEmpty }.map(Self.summary)
    let warnings = verdict.warnings.map { "; \($0.sentence)" }.joined()
    return "\(name): usable, \(ports.joined(separator: ", "))\(warnings)"
  }

  /// "RoCE v2 on eth1 192.0.2.1".
  private static func summary(of port: RDMAPort) -> String {
    let places = port.interfaces.filter { $0.isUp && !$0.addresses.isEmpty }.map { interface in
      let own = interface.addresses
      // The link-local one that every IPv6 interface has is of interest only where there is no other.
      let shown = own.contains { !$0.isLinkLocal } ? own.filter { !$0.isLinkLocal } : own
      return "\(KernelText.printable(interface.name)) \(shown.map(\.description).joined(separator: " "))"
    }
    return "\(port.transportName) on \(places.joined(separator: " and "))"
  }

  /// The lines for what has changed since an earlier look; nil: the first one.
  public func news(since old: RDMAInventory?) -> [String] {
    let before = old ?? RDMAInventory()
    let known = Set(before.devices.map { before.headline(of: $0) })
    let present = Set(devices.map(\.name))
    let gone = before.devices.filter { !present.contains($0.name) }
    return gone.map { "NIC \(KernelText.printable($0.name)) gone" }
      + devices.map { headline(of: $0) }.filter { !known.contains($0) }
  }
}

extension RDMAPort {
  /// The best that its GIDs allow: "RoCE v2"; without GIDs what its link layer says.
  public var transportName: String {
    if let best = gidKinds.first { return best.rawValue }
    return linkLayer == .ethernet ? "RoCE" : linkLayer.rawValue
  }
}
