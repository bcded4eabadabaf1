import ISCSI
import Wire

/// Three targets: open, one-way CHAP, mutual CHAP with a LUN mask.
private let configurations: [TargetConfiguration] = {
  guard let name = ISCSIName("iqn.2026-01.example:gateway") else { preconditionFailure() }
  let user = CHAPCredential(name: "user", secret: "a secret of more than 96 bits")
  let gateway = CHAPCredential(name: "gateway", secret: "another secret, as long")
  let oneWay = CHAPRequirement(initiators: [user])
  let mutual = CHAPRequirement(initiators: [user], target: gateway)
  let decisions: [AccessDecision] = [
    .allowed(chap: nil, luns: nil), .allowed(chap: oneWay, luns: nil), .allowed(chap: mutual, luns: [0, 1]),
  ]
  return decisions.map {
    TargetConfiguration(
      targetName: name, access: AccessRules(rules: [], otherwise: $0))
  }
}()

/// A whole login phase: byte 0 chooses target and transport, then PDUs as 48 header bytes, two length bytes and data.
@Sendable func fuzzLogin(_ data: UnsafeRawBufferPointer) {
  var input = Input(data)
  let choice = input.byte()
  var machine = LoginMachine(
    configuration: configurations[Int(choice & 0x0F) % configurations.count],
    transport: choice & 0x80 == 0 ? .tcp : .iser, localPortal: "127.0.0.1:3260")
  for _ in 0..<(LoginMachine.requestCountMax + 2) where !input.isAtEnd {
    let (header, data) = pdu(&input)
    switch machine.receive(header, data: data, random: { [UInt8](repeating: 0x5A, count: $0) }) {
    case .respond(let reply): check(reply)
    case .established:
      check(machine.finish(tsih: 1, commandWindow: 32))
      return
    case .fail(let reply):
      check(reply)
      precondition(reply.status != .success)
      return
    case .close: return
    }
  }
}

/// A PDU from the input. When the lowest length bit is set the header's DataSegmentLength is made to agree, as a framer
/// would have seen to; else it says what it says.
func pdu(_ input: inout Input) -> (BasicHeaderSegment, [UInt8]) {
  let bytes = input.bytes(BasicHeaderSegment.byteCount)
  let padded = bytes + [UInt8](repeating: 0, count: BasicHeaderSegment.byteCount - bytes.count)
  var header = padded.withUnsafeBytes { BasicHeaderSegment(at: $0.baseAddress!) }
  let length: UInt16 = input.integer()
  let data = input.bytes(Int(length >> 1))
  if length & 1 == 1 { header.dataSegmentLength = data.count }
  return (header, data)
}

private func check(_ reply: LoginReply) {
  precondition(reply.header.opcode == .loginResponse)
  precondition(reply.header.dataSegmentLength == reply.data.count)
}
