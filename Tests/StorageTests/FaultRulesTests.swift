import TestSupport
import Testing

@testable import Storage

@Suite("Faults of test disks")
struct FaultRulesTests {
  @Test("Every form is read, alone and joined")
  func forms() throws {
    let rules = try #require(FaultRules("medium=8+2,hang=100+1,slow=200+8:30,gone,flush-error"))
    #expect(rules.isGone && rules.failingFlushes == .max)
    #expect(rules.effect(offset: 4096, count: 512) == .medium)
    #expect(rules.effect(offset: 100 * 512, count: 512) == .hang)
    #expect(rules.effect(offset: 207 * 512, count: 4096) == .slow(milliseconds: 30))
    let none = try #require(FaultRules(""))
    #expect(none.rules.isEmpty && !none.isGone && none.failingFlushes == 0)
    let some = try #require(FaultRules("short=4+2,flush-error=3"))
    #expect(some.effect(offset: 5 * 512, count: 512) == .short && some.failingFlushes == 3)
  }

  @Test("A rule meets the requests that touch one of its blocks, and no other")
  func bounds() throws {
    let rules = try #require(FaultRules("medium=8+2"))
    for (block, blocks, isMet) in [
      (0, 8, false), (0, 9, true), (7, 1, false), (8, 1, true), (9, 1, true), (10, 1, false), (9, 100, true),
    ] as [(UInt64, UInt64, Bool)] {
      #expect((rules.effect(offset: block * 512, count: blocks * 512) == .medium) == isMet, "\(block)+\(blocks)")
    }
  }

  @Test("The first rule that meets decides")
  func first() throws {
    let rules = try #require(FaultRules("slow=0+10:1,medium=5+1"))
    #expect(rules.effect(offset: 5 * 512, count: 512) == .slow(milliseconds: 1))
  }

  @Test(
    "Anything else is refused",
    arguments: [
      "medium", "medium=", "medium=8", "medium=+2", "medium=8+", "medium=8+2:3", "medium=8:2", "medium=a+2",
      "medium=-1+2", "medium=8++2", "medium=8+2+", "=8+2", "slow=1+2", "slow=1:2:3", "slow=1+2+3",
      "slow=1+2:4294967296",
      "hang=1+2:1", "gone=1", "Gone", "flush", "medium=8+0", "medium=281474976710656+1", "medium=1+281474976710656",
      "medium=99999999999999999999+1", "gone,,medium=1+1", ",gone", "gone,", "medium=8+2 ", "medium=8=2+1",
      "short=8", "short=1+2:3", "flush-error=", "flush-error=0", "flush-error=+1", "flush-error=x", "flush-error=65536",
    ])
  func garbage(text: String) {
    #expect(FaultRules(text) == nil)
  }

  @Test("Any text is read without a trap")
  func anything() {
    var random = SplitMix(seed: 6)
    let pieces = [
      "medium", "slow", "hang", "gone", "=", "+", ":", ",", "0", "1", "9999999999", "281474976710655", "-", "é",
    ]
    for _ in 0..<5000 {
      let text = (0..<Int(random.next() % 9)).map { _ in pieces.randomElement(using: &random)! }.joined()
      guard let rules = FaultRules(text) else { continue }
      _ = rules.effect(offset: 0, count: .max >> 1)
    }
  }
}
