import Glibc
import HA
import Synchronization
import Wire

/// Questions to the other node, one after another, and answers to its own. A question is sent again until it is answered;
/// it is carried out once at most, and never by a later start of the other node than the one it was meant for.
final class PeerCalls: Sendable {
  /// Carries out a question and gives the answer; nil: no answer, as if it had not come. On a thread of its own.
  typealias Handler = @Sendable ([UInt8]) -> [UInt8]?

  private static let resendNs: Instant = 100_000_000

  private struct State {
    var number: UInt64 = 0
    /// The question under way, and its answer.
    var asked: (number: UInt64, toBoot: UInt64, answer: [UInt8]?)?
    /// The newest question of the other node: an older one comes too late, and it itself again wants the same answer.
    var served: (boot: UInt64, number: UInt64, answer: [UInt8]?)?
  }

  private let bootID: UInt64
  private let send: @Sendable (PeerMessage) -> Void
  private let peerBoot: @Sendable () -> UInt64?
  private let handler: Handler
  private let state = Mutex(State())
  private let questions = WorkQueue(name: "peer questions")
  private let answers = WorkQueue(name: "peer answers")

  /// - Parameters:
  ///   - send: over the links, at once (`PairLinks.send`).
  ///   - peerBoot: the start of the other node's program that is believed now; nil: it is not there.
  init(
    bootID: UInt64, send: @escaping @Sendable (PeerMessage) -> Void,
    peerBoot: @escaping @Sendable () -> UInt64?, handler: @escaping Handler
  ) {
    self.bootID = bootID
    self.send = send
    self.peerBoot = peerBoot
    self.handler = handler
  }

  /// Asks the other node; `answer` is called once, with nil if none came within `ns`. Whether the question was carried out
  /// is not known then.
  func ask(_ body: [UInt8], within ns: Instant, answer: @escaping @Sendable ([UInt8]?) -> Void) {
    let deadline = BootClock.now + ns
    questions.run { [self] in answer(askNow(body, until: deadline)) }
  }

  private func askNow(_ body: [UInt8], until deadline: Instant) -> [UInt8]? {
    guard BootClock.now < deadline, body.count <= PeerCall.bodyBytesMax, let toBoot = peerBoot() else { return nil }
    let number = state.withLock { state in
      state.number += 1
      state.asked = (state.number, toBoot, nil)
      return state.number
    }
    defer { state.withLock { $0.asked = nil } }
    var sendAt: Instant = 0
    while true {
      if let answer = state.withLock({ $0.asked?.answer }) { return answer }
      let now = BootClock.now
      guard now < deadline else { return nil }
      if now >= sendAt {
        guard peerBoot() == toBoot else { return nil }
        send(PeerMessage(kind: .question, toBoot: toBoot, number: number, body: body))
        sendAt = now + Self.resendNs
      }
      usleep(500)
    }
  }

  /// Takes what came: authentic, and of the other node. Returns at once.
  func take(_ call: PeerCall) {
    guard call.toBoot == bootID, call.bootID == peerBoot() else { return }
    switch call.kind {
    case .answer:
      state.withLock { state in
        guard state.asked?.number == call.number, state.asked?.toBoot == call.bootID else { return }
        state.asked?.answer = call.body
      }
    case .question:
      let again = state.withLock { state -> (isNew: Bool, answer: [UInt8]?) in
        if let served = state.served, served.boot == call.bootID, served.number >= call.number {
          return (false, served.number == call.number ? served.answer : nil)
        }
        state.served = (call.bootID, call.number, nil)
        return (true, nil)
      }
      if let answer = again.answer { return reply(to: call, answer) }
      guard again.isNew else { return }
      answers.run { [self] in
        guard let answer = handler(call.body) else { return }
        state.withLock { state in
          guard state.served?.boot == call.bootID, state.served?.number == call.number else { return }
          state.served?.answer = answer
        }
        reply(to: call, answer)
      }
    }
  }

  private func reply(to call: PeerCall, _ answer: [UInt8]) {
    send(PeerMessage(kind: .answer, toBoot: call.bootID, number: call.number, body: answer))
  }
}

/// What this node adds its name to and signs.
struct PeerMessage: Sendable {
  var kind: PeerCall.Kind
  var toBoot: UInt64
  var number: UInt64
  var body: [UInt8]
}
