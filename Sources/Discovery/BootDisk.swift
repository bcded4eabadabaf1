/// The disk that this system was started from, as the boot loader tells it (LoaderDevicePartUUID, Boot Loader Interface).
///
/// A wrong answer would have a foreign disk formatted, so there is one only if exactly one disk has the partition: two that
/// were written from one image have the same.
public enum BootDisk: Equatable, Sendable {
  /// Its sysfs name.
  case disk(String)
  /// The loader tells none: a start over the network, or without UEFI.
  case none
  /// No disk has the partition (yet).
  case missing(partition: String)
  /// More than one has it.
  case several([String])

  /// Reads the machine once.
  public static func find() -> BootDisk {
    let partition = KernelText.bytes(of: BootEvidence.loaderVariablePath)
      .flatMap(BootEvidence.loaderPartition(variable:))
    return find(partition: partition, in: BlockDeviceReader().enumerate())
  }

  static func find(partition: String?, in devices: [BlockDevice]) -> BootDisk {
    guard let partition else { return .none }
    let disks = devices.filter { disk in disk.partitions.contains { $0.uuid == partition } }.map(\.name).sorted()
    switch disks.count {
    case 0: return .missing(partition: partition)
    case 1: return .disk(disks[0])
    default: return .several(disks)
    }
  }
}
