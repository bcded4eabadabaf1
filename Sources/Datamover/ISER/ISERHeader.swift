import Wire

/// The iSER header of a control-type message (RFC 7145 §9.2), with 64-bit addresses, in front of the basic header segment.
public struct ISERHeader: Equatable, Sendable {
  public static let byteCount = 28
  /// The protocol version of RFC 7145 (§9.3).
  static let version: UInt8 = 1

  enum Kind: UInt8 {
    case control = 1
    case hello = 2
    case helloReply = 3
  }

  public var advertised = AdvertisedBuffers()

  /// Reads a control-type header; the caller has 28 bytes at `bytes`.
  init(at bytes: UnsafeRawPointer) {
    let flags = bytes.load(as: UInt8.self)
    advertised.hasWrite = flags & 0x08 != 0
    advertised.hasRead = flags & 0x04 != 0
    advertised.writeSTag = bytes.be32(4)
    advertised.writeVA = bytes.be64(8)
    advertised.readSTag = bytes.be32(16)
    advertised.readVA = bytes.be64(20)
  }

  /// Writes the header of a target's control-type message, which advertises nothing.
  static func storeControl(at bytes: UnsafeMutableRawPointer) {
    bytes.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    bytes.storeBytes(of: Kind.control.rawValue << 4, as: UInt8.self)
  }
}

/// iSER Hello (RFC 7145 §9.3) and its reply (§9.4): the versions, and how many RDMA READs either side takes. No initiator in
/// use sends one.
public struct ISERHello: Equatable, Sendable {
  public var versionMax: UInt8
  public var versionMin: UInt8
  /// iSER-IRD: RDMA READs that the initiator answers at a time.
  public var readsMax: UInt16

  /// Reads a Hello; the caller has 28 bytes at `bytes`.
  init(at bytes: UnsafeRawPointer) {
    let versions = bytes.load(fromByteOffset: 1, as: UInt8.self)
    versionMax = versions >> 4
    versionMin = versions & 0x0F
    readsMax = bytes.be16(2)
  }

  public var isOurs: Bool { versionMin <= ISERHeader.version && ISERHeader.version <= versionMax }

  /// The reply's 28 bytes. `readsMax`: iSER-ORD, the READs that we will have under way. REJ where no version is ours.
  public func reply(readsMax: UInt16) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: ISERHeader.byteCount)
    bytes[0] = ISERHeader.Kind.helloReply.rawValue << 4 | (isOurs ? 0 : 1)
    bytes[1] = ISERHeader.version << 4 | ISERHeader.version
    bytes.store(be: readsMax, at: 2)
    return bytes
  }
}
