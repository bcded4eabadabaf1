import Discovery
import Gateway
import Glibc

/// Files and programs of the appliance.
public enum SystemFiles {
  public static let releasePath = "/usr/lib/os-release"
  public static let slotsDirectory = "/efi/EFI/Linux"
  /// What the start found out (image/tree/usr/lib/gatewayd/state).
  public static let bootDirectory = "/run/gatewayd-boot"

  /// A small file as text, at most 1 MiB; nil if it cannot be read.
  public static func text(_ path: String) -> String? { KernelText.text(of: path, limit: 1 << 20) }

  public static func lines(_ path: String) -> [String] {
    (text(path) ?? "").split(whereSeparator: \.isNewline).map(String.init)
  }

  /// IMAGE_VERSION; nil: this is not the image.
  public static var imageVersion: String? { KernelImage.facts(text(releasePath) ?? "")["IMAGE_VERSION"] }

  public static func slots() -> Slots {
    Slots(files: KernelText.names(in: slotsDirectory), runningVersion: imageVersion ?? "")
  }

  /// Runs a program to its end; its output and errors as text, at most `bytesMax` of it, the rest is read and dropped.
  /// - Returns: Nil if it cannot be started; the status is 128 + the signal for one that was killed.
  public static func run(_ words: [String], bytesMax: Int = 4 << 20) -> (status: Int32, output: String)? {
    var ends: [Int32] = [0, 0]
    guard pipe(&ends) == 0 else { return nil }
    // The program gets copies, and no other one is started here meanwhile.
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    defer { close(ends[0]) }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1)
    posix_spawn_file_actions_adddup2(&actions, ends[1], 2)
    var arguments = words.map { strdup($0) } + [nil]
    defer { for argument in arguments { free(argument) } }
    var process = pid_t()
    let code = posix_spawnp(&process, words[0], &actions, nil, &arguments, environ)
    close(ends[1])
    guard code == 0 else { return nil }
    var output: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 64 << 10)
    while true {
      let count = read(ends[0], &chunk, chunk.count)
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { break }
      if output.count < bytesMax { output += chunk[..<min(count, bytesMax - output.count)] }
    }
    var status: Int32 = 0
    while waitpid(process, &status, 0) < 0, errno == EINTR {}
    let signal = status & 0x7F
    return (signal == 0 ? status >> 8 & 0xFF : 128 + signal, String(decoding: output, as: UTF8.self))
  }
}

extension SystemFiles {
  static func byteCount(_ path: String) -> UInt64? {
    var facts = stat()
    return stat(path, &facts) == 0 ? UInt64(clamping: facts.st_size) : nil
  }

  /// Of the file system that a path is on; 0 if nobody can tell.
  public static func freeBytes(_ path: String) -> UInt64 {
    var facts = statvfs()
    return statvfs(path, &facts) == 0 ? UInt64(facts.f_bavail) * UInt64(facts.f_frsize) : 0
  }

  /// What is known of a file or a directory is on the medium when this returns, and not in its cache.
  static func flush(_ path: String) throws(Update.Problem) {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw Update.Problem("\(path): \(SystemError.text(errno))") }
    defer { close(descriptor) }
    guard fsync(descriptor) == 0 else { throw Update.Problem("\(path): \(SystemError.text(errno))") }
  }

  /// A new file with these bytes, on the medium when this returns.
  static func write(_ bytes: UnsafeRawBufferPointer, to path: String) throws(Update.Problem) {
    let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw Update.Problem("\(path): \(SystemError.text(errno))") }
    defer { close(descriptor) }
    var written = 0
    while written < bytes.count {
      let count = Glibc.write(descriptor, bytes.baseAddress?.advanced(by: written), min(bytes.count - written, 1 << 20))
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { throw Update.Problem("\(path): \(SystemError.text(errno))") }
      written += count
    }
    guard fsync(descriptor) == 0 else { throw Update.Problem("\(path): \(SystemError.text(errno))") }
  }
}
