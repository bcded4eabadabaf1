import CSystem
import Discovery
import Glibc
import HA
import SCSI
import Storage
import Wire

/// Opening a disk as a LUN: its label, its reservations, what it is and can.
struct DiskOpening {
  /// Where a label is that is not at its disk's end.
  struct Former: Equatable, Sendable {
    /// The disk's size when it was written; nil: only remains of it were found.
    var diskBytes: UInt64?
    /// What of it must not be left to others when the disk is wiped.
    var area: Range<UInt64>
  }

  /// Why a disk is not exported, for a person.
  struct Refusal: Error {
    var isHeld: Bool
    var reason: String
    var advice: String?
    var former: Former?
    /// Only until the pair has done something.
    var waitsForPair = false

    /// Something newer began with the disk: nobody is told of this.
    static let stale = Refusal(isHeld: false, reason: "it went or changed while it was opened")
  }

  static func wipeAdvice(_ path: String) -> String { "gatewayd disks adopt \(path) --wipe (discards what is on it)" }

  /// What is needed to label a blank disk.
  struct NewLabel {
    var cluster: UUID
    var lun: UInt16
    var nextLUN: UInt16
    var pairKey: [UInt8]
    var nodes: [Label.Node]
  }

  let disk: Disk
  /// What discovery knows of a block device.
  let device: BlockDevice?
  var label: Label?
  /// What the settings say of its kind.
  var rule: Settings.DiskRule?
  /// Another node may have it, and this keeps the other off: this one writes to it only when the pair says so. nil: no
  /// other node can have it.
  var fence: SharedDisk.Fence?
  var isShared: Bool { fence != nil }

  /// Opens the disk at `path` and reads its label.
  init(path: String, device: BlockDevice?, knownBytes: [UInt64] = []) throws(Refusal) {
    try self.init(unlabelled: path, device: device)
    switch LabelStore.readLabel(fd: disk.descriptor!, diskBytes: disk.byteCount) {
    case .none: label = nil
    case .label(let found): label = found
    case .unreadable(let reason, let isNewer):
      if !isNewer, let former = Self.former(disk, knownBytes: knownBytes) { throw former }
      throw Refusal(isHeld: true, reason: reason, advice: isNewer ? "update this gateway" : Self.wipeAdvice(path))
    }
  }

  /// Opens the disk at `path` whatever its label says.
  init(unlabelled path: String, device: BlockDevice?) throws(Refusal) {
    do throws(DiskError) {
      disk = try Disk.open(path: path)
    } catch {
      let isBusy = error.code == EBUSY
      throw Refusal(
        isHeld: false, reason: isBusy ? "something else on this machine has it open exclusively" : error.description)
    }
    self.device = device
    if let device { try Self.check(disk, device) }
    guard disk.isWritable else { throw Refusal(isHeld: false, reason: "it is read-only") }
    guard disk.byteCount >= LabelArea.diskBytesMin else {
      throw Refusal(
        isHeld: false,
        reason: """
          it has \(ByteCount.describe(disk.byteCount)); the least is \(ByteCount.describe(LabelArea.diskBytesMin))
          """)
    }
  }

  /// Whether what was opened is what was judged: names and numbers pass to other disks, a sequence number does not, and while
  /// it is open neither does.
  private static func check(_ disk: Disk, _ device: BlockDevice) throws(Refusal) {
    guard DeviceNumber(dev_t(disk.facts.device_number)) == device.number else {
      throw Refusal(isHeld: false, reason: "its node is not the device \(device.number)")
    }
    guard disk.isRegularFile || device.isStillPresent else {
      throw Refusal(isHeld: false, reason: "another disk is in its place")
    }
  }

  /// Looks once more, while the disk is already open exclusively, that there is nothing on it, and no label of ours that is
  /// not at its end. Through a descriptor of its own, for the probing reads at offsets that direct I/O does not allow.
  func checkBlank(knownBytes: [UInt64] = []) throws(Refusal) {
    let fd = try Self.openToSearch(disk)
    defer { close(fd) }
    let content = inspect(fd: fd, bytes: disk.byteCount)
    if content.holdReason != nil {
      if let former = Self.former(fd, disk.byteCount, disk.path, knownBytes: knownBytes) { throw former }
    } else {
      let found = LabelSearch.search(
        fd: fd, diskBytes: disk.byteCount, knownBytes: knownBytes,
        extent: device?.isRotational == true ? .rotational : .whole)
      if let found { throw Self.refusal(found, diskBytes: disk.byteCount, path: disk.path) }
    }
    if let reason = content.holdReason {
      throw Refusal(isHeld: true, reason: reason.sentence, advice: Self.wipeAdvice(disk.path))
    }
    if let error = content.readError {
      throw Refusal(isHeld: false, reason: "it cannot be read: \(String(cString: strerror(error)))")
    }
  }

