import Datamover
import ISCSI

/// One message over RDMA: byte 0 chooses the negotiated limit, two bytes its length, then its bytes. What is accepted lies in
/// what came, and a command that moves data has a buffer that holds it.
@Sendable func fuzzISER(_ data: UnsafeRawBufferPointer) {
  var input = Input(data)
  let limit = [8192, 512, 0, 0xFF_FFFF][Int(input.byte() & 3)]
  let byteCount = Int(input.integer(UInt16.self))
  let bytes = input.bytes(min(byteCount, ISERMessage.headerBytes))
  let message = parsed(bytes, byteCount, limit, filler: 0)
  // What did not come is not looked at.
  precondition(parsed(bytes, byteCount, limit, filler: 0xFF) == message || bytes.count < byteCount)
  switch message {
  case .failure: break
  case .success(.hello(let hello)):
    let reply = hello.reply(readsMax: hello.readsMax)
    precondition(reply.count == ISERHeader.byteCount && (reply[0] & 1 == 0) == hello.isOurs)
  case .success(.control(let header, let advertised)):
    precondition(header.dataSegmentLength <= limit && header.opcode != .dataOut)
    precondition(
      ISERMessage.headerBytes + header.additionalHeaderBytes + header.dataSegmentLength <= byteCount)
    guard header.opcode == .scsiCommand else { return }
    let expected = UInt64(header.expectedDataTransferLength)
    let rest = expected - min(expected, UInt64(header.dataSegmentLength))
    if header.flags & 0x40 != 0, expected > 0 {
      precondition(advertised.hasRead && advertised.readVA <= .max - expected)
    }
    if header.flags & 0x20 != 0, rest > 0 { precondition(advertised.hasWrite && advertised.writeVA <= .max - rest) }
  }
}

private func parsed(_ bytes: [UInt8], _ byteCount: Int, _ limit: Int, filler: UInt8) -> Result<ISERMessage, ISERFault> {
  // Memory of its own, so that a read beyond the headers leaves the allocation.
  let room = UnsafeMutableRawBufferPointer.allocate(byteCount: ISERMessage.headerBytes, alignment: 4)
  defer { room.deallocate() }
  for index in room.indices { room[index] = index < bytes.count ? bytes[index] : filler }
  do throws(ISERFault) {
    return .success(try ISERMessage(at: room.baseAddress!, byteCount: byteCount, dataSegmentLengthMax: limit))
  } catch {
    return .failure(error)
  }
}
