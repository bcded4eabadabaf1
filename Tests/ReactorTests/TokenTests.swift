import Reactor
import Testing

@Suite("Tokens and completions")
struct TokenTests {
  @Test("A token gives back what it was made of; of the generation 24 bits")
  func packing() {
    for operation: UInt8 in [1, 2, 127, 128, 255] {
      for index: UInt32 in [0, 1, 0x1234_5678, .max] {
        for generation: UInt32 in [0, 1, 0xFF_FFFF, 0x100_0000, 0x1FF_FFFF, .max] {
          let token = Token(operation, index: index, generation: generation)
          #expect(token.operation == operation && token.index == index)
          #expect(token.generation == generation & 0xFF_FFFF)
          #expect(Token(bits: token.bits) == token)
        }
      }
    }
  }

  @Test("Tokens that differ in one part are different")
  func distinct() {
    let token = Token(1, index: 2, generation: 3)
    #expect(token != Token(2, index: 2, generation: 3))
    #expect(token != Token(1, index: 3, generation: 3))
    #expect(token != Token(1, index: 2, generation: 4))
  }

  @Test("A completion tells its provided buffer only if it has one, and whether more follow")
  func completions() {
    let token = Token(1, index: 0, generation: 0)
    #expect(Completion(token: token, result: 0, flags: 0xFFFF_0000).providedBuffer == nil)
    #expect(Completion(token: token, result: 0, flags: 0xABCD_0001).providedBuffer == 0xABCD)
    #expect(Completion(token: token, result: 0, flags: 2).isContinued)
    #expect(!Completion(token: token, result: 0, flags: 1).isContinued)
  }
}
