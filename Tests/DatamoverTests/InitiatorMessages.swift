import ISCSI

/// A message as an initiator sends it: iSER header (RFC 7145 §9.2), basic header segment, data.
func controlMessage(
  _ header: BasicHeaderSegment, data: [UInt8] = [], read: (key: UInt32, address: UInt64)? = nil,
  write: (key: UInt32, address: UInt64)? = nil
) -> [UInt8] {
  var bytes = [UInt8](repeating: 0, count: 28)
  bytes[0] = 0x10 | (write == nil ? 0 : 0x08) | (read == nil ? 0 : 0x04)
  func put<T: FixedWidthInteger>(_ value: T, _ place: Int) {
    withUnsafeBytes(of: value.bigEndian) { bytes.replaceSubrange(place..<place + $0.count, with: $0) }
  }
  put(write?.key ?? 0, 4)
  put(write?.address ?? 0, 8)
  put(read?.key ?? 0, 16)
  put(read?.address ?? 0, 20)
  var header = header
  header.dataSegmentLength = data.count
  return bytes + header.bytes + data
}

/// A Hello (RFC 7145 §9.3).
func helloMessage(max: UInt8 = 1, min: UInt8 = 1, reads: UInt16 = 8) -> [UInt8] {
  [0x20, max << 4 | min, UInt8(reads >> 8), UInt8(reads & 0xFF)] + [UInt8](repeating: 0, count: 24)
}

/// A SCSI Command's header.
func command(_ tag: UInt32, flags: UInt8 = 0x80, expected: Int = 0) -> BasicHeaderSegment {
  var header = BasicHeaderSegment(.scsiCommand, flags: flags, initiatorTaskTag: tag)
  header.word5 = UInt32(expected)
  return header
}

extension ScriptedQueuePair.Message {
  var header: BasicHeaderSegment { bytes.withUnsafeBytes { BasicHeaderSegment(at: $0.baseAddress! + 28) } }
  var data: [UInt8] { Array(bytes.dropFirst(76)) }
}
