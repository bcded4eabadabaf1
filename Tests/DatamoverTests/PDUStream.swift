import ISCSI
import Wire

/// A PDU as a test writes it.
struct TestPDU: Equatable {
  var header: BasicHeaderSegment
  /// Additional header segments: whole words.
  var additional: [UInt8] = []
  var data: [UInt8] = []

  init(_ number: UInt32, additionalWords: Int = 0, dataBytes: Int = 0) {
    header = BasicHeaderSegment(.dataOut, flags: UInt8(truncatingIfNeeded: number), initiatorTaskTag: number)
    additional = (0..<additionalWords * 4).map { UInt8(truncatingIfNeeded: $0 &+ 3) }
    data = (0..<dataBytes).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ Int(number)) }
    header.word1 = UInt32(additionalWords) << 24
    header.dataSegmentLength = dataBytes
  }

  /// As it travels (RFC 7143 §11.2): header, additional headers, digest, data, padding, digest.
  func bytes(headerDigest: Bool, dataDigest: Bool) -> [UInt8] {
    var head = header.bytes + additional
    if headerDigest { head += Self.digest(head) }
    guard !data.isEmpty else { return head }
    var segment = data + [UInt8](repeating: 0, count: -data.count & 3)
    if dataDigest { segment += Self.digest(segment) }
    return head + segment
  }

  static func digest(_ bytes: [UInt8]) -> [UInt8] { withUnsafeBytes(of: CRC32C.of(bytes).littleEndian) { Array($0) } }
}
