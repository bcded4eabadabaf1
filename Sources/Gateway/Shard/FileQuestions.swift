import Reactor
import Synchronization

/// Questions about a file that its file system answers when it can: what of it is mapped, how much space is left. A write that
/// hangs may keep them waiting, and a shard has other units: so a thread asks them, one after the other, while there are any.
final class FileQuestions: Sendable {
  private struct State {
    var waiting: [@Sendable () -> Void] = []
    var isAsking = false
  }

  /// More than that are not kept.
  static let waitingMax = 256

  private let state = Mutex(State())

  /// Has `question` asked on another thread; false: too many wait already, or there is no thread to be had.
  func ask(_ question: @escaping @Sendable () -> Void) -> Bool {
    let (isTaken, isFirst) = state.withLock { state in
      guard state.waiting.count < Self.waitingMax else { return (false, false) }
      state.waiting.append(question)
      defer { state.isAsking = true }
      return (true, !state.isAsking)
    }
    guard isFirst, !tryStartThread(name: "file", { [self] in run() }) else { return isTaken }
    // What others have put there meanwhile has its deadline. Nothing stays: a question holds the disk it is about.
    _ = state.withLock { state in
      defer { state = State() }
      return state.waiting
    }
    return false
  }

  private func run() {
    while let questions = next() { for question in questions { question() } }
  }

  private func next() -> [@Sendable () -> Void]? {
    state.withLock { state in
      let waiting = state.waiting
      state.waiting = []
      state.isAsking = !waiting.isEmpty
      return waiting.isEmpty ? nil : waiting
    }
  }
}

extension Shard {
  /// Has something found out about a command's file, and goes on with it on this shard. The I/O deadline holds for it too.
  func ask<Answer: Sendable>(
    _ index: Int, _ export: Export, _ question: @escaping @Sendable () -> Answer,
    then body: @escaping @Sendable (Shard, Answer) -> Void
  ) {
    // Only of a file is there something to ask.
    guard export.disk.isRegularFile else { return body(self, question()) }
    commands[index].pointee.awaitsFile = true
    let answer = later(index) { (shard: Shard, found: Answer) in
      shard.commands[index].pointee.awaitsFile = false
      body(shard, found)
    }
    if !export.questions.ask({ answer(question()) }) { finish(index, .busy) }
  }
}
