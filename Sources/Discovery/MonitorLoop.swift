import Glibc

/// The disk monitor's thread.
final class MonitorLoop: WatchLoop {
  private let source: UdevMonitor
  private let stop: Int32
  private let reader: BlockDeviceReader
  private let handler: @Sendable (DiskEvent) -> Void
  private var inventory = DiskInventory()

  /// - Parameter stop: readable or hung up means the end; closed by this object.
  init(
    source: UdevMonitor, stop: Int32, reader: BlockDeviceReader, handler: @escaping @Sendable (DiskEvent) -> Void
  ) {
    self.source = source
    self.stop = stop
    self.reader = reader
    self.handler = handler
  }

  deinit { close(stop) }

  func run() {
    guard tell(inventory.reconcile(with: reader.enumerate())), tell([.enumerated]) else { return }
    while sleepUntilReadable([source.descriptor], stop: stop) == .event {
      // Whole disks that events named, and whether one of them was the disk's own "change".
      var touched: [String: Bool] = [:]
      let isOverrun = source.receive { Self.note($0, in: &touched) }
      if isOverrun, !tell(inventory.reconcile(with: reader.enumerate())) { return }
      // After an overrun too: what was touched is told even where the facts are the same.
      guard tell(inventory.update(touched, read: reader.read)) else { return }
    }
  }

  private static func note(_ event: UdevMonitor.Event, in touched: inout [String: Bool]) {
    guard let type = event.deviceType else { return }
    let parts = event.path.split(separator: "/")
    // ".../block/sda" or ".../block/sda/sda1": a partition's news is its disk's.
    guard let name = type == "partition" ? parts.dropLast().last : parts.last else { return }
    let isTouched = type == "disk" && event.action == "change"
    touched[String(name), default: false] = touched[String(name), default: false] || isTouched
  }

  /// False if the end came between two events.
  private func tell(_ events: [DiskEvent]) -> Bool {
    for event in events {
      var polled = pollfd(fd: stop, events: Int16(POLLIN), revents: 0)
      guard poll(&polled, 1, 0) <= 0 else { return false }
      handler(event)
    }
    return true
  }
}
