import ISCSI
import Wire

/// Why a byte stream can no longer be understood: always the end of the connection (ErrorRecoveryLevel 0, RFC 7143 §7.1).
public enum StreamFault: Error, Equatable, Sendable {
  case headerDigest
  case dataDigest
  /// DataSegmentLength above what was declared.
  case dataSegmentTooLong(Int)
}

/// Cuts the bytes of a TCP connection into PDUs (RFC 7143 §11.2). Pure: it is given bytes, and says what it found. Headers
/// that lie whole in the input are read where they are; data segments go to the place that the owner names, and their rest
/// can be received straight into it.
public struct TCPReceiver: ~Copyable {
  public enum Event: Equatable, Sendable {
    /// The input is used up.
    case needMore
    /// `header` is there and has a data segment: call `place(at:)`, then go on.
    case placement
    /// `header` and its data segment are complete.
    case pdu
    case failed(StreamFault)
  }

  private enum Phase {
    case header
    /// The owner must name the place of the data segment.
    case awaitingPlace
    case data
    /// Padding and data digest.
    case trailer
  }

  /// Basic header, the longest additional headers, header digest.
  private static let headerBytesMax = 48 + 255 * 4 + 4

  /// The PDU at hand.
  public private(set) var header = BasicHeaderSegment()
  /// In force from the PDU after the one during which they were set.
  public var headerDigest = false
  public var dataDigest = false
  /// The most that a data segment may be long.
  public var dataSegmentLengthMax: Int

  private var phase = Phase.header
  /// A header, or a trailer, that came in parts.
  private let partial: UnsafeMutableRawPointer
  private var partialCount = 0
  private var place: UnsafeMutableRawPointer?
  private var dataDone = 0
  private var crc: UInt32 = 0

  public init(dataSegmentLengthMax: Int) {
    self.dataSegmentLengthMax = dataSegmentLengthMax
    partial = .allocate(byteCount: Self.headerBytesMax, alignment: 8)
  }

  deinit { partial.deallocate() }

  /// Consumes from the front of `input` until something is to be said.
  public mutating func next(_ input: inout UnsafeRawBufferPointer) -> Event {
    while true {
      switch phase {
      case .header:
        guard let event = takeHeader(&input) else { continue }
        return event
      case .awaitingPlace:
        return .placement
      case .data:
        takeData(&input)
        if phase == .data { return .needMore }
      case .trailer:
        return takeTrailer(&input)
      }
    }
  }

  private mutating func takeHeader(_ input: inout UnsafeRawBufferPointer) -> Event? {
    let digestBytes = headerDigest ? 4 : 0
    let source: UnsafeRawPointer
    if partialCount == 0, input.count >= 48 + digestBytes, input[4] == 0 {
      // No additional headers and nothing left over: read in place.
      source = input.baseAddress!
      input = UnsafeRawBufferPointer(rebasing: input[(48 + digestBytes)...])
    } else {
      guard fill(48, &input) else { return .needMore }
      let total = 48 + Int(partial.load(fromByteOffset: 4, as: UInt8.self)) * 4 + digestBytes
      guard fill(total, &input) else { return .needMore }
      partialCount = 0
      source = UnsafeRawPointer(partial)
    }
    header = BasicHeaderSegment(at: source)
    if headerDigest {
      let covered = 48 + header.additionalHeaderBytes
      // Digests travel in little-endian order of the CRC value (RFC 7143 §13.1, as in iSCSI's CRC example).
      let digest = source.loadUnaligned(fromByteOffset: covered, as: UInt32.self)
      guard digest == CRC32C.of(source, count: covered).littleEndian else { return .failed(.headerDigest) }
    }
    guard header.dataSegmentLength > 0 else { return .pdu }
    guard header.dataSegmentLength <= dataSegmentLengthMax else {
      return .failed(.dataSegmentTooLong(header.dataSegmentLength))
    }
    phase = .awaitingPlace
    return nil
  }

  /// Names where the data segment goes; nil: it is dropped.
  public mutating func place(at base: UnsafeMutableRawPointer?) {
    precondition(phase == .awaitingPlace)
    place = base
    dataDone = 0
    crc = 0
    phase = .data
  }

  /// Before `place(at:)`: where the data segment is, if it and what follows it lie whole in `input`. Its owner may then leave it
  /// there (nil is its place) and read it before it takes more input.
  public func segment(in input: UnsafeRawBufferPointer) -> UnsafeRawPointer? {
    let length = header.dataSegmentLength
    return input.count >= length + (-length & 3) + (dataDigest ? 4 : 0) ? input.baseAddress : nil
  }

  private mutating func takeData(_ input: inout UnsafeRawBufferPointer) {
    let count = min(header.dataSegmentLength - dataDone, input.count)
    if count > 0 {
      let source = input.baseAddress!
      if let place { (place + dataDone).copyMemory(from: source, byteCount: count) }
      if dataDigest { crc = CRC32C.of(source, count: count, continuing: crc) }
      input = UnsafeRawBufferPointer(rebasing: input[count...])
    }
    advanceData(count)
  }

  private mutating func advanceData(_ count: Int) {
    dataDone += count
    if dataDone == header.dataSegmentLength { phase = .trailer }
  }

  /// Where the rest of the data segment may be received without a copy, if at least `minimum` bytes are missing.
  public func directPlace(minimum: Int) -> UnsafeMutableRawBufferPointer? {
    guard phase == .data, let place, header.dataSegmentLength - dataDone >= minimum else { return nil }
    return UnsafeMutableRawBufferPointer(start: place + dataDone, count: header.dataSegmentLength - dataDone)
  }

  /// `count` bytes were received into `directPlace`.
  public mutating func didReceive(count: Int) {
    guard let place else { return }
    if dataDigest { crc = CRC32C.of(place + dataDone, count: count, continuing: crc) }
    advanceData(count)
  }

  private mutating func takeTrailer(_ input: inout UnsafeRawBufferPointer) -> Event {
    let padding = -header.dataSegmentLength & 3
    guard fill(padding + (dataDigest ? 4 : 0), &input) else { return .needMore }
    partialCount = 0
    phase = .header
    if dataDigest {
      crc = CRC32C.of(partial, count: padding, continuing: crc)
      guard partial.loadUnaligned(fromByteOffset: padding, as: UInt32.self) == crc.littleEndian else {
        return .failed(.dataDigest)
      }
    }
    return .pdu
  }

  /// Collects into `partial` until it holds `count` bytes.
  private mutating func fill(_ count: Int, _ input: inout UnsafeRawBufferPointer) -> Bool {
    let taken = min(count - partialCount, input.count)
    if taken > 0 {
      (partial + partialCount).copyMemory(from: input.baseAddress!, byteCount: taken)
      partialCount += taken
      input = UnsafeRawBufferPointer(rebasing: input[taken...])
    }
    return partialCount >= count
  }
}
