import CSystem
import Glibc

/// What stands in for PREEMPT AND ABORT at a disk that cannot fence: LOGICAL UNIT RESET (SAM-5 §7.7), where the kernel can
/// send one.
public enum UnitReset {
  /// Makes the disk drop the commands that it still has of any initiator.
  /// - Throws: `failed` with the kernel's errno: nothing was done. ENOTTY, EINVAL: not a SCSI disk.
  public static func perform(_ disk: Disk) throws(FenceFailure) {
    guard let fd = disk.descriptor else { throw .failed(EOPNOTSUPP) }
    let code = system_unit_reset(fd)
    guard code == 0 else { throw FenceFailure(errno: -code) }
  }
}
