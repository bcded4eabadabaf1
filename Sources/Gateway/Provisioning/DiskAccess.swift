import Discovery
import Storage

/// How the provisioner looks at disks and opens them, which may take as long as a disk does: replaced where a test needs one
/// that hangs.
struct DiskAccess: Sendable {
  var judge: @Sendable (BlockDevice, SystemUse, DiscoveryPolicy) -> Verdict
  /// The last parameter: sizes that labelled disks are known to have had, in bytes.
  var open: @Sendable (String, BlockDevice?, [UInt64]) throws(DiskOpening.Refusal) -> DiskOpening

  /// What discovery would tell of the disk of this path now.
  var device: @Sendable (String) -> BlockDevice? = { Provisioner.blockDevice($0) }

  static let real = DiskAccess(
    judge: { device, use, policy in
      examine(device, use: use, policy: policy) { fd, bytes in LabelStore.isOurs(fd: fd, diskBytes: bytes) }
    },
    open: { path, device, knownBytes throws(DiskOpening.Refusal) in
      try DiskOpening(path: path, device: device, knownBytes: knownBytes)
    })
}
