import FoundationEssentials
import Glibc

/// The other end of the control socket: one request, one reply, one connection.
public enum ControlClient {
  /// Asks the daemon at `path`.
  /// - Throws: `noDaemon` with what to type, the daemon's own error, or what went wrong on the way.
  public static func request<Result: Codable & Sendable>(
    _ request: ControlRequest, at path: String, as type: Result.Type = Result.self, timeoutSeconds: Double = 15
  ) throws(ControlError) -> Result {
    let deadline = Deadline(seconds: timeoutSeconds)
    let socket = try connect(to: path, until: deadline)
    defer { socket.close() }
    guard var line = (try? JSONEncoder().encode(request)).map({ [UInt8]($0) }) else {
      throw ControlError(.failed, "the request cannot be encoded")
    }
    line.append(0x0A)
    // A daemon that is full answers without reading: what it says is worth more than the broken pipe.
    do { try socket.write(line, until: deadline) } catch  where error.code != .timedOut {}
    let reply: [UInt8]
    do { reply = try socket.readLine(bytesMax: ControlProtocol.replyBytesMax, until: deadline) } catch {
      throw ControlError(error.code, "gatewayd at \(path) gave no answer: \(error.message)")
    }
    return try decode(reply, from: path)
  }

  private static func decode<Result: Codable & Sendable>(_ line: [UInt8], from path: String) throws(ControlError)
    -> Result
  {
    guard !line.isEmpty else {
      throw ControlError(.failed, "gatewayd at \(path) closed the connection without an answer")
    }
    // The error first: another version's result need not be one of ours.
    guard let outcome = try? JSONDecoder().decode(Outcome.self, from: Data(line)) else {
      throw ControlError(.failed, "what answers at \(path) is not gatewayd, or is of another version")
    }
    if let error = outcome.error { throw error }
    guard outcome.version == ControlProtocol.version,
      let reply = try? JSONDecoder().decode(ControlReply<Result>.self, from: Data(line)), let result = reply.result
    else {
      throw ControlError(.failed, "the gatewayd at \(path) is of another version: use the client that came with it")
    }
    return result
  }

  private struct Outcome: Decodable {
    var version: Int
    var error: ControlError?
  }

  static func connect(to path: String, until deadline: Deadline) throws(ControlError) -> ControlSocket {
    let socket = try ControlSocket.make()
    var code = socket.connect(to: path)
    // A full backlog: the daemon is there but busy.
    while code == EAGAIN, deadline.milliseconds > 0 {
      usleep(20_000)
      code = socket.connect(to: path)
    }
    guard code != 0 else { return socket }
    socket.close()
    throw failure(code, path)
  }

  private static func failure(_ code: Int32, _ path: String) -> ControlError {
    switch code {
    case ENOENT, ECONNREFUSED, ENOTDIR:
      ControlError(
        .noDaemon,
        """
        no gatewayd answers at \(path).
        Start one:      systemctl start gatewayd   (or: gatewayd run)
        Another socket: --control PATH, or GATEWAYD_CONTROL in the environment
        """)
    case EACCES, EPERM:
      ControlError(.notPermitted, "you may not open \(path): use sudo, or join the group of the socket")
    case ENAMETOOLONG:
      ControlError(.failed, "'\(path)' is not a socket's path: 1 to \(ControlPath.byteCountMax) bytes")
    case EAGAIN: ControlError(.timedOut, "gatewayd at \(path) is too busy to answer")
    default: ControlError(.failed, "\(path): \(SystemError.text(code))")
    }
  }
}
