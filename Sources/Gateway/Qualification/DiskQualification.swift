import Discovery
import Glibc
import Storage

/// Whether a disk can be shared by a pair: tried on the disk itself, by everything that a takeover does. Needs a disk with
/// nothing on it, and leaves it so.
public struct DiskQualification {
  let first: Disk
  let second: Disk?
  let firstFence: Fence
  let secondFence: Fence?
  /// World-wide name; empty: none.
  let wwid: String

  /// Opens the disk exclusively, and looks that nobody has anything on it or is registered there. Writes nothing.
  /// - Parameter second: another path to the same disk, with a nexus of its own: another port, or a session of another
  ///   initiator.
  public init(path: String, second: String? = nil) throws(QualificationRefusal) {
    let known = BlockDeviceReader().enumerate()
    let use = SystemUse.read(devices: known)
    let device = try Self.device(path, known)
    wwid = device.wwid ?? ""
    let other: BlockDevice? = if let second { try Self.device(second, known) } else { nil }
    if let second, let other {
      guard other.number != device.number else { throw QualificationRefusal("\(second) is the same path as \(path)") }
      guard let name = device.wwid, other.wwid == name, other.bytes == device.bytes else {
        throw QualificationRefusal(
          "\(path) (\(device.wwid ?? "no name")) and \(second) (\(other.wwid ?? "no name")) are not the same disk")
      }
    }
    // All are looked at before any is opened: one that is open here would seem to be in use.
    try Self.judge(device, at: path, use)
    if let second, let other { try Self.judge(other, at: second, use) }
    (first, firstFence) = try Self.open(path)
    guard let second else {
      self.second = nil
      secondFence = nil
      return
    }
    let (disk, fence) = try Self.open(second)
    guard fence.routeName == "SCSI", firstFence.routeName == "SCSI" else {
      throw QualificationRefusal(
        "NVMe knows hosts and not paths, and a multipath map has all of a host's paths: a second one proves nothing")
    }
    self.second = disk
    secondFence = fence
  }

  private static func device(_ path: String, _ known: [BlockDevice]) throws(QualificationRefusal) -> BlockDevice {
    var status = stat()
    guard stat(path, &status) == 0 else { throw QualificationRefusal("\(path): \(SystemError.text(errno))") }
    let number = DeviceNumber(status.st_rdev)
    guard status.st_mode & S_IFMT == S_IFBLK, let device = known.first(where: { $0.number == number }) else {
      throw QualificationRefusal("\(path) is not a whole block device")
    }
    return device
  }

  /// What discovery says of it: only a blank disk is tried.
  private static func judge(_ device: BlockDevice, at path: String, _ use: SystemUse) throws(QualificationRefusal) {
    let verdict = examine(device, use: use, policy: DiscoveryPolicy()) { fd, bytes in
      LabelStore.isOurs(fd: fd, diskBytes: bytes)
    }
    switch verdict {
    case .blank: return
    case .labelled: throw QualificationRefusal("\(path) is a gateway's disk: it has a label")
    case .held(let reason): throw QualificationRefusal("\(path) is not blank. \(reason.sentence)")
    case .refused(let reason): throw QualificationRefusal("\(path): \(reason.sentence)")
    }
  }

  private static func open(_ path: String) throws(QualificationRefusal) -> (Disk, Fence) {
    let disk: Disk
    do throws(DiskError) { disk = try Disk.open(path: path) } catch { throw QualificationRefusal(error.description) }
    guard disk.isWritable else { throw QualificationRefusal("\(path) is read-only") }
    switch FenceSupport.probe(disk) {
    case .unable(let obstacle): throw QualificationRefusal("\(path) cannot fence: \(obstacle)")
    case .able(let state):
      guard state.keys.isEmpty else {
        let keys = state.keys.map { "0x" + String($0, radix: 16) }.joined(separator: ", ")
        throw QualificationRefusal("\(path) is in use: others are registered there (\(keys))")
      }
    }
    return (disk, Fence(disk)!)
  }

  /// What will be tried, and on what: for whoever is asked.
  public var summary: String {
    let paths = second.map { "\(first.path) and \($0.path)" } ?? first.path
    return "\(paths) (\(ByteCount.describe(first.byteCount)), \(wwid.isEmpty ? "no world-wide name" : wwid))"
  }

  /// Does it.
  public func run() -> QualificationReport { QualificationProof(self).run() }
}
