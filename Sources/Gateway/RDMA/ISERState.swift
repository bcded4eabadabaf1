import Discovery

/// Whether the gateway serves iSER, as `status` tells it.
public enum ISERState: Equatable, Sendable {
  /// Nothing is wrong, but there is nothing to listen with, or nobody wants it.
  case off(String)
  /// The addresses with their ports at which initiators reach it over RDMA.
  case listening([String])
  case failed(String)

  /// One line: "off: no RDMA device; TCP only".
  public var text: String {
    switch self {
    case .off(let reason): "off: \(reason); TCP only"
    case .listening(let addresses): "listening on \(addresses.joined(separator: ", "))"
    case .failed(let reason): "failed: \(reason); TCP only"
    }
  }

  /// What is true of a listener, seen together with the NICs: one that listens where there are none serves nobody.
  ///
  /// - Parameters:
  ///   - inventory: nil: nobody has looked yet.
  ///   - listener: what the listener itself says.
  public static func of(isEnabled: Bool, inventory: RDMAInventory?, listener: ISERState) -> ISERState {
    guard isEnabled else { return .off("switched off by the settings or by --no-iser") }
    guard let inventory else { return .off("looking for RDMA devices") }
    guard !inventory.devices.isEmpty else { return .off("no RDMA device") }
    if case .failed = listener { return listener }
    guard inventory.isUsable else { return .off("no RDMA device can be used ('gatewayd nics' says why)") }
    return listener
  }

  /// Where initiators reach a listener on these addresses over RDMA: one on every address stands for each that a NIC
  /// has. Link-local ones mean something else on each machine and are left out where there are others.
  public static func reachable(_ listening: [ListenAddress], _ endpoints: [RDMAInventory.Endpoint]) -> [String] {
    let isOther = endpoints.contains { !$0.address.isLinkLocal }
    let addresses = endpoints.filter { !isOther || !$0.address.isLinkLocal }.map(\.address)
    var found: [String] = []
    for listener in listening {
      for address in addresses where listener.stands(for: address) {
        let text = ListenAddress(host: address.description, port: listener.port).description
        if !found.contains(text) { found.append(text) }
      }
    }
    return found
  }
}

extension ListenAddress {
  /// Whether a listener on this address is reached at that one.
  fileprivate func stands(for address: NetworkAddress) -> Bool {
    switch host {
    // Each family is listened on by itself.
    case "::": address.isIPv6
    case "0.0.0.0": !address.isIPv6
    default: IPNetwork.bytes(ofAddress: String(host.prefix { $0 != "%" })) == address.bytes
    }
  }
}
