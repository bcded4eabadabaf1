/// The authenticator's side of CHAP (RFC 7143 §12.1.3), from the initiator's list of algorithms to the verdict. A wrong
/// name and a wrong secret look the same from outside, in the answer and in the work done.
struct CHAPExchange: Sendable {
  enum Outcome: Equatable {
    /// The keys of our next response; the initiator is not proved yet.
    case proceed
    case authenticated(name: String)
    case failed
    /// A key is missing, out of order or out of its format.
    case protocolError
  }

  private enum State {
    case awaitingAlgorithms
    case awaitingResponse(CHAPAlgorithm, identifier: UInt8, challenge: [UInt8])
    case done
  }

  /// §12.1.3: "the maximum length of a challenge and a response is 1024 bytes".
  static let byteCountMax = 1024
  /// Bytes of our own challenge: no shorter than the longest digest.
  static let challengeByteCount = 32

  private let requirement: CHAPRequirement
  private var state = State.awaitingAlgorithms

  init(_ requirement: CHAPRequirement) { self.requirement = requirement }

  /// Takes the CHAP keys of one request, and adds ours to `reply`.
  mutating func receive(_ keys: [String: String], reply: inout TextKeys, random: (Int) -> [UInt8]) -> Outcome {
    switch state {
    case .awaitingAlgorithms:
      return choose(keys, reply: &reply, random: random)
    case .awaitingResponse(let algorithm, let identifier, let challenge):
      state = .done
      return verify(
        keys, algorithm: algorithm, identifier: identifier, challenge: challenge, reply: &reply)
    case .done:
      return keys.isEmpty ? .proceed : .protocolError
    }
  }

  private mutating func choose(
    _ keys: [String: String], reply: inout TextKeys, random: (Int) -> [UInt8]
  ) -> Outcome {
    if keys.isEmpty { return .proceed }
    guard keys.count == 1, let list = keys["CHAP_A"].flatMap(TextValue.list) else { return .protocolError }
    let offered = list.compactMap { TextValue.number($0).map(CHAPAlgorithm.init(rawValue:)) }
    guard let algorithm = offered.first(where: CHAPAlgorithm.supported.contains) else { return .failed }
    let bytes = random(1 + Self.challengeByteCount)
    precondition(bytes.count == 1 + Self.challengeByteCount, "as many random bytes as asked for")
    let challenge = Array(bytes[1...])
    reply.append("CHAP_A", "\(algorithm.rawValue)")
    reply.append("CHAP_I", "\(bytes[0])")
    reply.append("CHAP_C", TextValue.hexText(challenge))
    state = .awaitingResponse(algorithm, identifier: bytes[0], challenge: challenge)
    return .proceed
  }

  private func verify(
    _ keys: [String: String], algorithm: CHAPAlgorithm, identifier: UInt8, challenge: [UInt8],
    reply: inout TextKeys
  ) -> Outcome {
    let isMutual = keys["CHAP_I"] != nil && keys["CHAP_C"] != nil
    guard let name = keys["CHAP_N"], let text = keys["CHAP_R"], keys.count == (isMutual ? 4 : 2),
      let response = TextValue.binary(text, byteCountMax: Self.byteCountMax)
    else { return .protocolError }

    // An unknown name is compared too, with a secret nobody has.
    let credential = requirement.initiators.first { $0.name == name }
    let expected = algorithm.response(
      identifier: identifier, secret: credential?.secret ?? Array(challenge.reversed()), challenge: challenge)
    let isRight = CHAPAlgorithm.isEqualInConstantTime(expected, response)
    guard isRight, let credential, !credential.secret.isEmpty else { return .failed }
    guard isMutual else { return .authenticated(name: name) }
    return answer(keys, algorithm: algorithm, challenge: challenge, initiator: credential, reply: &reply)
  }

  private func answer(
    _ keys: [String: String], algorithm: CHAPAlgorithm, challenge: [UInt8], initiator: CHAPCredential,
    reply: inout TextKeys
  ) -> Outcome {
    guard let number = keys["CHAP_I"].flatMap(TextValue.number), let identifier = UInt8(exactly: number),
      let theirs = keys["CHAP_C"].flatMap({ TextValue.binary($0, byteCountMax: Self.byteCountMax) })
    else { return .protocolError }
    // §12.1.3: our challenge sent back, or one secret for both directions, would let us answer our own question.
    guard let target = requirement.target, !target.secret.isEmpty,
      !CHAPAlgorithm.isEqualInConstantTime(theirs, challenge),
      !CHAPAlgorithm.isEqualInConstantTime(target.secret, initiator.secret)
    else { return .failed }
    let response = algorithm.response(identifier: identifier, secret: target.secret, challenge: theirs)
    reply.append("CHAP_N", target.name)
    // Whoever sends base64 reads base64.
    let isBase64 = keys["CHAP_C"]?.hasPrefix("0x") == false && keys["CHAP_C"]?.hasPrefix("0X") == false
    reply.append("CHAP_R", isBase64 ? TextValue.base64Text(response) : TextValue.hexText(response))
    return .authenticated(name: initiator.name)
  }
}
