import CSystem
import Glibc
import Privileged
import Testing

@testable import Storage

private let requests: [FenceRequest] = [
  .register(0x6711_0000_0000_0001), .reserve(1), .preempt(own: 2, victim: 3, aborts: true),
  .preempt(own: .max, victim: 0, aborts: false), .unregister(4), .readKeys, .readReservation, .readState,
  .readCapabilities, .hasHostIdentifier, .resetUnit,
]

private let answers: [Result<FenceAnswer, FenceFailure>] = [
  .success(.done), .success(.flag(true)), .success(.flag(false)),
  .success(.state(FenceState(generation: 7, keys: [], reservation: nil))),
  .success(.state(FenceState(generation: .max, keys: [1, .max, 3], reservation: .init(key: 3, type: 5)))),
  .success(.capabilities(.init(canPersist: true, persists: false, types: 0x1EA))),
  .success(.capabilities(.init(canPersist: false, persists: true, types: nil))),
  .failure(.conflict), .failure(.disturbed), .failure(.timedOut), .failure(.failed(EIO)),
]

@Suite("Messages of the part for reservations")
struct FenceMessagesTests {
  @Test("A request is read as it was written", arguments: requests)
  func request(_ request: FenceRequest) throws {
    let bytes = FenceMessages.encode(request, timeoutMilliseconds: 1000)
    #expect(bytes.count == FenceMessages.requestBytes && bytes.count <= PartMessage.requestBytesMax)
    let read = try #require(FenceMessages.request(bytes))
    #expect(read.request == request && read.timeoutMilliseconds == 1000)
  }

  @Test("An answer is read as it was written", arguments: answers)
  func answer(_ answer: Result<FenceAnswer, FenceFailure>) {
    #expect(FenceMessages.answer(FenceMessages.encode(answer)) == answer)
  }

  @Test("PREEMPT AND ABORT, byte for byte")
  func annotated() {
    let wanted: [UInt8] = [
      4, 0, 0, 0,  // operation
      0, 0, 3, 232,  // bound: 1000 ms
      0, 0, 0, 0, 0, 0, 0, 2,  // own key
      0, 0, 0, 0, 0, 0, 0, 3,  // the victim's
    ]
    #expect(FenceMessages.encode(requests[2], timeoutMilliseconds: 1000) == wanted)
  }

  @Test("A request of another length, an unknown operation, a bound out of bounds or something to spare is none")
  func strange() {
    let good = FenceMessages.encode(.readKeys, timeoutMilliseconds: 1)
    #expect(FenceMessages.request(good) != nil)
    for count in 0..<good.count { #expect(FenceMessages.request(Array(good[..<count])) == nil) }
    #expect(FenceMessages.request(good + [0]) == nil)
    for operation in [0, 12, 0x5F, 0xFF] as [UInt8] { #expect(FenceMessages.request([operation] + good[1...]) == nil) }
    // Nothing rides along: not behind the operation, nor in keys that a question has no use for.
    for place in [1, 2, 3, 8, 15, 16, 23] {
      var bytes = good
      bytes[place] = 1
      #expect(FenceMessages.request(bytes) == nil, "\(place)")
    }
    for timeout in [0, 60_001, .max] as [UInt32] {
      #expect(FenceMessages.request(FenceMessages.encode(.readKeys, timeoutMilliseconds: timeout)) == nil)
    }
  }

  @Test("Whatever bytes an answer has, it is read or not, and the longest fits into a message")
  func bounds() {
    for answer in answers {
      let bytes = FenceMessages.encode(answer)
      for count in 0..<bytes.count { _ = FenceMessages.answer(Array(bytes[..<count])) }
      for place in bytes.indices {
        for value in [0, 1, 2, 3, 4, 0x7F, 0xFF] as [UInt8] {
          var other = bytes
          other[place] = value
          _ = FenceMessages.answer(other)
        }
      }
    }
    let keys = [UInt64](repeating: 1, count: 20_000)
    let longest = FenceMessages.encode(.success(.state(FenceState(generation: 0, keys: keys, reservation: nil))))
    #expect(longest.count <= PartMessage.answerBytesMax)
  }
}

@Suite("The part for reservations")
struct FenceServiceTests {
  private let service = FenceService(obstacle: { _ in nil }, log: { _ in })
  private let question = FenceMessages.encode(.readKeys, timeoutMilliseconds: 1000)

  @Test("Without a descriptor, or with bytes that are no request, it is no request")
  func malformed() {
    #expect(service.answer(question, -1) == nil)
    #expect(service.answer([1, 2, 3], STDERR_FILENO) == nil)
    #expect(service.answer([], STDERR_FILENO) == nil)
  }

  @Test("What is no block device open for writing is refused")
  func noBlockDevice() throws {
    let file = TemporaryFile(bytes: 4096)
    let null = open("/dev/null", O_RDWR)
    defer { close(null) }
    for descriptor in [file.fd, null] {
      let answer = try #require(service.answer(question, descriptor))
      #expect(FenceMessages.answer(answer) == .failure(.failed(ENOTBLK)))
    }
  }

  @Test("A process that may not, and finds no part, has the kernel's answer")
  func absent() {
    let part = FencePart(PartClient(.fence) { "/nonexistent/part.sock" })
    #expect(throws: FenceFailure.failed(EPERM)) {
      try part.ask(.readKeys, STDERR_FILENO, timeoutMilliseconds: 1000, insteadOf: .failed(EPERM))
    }
  }
}
