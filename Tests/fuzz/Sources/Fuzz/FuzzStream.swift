import Datamover
import ISCSI
import Wire

/// The bytes of a connection: byte 0 chooses digests and the declared limit, then eight lengths of pieces, then the stream.
/// In one piece, in pieces of these lengths, and received directly where that is possible, the same PDUs must come out; and
/// what is asked to be stored never exceeds the limit. The digests are recomputed where the choice says so, for nothing that
/// is guessed gets past them.
@Sendable func fuzzStream(_ data: UnsafeRawBufferPointer) {
  var input = Input(data)
  let choice = input.byte()
  let pieces = input.bytes(8).map { Int($0) + 1 }
  let stream = input.rest()
  let limit = choice & 4 == 0 ? 512 : 65536
  let digests = (header: choice & 1 != 0, data: choice & 2 != 0)
  let bytes = choice & 8 == 0 ? stream : sealed(stream, digests, limit: limit)
  let whole = received(bytes, [], digests, limit: limit, direct: false)
  precondition(received(bytes, pieces, digests, limit: limit, direct: false) == whole)
  precondition(received(bytes, pieces, digests, limit: limit, direct: true) == whole)
  precondition(received(bytes, [1], digests, limit: limit, direct: false) == whole)
}

private struct Outcome: Equatable {
  var headers: [BasicHeaderSegment] = []
  var data: [UInt8] = []
  var fault: StreamFault?
}

/// What a receiver makes of `stream`, given to it in pieces of these lengths over and over; none: in one.
private func received(
  _ stream: [UInt8], _ pieces: [Int], _ digests: (header: Bool, data: Bool), limit: Int, direct: Bool
) -> Outcome {
  var receiver = TCPReceiver(dataSegmentLengthMax: limit)
  receiver.headerDigest = digests.header
  receiver.dataDigest = digests.data
  let room = UnsafeMutableRawBufferPointer.allocate(byteCount: limit, alignment: 8)
  defer { room.deallocate() }
  var outcome = Outcome()
  var done = 0
  var turn = 0
  while done < stream.count {
    let length = pieces.isEmpty ? stream.count : pieces[turn % pieces.count]
    turn += 1
    let count = min(length, stream.count - done)
    if direct, let place = receiver.directPlace(minimum: 1) {
      precondition(place.count <= limit)
      let part = min(count, place.count)
      place.copyBytes(from: stream[done..<done + part])
      receiver.didReceive(count: part)
      done += part
      continue
    }
    // Memory of its own, so that a read beyond the piece leaves the allocation.
    let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 1)
    defer { piece.deallocate() }
    piece.copyBytes(from: stream[done..<done + count])
    done += count
    var input = UnsafeRawBufferPointer(piece)
    guard take(&receiver, &input, room, &outcome) else { return outcome }
  }
  // What was received directly may have completed a PDU without padding or digest; it is told at the next turn.
  var nothing = UnsafeRawBufferPointer(start: nil, count: 0)
  _ = take(&receiver, &nothing, room, &outcome)
  return outcome
}

/// Everything that one piece gives; false after a fault.
private func take(
  _ receiver: inout TCPReceiver, _ input: inout UnsafeRawBufferPointer, _ room: UnsafeMutableRawBufferPointer,
  _ outcome: inout Outcome
) -> Bool {
  while true {
    switch receiver.next(&input) {
    case .needMore:
      precondition(input.isEmpty)
      return true
    case .placement:
      precondition(receiver.header.dataSegmentLength <= room.count)
      receiver.place(at: room.baseAddress)
    case .pdu:
      outcome.headers.append(receiver.header)
      outcome.data += room[..<receiver.header.dataSegmentLength]
    case .failed(let fault):
      outcome.fault = fault
      return false
    }
  }
}

/// The stream with the digests that its PDUs should have, as far as it can be understood.
private func sealed(_ stream: [UInt8], _ digests: (header: Bool, data: Bool), limit: Int) -> [UInt8] {
  var bytes = stream
  var position = 0
  while bytes.count - position >= 48 {
    let head = 48 + Int(bytes[position + 4]) * 4
    let length = Int(bytes[position + 5]) << 16 | Int(bytes[position + 6]) << 8 | Int(bytes[position + 7])
    position = seal(&bytes, from: position, count: head, digests.header)
    guard position <= bytes.count, length <= limit else { break }
    if length > 0 { position = seal(&bytes, from: position, count: (length + 3) & ~3, digests.data) }
    guard position <= bytes.count else { break }
  }
  return bytes
}

/// Puts the digest of `count` bytes behind them; the position after it.
private func seal(_ bytes: inout [UInt8], from start: Int, count: Int, _ hasDigest: Bool) -> Int {
  let end = start + count
  guard hasDigest else { return end }
  guard end + 4 <= bytes.count else { return .max }
  let crc = CRC32C.of(Array(bytes[start..<end]))
  for i in 0..<4 { bytes[end + i] = UInt8(truncatingIfNeeded: crc >> UInt32(8 * i)) }
  return end + 4
}
