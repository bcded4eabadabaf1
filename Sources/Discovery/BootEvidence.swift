/// What the kernel's command line and the boot loader say about where this system came from.
enum BootEvidence {
  /// A device that the command line names.
  enum Root: Equatable, Sendable {
    case path(String)
    /// PARTUUID, lower case.
    case partition(String)
  }

  /// root= and resume= of a command line; forms that name a file system and not a partition are left to the mounts.
  static func roots(commandLine: String) -> [Root] {
    commandLine.split(whereSeparator: { $0 == " " || $0 == "\n" }).compactMap { word in
      for key in ["root=", "resume="] where word.hasPrefix(key) {
        let value = word.dropFirst(key.count).filter { $0 != "\"" }
        if value.hasPrefix("/dev/disk/by-partuuid/") {
          return .partition(value.dropFirst("/dev/disk/by-partuuid/".count).lowercased())
        }
        if value.hasPrefix("/dev/") { return .path(String(value)) }
        if value.hasPrefix("PARTUUID=") { return .partition(partitionUUID(value.dropFirst("PARTUUID=".count))) }
      }
      return nil
    }
  }

  /// The kernel allows "UUID/PARTNROFF=n": a partition so many places after the one named.
  private static func partitionUUID(_ value: Substring) -> String {
    value.prefix { $0 != "/" }.lowercased()
  }

  /// The EFI variable LoaderDevicePartUUID: four bytes of attributes, then UTF-16LE, perhaps with a NUL
  /// (Boot Loader Interface). Nil unless it holds a UUID's 36 characters.
  static func loaderPartition(variable: [UInt8]) -> String? {
    guard variable.count >= 4 + 72, variable.count.isMultiple(of: 2) else { return nil }
    var text = ""
    for position in stride(from: 4, to: 76, by: 2) {
      guard variable[position + 1] == 0, variable[position] < 0x80 else { return nil }
      text.unicodeScalars.append(Unicode.Scalar(variable[position]))
    }
    let isUUID = text.allSatisfy { $0.isHexDigit || $0 == "-" }
    return isUUID ? text.lowercased() : nil
  }

  static let loaderVariablePath =
    "/sys/firmware/efi/efivars/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
}
