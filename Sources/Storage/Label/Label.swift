import Wire

/// The label: who this disk is, to whom it belongs, which LUN it is. It travels with the disk.
public struct Label: Equatable, Sendable {
  public static let nodeSlots = 2
  /// LUN numbers are below this.
  public static let lunCount: UInt16 = 16384

  /// A gateway node that may serve the disk.
  public struct Node: Equatable, Sendable {
    public var id: UUID
    /// Public name, at most 64 bytes of UTF-8.
    public var name: String

    public init(id: UUID, name: String) {
      self.id = id
      self.name = name
    }
  }

  /// The cluster: names the target.
  public var cluster: UUID
  /// The disk: serial number and designators derive from it.
  public var disk: UUID
  /// LUN number, 0 to 16383.
  public var lun: UInt16
  /// One more than the highest LUN number the cluster had given away when this was written: numbers of absent disks are
  /// not given to others.
  public var nextLUN: UInt16
  /// The disk's size in bytes when the label was written. The label area lies at the end of that many bytes.
  public var diskBytes: UInt64
  public var blockBytes: UInt32
  /// 32 bytes that authenticate the pair's heartbeats.
  public var pairKey: [UInt8]
  /// At most `nodeSlots`.
  public var nodes: [Node]

  public init(
    cluster: UUID, disk: UUID, lun: UInt16, nextLUN: UInt16, diskBytes: UInt64, blockBytes: UInt32, pairKey: [UInt8],
    nodes: [Node]
  ) {
    self.cluster = cluster
    self.disk = disk
    self.lun = lun
    self.nextLUN = nextLUN
    self.diskBytes = diskBytes
    self.blockBytes = blockBytes
    self.pairKey = pairKey
    self.nodes = nodes
  }

  /// Bytes that initiators see.
  public var exportedBytes: UInt64 { LabelArea.start(diskBytes: diskBytes) }

  static let fixedBytes = 16 + 16 + 2 + 2 + 8 + 4 + 32 + 2
  static let nodeBytes = 16 + 2 + 64

  /// The record's payload: cluster(16) disk(16) lun(2) next(2) disk bytes(8) block bytes(4) key(32) node count(2), then per
  /// node id(16) name length(2) name(64).
  public func encode() -> [UInt8] {
    var bytes = cluster.bytes + disk.bytes
    bytes.append(be: lun)
    bytes.append(be: nextLUN)
    bytes.append(be: diskBytes)
    bytes.append(be: blockBytes)
    bytes += pairKey
    bytes.append(be: UInt16(nodes.count))
    for node in nodes {
      bytes += node.id.bytes
      let name = Self.cut(node.name)
      bytes.append(be: UInt16(name.count))
      bytes += name + repeatElement(0, count: 64 - name.count)
    }
    return bytes
  }

  /// The name's first 64 bytes, without a character that does not fit whole: half of one would not read as UTF-8.
  private static func cut(_ name: String) -> [UInt8] {
    var bytes: [UInt8] = []
    for character in name.unicodeScalars {
      let encoded = UTF8.encode(character)!
      guard bytes.count + encoded.count <= 64 else { break }
      bytes += encoded
    }
    return bytes
  }

  /// Reads a payload; nil for anything that no version of this program wrote.
  public init?(decoding bytes: [UInt8]) {
    guard bytes.count >= Self.fixedBytes else { return nil }
    let span = bytes.span.bytes
    let count = Int(span.be16(80))
    guard count <= Self.nodeSlots, bytes.count == Self.fixedBytes + count * Self.nodeBytes else { return nil }
    let blockBytes = span.be32(44)
    let diskBytes = span.be64(36)
    let lun = span.be16(32)
    guard blockBytes == 512 || blockBytes == 4096, lun < Self.lunCount, span.be16(34) <= Self.lunCount,
      diskBytes >= LabelArea.diskBytesMin,
      diskBytes <= UInt64(Int64.max)
    else { return nil }
    var nodes: [Node] = []
    for i in 0..<count {
      let start = Self.fixedBytes + i * Self.nodeBytes
      let length = Int(span.be16(start + 16))
      guard length <= 64, let name = String(validating: bytes[start + 18..<start + 18 + length], as: UTF8.self) else {
        return nil
      }
      nodes.append(
        Node(
          id: UUID(bytes: Array(bytes[start..<start + 16])),
          name: name))
    }
    self.init(
      cluster: UUID(bytes: Array(bytes[0..<16])), disk: UUID(bytes: Array(bytes[16..<32])), lun: lun,
      nextLUN: span.be16(34), diskBytes: diskBytes, blockBytes: blockBytes, pairKey: Array(bytes[48..<80]),
      nodes: nodes)
  }
}
