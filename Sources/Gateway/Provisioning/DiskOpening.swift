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
    if let device, DeviceNumber(dev_t(disk.facts.device_number)) != device.number {
      throw Refusal(isHeld: false, reason: "its node is not the device \(device.number)")
    }
    guard disk.isWritable else { throw Refusal(isHeld: false, reason: "it is read-only") }
    guard disk.byteCount >= LabelArea.diskBytesMin else {
      throw Refusal(
        isHeld: false,
        reason: """
          it has \(ByteCount.describe(disk.byteCount)); the least is \(ByteCount.describe(LabelArea.diskBytesMin))
          """)
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
      diskBytes: disk.byteCount, blockBytes: disk.facts.logical_block_bytes, pairKey: new.pairKey, nodes: new.nodes)
    let code = LabelStore.initialize(label, fd: disk.descriptor!)
    guard code == 0 else {
      throw Refusal(isHeld: false, reason: "its label could not be written: \(String(cString: strerror(-code)))")
    }
    self.label = label
  }

  /// Discards what is at both ends of a disk, where tables, signatures and labels lie.
  static func wipe(path: String, former: Former?) throws(Refusal) {
    let disk: Disk
    do throws(DiskError) { disk = try Disk.open(path: path) } catch {
      throw Refusal(isHeld: true, reason: error.description)
    }
    guard disk.byteCount >= LabelArea.diskBytesMin else {
      throw Refusal(isHeld: false, reason: "it is too small for a label")
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

  /// The disk as a LUN.
  /// - Parameters:
  ///   - lun: for disks without a label.
  ///   - uuid: for disks without a label.
  func export(lun: UInt16, uuid: UUID, registry: NexusRegistry) throws(Refusal) -> Export {
    let id = label?.disk ?? uuid
    let blockBytes = UInt64(disk.facts.logical_block_bytes)
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
        number: label?.lun ?? lun, identity: Self.identity(id), traits: traits, blocks: bytes / blockBytes,
        registry: registry, reservations: record)
      return Export(
        unit: unit, disk: disk, label: label, byteCount: bytes, sequence: place.sequence, slot: place.slot,
        isShared: isShared, fence: fence ?? .reservations)
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

  private var traits: LogicalUnitTraits {
    var traits = Self.traits(disk, persistsReservations: label != nil)
    guard let device else { return traits }
    traits.isRotational = device.isRotational
    traits.isThin = device.discardBytesMax > 0
    traits.unmapGranularity = UInt32(clamping: device.discardGranularity / UInt64(traits.blockBytes))
    traits.hasWriteCache = device.hasWriteCache
    return traits
  }

  /// What a disk that discovery knows nothing of is and can.
  static func traits(_ disk: Disk, persistsReservations: Bool) -> LogicalUnitTraits {
    var traits = LogicalUnitTraits(blockBytes: disk.facts.logical_block_bytes)
    let ratio = max(disk.facts.physical_block_bytes / max(disk.facts.logical_block_bytes, 1), 1)
    traits.physicalExponent = UInt8(ratio.trailingZeroBitCount)
    if disk.facts.alignment_offset > 0 {
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

extension String {
  fileprivate var replacingHyphens: String { filter { $0 != "-" } }
}
