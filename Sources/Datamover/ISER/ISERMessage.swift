import ISCSI
import Wire

/// Why what came over RDMA cannot be an iSER message: always the end of the connection.
public enum ISERFault: Error, Equatable, Sendable {
  /// Shorter than its headers, or than the data segment that they name.
  case truncated(Int)
  /// The high nibble of the header's first byte is none of RFC 7145 §9.2 to §9.4.
  case unknownMessage(UInt8)
  /// DataSegmentLength above what was negotiated.
  case dataSegmentTooLong(Int)
  /// A command that moves data, without a steering tag for it or with a range that wraps (RFC 7145 §7.3.1).
  case noBuffer
  /// Data-Out, which InitialR2T=Yes leaves no room for.
  case unsolicitedDataOut
  /// An iSER Hello after the first message of the full-feature phase (RFC 7145 §5.1.3).
  case lateHello
  /// A Hello whose initiator answers no RDMA READ.
  case noReads
  /// A completion of something that was not under way, or of more than there was room for.
  case strayCompletion
}

/// What came in one SEND, judged by itself: no state, no memory but the message's.
public enum ISERMessage: Equatable, Sendable {
  /// A PDU (RFC 7145 §9.2). After its 76 bytes of headers come the additional headers, then the data segment.
  case control(BasicHeaderSegment, AdvertisedBuffers)
  case hello(ISERHello)

  /// iSER header and basic header segment.
  public static let headerBytes = ISERHeader.byteCount + BasicHeaderSegment.byteCount

  /// - Parameters:
  ///   - bytes: room of `headerBytes`, whatever came.
  ///   - byteCount: of the message, of which no more than `headerBytes` are looked at.
  ///   - dataSegmentLengthMax: what was negotiated for the data segment of a PDU.
  public init(at bytes: UnsafeRawPointer, byteCount: Int, dataSegmentLengthMax: Int) throws(ISERFault) {
    guard byteCount >= ISERHeader.byteCount else { throw .truncated(byteCount) }
    let nibble = bytes.load(as: UInt8.self) >> 4
    switch ISERHeader.Kind(rawValue: nibble) {
    case .hello:
      self = .hello(ISERHello(at: bytes))
    case .control:
      guard byteCount >= Self.headerBytes else { throw .truncated(byteCount) }
      var header = BasicHeaderSegment(at: bytes + ISERHeader.byteCount)
      let advertised = ISERHeader(at: bytes).advertised
      if Self.leavesDataBehind(header, advertised, byteCount) { header.dataSegmentLength = 0 }
      guard header.dataSegmentLength <= dataSegmentLengthMax else {
        throw .dataSegmentTooLong(header.dataSegmentLength)
      }
      guard byteCount - Self.headerBytes >= header.additionalHeaderBytes + header.dataSegmentLength else {
        throw .truncated(byteCount)
      }
      if header.opcode == .scsiCommand { try Self.check(header, advertised) }
      if header.opcode == .dataOut { throw .unsolicitedDataOut }
      self = .control(header, advertised)
    case .helloReply, nil:
      throw .unknownMessage(nibble)
    }
  }

  /// libiscsi 1.19, and so QEMU over it, writes the length of immediate data into the header of a write and then sends none:
  /// all of the data, from its first byte, is in the buffer that it advertises. A message of headers alone means just that.
  private static func leavesDataBehind(
    _ header: BasicHeaderSegment, _ advertised: AdvertisedBuffers, _ byteCount: Int
  ) -> Bool {
    byteCount == headerBytes && header.opcode == .scsiCommand && header.flags & 0x20 != 0 && advertised.hasWrite
      && header.additionalHeaderBytes == 0
  }

  /// Where a command moves data that does not come with it, there must be a buffer for it (RFC 7145 §7.3.1).
  private static func check(_ header: BasicHeaderSegment, _ advertised: AdvertisedBuffers) throws(ISERFault) {
    let expected = UInt64(header.expectedDataTransferLength)
    if header.flags & 0x40 != 0, expected > 0 {
      guard advertised.hasRead, !advertised.readVA.addingReportingOverflow(expected).overflow else { throw .noBuffer }
    }
    let immediate = UInt64(header.dataSegmentLength)
    if header.flags & 0x20 != 0, expected > immediate {
      guard advertised.hasWrite, !advertised.writeVA.addingReportingOverflow(expected - immediate).overflow else {
        throw .noBuffer
      }
    }
  }
}
