import CNettle
import Wire

/// Why a message is dropped. Each is counted; none changes anything.
public enum HeartbeatFault: Error, Equatable, Sendable, CaseIterable {
  /// Not a heartbeat at all.
  case foreign
  /// Of a version that this program does not know.
  case unknownVersion
  /// Made without the pair's key, or changed on its way: another cluster's, a node without our disks, an attacker's.
  case notAuthentic
  /// Authentic, but no message that this program writes.
  case malformed
}

/// A heartbeat on the wire: one datagram, of at most the 1232 bytes that every IPv6 path carries whole.
///
/// Layout, big-endian: magic(4) version(1) role(1) flags(1) name length(1) epoch(4) disk count(2) zero(2) cluster(16)
/// node(16) boot(8) sequence(8) heard boot(8) heard sequence(8) oldest I/O(8), name, disks(16 each), authenticator(16).
/// The authenticator is HMAC-SHA-256 (RFC 2104) with the pair's key over everything before it, cut to its first 16 bytes
/// (§5). Nothing is encrypted: there is nothing in it that who can listen may not know.
public enum HeartbeatCodec {
  public static let version: UInt8 = 1
  public static let byteCountMax = headerBytes + nameBytesMax + 16 * disksMax + authenticatorBytes
  /// A name is cut to this many bytes.
  public static let nameBytesMax = 64
  /// No more disks are named: beyond that the list only serves the status.
  public static let disksMax = 60

  /// "gwHB"
  static let magic: UInt32 = 0x6777_4842
  static let headerBytes = 88
  static let authenticatorBytes = 16

  /// - Parameter key: the pair's, out of a label.
  public static func encode(_ beat: Heartbeat, key: [UInt8]) -> [UInt8] {
    let name = cut(beat.name)
    let disks = beat.disks.prefix(disksMax)
    var bytes: [UInt8] = []
    bytes.reserveCapacity(byteCountMax)
    bytes.append(be: magic)
    bytes += [version, beat.role.rawValue, beat.flags.rawValue, UInt8(name.count)]
    bytes.append(be: beat.epoch.value)
    bytes.append(be: UInt16(disks.count))
    bytes.append(be: UInt16(0))
    bytes += beat.cluster.bytes
    bytes += beat.node.bytes
    bytes.append(be: beat.bootID)
    bytes.append(be: beat.sequence)
    bytes.append(be: beat.heardBoot)
    bytes.append(be: beat.heardSequence)
    bytes.append(be: beat.oldestIO)
    bytes += name
    for disk in disks { bytes += disk.bytes }
    return sign(bytes, key: key)
  }

  /// The bytes with their authenticator behind them.
  package static func sign(_ bytes: [UInt8], key: [UInt8]) -> [UInt8] {
    bytes + authenticator(bytes, count: bytes.count, key: key)
  }

  /// Reads a datagram; total for any bytes. The authenticator is compared before anything else of it is believed.
  public static func decode(_ bytes: [UInt8], key: [UInt8]) throws(HeartbeatFault) -> Heartbeat {
    guard bytes.count >= headerBytes + authenticatorBytes, bytes.span.bytes.be32(0) == magic else { throw .foreign }
    guard bytes[4] == version else { throw .unknownVersion }
    let end = bytes.count - authenticatorBytes
    guard bytes.count <= byteCountMax else { throw .malformed }
    guard isSigned(bytes, key: key) else { throw .notAuthentic }
    guard let beat = read(bytes, end: end) else { throw .malformed }
    return beat
  }

  private static func read(_ bytes: [UInt8], end: Int) -> Heartbeat? {
    let span = bytes.span.bytes
    let nameBytes = Int(bytes[7])
    let diskCount = Int(span.be16(12))
    guard let role = Role(rawValue: bytes[5]), nameBytes <= nameBytesMax, diskCount <= disksMax,
      end == headerBytes + nameBytes + 16 * diskCount,
      let name = String(validating: bytes[headerBytes..<headerBytes + nameBytes], as: UTF8.self)
    else { return nil }
    let disks = (0..<diskCount).map { uuid(bytes, at: headerBytes + nameBytes + 16 * $0) }
    return Heartbeat(
      cluster: uuid(bytes, at: 16), node: uuid(bytes, at: 32), bootID: span.be64(48), sequence: span.be64(56),
      role: role, epoch: Epoch(span.be32(8)), name: name, heardBoot: span.be64(64), heardSequence: span.be64(72),
      oldestIO: span.be64(80), flags: Heartbeat.Flags(rawValue: bytes[6]), disks: disks)
  }

  /// The first `nameBytesMax` bytes, without a character that does not fit whole.
  private static func cut(_ name: String) -> [UInt8] {
    var bytes: [UInt8] = []
    for character in name.unicodeScalars {
      let encoded = UTF8.encode(character)!
      guard bytes.count + encoded.count <= nameBytesMax else { break }
      bytes += encoded
    }
    return bytes
  }

  /// Whether the authenticator behind the bytes is right; compared in a time that tells nothing of it.
  static func isSigned(_ bytes: [UInt8], key: [UInt8]) -> Bool {
    let end = bytes.count - authenticatorBytes
    let expected = authenticator(bytes, count: end, key: key)
    return nettle_memeql_sec(expected, Array(bytes[end...]), authenticatorBytes) != 0
  }

  static func authenticator(_ bytes: [UInt8], count: Int, key: [UInt8]) -> [UInt8] {
    var digest = [UInt8](repeating: 0, count: authenticatorBytes)
    var context = hmac_sha256_ctx()
    nettle_hmac_sha256_set_key(&context, key.count, key)
    nettle_hmac_sha256_update(&context, count, bytes)
    nettle_hmac_sha256_digest(&context, digest.count, &digest)
    return digest
  }
}

func uuid(_ bytes: [UInt8], at offset: Int) -> UUID { UUID(bytes: Array(bytes[offset..<offset + 16])) }
