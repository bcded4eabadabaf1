import Glibc

/// What the kernel tells in /proc and /sys, below a root that tests replace.
public struct MachineFiles: Sendable {
  private let root: String
  /// A file of /proc that the doctor reads is at most this long.
  private static let byteCountMax = 8 << 20

  public init(root: String = "") { self.root = root }

  /// The text of a file without the white space at its ends; nil: it cannot be read.
  func text(_ path: String) -> String? {
    let descriptor = open(root + path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 64 << 10)
    while bytes.count < Self.byteCountMax {
      let count = read(descriptor, &chunk, chunk.count)
      guard count >= 0 else { return nil }
      if count == 0 { break }
      bytes += chunk[..<count]
    }
    let blank: (UInt8) -> Bool = { $0 == 0x20 || $0 == 0x0A }
    return String(decoding: Array(bytes.drop(while: blank).reversed().drop(while: blank).reversed()), as: UTF8.self)
  }

  func lines(_ path: String) -> [Substring] { text(path)?.split(separator: "\n") ?? [] }

  /// The names in a directory, sorted; empty: it cannot be read.
  func names(in path: String) -> [String] {
    guard let directory = opendir(root + path) else { return [] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      // `d_name` ends with a zero within the record (readdir(3)).
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names.sorted()
  }

  /// Where a link points; nil: no link, or not to be read.
  func link(_ path: String) -> String? {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = buffer.withUnsafeMutableBytes { bytes -> Int in
      guard let base = bytes.bindMemory(to: CChar.self).baseAddress else { return -1 }
      return readlink(root + path, base, bytes.count)
    }
    return count >= 0 ? String(decoding: buffer[..<count], as: UTF8.self) : nil
  }

  func exists(_ path: String) -> Bool { access(root + path, F_OK) == 0 }
}

/// Who listens on a TCP port, as far as /proc tells.
struct PortOwner: Equatable {
  /// nil: a process of another user, or the kernel itself.
  var process: (id: Int32, name: String)?

  static func == (left: PortOwner, right: PortOwner) -> Bool {
    left.process?.id == right.process?.id && left.process?.name == right.process?.name
  }

  /// nil: nobody listens.
  static func find(port: UInt16, in files: MachineFiles) -> PortOwner? {
    let rows = files.lines("/proc/net/tcp").dropFirst() + files.lines("/proc/net/tcp6").dropFirst()
    let inodes = Set(rows.compactMap { inode(ofListener: $0, port: port) })
    guard !inodes.isEmpty else { return nil }
    let links = Set(inodes.map { "socket:[\($0)]" })
    for name in files.names(in: "/proc") {
      guard let id = Int32(name) else { continue }
      let descriptors = files.names(in: "/proc/\(id)/fd")
      if descriptors.contains(where: { files.link("/proc/\(id)/fd/\($0)").map(links.contains) == true }) {
        return PortOwner(process: (id, files.text("/proc/\(id)/comm") ?? "?"))
      }
    }
    return PortOwner(process: nil)
  }

  /// A row of /proc/net/tcp (proc(5)): slot, local address:port, remote, state (0A: listening), …, inode as the tenth.
  private static func inode(ofListener row: Substring, port: UInt16) -> Substring? {
    let fields = row.split(separator: " ")
    guard fields.count > 9, fields[3] == "0A", let colon = fields[1].lastIndex(of: ":"),
      UInt16(fields[1][fields[1].index(after: colon)...], radix: 16) == port
    else { return nil }
    return fields[9]
  }
}
