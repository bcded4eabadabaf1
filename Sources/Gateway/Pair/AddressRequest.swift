import Discovery
import Glibc

/// What of service addresses takes a privilege: all that the privileged part does for the daemon (docs/ARCHITECTURE.md).
struct AddressRequest: Equatable, Sendable {
  enum Operation: UInt8, Sendable {
    case add = 1
    case remove = 2
    /// Tells the neighbours where it is.
    case announce = 3
  }

  var operation: Operation
  var address: NetworkAddress
  /// Bits of the network's part; of no meaning to `announce`, and then 0.
  var prefix: Int
  /// Number of the interface.
  var index: UInt32

  static let byteCount = 24

  /// Operation, bytes of the address, prefix, zero; index (big-endian); the address and zeroes behind it.
  var encoded: [UInt8] {
    var bytes: [UInt8] = [operation.rawValue, UInt8(address.bytes.count), UInt8(prefix), 0]
    bytes += (0..<4).map { UInt8(truncatingIfNeeded: index >> (24 - 8 * UInt32($0))) }
    bytes += address.bytes
    return bytes + [UInt8](repeating: 0, count: Self.byteCount - bytes.count)
  }

  init(_ operation: Operation, _ address: NetworkAddress, prefix: Int = 0, index: UInt32) {
    self.operation = operation
    self.address = address
    self.prefix = prefix
    self.index = index
  }

  /// nil: it is no request, or names an address that cannot move from one machine to another.
  init?(decoding bytes: [UInt8]) {
    guard bytes.count == Self.byteCount, let operation = Operation(rawValue: bytes[0]), [4, 16].contains(bytes[1]),
      let address = NetworkAddress(Array(bytes[8..<8 + Int(bytes[1])])), address.bytes.count == bytes[1],
      ServiceAddress.canMove(address)
    else { return nil }
    let index = bytes[4..<8].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    self.init(operation, address, prefix: Int(bytes[2]), index: index)
    let isPrefixGood = operation == .announce ? prefix == 0 : (1...address.bytes.count * 8).contains(prefix)
    // One form for each request: so nothing is hidden behind an address.
    guard isPrefixGood, index > 0, index <= UInt32(Int32.max), encoded == bytes else { return nil }
  }

  /// The answer: 0 or a positive errno, big-endian.
  static func encode(result: Int32) -> [UInt8] {
    (0..<4).map { UInt8(truncatingIfNeeded: UInt32(bitPattern: result) >> (24 - 8 * UInt32($0))) }
  }

  static func result(_ bytes: [UInt8]) -> Int32? {
    guard bytes.count == 4 else { return nil }
    return Int32(bitPattern: bytes.reduce(UInt32(0)) { $0 << 8 | UInt32($1) })
  }
}
