import Wire

/// A question of one node to the other, or the answer: what cannot be said in a heartbeat. Signed like one.
///
/// Layout, big-endian: magic(4) version(1) kind(1) zero(2) cluster(16) node(16) boot(8) to boot(8) number(8), body,
/// authenticator(16). Longer than a frame, if it must be: the network may cut it.
public struct PeerCall: Equatable, Sendable {
  public enum Kind: UInt8, Sendable {
    case question = 1
    case answer = 2
  }

  public static let version: UInt8 = 1
  public static let bodyBytesMax = 24 << 10
  public static let byteCountMax = headerBytes + bodyBytesMax + HeartbeatCodec.authenticatorBytes

  /// "gwPC"
  private static let magic: UInt32 = 0x6777_5043
  private static let headerBytes = 64

  public var kind: Kind
  public var cluster: UUID
  /// Whose message it is.
  public var node: UUID
  public var bootID: UInt64
  /// The start of the other node's program that it is meant for: what was recorded earlier is for nobody.
  public var toBoot: UInt64
  /// Grows with each question of a boot; an answer has its question's.
  public var number: UInt64
  /// At most `bodyBytesMax`.
  public var body: [UInt8]

  public init(
    kind: Kind, cluster: UUID, node: UUID, bootID: UInt64, toBoot: UInt64, number: UInt64, body: [UInt8]
  ) {
    self.kind = kind
    self.cluster = cluster
    self.node = node
    self.bootID = bootID
    self.toBoot = toBoot
    self.number = number
    self.body = body
  }

  public func encode(key: [UInt8]) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(Self.headerBytes + body.count + HeartbeatCodec.authenticatorBytes)
    bytes.append(be: Self.magic)
    bytes += [Self.version, kind.rawValue, 0, 0]
    bytes += cluster.bytes
    bytes += node.bytes
    bytes.append(be: bootID)
    bytes.append(be: toBoot)
    bytes.append(be: number)
    bytes += body.prefix(Self.bodyBytesMax)
    return HeartbeatCodec.sign(bytes, key: key)
  }

  /// Whether a datagram says that it is one.
  public static func isOne(_ bytes: [UInt8]) -> Bool { bytes.count >= 4 && bytes.span.bytes.be32(0) == magic }

  /// Reads a datagram; total for any bytes. The authenticator is compared before anything else of it is believed.
  public static func decode(_ bytes: [UInt8], key: [UInt8]) throws(HeartbeatFault) -> PeerCall {
    let end = bytes.count - HeartbeatCodec.authenticatorBytes
    guard end >= headerBytes, isOne(bytes) else { throw .foreign }
    guard bytes[4] == version else { throw .unknownVersion }
    guard bytes.count <= byteCountMax else { throw .malformed }
    guard HeartbeatCodec.isSigned(bytes, key: key) else { throw .notAuthentic }
    guard let kind = Kind(rawValue: bytes[5]) else { throw .malformed }
    let span = bytes.span.bytes
    return PeerCall(
      kind: kind, cluster: uuid(bytes, at: 8), node: uuid(bytes, at: 24), bootID: span.be64(40), toBoot: span.be64(48),
      number: span.be64(56), body: Array(bytes[headerBytes..<end]))
  }
}
