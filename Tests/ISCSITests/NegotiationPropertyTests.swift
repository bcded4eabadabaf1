import TestSupport
import Testing

@testable import ISCSI

/// Every outcome of a negotiation is one the standard allows, whatever is offered in whatever order and grouping:
/// checked against a second statement of the result functions.
@Suite("Any outcome of negotiation is legal (RFC 7143 §6.2, §13)")
struct NegotiationPropertyTests {
  private struct NumberKey {
    var name: String
    var range: ClosedRange<Int>
    var ours: Int
    var isMinimum = true
  }

  private static let numbers = [
    NumberKey(name: "MaxConnections", range: 1...65_535, ours: 1),
    NumberKey(name: "MaxBurstLength", range: 512...16_777_215, ours: 1_048_576),
    NumberKey(name: "DefaultTime2Wait", range: 0...3600, ours: 0, isMinimum: false),
    NumberKey(name: "DefaultTime2Retain", range: 0...3600, ours: 0),
    NumberKey(name: "MaxOutstandingR2T", range: 1...65_535, ours: 8),
    NumberKey(name: "ErrorRecoveryLevel", range: 0...2, ours: 0),
  ]
  /// name, whether OR, our side.
  private static let flags = [
    ("InitialR2T", true, false), ("ImmediateData", false, true), ("DataPDUInOrder", true, true),
    ("DataSequenceInOrder", true, true),
  ]

  private func offers(_ generator: inout SplitMix) -> [(key: String, value: String)] {
    var offers: [(key: String, value: String)] = []
    let edges = [0, 1, 2, 511, 512, 513, 3600, 3601, 8192, 65_535, 65_536, 262_144, 1_048_577, 16_777_215, 16_777_216]
    for key in Self.numbers.map(\.name) + ["FirstBurstLength"] where generator.chance(60) {
      let number =
        generator.chance(50) ? edges.randomElement(using: &generator)! : Int.random(in: 0...70_000, using: &generator)
      offers.append((key, generator.chance(90) ? "\(number)" : "0x\(String(number, radix: 16))"))
    }
    for key in Self.flags.map(\.0) where generator.chance(60) {
      offers.append((key, ["Yes", "No", "Maybe"].randomElement(using: &generator)!))
    }
    return offers.shuffled(using: &generator)
  }

  @Test("Random offers, in one request or in two", arguments: [UInt64(1), 2, 3])
  func randomOffers(seed: UInt64) throws {
    var generator = SplitMix(seed: seed)
    var establishedCount = 0
    for _ in 0..<700 * fuzzFactor {
      let offers = offers(&generator)
      let split = generator.chance(50) ? offers.count : Int.random(in: 0...offers.count, using: &generator)
      var initiator = LoginInitiator()
      let first = initiator.send(
        from: .operational, LoginInitiator.opening + offers[..<split].map { "\($0.key)=\($0.value)" })
      var answers = try #require(first.answers)
      let last = initiator.send(
        from: .operational, to: .fullFeature, offers[split...].map { "\($0.key)=\($0.value)" })
      guard let result = last.result else {
        // The one thing an initiator can still do wrong: MaxBurstLength below a FirstBurstLength agreed before.
        #expect(last.failure == .initiatorError)
        #expect(offers[split...].contains { $0.key == "MaxBurstLength" })
        continue
      }
      establishedCount += 1
      answers += initiator.machine.finish(tsih: 1, commandWindow: 1).pairs
      let answered = Dictionary(
        uniqueKeysWithValues: answers.map { $0.split(separator: "=", maxSplits: 1).map(String.init) }.map {
          ($0[0], $0.count > 1 ? $0[1] : "")
        })
      try check(offers, answered, result.parameters)
      if offers.allSatisfy({ answered[$0.key] != nil }) { continue }
      Issue.record("unanswered: \(offers) \(answered)")
    }
    #expect(establishedCount > 400)
  }

  private func check(
    _ offers: [(key: String, value: String)], _ answered: [String: String], _ result: NegotiatedParameters
  ) throws {
    for (key, value) in offers {
      let answer = try #require(answered[key])
      if let flag = Self.flags.first(where: { $0.0 == key }) {
        let offered = value == "Yes"
        let both = flag.1 ? offered || flag.2 : offered && flag.2
        let expected = value == "Maybe" ? "Reject" : both ? "Yes" : "No"
        if answer != expected { Issue.record("\(key)=\(value) answered \(answer)") }
        continue
      }
      let number = value.hasPrefix("0x") ? Int(value.dropFirst(2), radix: 16)! : Int(value)!
      if let row = Self.numbers.first(where: { $0.name == key }) {
        let expected = row.isMinimum ? min(number, row.ours) : max(number, row.ours)
        let isRight = answer == (row.range.contains(number) ? "\(expected)" : "Reject")
        if !isRight { Issue.record("\(key)=\(value) answered \(answer)") }
      } else {
        let isRight =
          (512...16_777_215).contains(number)
          ? answer == "\(min(number, 262_144, result.maxBurstLength))" : answer == "Reject"
        if !isRight { Issue.record("\(key)=\(value) answered \(answer)") }
      }
    }
    #expect(result.firstBurstLength <= result.maxBurstLength)
    #expect((512...1_048_576).contains(result.maxBurstLength))
    #expect((512...262_144).contains(result.firstBurstLength))
    #expect((1...8).contains(result.maxOutstandingR2T))
    #expect(result.maxConnections == 1 && result.errorRecoveryLevel == 0)
    #expect((0...3600).contains(result.defaultTime2Wait) && (0...3600).contains(result.defaultTime2Retain))
    #expect(result.dataPDUInOrder && result.dataSequenceInOrder)
  }
}
