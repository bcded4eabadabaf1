import Glibc

/// Threads that may block. The control side has threads and no tasks: the concurrency pool's own monitor wakes an idle
/// process each second. Not in a file with `@main`: there a closure belongs to the main actor and dies on another
/// thread.
public enum ControlThread {
  private final class Body {
    let run: @Sendable () -> Void
    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
  }

  /// Starts a detached thread with a small stack.
  /// - Returns: False if the system gives no thread.
  @discardableResult
  public static func start(_ run: @escaping @Sendable () -> Void) -> Bool {
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    defer { pthread_attr_destroy(&attributes) }
    pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    pthread_attr_setstacksize(&attributes, 512 << 10)
    // One reference travels through the argument: retained here, released by the thread, or here if there is none.
    let argument = Unmanaged.passRetained(Body(run))
    var thread = pthread_t()
    let code = pthread_create(&thread, &attributes, controlThreadMain, argument.toOpaque())
    if code != 0 { argument.release() }
    return code == 0
  }

  fileprivate static func enter(_ argument: UnsafeMutableRawPointer) {
    Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run()
  }
}

private func controlThreadMain(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
  if let argument { ControlThread.enter(argument) }
  return nil
}

/// A gate that one thread opens and another waits at with a deadline: a semaphore in memory of its own.
final class ThreadGate: Sendable {
  // sem_t must not move: it lives in its own allocation until the last reference goes. The semaphore is made for use by
  // several threads, so sharing the pointer is sound.
  nonisolated(unsafe) private let semaphore: UnsafeMutablePointer<sem_t>

  init() {
    semaphore = .allocate(capacity: 1)
    sem_init(semaphore, 0, 0)
  }

  deinit {
    sem_destroy(semaphore)
    semaphore.deallocate()
  }

  func open() { sem_post(semaphore) }

  /// - Returns: False if the deadline came first.
  func wait(until deadline: Deadline) -> Bool {
    // sem_timedwait counts on the wall clock; short turns keep a clock that jumps from mattering.
    while true {
      let left = Int(deadline.milliseconds)
      guard left > 0 else { return sem_trywait(semaphore) == 0 }
      let turn = min(left, 1000)
      var until = timespec()
      clock_gettime(CLOCK_REALTIME, &until)
      until.tv_sec += (until.tv_nsec + turn * 1_000_000) / 1_000_000_000
      until.tv_nsec = (until.tv_nsec + turn * 1_000_000) % 1_000_000_000
      if sem_timedwait(semaphore, &until) == 0 { return true }
    }
  }
}
