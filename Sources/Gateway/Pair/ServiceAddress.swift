import Discovery
import Glibc

/// An address that belongs to whoever of the pair is active: `192.0.2.10/24`, `2001:db8::10/64`, `192.0.2.10/24%eth1`.
public struct ServiceAddress: Hashable, Sendable, CustomStringConvertible {
  public static let allowed =
    "ADDRESS/PREFIX or ADDRESS/PREFIX%INTERFACE, as in \"192.0.2.10/24\" or \"2001:db8::10/64%eth1\""

  /// Each is added and announced in turn: a takeover waits for that.
  static let countMax = 32

  public let address: NetworkAddress
  /// Bits of the network's part: 1 to 32 or 128.
  public let prefix: Int
  /// nil: the interface that has a network with this address.
  public let interface: String?

  public init(address: NetworkAddress, prefix: Int, interface: String? = nil) {
    self.address = address
    self.prefix = prefix
    self.interface = interface
  }

  public init(parsing text: String) throws(ValueError) {
    let halves = text.split(separator: "%", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    let parts = halves[0].split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    guard let bytes = IPNetwork.bytes(ofAddress: parts[0]), let address = NetworkAddress(bytes), parts.count == 2 else {
      throw ValueError("'\(text)' is not an address with its prefix; allowed: \(Self.allowed)")
    }
    let bits = address.bytes.count * 8
    guard let prefix = Int(parts[1]), (1...bits).contains(prefix) else {
      throw ValueError("'\(text)': the prefix is 1 to \(bits)")
    }
    guard Self.canMove(address) else {
      throw ValueError("'\(text)' is not an address that can move from one machine to another")
    }
    self.init(address: address, prefix: prefix, interface: halves.count == 2 ? try Self.name(halves[1], of: text) : nil)
  }

  /// Whether it can belong to one machine now and to another one later.
  static func canMove(_ address: NetworkAddress) -> Bool {
    !address.isUnassignable && !address.isLoopback && !address.isLinkLocal
  }

  private static func name(_ name: String, of text: String) throws(ValueError) -> String {
    // dev_valid_name() of the kernel.
    guard (1...15).contains(name.utf8.count), name != ".", name != "..",
      name.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: ":") })
    else { throw ValueError("'\(text)': '\(name)' is not the name of an interface") }
    return name
  }

  public var description: String { "\(address)/\(prefix)" + (interface.map { "%\($0)" } ?? "") }

  /// The interface that it belongs to: the one that is told, or the one with the smallest network that contains it.
  func home(among interfaces: NetworkInterfaces) -> String? {
    if let interface { return interface }
    let candidates = interfaces.addresses.filter { local in
      // Its own address, left over or taken, says nothing; nor does a network of one.
      !local.isLoopback && local.address != address && local.prefixLength < local.address.bytes.count * 8
        && NetworkInterfaces(addresses: [local]).isConnected(address)
    }
    return candidates.max { $0.prefixLength < $1.prefixLength }?.interface
  }
}

extension NetworkInterfaces {
  /// Whether one of the networks contains the address.
  fileprivate func isConnected(_ address: NetworkAddress) -> Bool {
    addresses.contains { local in
      guard local.address.bytes.count == address.bytes.count, local.prefixLength > 0 else { return false }
      return zip(local.address.bytes, address.bytes).enumerated().allSatisfy { index, pair in
        let bits = min(max(local.prefixLength - index * 8, 0), 8)
        return (pair.0 ^ pair.1) >> (8 - bits) == 0 || bits == 0
      }
    }
  }
}
