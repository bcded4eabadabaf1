import CUdev
import Glibc

/// libudev's netlink socket. Its objects are not safe to share: made on one thread, then used on another only.
final class UdevMonitor {
  /// One event: it names a device, and what it says of it is not relied upon.
  struct Event: Equatable {
    /// The device's place below /sys.
    var path: String
    /// "disk", "partition"; nil where the subsystem has no types.
    var deviceType: String?
    /// "add", "remove", "change", …
    var action: String?
  }

  private let context: OpaquePointer
  private let monitor: OpaquePointer
  let descriptor: Int32

  /// - Parameters:
  ///   - subsystems: whose events are heard.
  ///   - receiveBufferBytes: nil: the system's default.
  init(subsystems: [String], receiveBufferBytes: Int32? = nil) throws(DiscoveryError) {
    guard let context = udev_new() else { throw DiscoveryError(.udevContext, errno: errno) }
    let group = UdevDatabase.isRunning ? "udev" : "kernel"
    guard let monitor = udev_monitor_new_from_netlink(context, group) else {
      let code = errno
      udev_unref(context)
      throw DiscoveryError(.monitor, errno: code)
    }
    self.context = context
    self.monitor = monitor
    // Needs CAP_NET_ADMIN; without it the default is kept, and an overrun is made good.
    if let receiveBufferBytes { udev_monitor_set_receive_buffer_size(monitor, receiveBufferBytes) }
    for subsystem in subsystems { udev_monitor_filter_add_match_subsystem_devtype(monitor, subsystem, nil) }
    let result = udev_monitor_enable_receiving(monitor)
    descriptor = udev_monitor_get_fd(monitor)
    // Everything is initialised: from here on deinit cleans up.
    guard result >= 0 else { throw DiscoveryError(.receiving, errno: -result) }
  }

  deinit {
    udev_monitor_unref(monitor)
    udev_unref(context)
  }

  /// Takes what is there, without waiting; at most 4096 events, so that a flood cannot keep us here.
  ///
  /// - Returns: whether the socket ran over and events were lost.
  func receive(_ note: (Event) -> Void) -> Bool {
    var isOverrun = false
    for _ in 0..<4096 {
      errno = 0
      guard let device = udev_monitor_receive_device(monitor) else {
        switch errno {
        case ENOBUFS: isOverrun = true
        case EAGAIN, 0: return isOverrun
        // A message that libudev would not take; the next may be sound.
        default: break
        }
        continue
      }
      defer { udev_device_unref(device) }
      guard let path = udev_device_get_syspath(device) else { continue }
      note(
        Event(
          path: String(cString: path), deviceType: udev_device_get_devtype(device).map { String(cString: $0) },
          action: udev_device_get_action(device).map { String(cString: $0) }))
    }
    return isOverrun
  }
}
