import HA
import SCSI
import Testing
import Wire

@testable import Gateway

@Suite("What the nodes of a pair say of reservations")
struct PeerCommandTests {
  private static let disk = UUID(bytes: [UInt8](1...16))
  private static let nexus = NexusIdentity(
    initiatorName: "iqn.2026-01.org.example:a", isid: 0x8012_3456_789A, relativeTargetPort: 3)

  @Test("Questions and answers come back as they were, and cut ones are refused")
  func roundTrip() throws {
    let questions: [PeerQuestion] = [
      .command(
        disk: Self.disk, nexus: Self.nexus, cdb: CDB([0x5F, 6, 0, 0, 0, 0, 0, 0, 24, 0]),
        parameters: [UInt8](repeating: 3, count: 24)),
      .command(disk: Self.disk, nexus: Self.nexus, cdb: CDB([0x5E, 0, 0, 0, 0, 0, 0, 1, 0, 0]), parameters: []),
      .attentions(
        disk: Self.disk,
        [.init(nexus: Self.nexus, attention: .registrationsPreempted), .init(nexus: Self.nexus, attention: .powerOn)]),
    ]
    for question in questions {
      let bytes = question.encode()
      #expect(PeerQuestion(decoding: bytes) == question)
      for count in 0..<40 { #expect(PeerQuestion(decoding: Array(bytes.prefix(count))) == nil) }
    }
    let outcomes = [
      PeerOutcome(status: .good, data: [1, 2, 3]), PeerOutcome(status: .reservationConflict),
      PeerOutcome(
        status: .checkCondition,
        sense: Sense(.illegalRequest, 0x2600, field: .init(inCDB: false, byte: 20, bit: 3))),
      PeerOutcome(status: .checkCondition, sense: Sense(.hardwareError, 0x4400)),
    ]
    for outcome in outcomes {
      #expect(PeerOutcome(decoding: outcome.encode()) == outcome)
      #expect(PeerOutcome(decoding: Array(outcome.encode().prefix(7))) == nil)
    }
  }

  @Test("Any bytes are read without a trap")
  func anyBytes() {
    var random = SystemRandomNumberGenerator()
    for _ in 0..<20_000 {
      let bytes = (0..<Int.random(in: 0...80, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
      if let question = PeerQuestion(decoding: bytes) { #expect(question.encode() == bytes) }
      _ = PeerOutcome(decoding: bytes)
    }
  }
}
