import CSystem
import Discovery
import Glibc
import Storage

/// Labels that are not at the end of their disk, because it grew while no gateway looked.
extension DiskOpening {
  /// A descriptor to read the disk with, beside the one that has it exclusively.
  static func openToSearch(_ disk: Disk) throws(Refusal) -> Int32 {
    let fd = system_open_disk(disk.path, 0, 0, 0)
    guard fd >= 0 else { throw Refusal(isHeld: false, reason: "it cannot be read: \(String(cString: strerror(-fd)))") }
    var facts = system_disk_facts()
    guard system_disk_facts(fd, &facts) == 0, facts.device_number == disk.facts.device_number else {
      close(fd)
      throw Refusal(isHeld: false, reason: "it changed while it was being examined")
    }
    return fd
  }

  /// Looks briefly for a former label on a disk that is held for another reason; nil: none was found.
  static func former(_ device: BlockDevice, knownBytes: [UInt64]) -> Refusal? {
    let fd = system_open_disk(device.path, 0, 0, 0)
    guard fd >= 0 else { return nil }
    defer { close(fd) }
    var facts = system_disk_facts()
    guard system_disk_facts(fd, &facts) == 0, DeviceNumber(dev_t(facts.device_number)) == device.number else {
      return nil
    }
    return former(fd, device.bytes, device.path, knownBytes: knownBytes)
  }

  static func former(_ disk: Disk, knownBytes: [UInt64]) -> Refusal? {
    guard let fd = try? openToSearch(disk) else { return nil }
    defer { close(fd) }
    return former(fd, disk.byteCount, disk.path, knownBytes: knownBytes)
  }

  static func former(_ fd: Int32, _ diskBytes: UInt64, _ path: String, knownBytes: [UInt64]) -> Refusal? {
    let found = LabelSearch.search(
      fd: fd, diskBytes: diskBytes, knownBytes: knownBytes, extent: .brief, ignoresData: true)
    // Remains alone say nothing of a disk that has something else on it.
    guard let found, case .grown = found else { return nil }
    return refusal(found, diskBytes: diskBytes, path: path)
  }

  static func refusal(_ found: LabelSearch.Finding, diskBytes: UInt64, path: String) -> Refusal {
    switch found {
    case .grown(let label):
      let start = label.exportedBytes
      return Refusal(
        isHeld: true,
        reason: """
          it has grown from \(ByteCount.describe(label.diskBytes)) to \(ByteCount.describe(diskBytes)) while no gateway \
          looked: its label (LUN \(label.lun)) is no longer at its end
          """,
        advice: "gatewayd disks adopt \(path) --grow (keeps content, number and name)",
        former: Former(diskBytes: label.diskBytes, area: start..<start + LabelArea.byteCount))
    case .remains(let place):
      let start = place - min(place, LabelArea.byteCount)
      return Refusal(
        isHeld: true, reason: "there are remains of a gateway's label at byte \(place)", advice: wipeAdvice(path),
        former: Former(diskBytes: nil, area: start..<place + LabelArea.byteCount))
    case .data(let place):
      return Refusal(isHeld: true, reason: "it is not blank: there is data at byte \(place)", advice: wipeAdvice(path))
    case .unreadable(let code):
      return Refusal(isHeld: false, reason: "it cannot be read: \(String(cString: strerror(-code)))")
    }
  }

  /// The label that this disk had at the end of `diskBytes`.
  func formerLabel(diskBytes: UInt64) throws(Refusal) -> Label {
    guard diskBytes < disk.byteCount,
      case .label(let label) = LabelStore.readLabel(fd: disk.descriptor!, diskBytes: diskBytes)
    else { throw Refusal(isHeld: true, reason: "its label is not where it was found any more") }
    return label
  }

  /// Moves the label area from where `old` has it to the disk's end.
  mutating func moveLabel(from old: Label) throws(Refusal) {
    var label = old
    label.diskBytes = disk.byteCount
    let code = LabelStore.move(old, to: label, fd: disk.descriptor!)
    guard code == 0 else {
      throw Refusal(isHeld: true, reason: "its label could not be moved: \(String(cString: strerror(-code)))")
    }
    self.label = label
  }
}
