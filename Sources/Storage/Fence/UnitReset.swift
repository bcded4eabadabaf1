import CSystem
import Glibc

/// What stands in for PREEMPT AND ABORT at a disk that cannot fence: LOGICAL UNIT RESET (SAM-5 §7.7), where the kernel can
/// send one.
public enum UnitReset {
  /// Makes the disk drop the commands that it still has of any initiator.
  /// - Parameter part: who does it where the kernel does not allow it to this process.
  /// - Throws: `failed` with the kernel's errno: nothing was done. ENOTTY, EINVAL: not a SCSI disk. `timedOut`: nobody knows.
  public static func perform(_ disk: Disk, part: FencePart = .standard) throws(FenceFailure) {
    guard let fd = disk.descriptor else { throw .failed(EOPNOTSUPP) }
    do throws(FenceFailure) {
      try send(fd)
    } catch {
      guard error.isForbidden, disk.facts.is_block_device != 0 else { throw error }
      let timeout = Fence.timeoutMillisecondsDefault
      _ = try part.ask(.resetUnit, fd, timeoutMilliseconds: timeout, insteadOf: error)
    }
  }

  static func send(_ fd: Int32) throws(FenceFailure) {
    let code = system_unit_reset(fd)
    guard code == 0 else { throw FenceFailure(errno: -code) }
  }
}
