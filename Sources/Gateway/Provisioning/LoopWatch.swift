import Glibc
import Reactor
import Synchronization

/// Notices that a loop device which is exported is being detached. `losetup -d` of a device in use only marks it, and the
/// kernel tells nobody; but whoever detaches it opens and closes its node, and that an inotify watch does see. Sleeps
/// until then.
final class LoopWatch: Sendable {
  /// A device as it is now: the node and its name stay when another file is attached, the sequence does not.
  struct Attached: Equatable, Sendable {
    var name: String
    var sequence: UInt64
  }

  private let descriptor: Int32
  /// By watch. The kernel gives a node that is watched already the watch that it has.
  private let devices = Mutex<[Int32: Attached]>([:])
  private let vanished: @Sendable (Attached) -> Void

  /// - Parameter vanished: called on the watch's thread or one of its own; by then another may have its name.
  init(vanished: @escaping @Sendable (Attached) -> Void) {
    self.vanished = vanished
    descriptor = inotify_init1(Int32(IN_CLOEXEC))
  }

  func start() {
    guard descriptor >= 0 else { return }
    startWatching(self)
  }

  func add(path: String, _ device: Attached) {
    let watch = inotify_add_watch(descriptor, path, UInt32(IN_CLOSE_WRITE | IN_CLOSE_NOWRITE))
    if watch >= 0 { devices.withLock { $0[watch] = device } }
    // It may have happened before the watch was there. On another thread: whoever adds a disk holds the lock that is taken
    // when one vanishes.
    guard Self.isBeingDetached(device.name) else { return }
    startThread(name: "loop watch") { [vanished] in vanished(device) }
  }

  func remove(_ device: Attached) {
    devices.withLock { devices in
      for (watch, other) in devices where other == device {
        inotify_rm_watch(descriptor, watch)
        devices[watch] = nil
      }
    }
  }

  static func isBeingDetached(_ name: String) -> Bool {
    Identity.readLine(of: "/sys/block/\(name)/loop/autoclear") == "1"
  }

  fileprivate func run() {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 8192, alignment: 8)
    defer { memory.deallocate() }
    while true {
      let count = read(descriptor, memory, 8192)
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { return }
      var offset = 0
      while offset + 16 <= count {
        // struct inotify_event: wd(4) mask(4) cookie(4) len(4) name(len)
        let watch = memory.load(fromByteOffset: offset, as: Int32.self)
        offset += 16 + Int(memory.load(fromByteOffset: offset + 12, as: UInt32.self))
        guard let device = devices.withLock({ $0[watch] }), Self.isBeingDetached(device.name) else { continue }
        vanished(device)
      }
    }
  }
}

private func startWatching(_ watch: LoopWatch) {
  startThread(name: "loop watch") { watch.run() }
}
