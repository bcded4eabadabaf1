import Glibc

/// A file of a given size that goes with the value.
final class TemporaryFile: Sendable {
  let path: String
  let fd: Int32

  init(bytes: Int) {
    var template = Array("/var/tmp/gatewayd-test-XXXXXX".utf8CString)
    fd = mkstemp(&template)
    precondition(fd >= 0)
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    precondition(ftruncate(fd, off_t(bytes)) == 0)
  }

  deinit {
    close(fd)
    unlink(path)
  }

  func write(_ bytes: [UInt8], at offset: UInt64) {
    let count = bytes.withUnsafeBytes { pwrite(fd, $0.baseAddress, $0.count, off_t(offset)) }
    precondition(count == bytes.count)
  }

  func read(_ count: Int, at offset: UInt64) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
      initialized = max(pread(fd, buffer.baseAddress, count, off_t(offset)), 0)
    }
  }
}
