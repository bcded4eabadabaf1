/// /proc/PID/mountinfo and /proc/swaps, read as proc(5) has them. Paths in both may hold anything that a user can name a
/// file; white space and backslashes are octal escapes. A line that cannot be understood is passed over.
package enum MountTable {
  struct Mount: Equatable, Sendable {
    var number: DeviceNumber
    /// The directory of the file system that is mounted: not "/" for a bind mount or a btrfs subvolume.
    var root: String
    var mountPoint: String
    var fileSystemType: String
    var source: String
    var superOptions: String
  }

  struct Swap: Equatable, Sendable {
    var path: String
    var isFile: Bool
  }

  private static let space = UInt8(ascii: " ")
  private static let newline = UInt8(ascii: "\n")

  /// Whether something is mounted at this directory.
  package static func isMounted(at path: String) -> Bool {
    mounts(KernelText.bytes(of: "/proc/self/mountinfo", limit: 1 << 20) ?? []).contains { $0.mountPoint == path }
  }

  static func mounts(_ text: [UInt8]) -> [Mount] { text.split(separator: newline).compactMap(mount) }

  /// "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue": the fields before the lone
  /// dash vary in number, those after it do not. Empty fields count: a source may be "".
  private static func mount(_ line: ArraySlice<UInt8>) -> Mount? {
    let fields = line.split(separator: space, omittingEmptySubsequences: false)
    guard fields.count >= 10,
      let number = DeviceNumber(String(decoding: fields[2], as: UTF8.self)),
      let dash = fields[6...].firstIndex(where: { $0.elementsEqual([UInt8(ascii: "-")]) }),
      fields.count > dash + 2
    else { return nil }
    return Mount(
      number: number, root: unescaped(fields[3]), mountPoint: unescaped(fields[4]),
      fileSystemType: unescaped(fields[dash + 1]), source: unescaped(fields[dash + 2]),
      superOptions: fields.count > dash + 3 ? unescaped(fields[dash + 3]) : "")
  }

  /// "Filename Type Size Used Priority", after one line of headings.
  static func swaps(_ text: [UInt8]) -> [Swap] {
    text.split(separator: newline).dropFirst().compactMap { line in
      let fields = line.split(whereSeparator: { $0 == space || $0 == UInt8(ascii: "\t") })
      guard fields.count >= 2 else { return nil }
      return Swap(path: unescaped(fields[0]), isFile: fields[1].elementsEqual("file".utf8))
    }
  }

  /// Undoes the kernel's mangle_path: a backslash and three octal digits are one byte; any other backslash is itself.
  static func unescaped(_ field: ArraySlice<UInt8>) -> String {
    guard field.contains(UInt8(ascii: "\\")) else { return String(decoding: field, as: UTF8.self) }
    var result: [UInt8] = []
    var position = field.startIndex
    while position < field.endIndex {
      if field[position] == UInt8(ascii: "\\"), let byte = octal(field[(position + 1)...].prefix(3)) {
        result.append(byte)
        position += 4
      } else {
        result.append(field[position])
        position += 1
      }
    }
    return String(decoding: result, as: UTF8.self)
  }

  private static func octal(_ digits: ArraySlice<UInt8>) -> UInt8? {
    guard digits.count == 3 else { return nil }
    var value = 0
    for digit in digits {
      guard (UInt8(ascii: "0")...UInt8(ascii: "7")).contains(digit) else { return nil }
      value = value << 3 | Int(digit - UInt8(ascii: "0"))
    }
    return UInt8(exactly: value)
  }

  /// The mount that a path lies in: the longest mount point that leads to it, the last one mounted of several.
  static func containing(_ path: String, in mounts: [Mount]) -> Mount? {
    var best: Mount?
    for mount in mounts where leads(mount.mountPoint, to: path) {
      if mount.mountPoint.utf8.count >= best?.mountPoint.utf8.count ?? 0 { best = mount }
    }
    return best
  }

  private static func leads(_ directory: String, to path: String) -> Bool {
    if directory == "/" { return path.hasPrefix("/") }
    guard path.hasPrefix(directory) else { return false }
    let rest = path.utf8.dropFirst(directory.utf8.count)
    return rest.isEmpty || rest.first == UInt8(ascii: "/")
  }
}
