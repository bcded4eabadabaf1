import ISCSI
import TestSupport
import Testing
import Wire

@Suite("The command window (RFC 7143 §4.2.2.1)")
struct CommandWindowTests {
  @Test("The first command has the CmdSN of the login, and MaxCmdSN lets in as many as the queue is deep")
  func beginning() {
    let window = CommandWindow(initialCmdSN: 7, depth: 32)
    #expect(window.expCmdSN.value == 7 && window.maxCmdSN.value == 38)
  }

  @Test("A command outside the window is ignored: before ExpCmdSN and after MaxCmdSN")
  func outside() {
    var window = CommandWindow(initialCmdSN: 100, depth: 4)
    for number: UInt32 in [99, 104, 0, 100 &+ 0x8000_0000, 100 &+ 0x7FFF_FFFF] {
      #expect(window.admit(cmdSN: number, isImmediate: false) == .ignore, "\(number)")
    }
    #expect(window.admit(cmdSN: 103, isImmediate: false) == .gap)
    #expect(window.expCmdSN.value == 100 && window.outstanding == 0)
  }

  @Test("A command is delivered once: the same CmdSN again is ignored")
  func duplicate() {
    var window = CommandWindow(initialCmdSN: 1, depth: 4)
    #expect(window.admit(cmdSN: 1, isImmediate: false) == .deliver)
    #expect(window.admit(cmdSN: 1, isImmediate: false) == .ignore)
    #expect(window.outstanding == 1)
  }

  @Test("With as many commands unanswered as the queue is deep the window is closed: MaxCmdSN = ExpCmdSN - 1")
  func closed() {
    var window = CommandWindow(initialCmdSN: 0xFFFF_FFFE, depth: 4)
    for number: UInt32 in [0xFFFF_FFFE, 0xFFFF_FFFF, 0, 1] {
      #expect(window.admit(cmdSN: number, isImmediate: false) == .deliver)
    }
    #expect(window.maxCmdSN + 1 == window.expCmdSN)
    #expect(window.admit(cmdSN: 2, isImmediate: false) == .ignore)
    window.release()
    #expect(window.maxCmdSN == window.expCmdSN)
    #expect(window.admit(cmdSN: 2, isImmediate: false) == .deliver)
  }

  @Test("An immediate command is delivered whatever its number, and takes no place (RFC 7143 §4.2.2.1)")
  func immediate() {
    var window = CommandWindow(initialCmdSN: 1, depth: 1)
    #expect(window.admit(cmdSN: 1, isImmediate: false) == .deliver)
    for number: UInt32 in [0, 1, 2, 0x8000_0000] {
      #expect(window.admit(cmdSN: number, isImmediate: true) == .deliver)
    }
    #expect(window.outstanding == 1 && window.expCmdSN.value == 2)
  }

  @Test(
    "MaxCmdSN never goes back, and never more are unanswered than the queue is deep, whatever comes", arguments: 0..<8)
  func invariants(seed: UInt64) {
    var random = SplitMix(seed: seed)
    let depth = [1, 2, 3, 32, 128, 255, 1, 64][Int(seed)] as UInt32
    // Begins so that both numbers wrap on the way.
    var window = CommandWindow(initialCmdSN: 0xFFFF_FF00 &+ UInt32(random.next() % 300), depth: depth)
    var delivered: UInt32 = 0
    let first = window.expCmdSN
    for _ in 0..<20000 {
      let before = window
      switch random.next() % 8 {
      case 0...2:
        let expected: CommandWindow.Admission = before.outstanding < depth ? .deliver : .ignore
        #expect(window.admit(cmdSN: before.expCmdSN.value, isImmediate: false) == expected)
        if expected == .deliver { delivered += 1 }
      case 3:
        let ahead = UInt32(random.next() % 300) + 1
        let isInside = (before.expCmdSN + ahead).isWithin(before.expCmdSN, before.maxCmdSN)
        #expect(window.admit(cmdSN: (before.expCmdSN + ahead).value, isImmediate: false) == (isInside ? .gap : .ignore))
      case 4:
        let behind = UInt32(random.next() % 0x7FFF_FFFF) + 1
        #expect(window.admit(cmdSN: before.expCmdSN.value &- behind, isImmediate: false) == .ignore)
      case 5: #expect(window.admit(cmdSN: UInt32(truncatingIfNeeded: random.next()), isImmediate: true) == .deliver)
      default: if window.outstanding > 0 { window.release() }
      }
      #expect(!window.maxCmdSN.isBefore(before.maxCmdSN) && !window.expCmdSN.isBefore(before.expCmdSN))
      #expect(window.outstanding <= depth && window.expCmdSN == first + delivered)
      #expect(window.maxCmdSN.value &- window.expCmdSN.value &+ 1 == depth - window.outstanding)
    }
    #expect(delivered > 512)
  }
}
