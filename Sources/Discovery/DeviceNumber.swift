import Glibc

/// A block device's number (`dev_t`), as sysfs and mountinfo write it: "8:16".
public struct DeviceNumber: Hashable, Sendable, CustomStringConvertible {
  public var major: UInt32
  public var minor: UInt32

  public init(major: UInt32, minor: UInt32) {
    self.major = major
    self.minor = minor
  }

  /// From a `dev_t` as stat(2) gives it: glibc's 64-bit encoding, 12 + 20 bits of major around 8 + 24 bits of minor.
  public init(_ encoded: dev_t) {
    let bits = UInt64(encoded)
    major = UInt32(truncatingIfNeeded: (bits >> 8) & 0xfff) | UInt32(truncatingIfNeeded: (bits >> 32) & 0xffff_f000)
    minor = UInt32(truncatingIfNeeded: bits & 0xff) | UInt32(truncatingIfNeeded: (bits >> 12) & 0xffff_ff00)
  }

  /// From "MAJOR:MINOR"; nil for anything else.
  public init?(_ text: some StringProtocol) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 2, let major = UInt32(parts[0]), let minor = UInt32(parts[1]) else { return nil }
    self.init(major: major, minor: minor)
  }

  /// Major 0: a number with no device behind it (tmpfs, overlay, a btrfs subvolume).
  public var isAnonymous: Bool { major == 0 }

  public var description: String { "\(major):\(minor)" }
}
