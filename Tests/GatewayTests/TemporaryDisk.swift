import Glibc

/// A directory that goes with the value, with disks and whatever else in it.
final class TemporaryDisks: Sendable {
  let path: String

  init() {
    var template = Array("/var/tmp/gatewayd-test-XXXXXX".utf8CString)
    precondition(mkdtemp(&template) != nil)
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  deinit {
    for directory in [path + "/state", path] {
      guard let stream = opendir(directory) else { continue }
      while let entry = readdir(stream) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
          $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        unlink("\(directory)/\(name)")
      }
      closedir(stream)
      rmdir(directory)
    }
  }

  var state: String { path + "/state" }

  /// A blank disk of this name; its path.
  func disk(_ name: String, bytes: Int = 32 << 20) -> String {
    let file = "\(path)/\(name)"
    let fd = open(file, O_RDWR | O_CREAT, 0o600)
    precondition(fd >= 0 && ftruncate(fd, off_t(bytes)) == 0)
    close(fd)
    return file
  }

  /// Writes `bytes` into a file of this path, whatever it was.
  static func write(_ bytes: [UInt8], to path: String, at offset: Int = 0) {
    let fd = open(path, O_RDWR | O_CREAT, 0o600)
    precondition(fd >= 0 && pwrite(fd, bytes, bytes.count, off_t(offset)) == bytes.count)
    close(fd)
  }
}
