import Wire

/// Where things lie in the label area: the last 8 MiB of every exported disk. The LUN that initiators see ends before it.
///
/// Each record has two slots. A write goes to the slot that does not hold the newest valid record, so that a torn write
/// leaves the older record whole; the higher valid sequence number wins.
public enum LabelArea {
  /// Bytes of the area.
  public static let byteCount: UInt64 = 8 << 20
  /// The smallest disk that takes a label: what is left must be worth exporting.
  public static let diskBytesMin: UInt64 = 16 << 20
  /// Every record begins on a boundary of this many bytes and is a multiple of it long.
  public static let alignment: UInt64 = 4096

  /// The kinds of record, with their place in the area.
  public enum Kind: UInt16, CaseIterable, Sendable {
    /// Identity of disk and cluster, LUN number, nodes.
    case label = 1
    /// The LUN's persistent reservations.
    case reservations = 2
    /// What of the disk must be cleared before it is exported (`LabelStore.move`).
    case move = 3
    /// Who of a pair was given the disk last.
    case owner = 4
    /// That the active node of a pair is alive.
    case beat = 5
    /// What each of the label's nodes claims of a disk that cannot fence: to each its own place.
    case lease = 6
    case otherLease = 7
    /// Whether what initiators have on the disk is being made unreadable.
    case sanitize = 8

    public static let leases = [Kind.lease, .otherLease]

    /// Offset of slot 0 from the start of the area; slot 1 follows after `slotBytes`.
    var offset: UInt64 {
      switch self {
      case .label: 0
      case .reservations: 1 << 20
      case .move: 2 << 20
      case .owner: 3 << 20
      case .beat: 4 << 20
      case .lease: 5 << 20
      case .otherLease: 6 << 20
      case .sanitize: 7 << 20
      }
    }

    /// Bytes of a slot, header and payload.
    public var slotBytes: UInt64 {
      switch self {
      case .label: 16384
      case .reservations: 65536
      case .move, .owner, .beat, .lease, .otherLease, .sanitize: 4096
      }
    }
  }

  /// Byte offset of the area on a disk of `diskBytes`: aligned, so that both ends stay writable with O_DIRECT on any disk.
  public static func start(diskBytes: UInt64) -> UInt64 {
    precondition(diskBytes >= diskBytesMin)
    return diskBytes / alignment * alignment - byteCount
  }

  /// Byte offset on the disk of a record's slot (0 or 1).
  public static func offset(of kind: Kind, slot: Int, diskBytes: UInt64) -> UInt64 {
    start(diskBytes: diskBytes) + kind.offset + UInt64(slot) * kind.slotBytes
  }
}

/// Why bytes are not a record of ours.
public enum RecordError: Error, Equatable, Sendable {
  /// No magic: not a record at all.
  case absent
  /// The magic is there, the checksum or a length is not right: torn or damaged.
  case damaged
  /// A format version that this program does not know.
  case unknownVersion(UInt16)
  /// Another kind of record, or another disk's.
  case misplaced
}

/// A record in the label area: header, payload, checksum.
///
/// Layout, big-endian: magic(8) version(2) kind(2) payload length(4) sequence(8) disk UUID(16) CRC32C(4) zero(4), payload.
/// The CRC covers header (its own field zero) and payload.
public struct Record: Equatable, Sendable {
  public static let headerBytes = 48
  public static let version: UInt16 = 1
  /// "GATEWAYD"
  public static let magic: UInt64 = 0x4741_5445_5741_5944

  public var kind: LabelArea.Kind
  /// Grows by one with each write of the kind on a disk.
  public var sequence: UInt64
  /// The disk it was written for.
  public var disk: UUID
  public var payload: [UInt8]

  public init(kind: LabelArea.Kind, sequence: UInt64, disk: UUID, payload: [UInt8]) {
    precondition(Self.headerBytes + payload.count <= Int(kind.slotBytes))
    self.kind = kind
    self.sequence = sequence
    self.disk = disk
    self.payload = payload
  }

  /// The bytes to write, padded with zeroes to a multiple of `LabelArea.alignment`.
  public func encode() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(be: Self.magic)
    bytes.append(be: Self.version)
    bytes.append(be: kind.rawValue)
    bytes.append(be: UInt32(payload.count))
    bytes.append(be: sequence)
    bytes += disk.bytes
    bytes.append(be: UInt64(0))
    bytes += payload
    let crc = CRC32C.of(bytes)
    bytes.store(be: crc, at: 40)
    let unit = Int(LabelArea.alignment)
    bytes += repeatElement(0, count: (unit - bytes.count % unit) % unit)
    return bytes
  }

  /// Reads a record from the start of `bytes` (a slot, or its first part); total for any bytes.
  public static func decode(_ bytes: [UInt8], kind: LabelArea.Kind) throws(RecordError) -> Record {
    guard bytes.count >= headerBytes else { throw .absent }
    let span = bytes.span.bytes
    guard span.be64(0) == magic else { throw .absent }
    guard span.be16(8) == version else { throw .unknownVersion(span.be16(8)) }
    // No gateway gets as far as half of the numbers; who has written the last one would have the next overflow.
    guard isWhole(bytes), span.be64(16) < 1 << 63 else { throw .damaged }
    let length = Int(span.be32(12))
    guard span.be16(10) == kind.rawValue, headerBytes + length <= Int(kind.slotBytes) else { throw .misplaced }
    return Record(
      kind: kind, sequence: span.be64(16), disk: UUID(bytes: Array(bytes[24..<40])),
      payload: Array(bytes[headerBytes..<headerBytes + length]))
  }

  /// Whether the checksum holds. Every format version keeps the header's layout, so this can be told of a newer one too.
  private static func isWhole(_ bytes: [UInt8]) -> Bool {
    let span = bytes.span.bytes
    let length = Int(span.be32(12))
    guard length <= bytes.count - headerBytes else { return false }
    var covered = Array(bytes[0..<headerBytes + length])
    covered.store(be: UInt32(0), at: 40)
    return CRC32C.of(covered) == span.be32(40)
  }

  /// Of two slots' contents the newest valid record and the slot to write next. Throws what is wrong with both when neither
  /// is valid: `damaged` rather than `absent`, for a damaged label must not look like a blank disk.
  ///
  /// A whole record of another format version beside one of ours throws `unknownVersion`: it is the newer of the two, and
  /// what we know would undo what its writer did. A torn one was never acknowledged, and leaves ours.
  public static func newest(
    _ slots: [[UInt8]], kind: LabelArea.Kind, disk: UUID? = nil
  ) throws(RecordError) -> (record: Record, nextSlot: Int) {
    var best: (record: Record, slot: Int)?
    var worst = RecordError.absent
    for (slot, bytes) in slots.enumerated() {
      do throws(RecordError) {
        let record = try decode(bytes, kind: kind)
        guard disk == nil || record.disk == disk else { throw .misplaced }
        if best == nil || record.sequence > best!.record.sequence { best = (record, slot) }
      } catch {
        if case .unknownVersion = error, isWhole(bytes) { throw error }
        if error != .absent { worst = error }
      }
    }
    guard let best else { throw worst }
    return (best.record, 1 - best.slot)
  }
}
