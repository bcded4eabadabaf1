import HA

/// A datagram from anywhere, and the payloads of the pair's records. Few inputs have the authenticator right, so the same
/// bytes are also read as a message that was signed with the key.
@Sendable func fuzzHeartbeat(_ data: UnsafeRawBufferPointer) {
  let bytes = [UInt8](data)
  let key = [UInt8](repeating: 0x5A, count: 32)
  check(try? HeartbeatCodec.decode(bytes, key: key), key)
  check(try? HeartbeatCodec.decode(HeartbeatCodec.sign(bytes, key: key), key: key), key)
  for bytes in [bytes, HeartbeatCodec.sign(bytes, key: key)] {
    guard let call = try? PeerCall.decode(bytes, key: key) else { continue }
    precondition((try? PeerCall.decode(call.encode(key: key), key: key)) == call)
  }
  if let record = OwnerRecord(decoding: bytes) { precondition(record.encode() == bytes) }
  if let beat = DiskBeat(decoding: bytes) { precondition(beat.encode() == bytes) }
}

/// What is accepted and written is accepted and equal.
private func check(_ beat: Heartbeat?, _ key: [UInt8]) {
  guard let beat else { return }
  precondition((try? HeartbeatCodec.decode(HeartbeatCodec.encode(beat, key: key), key: key)) == beat)
}
