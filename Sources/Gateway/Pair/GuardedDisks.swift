import Discovery
import Glibc
import HA
import Reactor
import Wire

/// Which disks the machine's watchdog stands for, kept for the program's next life: the kernel may have writes of this one under
/// way when it ends, and whoever starts next must leave the watchdog alone until they are over (docs/HA.md).
///
/// A small file beside the control socket, replaced atomically. What another boot of the machine left says nothing.
struct GuardedDisks: Sendable {
  let path: String
  var bootIDPath = "/proc/sys/kernel/random/boot_id"

  private static let bytesMax = 1 << 20

  /// - Parameter controlPath: of the control socket, whose directory lasts until the machine ends, not longer.
  init(besides controlPath: String) { path = "\(controlPath).guarded" }

  private var machineBoot: String? { Identity.readLine(of: bootIDPath) }

  /// What an earlier life kept; nothing where there was none in this boot of the machine.
  func load() -> Set<DiskID> {
    guard let text = KernelText.text(of: path, limit: Self.bytesMax) else { return [] }
    let lines = text.split(separator: "\n")
    guard let boot = machineBoot, let first = lines.first, first == boot else { return [] }
    return Set(lines.dropFirst().compactMap { UUID(String($0)) })
  }

  /// A failure is told: then a program that ends in the midst of writes, and starts again at once, may keep the machine from being
  /// reset for them.
  func keep(_ disks: Set<DiskID>) {
    guard let boot = machineBoot else { return Log.warning("pair: \(bootIDPath) cannot be read") }
    let text = boot + "\n" + disks.map { "\($0)\n" }.sorted().joined()
    let temporary = path + ".new"
    guard let file = fopen(temporary, "we") else {
      return Log.warning("pair: \(temporary) cannot be written: \(SystemError.text(errno))")
    }
    let isWritten = fputs(text, file) >= 0
    guard fclose(file) == 0, isWritten, rename(temporary, path) == 0 else {
      return Log.warning("pair: \(path) cannot be replaced: \(SystemError.text(errno))")
    }
  }
}
