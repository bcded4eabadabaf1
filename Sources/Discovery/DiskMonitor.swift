import Glibc
import Synchronization

/// Watches the machine's block devices and tells what comes and goes, on a thread of its own that sleeps until the kernel
/// has something to say.
///
/// It listens to udevd's group where udevd runs at the start, so that a device's properties are there when its event is;
/// else to the kernel's. Listening begins before the enumeration, so nothing falls between the two. Each event only names
/// a device, which is then read afresh: a late or a duplicate event does no harm. Events lost to a full socket are made
/// good by a new enumeration.
public final class DiskMonitor: Sendable {
  private struct Running {
    var thread: pthread_t
    /// Writing end; a byte in it ends the thread.
    var stopper: Int32
  }

  private let handler: @Sendable (DiskEvent) -> Void
  private let reader: BlockDeviceReader
  private let receiveBufferBytes: Int32
  private let running = Mutex<Running?>(nil)

  /// - Parameter handler: called on the monitor's thread, one event at a time, in order; while it runs events wait.
  public init(policy: DiscoveryPolicy, handler: @escaping @Sendable (DiskEvent) -> Void) {
    reader = BlockDeviceReader()
    receiveBufferBytes = policy.receiveBufferBytes
    self.handler = handler
  }

  deinit { stop() }

  /// Begins to listen, then to enumerate. The events of the enumeration, and `.enumerated` after them, come on the
  /// monitor's thread as all others do.
  public func start() throws(DiscoveryError) {
    let failure = running.withLock { (running: inout Running?) -> DiscoveryError? in
      guard running == nil else { return DiscoveryError(.alreadyStarted, errno: EALREADY) }
      do throws(DiscoveryError) {
        running = try launch()
        return nil
      } catch {
        return error
      }
    }
    if let failure { throw failure }
  }

  private func launch() throws(DiscoveryError) -> Running {
    let source = try UdevMonitor(receiveBufferBytes: receiveBufferBytes)
    let stop = try makePipe()
    let loop = MonitorLoop(source: source, stop: stop.reading, reader: reader, handler: handler)
    guard let thread = spawn(loop) else {
      close(stop.reading)
      close(stop.writing)
      throw DiscoveryError(.thread, errno: EAGAIN)
    }
    return Running(thread: thread, stopper: stop.writing)
  }

  /// Ends the thread and waits for it; no event is told after this returns. Harmless if it does not run. Called from the
  /// handler it does not wait: the event being handled is the last.
  public func stop() {
    let stopping = running.withLock { running in
      defer { running = nil }
      return running
    }
    guard let stopping else { return }
    // A byte, and not only the hang-up: a child forked meanwhile may have the writing end too.
    var byte: UInt8 = 1
    _ = write(stopping.stopper, &byte, 1)
    close(stopping.stopper)
    if pthread_equal(pthread_self(), stopping.thread) != 0 {
      pthread_detach(stopping.thread)
    } else {
      pthread_join(stopping.thread, nil)
    }
  }

  /// All disks with a medium, read now, on the caller's thread.
  public func enumerate() -> [BlockDevice] { reader.enumerate() }
}

private func makePipe() throws(DiscoveryError) -> (reading: Int32, writing: Int32) {
  var ends: [Int32] = [-1, -1]
  guard pipe(&ends) == 0 else { throw DiscoveryError(.pipe, errno: errno) }
  for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
  return (ends[0], ends[1])
}
