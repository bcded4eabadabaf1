import Glibc

/// The monitor's thread: owned by it alone from `spawn` on.
final class MonitorLoop {
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
    while wait() {
      let batch = source.receive()
      if batch.isOverrun, !tell(inventory.reconcile(with: reader.enumerate())) { return }
      // After an overrun too: what was touched is told even where the facts are the same.
      guard tell(inventory.update(batch.disks, read: reader.read)) else { return }
    }
  }

  /// Sleeps without a deadline; false at the end.
  private func wait() -> Bool {
    while true {
      var polled = [
        pollfd(fd: source.descriptor, events: Int16(POLLIN), revents: 0),
        pollfd(fd: stop, events: Int16(POLLIN), revents: 0),
      ]
      let count = poll(&polled, 2, -1)
      if count < 0 && errno != EINTR { return false }
      guard count > 0 else { continue }
      return polled[1].revents == 0
    }
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

/// Starts the thread; nil if there is none to be had. A free function, so that the closure belongs to no actor.
func spawn(_ loop: MonitorLoop) -> pthread_t? {
  var thread = pthread_t()
  let context = Unmanaged.passRetained(loop).toOpaque()
  let result = pthread_create(
    &thread, nil,
    { context in
      if let context { Unmanaged<MonitorLoop>.fromOpaque(context).takeRetainedValue().run() }
      return nil
    }, context)
  guard result == 0 else {
    Unmanaged<MonitorLoop>.fromOpaque(context).release()
    return nil
  }
  return thread
}