  /// Writes a label to a disk without one.
  mutating func write(_ new: NewLabel) throws(Refusal) {
    let label = Label(
      cluster: new.cluster, disk: Identity.randomUUID(), lun: new.lun, nextLUN: new.nextLUN,
      diskBytes: disk.byteCount, blockBytes: try shownBlockBytes(rule?.blockBytes), pairKey: new.pairKey,
      nodes: new.nodes)
    let code = LabelStore.initialize(label, fd: disk.descriptor!)
    guard code == 0 else {
      throw Refusal(isHeld: false, reason: "its label could not be written: \(String(cString: strerror(-code)))")
    }
    self.label = label
  }

  /// The length of a logical block as initiators see it. It stays what it was when the disk was labelled: another would have
  /// them look for their data elsewhere.
  private func shownBlockBytes(_ wanted: UInt32?) throws(Refusal) -> UInt32 {
    let own = disk.facts.logical_block_bytes
    let bytes = wanted ?? own
    guard bytes % own == 0 else {
      throw Refusal(isHeld: true, reason: "its blocks of \(own) bytes cannot be shown as blocks of \(bytes) bytes")
    }
    return bytes
  }

  /// Discards what is at both ends of a disk, where tables, signatures and labels lie.
  static func wipe(path: String, device: BlockDevice?, former: Former?) throws(Refusal) {
    let disk: Disk
    do throws(DiskError) { disk = try Disk.open(path: path) } catch {
      throw Refusal(isHeld: true, reason: error.description)
    }
    if let device { try check(disk, device) }
    guard disk.byteCount >= LabelArea.diskBytesMin else {
      throw Refusal(isHeld: false, reason: "it is too small for a label")
    }
    guard !isInUse(disk, former) else {
      throw Refusal(
        isHeld: true, reason: "another gateway uses it: the records in its label area are renewed",
        advice: "stop that gateway, or its use of the disk, first")
    }
    let end = LabelArea.start(diskBytes: disk.byteCount)
    var places = [0..<1 << 20, end - (1 << 20)..<end, end..<end + LabelArea.byteCount]
    if let area = former?.area, area.lowerBound < end { places.append(area.lowerBound..<min(area.upperBound, end)) }
    for place in places {
      let code = LabelStore.zero(fd: disk.descriptor!, offset: place.lowerBound, count: UInt64(place.count))
      guard code == 0 else {
        throw Refusal(isHeld: true, reason: "it could not be wiped: \(String(cString: strerror(-code)))")
      }
    }
  }

  /// How long a disk is watched before it is wiped, in microseconds: a lease is renewed each half second, a beat more often.
  private static let watchMicroseconds: UInt32 = 1_500_000

  /// Whether another gateway renews its lease or beat on the disk. One that has nobody beside it in the label renews nothing.
  private static func isInUse(_ disk: Disk, _ former: Former?) -> Bool {
    guard let fd = disk.descriptor else { return false }
    let places = [disk.byteCount] + (former?.diskBytes.map { [$0] } ?? [])
    let look = {
      places.flatMap { bytes in
        (LabelArea.Kind.leases + [.beat]).map { kind in
          (try? LabelStore.read(kind, fd: fd, diskBytes: bytes, disk: nil))?.record
        }
      }
    }
    let before = look()
    guard before.contains(where: { $0 != nil }) else { return false }
    usleep(watchMicroseconds)
    return look() != before
  }

  /// The disk as a LUN.
  /// - Parameters:
  ///   - lun: for disks without a label.
  ///   - uuid: for disks without a label.
  func export(lun: UInt16, uuid: UUID, registry: NexusRegistry) throws(Refusal) -> Export {
    let id = label?.disk ?? uuid
    let blockBytes = UInt64(try shownBlockBytes(label?.blockBytes))
    let bytes = (label?.exportedBytes ?? disk.byteCount) / blockBytes * blockBytes
    var record: [UInt8]?
    var place: (sequence: UInt64, slot: Int) = (0, 0)
    if let label {
      // What a shared disk needs is done when it is this node's.
      let code = isShared ? 0 : LabelStore.prepare(label, fd: disk.descriptor!)
      guard code == 0 else {
        // What initiators would see may have an old label in it, pair key and all.
        throw Refusal(
          isHeld: true, reason: "its label area could not be put in order: \(String(cString: strerror(-code)))")
      }
      (record, place) = try Self.readReservations(disk, label)
    }
    do throws(ReservationRecordError) {
      let unit = try LogicalUnit(
        number: label?.lun ?? lun, identity: Self.identity(id), traits: traits(blockBytes: UInt32(blockBytes)),
        blocks: bytes / blockBytes, registry: registry, reservations: record)
      let sanitize = label.map { LabelStore.readSanitize(fd: disk.descriptor!, label: $0) }
      if let sanitize { unit.adopt(SanitizeRecord(decoding: sanitize.payload).sanitation) }
      return Export(
        unit: unit, disk: disk, label: label, byteCount: bytes, sequence: place.sequence, slot: place.slot,
        sanitize: sanitize?.place ?? (0, 0), isShared: isShared, fence: fence ?? .reservations)
    } catch {
      throw Refusal(isHeld: true, reason: "its reservation record cannot be read (\(error))")
    }
  }

