/// Why discovery cannot work. Without it nothing is found, so the composition says so and goes on with what it was given.
public struct DiscoveryError: Error, Equatable, Sendable, CustomStringConvertible {
  public enum Operation: String, Sendable {
    case udevContext = "udev_new"
    case monitor = "udev_monitor_new_from_netlink"
    case receiving = "udev_monitor_enable_receiving"
    case pipe, thread = "pthread_create"
    case interfaces = "getifaddrs"
    case links = "netlink(7)"
    case alreadyStarted = "start"
  }

  public var operation: Operation
  public var errno: Int32

  public init(_ operation: Operation, errno: Int32) {
    self.operation = operation
    self.errno = errno
  }

  public var description: String { "discovery: \(operation.rawValue): \(KernelText.message(of: errno))" }
}
