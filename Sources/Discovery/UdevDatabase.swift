import CUdev
import Glibc

/// What udevd's rules found out about a device (ID_WWN, ID_SERIAL, …).
enum UdevDatabase {
  /// Whether udevd runs and handles events: then its group of the netlink socket is the one to listen to.
  static var isRunning: Bool { KernelText.exists("/run/udev/control") }

  /// Properties of a block device by its sysfs name; empty if it is not there.
  static func properties(of name: String) -> [String: String] {
    // A context is not safe to share between threads and costs little: each call has its own.
    guard let context = udev_new() else { return [:] }
    defer { udev_unref(context) }
    guard let device = udev_device_new_from_subsystem_sysname(context, "block", name) else { return [:] }
    defer { udev_device_unref(device) }
    var properties: [String: String] = [:]
    var entry = udev_device_get_properties_list_entry(device)
    while let current = entry {
      if let key = udev_list_entry_get_name(current), let value = udev_list_entry_get_value(current) {
        properties[String(cString: key)] = String(cString: value)
      }
      entry = udev_list_entry_get_next(current)
    }
    return properties
  }
}
