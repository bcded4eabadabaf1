/// What the running system stands on, at one moment: which devices are mounted, swapped to, or booted from.
public struct SystemUse: Sendable {
  /// One use of a device, possibly through other devices.
  public struct Use: Equatable, Sendable {
    public enum Role: Equatable, Sendable {
      /// A part of the running system (/, /boot, /usr, …) or what it was booted from.
      case system
      case mount
      case swap
    }
    public var role: Role
    /// Mount point, swap path, or "the boot loader", "root=" as they are; not yet fit to print.
    public var place: String
  }

  public private(set) var uses: [String: [Use]] = [:]

  public init() {}

  /// The uses of a disk or of anything on it, worst first.
  public func uses(of device: BlockDevice) -> [Use] { uses[device.name] ?? [] }

  /// Reads the machine: /proc, /sys, the boot loader's variable.
  public static func read(devices: [BlockDevice]) -> SystemUse { SystemUse() }
}
