import Glibc
import Synchronization

/// One client on its own thread: read, ask the gateway, answer, close.
struct ControlSession: Sendable {
  let server: ControlServer
  let socket: ControlSocket
  let mayChange: Bool

  /// Answers without reading, and closes. Does not wait: it runs on the accepting thread.
  func refuse(_ message: String) {
    let reply = ControlReply<NoResult>(error: ControlError(.busy, message))
    try? socket.write(reply.line(), until: Deadline(seconds: 0))
    socket.close()
  }

  func run() {
    let answer = Answer(release: { [server, mayChange] in server.release(mayChange: mayChange) })
    defer {
      socket.close()
      answer.clientIsGone()
    }
    let patience = server.patience
    let reply: [UInt8]
    do {
      let deadline = Deadline(seconds: patience.requestSeconds)
      let line = try socket.readLine(bytesMax: ControlProtocol.requestBytesMax, until: deadline)
      let request = try ControlRequest.decode(line)
      try check(request)
      reply = try outcome(of: request, answer)
    } catch {
      reply = ControlReply<NoResult>(error: error).line()
    }
    try? socket.write(reply, until: Deadline(seconds: patience.requestSeconds))
  }

  private func check(_ request: ControlRequest) throws(ControlError) {
    guard request.command.changes else { return }
    guard mayChange else {
      throw ControlError(.notPermitted, "only root and the user that gatewayd runs as may change anything: use sudo")
    }
    guard request.command == .adopt else { return }
    guard let path = request.path, path.hasPrefix("/"), !path.utf8.contains(0), path.utf8.count < 4096,
      request.mode != nil
    else { throw ControlError(.badRequest, "'adopt' needs an absolute 'path' and a 'mode'") }
  }

  /// Runs the request on a thread of its own and waits for it here with a bound.
  private func outcome(of request: ControlRequest, _ answer: Answer) throws(ControlError) -> [UInt8] {
    let control = server.control
    answer.workBegins()
    ControlThread.start { answer.fill(Self.perform(request, control)) }
    let patience = server.patience
    let seconds = request.command.changes ? patience.adoptionSeconds : patience.answerSeconds
    guard let reply = answer.wait(until: Deadline(seconds: seconds)) else {
      throw ControlError(.timedOut, "gatewayd did not finish '\(request.command.rawValue)' within \(Int(seconds)) s")
    }
    return reply
  }

  private static func perform(_ request: ControlRequest, _ control: any GatewayControl) -> [UInt8] {
    switch request.command {
    case .status: return ControlReply(result: control.status()).line()
    case .disks: return ControlReply(result: control.disks()).line()
    case .nics: return ControlReply(result: control.nics()).line()
    case .sessions: return ControlReply(result: control.sessions()).line()
    case .pair: return ControlReply(result: control.pair()).line()
    case .metrics: return ControlReply(result: control.metrics()).line()
    case .trace: return reply { () throws(ControlError) in control.traces(session: try session(of: request)) }
    case .end: return reply { () throws(ControlError) in try control.endSession(try session(of: request)) }
    case .operate:
      return reply { () throws(ControlError) in
        guard let operation = request.operation else {
          throw ControlError(.badRequest, "'operate' needs an 'operation'")
        }
        return try control.operate(operation)
      }
    case .adopt:
      return reply { () throws(ControlError) in
        guard let path = request.path, let mode = request.mode else {
          throw ControlError(.badRequest, "'adopt' needs 'path' and 'mode'")
        }
        return try control.adopt(path: path, mode: mode)
      }
    }
  }

  private static func session(of request: ControlRequest) throws(ControlError) -> UInt16 {
    guard let session = request.session else {
      throw ControlError(.badRequest, "'\(request.command.rawValue)' needs a 'session'")
    }
    return session
  }

  private static func reply<Result: Codable & Sendable>(_ body: () throws(ControlError) -> Result) -> [UInt8] {
    do throws(ControlError) { return ControlReply(result: try body()).line() } catch {
      return ControlReply<NoResult>(error: error).line()
    }
  }
}

/// Where the pool leaves a reply and the client's thread finds it. The place at the server is given back when both are
/// done, so a gateway that hangs collects at most `clientsMax` requests.
private final class Answer: Sendable {
  private struct State {
    var reply: [UInt8]?
    var holders = 1
  }

  private let state = Mutex(State())
  private let isFilled = ThreadGate()
  private let release: @Sendable () -> Void

  init(release: @escaping @Sendable () -> Void) { self.release = release }

  func workBegins() { state.withLock { $0.holders += 1 } }

  func fill(_ reply: [UInt8]) {
    state.withLock { $0.reply = reply }
    isFilled.open()
    drop()
  }

  func clientIsGone() { drop() }

  func wait(until deadline: Deadline) -> [UInt8]? {
    _ = isFilled.wait(until: deadline)
    return state.withLock { $0.reply }
  }

  private func drop() {
    let isLast = state.withLock { state in
      state.holders -= 1
      return state.holders == 0
    }
    if isLast { release() }
  }
}
