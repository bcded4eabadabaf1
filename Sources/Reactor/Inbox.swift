import CSystem
import Glibc
import Synchronization

/// Messages from other threads to a ring's thread. Cold: settings, snapshots, task management across threads. The receiver
/// keeps a poll on `descriptor` in its ring.
public final class Inbox<Message: Sendable>: Sendable {
  private let queue = Mutex<[Message]>([])
  /// An eventfd: readable while messages wait.
  public let descriptor: Int32

  public init() {
    descriptor = system_eventfd()
    precondition(descriptor >= 0, "no file descriptor is left for a thread's inbox")
  }

  deinit { close(descriptor) }

  /// Adds a message and wakes the receiver if it may be asleep.
  public func post(_ message: Message) {
    let wasEmpty = queue.withLock { queue in
      queue.append(message)
      return queue.count == 1
    }
    guard wasEmpty else { return }
    var one: UInt64 = 1
    _ = write(descriptor, &one, 8)
  }

  /// All messages, in the order posted.
  public func take() -> [Message] {
    var count: UInt64 = 0
    _ = read(descriptor, &count, 8)
    return queue.withLock { queue in
      let messages = queue
      queue = []
      return messages
    }
  }
}

/// Starts a thread of the given name that runs `body`. A free function, so that the body belongs to no actor.
public func startThread(name: String, _ body: @escaping @Sendable () -> Void) {
  precondition(tryStartThread(name: name, body), "cannot start a thread")
}

/// The same, where it can be done without; false: the system has none to give.
public func tryStartThread(name: String, _ body: @escaping @Sendable () -> Void) -> Bool {
  final class Box: Sendable {
    let name: String
    let body: @Sendable () -> Void
    init(_ name: String, _ body: @escaping @Sendable () -> Void) {
      self.name = name
      self.body = body
    }
  }
  let box = Unmanaged.passRetained(Box(name, body))
  var thread = pthread_t()
  let code = pthread_create(
    &thread, nil,
    { argument in
      let box = Unmanaged<Box>.fromOpaque(argument!).takeRetainedValue()
      system_name_thread(box.name)
      box.body()
      return nil
    }, box.toOpaque())
  guard code == 0 else {
    box.release()
    return false
  }
  pthread_detach(thread)
  return true
}
