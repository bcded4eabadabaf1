import Glibc
import Synchronization

/// What the thread of a monitor runs. Made on the caller's thread, owned by the monitor's alone from its start on.
protocol WatchLoop: AnyObject {
  /// Returns soon after the descriptor that it was made with became readable or was hung up.
  func run()
}

/// A monitor's thread: started and stopped by anybody, and asleep as long as its loop is.
final class WatchThread: Sendable {
  private struct Running {
    var thread: pthread_t
    /// Writing end; a byte in it ends the thread.
    var stopper: Int32
  }

  private let running = Mutex<Running?>(nil)

  deinit { stop() }

  /// - Parameter make: makes the loop. The descriptor it gets tells it to end, and is the loop's to close.
  /// - Throws: what `make` throws; `.alreadyStarted`; `.pipe` or `.thread` where there are none to be had.
  func start(
    _ make: (_ stop: Int32) throws(DiscoveryError) -> any WatchLoop
  ) throws(DiscoveryError) {
    let failure = running.withLock { (running: inout Running?) -> DiscoveryError? in
      guard running == nil else { return DiscoveryError(.alreadyStarted, errno: EALREADY) }
      do throws(DiscoveryError) {
        running = try Self.launch(make)
        return nil
      } catch {
        return error
      }
    }
    if let failure { throw failure }
  }

  private static func launch(
    _ make: (_ stop: Int32) throws(DiscoveryError) -> any WatchLoop
  ) throws(DiscoveryError) -> Running {
    let stop = try makePipe()
    let loop: any WatchLoop
    do throws(DiscoveryError) { loop = try make(stop.reading) } catch {
      close(stop.reading)
      close(stop.writing)
      throw error
    }
    guard let thread = spawn(loop) else {
      close(stop.writing)
      throw DiscoveryError(.thread, errno: EAGAIN)
    }
    return Running(thread: thread, stopper: stop.writing)
  }

  /// Ends the thread and waits for it. Harmless if it does not run. Called from the thread itself it does not wait.
  func stop() {
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
}

private func makePipe() throws(DiscoveryError) -> (reading: Int32, writing: Int32) {
  var ends: [Int32] = [-1, -1]
  guard pipe(&ends) == 0 else { throw DiscoveryError(.pipe, errno: errno) }
  for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
  return (ends[0], ends[1])
}

/// What the thread is given: one pointer.
private final class Start {
  let loop: any WatchLoop

  init(_ loop: any WatchLoop) { self.loop = loop }
}

/// Starts the thread; nil if there is none to be had. A free function, so that the closure belongs to no actor.
private func spawn(_ loop: any WatchLoop) -> pthread_t? {
  var thread = pthread_t()
  let context = Unmanaged.passRetained(Start(loop)).toOpaque()
  let result = pthread_create(
    &thread, nil,
    { context in
      if let context { Unmanaged<Start>.fromOpaque(context).takeRetainedValue().loop.run() }
      return nil
    }, context)
  guard result == 0 else {
    Unmanaged<Start>.fromOpaque(context).release()
    return nil
  }
  return thread
}

/// What ended a sleep.
enum Wakening: Equatable {
  case event, deadline, stop
}

/// Sleeps until one of the descriptors has something to read, the end is near, or the time is over.
///
/// - Parameter milliseconds: at most; negative: for ever.
func sleepUntilReadable(_ descriptors: [Int32], stop: Int32, milliseconds: Int32 = -1) -> Wakening {
  var polled = ([stop] + descriptors).map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
  while true {
    let count = poll(&polled, nfds_t(polled.count), milliseconds)
    if count < 0 && errno != EINTR { return .stop }
    if count == 0 { return .deadline }
    guard count > 0 else { continue }
    return polled[0].revents == 0 ? .event : .stop
  }
}
