import CUdev
import Glibc

/// libudev's netlink socket. Its objects are not safe to share: made on one thread, then used on another only.
final class UdevMonitor {
  /// What came in one go.
  struct Batch: Equatable {
    /// Whole disks that events named, and whether one of them was the disk's own "change".
    var disks: [String: Bool] = [:]
    /// Whether the socket ran over and events were lost.
    var isOverrun = false
  }

  private let context: OpaquePointer
  private let monitor: OpaquePointer
  let descriptor: Int32

  init(receiveBufferBytes: Int32) throws(DiscoveryError) {
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
    udev_monitor_set_receive_buffer_size(monitor, receiveBufferBytes)
    udev_monitor_filter_add_match_subsystem_devtype(monitor, "block", nil)
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
  func receive() -> Batch {
    var batch = Batch()
    for _ in 0..<4096 {
      errno = 0
      guard let device = udev_monitor_receive_device(monitor) else {
        switch errno {
        case ENOBUFS: batch.isOverrun = true
        case EAGAIN, 0: return batch
        // A message that libudev would not take; the next may be sound.
        default: break
        }
        continue
      }
      defer { udev_device_unref(device) }
      note(device, in: &batch)
    }
    return batch
  }

  private func note(_ device: OpaquePointer, in batch: inout Batch) {
    guard let path = udev_device_get_syspath(device).map({ String(cString: $0) }),
      let type = udev_device_get_devtype(device).map({ String(cString: $0) })
    else { return }
    let action = udev_device_get_action(device).map { String(cString: $0) }
    let parts = path.split(separator: "/")
    // ".../block/sda" or ".../block/sda/sda1": a partition's news is its disk's.
    guard let name = type == "partition" ? parts.dropLast().last : parts.last else { return }
    let isTouched = type == "disk" && action == "change"
    batch.disks[String(name), default: false] = batch.disks[String(name), default: false] || isTouched
  }
}
