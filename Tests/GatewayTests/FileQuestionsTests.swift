import Glibc
import Synchronization
import TestSupport
import Testing

@testable import Gateway

private final class Asked: Sendable {
  let numbers = Mutex<[Int]>([])
}

@Suite("Questions that a file system answers when it can")
struct FileQuestionsTests {
  @Test("They are asked one after the other, in order, on another thread, and not more are kept than may be")
  func order() {
    let questions = FileQuestions()
    let gate = ReadyFlag()
    let asked = Asked()
    let begun = ReadyFlag()
    #expect(
      questions.ask {
        begun.set()
        _ = gate.wait(milliseconds: 10_000)
      })
    #expect(begun.wait(milliseconds: 10_000))
    for number in 0..<FileQuestions.waitingMax {
      #expect(questions.ask { asked.numbers.withLock { $0.append(number) } })
    }
    #expect(!questions.ask {})
    #expect(asked.numbers.withLock { $0.isEmpty }, "the first hangs")
    gate.set()
    let isOver = ReadyFlag()
    var waited = 0
    while !questions.ask({ isOver.set() }), waited < 10_000 {
      usleep(1000)
      waited += 1
    }
    #expect(isOver.wait(milliseconds: 10_000))
    #expect(asked.numbers.withLock { $0 } == Array(0..<FileQuestions.waitingMax))
    // Its thread has ended or will: another begins one.
    let again = ReadyFlag()
    #expect(questions.ask { again.set() })
    #expect(again.wait(milliseconds: 10_000))
  }
}