  private static func readReservations(
    _ disk: Disk, _ label: Label
  ) throws(Refusal) -> (record: [UInt8]?, place: (sequence: UInt64, slot: Int)) {
    do throws(RecordError) {
      let found = try LabelStore.read(
        .reservations, fd: disk.descriptor!, diskBytes: label.diskBytes, disk: label.disk)
      // The label came with an empty record.
      let payload = found.record.payload.isEmpty ? nil : found.record.payload
      return (payload, (found.record.sequence, found.nextSlot))
    } catch {
      if case .unknownVersion(let version) = error {
        throw Refusal(
          isHeld: true,
          reason: "its reservation record was written by a newer gatewayd (format version \(version))",
          advice: "update this gateway")
      }
      guard error == .absent || error == .misplaced else {
        // Reservations that cannot be read might have kept somebody out: better no LUN than the wrong writer.
        throw Refusal(
          isHeld: true, reason: "its reservation record is damaged in both copies",
          advice: wipeAdvice(disk.path))
      }
      return (nil, (0, 0))
    }
  }

  static func identity(_ id: UUID) -> LogicalUnitIdentity {
    LogicalUnitIdentity(
      uuid: id.bytes, serial: id.description.replacingHyphens, vendor: "GATEWAYD", product: "DISK", revision: "0001")
  }

  private func traits(blockBytes: UInt32) -> LogicalUnitTraits {
    var traits = Self.traits(disk, blockBytes: blockBytes, persistsReservations: label != nil)
    if let device { add(device, to: &traits) }
    rule?.apply(to: &traits)
    return traits
  }

  private func add(_ device: BlockDevice, to traits: inout LogicalUnitTraits) {
    traits.isRotational = device.isRotational
    traits.isThin = device.discardBytesMax > 0
    traits.readsZeroes = device.writeZeroesBytesMax > 0
    traits.unmapGranularity = UInt32(clamping: device.discardGranularity / UInt64(traits.blockBytes))
    traits.hasWriteCache = device.hasWriteCache
    if traits.lowestAlignedBlock == 0, traits.physicalExponent < 7 {
      // A physical block is what a device says that it writes as a whole (sysfs, queue/physical_block_size). What
      // queue/atomic_write_* tells beyond that holds for lengths that are powers of two at multiples of themselves, which
      // VPD page B0h has no words for.
      traits.atomicBytesMax = traits.blockBytes << UInt32(traits.physicalExponent)
      traits.atomicUnitBytes = traits.atomicBytesMax
    }
  }

  /// What a disk that discovery knows nothing of is and can.
  /// - Parameter blockBytes: the length of a logical block, a multiple of the disk's own.
  static func traits(_ disk: Disk, blockBytes: UInt32, persistsReservations: Bool) -> LogicalUnitTraits {
    var traits = LogicalUnitTraits(blockBytes: blockBytes)
    let ratio = max(disk.facts.physical_block_bytes / max(blockBytes, 1), 1)
    traits.physicalExponent = UInt8(ratio.trailingZeroBitCount)
    // Where logical blocks are longer than what alignment is told in, no block is aligned.
    if disk.facts.alignment_offset > 0, disk.facts.alignment_offset % Int32(blockBytes) == 0 {
      traits.lowestAlignedBlock = UInt16(clamping: disk.facts.alignment_offset / Int32(traits.blockBytes))
    }
    traits.isReadOnly = !disk.isWritable
    traits.isThin = disk.facts.is_block_device == 0
    traits.tellsMapping = disk.isRegularFile
    traits.hasWriteCache = disk.descriptor != nil
    traits.persistsReservations = persistsReservations
    return traits
  }
}

extension Settings.DiskRule {
  /// What a person says of a disk's kind takes away what it can, or adds what is the gateway's to do.
  func apply(to traits: inout LogicalUnitTraits) {
    if isReadOnly { traits.isReadOnly = true }
    if isRemovable { traits.isRemovable = true }
    if !isThin {
      traits.isThin = false
      traits.tellsMapping = false
    }
  }
}

extension String {
  fileprivate var replacingHyphens: String { filter { $0 != "-" } }
}
