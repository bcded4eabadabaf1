import CSystem
import Glibc
import Synchronization

/// The daemon's end: asks a part over connections that stay open, one for each request that is under way at the same time.
///
/// Any thread may ask, and waits for its answer.
public final class PartClient: Sendable {
  /// How long the part may take to be started, in milliseconds.
  static let greetingMilliseconds: Int32 = 5000
  private static let idleMax = 16

  public let part: Part
  private let path: @Sendable () -> String
  private let idle = Mutex<[Int32]>([])

  public convenience init(_ part: Part) { self.init(part) { part.socketPath } }

  public init(_ part: Part, path: @escaping @Sendable () -> String) {
    self.part = part
    self.path = path
  }

  deinit { for connection in idle.withLock({ $0 }) { close(connection) } }

  /// Sends a request and waits for its answer.
  ///
  /// - Parameters:
  ///   - passing: a descriptor to hand over, or -1.
  ///   - milliseconds: the most to wait for the answer; nil: as long as the part takes. It ends a request only when it is
  ///     done with it, also when it dies: so whoever waits knows that nothing of it is still under way.
  public func ask(_ request: [UInt8], passing: Int32 = -1, milliseconds: Int32? = nil) throws(PartFailure) -> [UInt8] {
    // A part that was started again has closed the connections that were idle: sending fails, and nothing was done.
    while let connection = idle.withLock({ $0.popLast() }) {
      if system_packet_send(connection, request, UInt64(request.count), passing) == 0 {
        return try answer(connection, milliseconds)
      }
      close(connection)
    }
    let connection = try connect()
    let code = system_packet_send(connection, request, UInt64(request.count), passing)
    guard code == 0 else {
      close(connection)
      throw .absent(-code)
    }
    return try answer(connection, milliseconds)
  }

  private func answer(_ connection: Int32, _ milliseconds: Int32?) throws(PartFailure) -> [UInt8] {
    guard let answer = Self.receive(connection, milliseconds), !answer.isEmpty else {
      close(connection)
      throw .lost
    }
    let isKept = idle.withLock { idle in
      guard idle.count < Self.idleMax else { return false }
      idle.append(connection)
      return true
    }
    if !isKept { close(connection) }
    return answer
  }

  private func connect() throws(PartFailure) -> Int32 {
    let connection = system_packet_connect(path())
    guard connection >= 0 else { throw .absent(-connection) }
    guard let greeting = Self.receive(connection, Self.greetingMilliseconds) else {
      close(connection)
      throw .absent(ETIMEDOUT)
    }
    guard greeting == part.greeting else {
      close(connection)
      // Closed without a word: it does not talk to this user.
      throw .absent(greeting.isEmpty ? EACCES : EPROTO)
    }
    return connection
  }

  /// nil: nothing came in time, or what came is no message. Empty: the other end has closed.
  private static func receive(_ connection: Int32, _ milliseconds: Int32?) -> [UInt8]? {
    if let milliseconds {
      var entry = pollfd(fd: connection, events: Int16(POLLIN), revents: 0)
      guard poll(&entry, 1, milliseconds) > 0 else { return nil }
    }
    var passed: Int32 = -1
    var buffer = [UInt8](repeating: 0, count: PartMessage.answerBytesMax)
    let count = system_packet_receive(connection, &buffer, UInt64(buffer.count), &passed)
    if passed >= 0 { close(passed) }
    // ECONNRESET: it went away with a request unread.
    if count == Int64(-ECONNRESET) { return [] }
    return count < 0 ? nil : Array(buffer[..<Int(count)])
  }
}
