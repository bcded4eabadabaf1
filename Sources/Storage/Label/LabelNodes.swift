import Glibc
import Wire

/// The nodes of a label: who may serve the disk.
extension LabelStore {
  /// Enters a node into the label's free slot, or gives it its new name; the label as it is then. A node that is there
  /// already costs no write.
  /// - Parameter label: the disk's label as it was last seen.
  /// - Throws: `failed(ENOSPC)` if both slots are other nodes'; `failed(ENODATA)` if the disk has no label of this identity;
  ///   else what the disk said.
  public static func enroll(_ node: Label.Node, on disk: Disk, as label: Label) throws(FenceFailure) -> Label {
    try rewrite(disk, label) { (label) throws(FenceFailure) in
      if let index = label.nodes.firstIndex(where: { $0.id == node.id }) {
        label.nodes[index].name = node.name
      } else {
        guard label.nodes.count < Label.nodeSlots else { throw .failed(ENOSPC) }
        label.nodes.append(node)
      }
    }
  }

  /// Takes a node out of the label; the label as it is then.
  ///
  /// The place of the others among the nodes may change: with it the slot in the reservation key of a second node. Whoever
  /// makes keys of it (the node itself, if it is active) registers anew.
  public static func forget(_ node: UUID, on disk: Disk, as label: Label) throws(FenceFailure) -> Label {
    try rewrite(disk, label) { (label) throws(FenceFailure) in label.nodes.removeAll { $0.id == node } }
  }

  /// Reads the newest label, changes it, and writes both copies, one after the other: a crash between them leaves the new
  /// one, and damage to it later not the old one.
  private static func rewrite(
    _ disk: Disk, _ former: Label, _ change: (inout Label) throws(FenceFailure) -> Void
  ) throws(FenceFailure) -> Label {
    guard let fd = disk.descriptor,
      case .label(let old) = readLabel(fd: fd, diskBytes: disk.currentByteCount, former: former),
      old.disk == former.disk
    else { throw .failed(ENODATA) }
    var label = old
    try change(&label)
    // As it reads again: a name may have been cut.
    guard let kept = Label(decoding: label.encode()), kept != old else { return old }
    var cell = RecordCell(.label, on: disk, label: old)
    for _ in 0...1 { try cell.write(kept.encode()) }
    return kept
  }
}

/// What the label area of a shared disk says, read anew: for whoever takes the disk over, whose own knowledge is as old as
/// its last look.
public struct SharedDiskRecords: Equatable, Sendable {
  public var label: Label
  /// Payload of the newest reservations record; nil: none, or an empty one.
  public var reservations: [UInt8]?
  /// Sequence number of that record, and the slot that the next one goes to.
  public var reservationsSequence: UInt64
  public var reservationsSlot: Int
  public var owner: [UInt8]?
  public var beat: [UInt8]?
  /// By place, two; none unless asked for.
  public var leases: [[UInt8]?] = []

  /// A few short reads; past the page cache if the disk was opened so, as block devices are.
  /// - Parameters:
  ///   - former: the label as it was last seen, where the disk may have grown since.
  ///   - withReservations: else what is told of them is empty: a look at who owns the disk needs none.
  ///   - withLeases: a disk that cannot fence has some.
  /// - Throws: `failed(ENODATA)` for a disk without a label; `failed(EBADMSG)` if a record is damaged in both slots or
  ///   of a newer format; else what the disk said.
  public static func read(
    _ disk: Disk, former: Label? = nil, withReservations: Bool = true, withLeases: Bool = false
  ) throws(FenceFailure) -> SharedDiskRecords {
    guard let fd = disk.descriptor else { throw .failed(EOPNOTSUPP) }
    let label = try findLabel(disk, fd, former)
    let records = try read(disk, fd, label, withReservations: withReservations, withLeases: withLeases)
    guard label.diskBytes / LabelArea.alignment < disk.currentByteCount / LabelArea.alignment else { return records }
    // Its area may have moved meanwhile: a place that is cleared by now would say that nobody has the disk.
    let now = try findLabel(disk, fd, former)
    guard now.diskBytes != label.diskBytes else { return records }
    return try read(disk, fd, now, withReservations: withReservations, withLeases: withLeases)
  }

  private static func findLabel(_ disk: Disk, _ fd: Int32, _ former: Label?) throws(FenceFailure) -> Label {
    switch LabelStore.readLabel(fd: fd, diskBytes: disk.currentByteCount, former: former) {
    case .none: throw .failed(ENODATA)
    case .unreadable: throw .failed(EBADMSG)
    case .label(let found): return found
    }
  }

  private static func read(
    _ disk: Disk, _ fd: Int32, _ label: Label, withReservations: Bool, withLeases: Bool
  ) throws(FenceFailure) -> SharedDiskRecords {
    var records = SharedDiskRecords(
      label: label, reservations: nil, reservationsSequence: 0, reservationsSlot: 0, owner: nil, beat: nil)
    if withReservations { try records.readReservations(fd) }
    for kind in [LabelArea.Kind.owner, .beat] {
      var cell = RecordCell(kind, on: disk, label: label)
      let payload = try cell.read()
      if kind == .owner { records.owner = payload } else { records.beat = payload }
    }
    if withLeases {
      for kind in LabelArea.Kind.leases {
        var cell = RecordCell(kind, on: disk, label: label)
        records.leases.append(try cell.read())
      }
    }
    return records
  }

  private mutating func readReservations(_ fd: Int32) throws(FenceFailure) {
    do throws(RecordError) {
      let found = try LabelStore.read(.reservations, fd: fd, diskBytes: label.diskBytes, disk: label.disk)
      reservations = found.record.payload.isEmpty ? nil : found.record.payload
      reservationsSequence = found.record.sequence
      reservationsSlot = found.nextSlot
    } catch {
      guard error == .absent || error == .misplaced else { throw .failed(EBADMSG) }
    }
  }
}
