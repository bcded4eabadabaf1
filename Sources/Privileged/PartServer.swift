import CSystem
import Glibc
import Reactor
import Synchronization

/// A part's end: lets the daemon in and answers its requests, a thread for each connection, one request after the other.
///
/// Whoever connects is not trusted: a request that is none ends its connection, and what may be done is the handler's to say.
public final class PartServer: Sendable {
  /// Each is a disk's order under way at most.
  public static let connectionsMax = 512

  /// Answers a request; nil: it is none. The descriptor that came with it, or -1, is closed afterwards.
  public typealias Handler = @Sendable (_ request: [UInt8], _ descriptor: Int32) -> [UInt8]?

  private let part: Part
  private let admits: @Sendable (_ user: UInt32) -> Bool
  private let log: @Sendable (String) -> Void
  private let handler: Handler
  private let count = Atomic<Int>(0)

  /// - Parameters:
  ///   - admits: which users may ask.
  ///   - log: what somebody should read: who was turned away.
  public init(
    _ part: Part, admits: @escaping @Sendable (_ user: UInt32) -> Bool, log: @escaping @Sendable (String) -> Void,
    handler: @escaping Handler
  ) {
    self.part = part
    self.admits = admits
    self.log = log
    self.handler = handler
  }

  /// Accepts connections for ever.
  /// - Returns: the errno that ended it: the socket is no listening one.
  public func run(_ listener: Int32) -> Int32 {
    while true {
      let connection = system_packet_accept(listener)
      if connection >= 0 {
        admit(connection)
        continue
      }
      switch -connection {
      case EINTR, ECONNABORTED: continue
      // The client waits in the backlog.
      case EMFILE, ENFILE, ENOMEM, ENOBUFS: usleep(50_000)
      default: return -connection
      }
    }
  }

  private func admit(_ connection: Int32) {
    var user: UInt32 = 0
    let isKnown = system_peer_user(connection, &user) == 0
    let isFull = count.load(ordering: .relaxed) >= Self.connectionsMax
    guard isKnown, admits(user), !isFull else {
      log(isFull ? "a connection too many" : "user \(user) may not ask")
      close(connection)
      return
    }
    count.add(1, ordering: .relaxed)
    startThread(name: part.name) { [self] in
      serve(connection)
      count.subtract(1, ordering: .relaxed)
    }
  }

  /// Greets, and answers until the other end closes; then closes too.
  public func serve(_ connection: Int32) {
    defer { close(connection) }
    guard send(connection, part.greeting) else { return }
    var buffer = [UInt8](repeating: 0, count: PartMessage.requestBytesMax)
    while true {
      var descriptor: Int32 = -1
      let count = system_packet_receive(connection, &buffer, UInt64(buffer.count), &descriptor)
      let answer = count > 0 ? handler(Array(buffer[..<Int(count)]), descriptor) : nil
      if descriptor >= 0 { close(descriptor) }
      guard let answer else {
        if count != 0 { log("something that is no request: the connection is closed") }
        return
      }
      precondition(answer.count <= PartMessage.answerBytesMax, "an answer that is too long")
      guard send(connection, answer) else { return }
    }
  }

  private func send(_ connection: Int32, _ bytes: [UInt8]) -> Bool {
    system_packet_send(connection, bytes, UInt64(bytes.count), -1) == 0
  }
}
