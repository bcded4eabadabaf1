@testable import Gateway
@testable import StorageLabel

/// Messages between the daemon and its parts, from the kernel of its addresses, and between the nodes of a pair. The first byte
/// says which. What is accepted has one form, or is accepted as the same once more.
@Sendable func fuzzMessages(_ data: UnsafeRawBufferPointer) {
  var input = Input(data)
  let kind = input.byte() % 6
  let bytes = input.rest()
  switch kind {
  case 0:
    if let request = AddressRequest(decoding: bytes) { precondition(request.encoded == bytes) }
    if let result = AddressRequest.result(bytes) { precondition(AddressRequest.encode(result: result) == bytes) }
  case 1:
    // Each answer takes a header of 16 bytes.
    precondition(AddressMessages.answers(bytes, to: 0x0101_0101).count <= bytes.count / 16)
  case 2:
    guard let question = PeerQuestion(decoding: bytes) else { return }
    precondition(PeerQuestion(decoding: question.encode()) == question)
  case 3:
    guard let outcome = PeerOutcome(decoding: bytes) else { return }
    precondition(PeerOutcome(decoding: outcome.encode()) == outcome)
  case 4:
    guard let (request, timeout) = FenceMessages.request(bytes) else { return }
    precondition(FenceMessages.encode(request, timeoutMilliseconds: timeout) == bytes)
  default:
    guard let answer = FenceMessages.answer(bytes) else { return }
    precondition(FenceMessages.answer(FenceMessages.encode(answer)) == answer)
  }
}
