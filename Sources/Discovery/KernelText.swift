import Glibc

/// Reading the small text files of /proc and /sys, and making text of unknown origin fit for a terminal.
package enum KernelText {
  /// The bytes of a file, at most `limit`; nil if it cannot be opened or read.
  package static func bytes(of path: String, limit: Int = 4096) -> [UInt8]? {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var result: [UInt8] = []
    while result.count < limit {
      let wanted = min(limit - result.count, 65536)
      let chunk = [UInt8](unsafeUninitializedCapacity: wanted) { buffer, count in
        count = max(0, read(descriptor, buffer.baseAddress, wanted))
      }
      if chunk.isEmpty { break }
      result += chunk
    }
    return result
  }

  package static func text(of path: String, limit: Int) -> String? {
    bytes(of: path, limit: limit).map { String(decoding: $0, as: UTF8.self) }
  }

  /// A one-line attribute without the white space around it; nil if absent or empty.
  static func attribute(_ path: String) -> String? {
    guard let bytes = bytes(of: path) else { return nil }
    let text = trimmed(bytes)
    return text.isEmpty ? nil : text
  }

  static func number(_ path: String) -> UInt64? { attribute(path).flatMap { UInt64($0) } }

  static func trimmed(_ bytes: some Sequence<UInt8>) -> String {
    // Disks pad their names with spaces, and some with NULs.
    let isBlank = { (byte: UInt8) in byte <= 0x20 }
    let whole = Array(bytes)
    guard let first = whole.firstIndex(where: { !isBlank($0) }), let last = whole.lastIndex(where: { !isBlank($0) })
    else { return "" }
    return String(decoding: whole[first...last], as: UTF8.self)
  }

  /// Names in a directory, sorted, without "." and ".."; empty if it cannot be read.
  package static func names(in directory: String) -> [String] {
    guard let stream = opendir(directory) else { return [] }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != "." && name != ".." { names.append(name) }
    }
    return names.sorted()
  }

  /// Where a symbolic link points; nil if it cannot be read.
  static func link(_ path: String) -> String? {
    let target = [UInt8](unsafeUninitializedCapacity: 4096) { buffer, count in
      count = buffer.withMemoryRebound(to: CChar.self) { text in
        text.baseAddress.map { max(0, readlink(path, $0, text.count)) } ?? 0
      }
    }
    return target.isEmpty ? nil : String(decoding: target, as: UTF8.self)
  }

  static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

  /// Text from a disk, a mount or a peer, made safe to print: no control characters, at most 128 characters.
  static func printable(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars.prefix(128) {
      switch scalar.properties.generalCategory {
      case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .privateUse, .unassigned:
        result += "?"
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }

  static func message(of code: Int32) -> String {
    var buffer = [CChar](repeating: 0, count: 128)
    // glibc's XSI strerror_r fills the buffer; on failure it stays empty.
    _ = strerror_r(code, &buffer, buffer.count - 1)
    let text = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return text.isEmpty ? "error \(code)" : text
  }
}
