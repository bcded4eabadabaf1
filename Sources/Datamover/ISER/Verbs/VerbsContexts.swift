import CVerbs
import Glibc
import Synchronization

/// The devices that librdmacm holds open for this process, with the number of identifiers on each.
///
/// It opens a device with the first identifier on it and closes one that is gone only when it next makes a list of devices
/// that is not empty. The removal of a device whose driver cannot be parted from its users (soft-RoCE, siw) waits for that:
/// for ever, if it was the last one. So what has vanished and has no identifier left is closed underneath: its descriptors
/// are replaced, the library's memory of it stays until it looks again.
public final class VerbsContexts: Sendable {
  private struct Entry: Sendable {
    var identifiers = 0
    /// "uverbs0": its name in /sys/class/infiniband_verbs.
    var name: String
    var command: Int32
    var events: Int32
    /// Of the character device that `command` is open on.
    var number: UInt64
  }

  private let entries = Mutex<[UInt: Entry]>([:])

  public init() {}

  /// An identifier is on the device from now on.
  func retain(_ context: UnsafeMutablePointer<ibv_context>?) {
    guard let context else { return }
    let fresh = Entry(
      name: withUnsafeBytes(of: context.pointee.device.pointee.dev_name) {
        String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
      }, command: context.pointee.cmd_fd, events: context.pointee.async_fd,
      number: Self.deviceNumber(of: context.pointee.cmd_fd))
    entries.withLock { $0[UInt(bitPattern: context), default: fresh].identifiers += 1 }
  }

  /// An identifier that was on the device is destroyed.
  func release(_ context: UnsafeMutablePointer<ibv_context>?) {
    guard let context else { return }
    entries.withLock { $0[UInt(bitPattern: context)]?.identifiers -= 1 }
  }

  var isEmpty: Bool { entries.withLock { $0.isEmpty } }

  /// Closes the devices that are gone. Returns whether one is gone whose identifiers are still being destroyed: then it is
  /// to be called again soon.
  func closeVanished() -> Bool {
    entries.withLock { entries in
      var isWaiting = false
      for (key, entry) in entries where access("/sys/class/infiniband_verbs/\(entry.name)", F_OK) != 0 {
        if entry.identifiers > 0 {
          isWaiting = true
        } else {
          // The library may have closed it by itself: then the numbers are others'.
          if Self.deviceNumber(of: entry.command) == entry.number { Self.replace([entry.command, entry.events]) }
          entries[key] = nil
        }
      }
      return isWaiting
    }
  }

  /// 0: not a device.
  private static func deviceNumber(of descriptor: Int32) -> UInt64 {
    var facts = stat()
    guard fstat(descriptor, &facts) == 0, facts.st_mode & S_IFMT == S_IFCHR else { return 0 }
    return UInt64(facts.st_rdev)
  }

  /// The descriptors stay taken, so that the library closes nobody else's when it comes to it.
  private static func replace(_ descriptors: [Int32]) {
    let null = open("/dev/null", O_RDWR | O_CLOEXEC)
    guard null >= 0 else { return }
    for descriptor in descriptors {
      _ = dup2(null, descriptor)
      _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    }
    close(null)
  }
}
