import Glibc

/// A directory for one test, gone with it.
final class TemporaryTree {
  let path: String

  init() {
    var template = Array("/tmp/discovery-test-XXXXXX".utf8CString)
    guard let made = mkdtemp(&template) else { fatalError("mkdtemp: \(errno)") }
    path = String(cString: made)
  }

  deinit { Self.remove(path) }

  /// Writes a file and makes the directories that lead to it.
  func write(_ name: String, _ bytes: [UInt8]) {
    makeDirectories(String(name[..<(name.lastIndex(of: "/") ?? name.startIndex)]))
    let file = fopen("\(path)/\(name)", "w")
    _ = bytes.withUnsafeBytes { fwrite($0.baseAddress, 1, $0.count, file) }
    fclose(file)
  }

  func write(_ name: String, _ text: String) { write(name, Array(text.utf8)) }

  func makeDirectories(_ name: String) {
    var directory = path
    for part in name.split(separator: "/") {
      directory += "/" + part
      mkdir(directory, 0o700)
    }
  }

  func link(_ name: String, to target: String) {
    makeDirectories(String(name[..<(name.lastIndex(of: "/") ?? name.startIndex)]))
    symlink(target, "\(path)/\(name)")
  }

  private static func remove(_ path: String) {
    var status = stat()
    guard lstat(path, &status) == 0 else { return }
    if status.st_mode & S_IFMT == S_IFDIR {
      guard let stream = opendir(path) else { return }
      var names: [String] = []
      while let entry = readdir(stream) {
        names.append(
          withUnsafePointer(to: &entry.pointee.d_name) {
            $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
          })
      }
      closedir(stream)
      for name in names where name != "." && name != ".." { remove("\(path)/\(name)") }
      rmdir(path)
    } else {
      unlink(path)
    }
  }
}
