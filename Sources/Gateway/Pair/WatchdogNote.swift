import Discovery
import Glibc
import HA
import Reactor
import Wire

/// What the machine's watchdog stands for, for the program's next life: the kernel may have writes of this one under way when it
/// ends, and whoever starts next must leave the watchdog alone until they are over (docs/HA.md).
struct WatchdogNote: Equatable, Sendable {
  /// The device that a life in this boot of the machine has armed, as a path; nil: none has.
  var device: String?
  var disks: Set<DiskID> = []
}

/// Where it is kept: a small file beside the control socket, replaced atomically, which is to last as long as the machine runs. What
/// another boot of the machine has left says nothing.
struct WatchdogNoteFile: Sendable {
  let path: String
  var bootIDPath = "/proc/sys/kernel/random/boot_id"

  private static let bytesMax = 1 << 20

  init(besides controlPath: String) { path = "\(controlPath).watchdog" }

  /// What an earlier life has written. Where that cannot be known it is a disk that nobody ever sees: the engine waits until a
  /// watchdog would have reset the machine.
  func load() -> WatchdogNote {
    guard let text = KernelText.text(of: path, limit: Self.bytesMax) else {
      return errno == ENOENT ? WatchdogNote() : unknown(SystemError.text(errno))
    }
    var info = stat()
    guard lstat(path, &info) == 0, info.st_uid == geteuid() || info.st_uid == 0, !text.isEmpty else {
      return unknown("it is somebody else's, or empty")
    }
    guard let boot = Identity.readLine(of: bootIDPath) else { return unknown("\(bootIDPath) cannot be read") }
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    guard lines.first.map(String.init) == boot else { return WatchdogNote() }
    // An empty line is the end: what is cut short has none.
    guard lines.count >= 3, lines.last?.isEmpty == true else { return unknown("it is cut short") }
    var note = WatchdogNote(device: lines[1].isEmpty ? nil : String(lines[1]))
    for line in lines.dropFirst(2).dropLast() {
      guard let disk = UUID(String(line)) else { return unknown("a line names no disk") }
      note.disks.insert(disk)
    }
    return note
  }

  private func unknown(_ why: String) -> WatchdogNote {
    Log.warning("pair: \(path) cannot be read: \(why); the watchdog is left alone at first")
    return WatchdogNote(disks: [Identity.randomUUID()])
  }

  /// Whether it could be written.
  /// - Parameter isTold: a failure is told.
  func keep(_ note: WatchdogNote, isTold: Bool = true) -> Bool {
    guard let boot = Identity.readLine(of: bootIDPath) else {
      if isTold { Log.warning("pair: \(bootIDPath) cannot be read") }
      return false
    }
    let text = "\(boot)\n\(note.device ?? "")\n" + note.disks.map { "\($0)\n" }.sorted().joined()
    let temporary = path + ".new"
    unlink(temporary)
    // Whoever may write to the directory does not choose what is written over.
    let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
    var code = descriptor < 0 ? errno : 0
    if descriptor >= 0 {
      let bytes = Array(text.utf8)
      if write(descriptor, bytes, bytes.count) != bytes.count { code = errno != 0 ? errno : ENOSPC }
      close(descriptor)
    }
    if code == 0, rename(temporary, path) != 0 { code = errno }
    if code != 0, isTold { Log.warning("pair: \(path) cannot be written: \(SystemError.text(code))") }
    return code == 0
  }
}
