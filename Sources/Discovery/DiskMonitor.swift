/// Watches the machine's block devices and tells what comes and goes, on a thread of its own that sleeps until the kernel
/// has something to say.
///
/// It listens to udevd's group where udevd runs at the start, so that a device's properties are there when its event is;
/// else to the kernel's. Listening begins before the enumeration, so nothing falls between the two. Each event only names
/// a device, which is then read afresh: a late or a duplicate event does no harm. Events lost to a full socket are made
/// good by a new enumeration.
public final class DiskMonitor: Sendable {
  private let handler: @Sendable (DiskEvent) -> Void
  private let reader: BlockDeviceReader
  private let receiveBufferBytes: Int32
  private let thread = WatchThread()

  /// - Parameter handler: called on the monitor's thread, one event at a time, in order; while it runs events wait.
  public init(policy: DiscoveryPolicy, handler: @escaping @Sendable (DiskEvent) -> Void) {
    reader = BlockDeviceReader()
    receiveBufferBytes = policy.receiveBufferBytes
    self.handler = handler
  }

  /// Begins to listen, then to enumerate. The events of the enumeration, and `.enumerated` after them, come on the
  /// monitor's thread as all others do.
  public func start() throws(DiscoveryError) {
    try thread.start { (stop) throws(DiscoveryError) -> any WatchLoop in
      let source = try UdevMonitor(subsystems: ["block"], receiveBufferBytes: receiveBufferBytes)
      return MonitorLoop(source: source, stop: stop, reader: reader, handler: handler)
    }
  }

  /// Ends the thread and waits for it; no event is told after this returns. Harmless if it does not run. Called from the
  /// handler it does not wait: the event being handled is the last.
  public func stop() { thread.stop() }

  /// All disks with a medium, read now, on the caller's thread.
  public func enumerate() -> [BlockDevice] { reader.enumerate() }
}
