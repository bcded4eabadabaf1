import Wire

/// Which of the label's two node slots a node has.
public enum NodeSlot: UInt8, Sendable, CaseIterable {
  case first = 0
  case second = 1

  public var other: NodeSlot { self == .first ? .second : .first }
}

/// Counts takeovers: who is active holds the highest, and a disk takes writes from nobody else. It only grows. 32 bits: one
/// takeover a second for 136 years.
public struct Epoch: Hashable, Comparable, Sendable, CustomStringConvertible {
  public var value: UInt32

  public init(_ value: UInt32) { self.value = value }

  /// Nobody has ever been active.
  public static let none = Epoch(0)

  /// The epoch of the next takeover; nil after the last one.
  public var next: Epoch? { value == .max ? nil : Epoch(value + 1) }

  public static func < (one: Epoch, other: Epoch) -> Bool { one.value < other.value }
  public var description: String { "\(value)" }
}

/// The persistent-reservation key by which a node holds a disk in an epoch (SPC-5 §5.14). It is the fencing token: PREEMPT
/// names the exact key of its victim, so each takeover is a compare-and-swap on the disk.
///
/// 64 bits: magic (8), hash of the cluster (7), node slot (1), hash of the node (16), epoch (32). The node's hash keeps two
/// strangers that both take the free slot from having the same key.
public struct ReservationKey: Hashable, Sendable, CustomStringConvertible {
  /// "g"
  public static let magic: UInt8 = 0x67

  public let rawValue: UInt64

  public init(cluster: UUID, slot: NodeSlot, node: UUID, epoch: Epoch) {
    let own = UInt64(Self.magic) << 56 | UInt64(Self.hash(of: cluster)) << 49 | UInt64(slot.rawValue) << 48
    rawValue = own | UInt64(Self.tag(of: node)) << 32 | UInt64(epoch.value)
  }

  /// A key read from a disk; nil: not one of a gateway.
  public init?(rawValue: UInt64) {
    guard UInt8(truncatingIfNeeded: rawValue >> 56) == Self.magic else { return nil }
    self.rawValue = rawValue
  }

  public var clusterHash: UInt8 { UInt8(rawValue >> 49 & 0x7F) }
  public var slot: NodeSlot { rawValue >> 48 & 1 == 0 ? .first : .second }
  public var nodeTag: UInt16 { UInt16(truncatingIfNeeded: rawValue >> 32) }
  public var epoch: Epoch { Epoch(UInt32(truncatingIfNeeded: rawValue)) }

  /// Whether the key is of this cluster, as far as 7 bits tell.
  public func belongs(to cluster: UUID) -> Bool { clusterHash == Self.hash(of: cluster) }
  /// Whether it is this node's, in whatever epoch.
  public func belongs(toNode node: UUID) -> Bool { nodeTag == Self.tag(of: node) }

  public static func hash(of cluster: UUID) -> UInt8 { UInt8(CRC32C.of(cluster.bytes) & 0x7F) }
  public static func tag(of node: UUID) -> UInt16 { UInt16(truncatingIfNeeded: CRC32C.of(node.bytes)) }

  public var description: String {
    let digits = String(rawValue, radix: 16)
    return "0x" + String(repeating: "0", count: 16 - digits.count) + digits
  }
}
