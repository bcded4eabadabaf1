import Datamover
import ISCSI
import TestSupport
import Testing
import Wire

/// What came out of a receiver.
struct Received: Equatable {
  var pdus: [TestPDU] = []
  var fault: StreamFault?
  /// Bytes of the input that were not taken, after a fault.
  var left = 0
}

/// Runs a stream through a receiver in pieces of the given lengths (the last is as long as it must be). Every piece lies in
/// memory of exactly its length, so that the address sanitizer sees a read beyond it.
func receive(
  _ stream: [UInt8], pieces: [Int], headerDigest: Bool = false, dataDigest: Bool = false, limit: Int = 65536,
  drops: Bool = false, directMinimum: Int = .max
) -> Received {
  var receiver = TCPReceiver(dataSegmentLengthMax: limit)
  receiver.headerDigest = headerDigest
  receiver.dataDigest = dataDigest
  let room = UnsafeMutableRawBufferPointer.allocate(byteCount: limit, alignment: 8)
  defer { room.deallocate() }
  var result = Received()
  var done = 0
  var turn = 0
  while done < stream.count {
    var count = min(turn < pieces.count ? max(pieces[turn], 1) : .max, stream.count - done)
    turn += 1
    if let place = receiver.directPlace(minimum: directMinimum) {
      count = min(count, place.count)
      place.copyBytes(from: stream[done..<done + count])
      receiver.didReceive(count: count)
      done += count
      count = 0
    }
    let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 1)
    defer { piece.deallocate() }
    piece.copyBytes(from: stream[done..<done + count])
    done += count
    var input = UnsafeRawBufferPointer(piece)
    loop: while true {
      switch receiver.next(&input) {
      case .needMore:
        precondition(input.isEmpty)
        break loop
      case .placement:
        room.initializeMemory(as: UInt8.self, repeating: 0xEE)
        receiver.place(at: drops ? nil : room.baseAddress)
      case .pdu:
        var pdu = TestPDU(0)
        pdu.header = receiver.header
        if !drops { pdu.data = Array(room[..<receiver.header.dataSegmentLength]) }
        result.pdus.append(pdu)
      case .failed(let fault):
        result.fault = fault
        result.left = stream.count - done + input.count
        return result
      }
    }
  }
  return result
}

/// A receiver that `#expect` may look at: it copies what it looks at, and a receiver cannot be copied.
final class ReceiverBench {
  var receiver = TCPReceiver(dataSegmentLengthMax: 1000)
  var header: BasicHeaderSegment { receiver.header }

  func next(_ input: inout UnsafeRawBufferPointer) -> TCPReceiver.Event { receiver.next(&input) }
  func place(at base: UnsafeMutableRawPointer?) { receiver.place(at: base) }
  func directPlace(minimum: Int) -> UnsafeMutableRawBufferPointer? { receiver.directPlace(minimum: minimum) }
  func didReceive(count: Int) { receiver.didReceive(count: count) }
}

@Suite("PDUs from a byte stream (RFC 7143 §11.2)")
struct TCPReceiverTests {
  static let digests: [(Bool, Bool)] = [(false, false), (true, false), (false, true), (true, true)]
  static let pdus = [
    TestPDU(1), TestPDU(2, dataBytes: 1), TestPDU(3, dataBytes: 4), TestPDU(4, additionalWords: 1, dataBytes: 6),
    TestPDU(5, additionalWords: 3), TestPDU(6, dataBytes: 15), TestPDU(7), TestPDU(8, additionalWords: 2, dataBytes: 3),
  ]

  static func stream(_ pdus: [TestPDU], _ digests: (Bool, Bool)) -> [UInt8] {
    pdus.flatMap { $0.bytes(headerDigest: digests.0, dataDigest: digests.1) }
  }

  static func seen(_ pdus: [TestPDU], data: Bool = true) -> [TestPDU] {
    pdus.map { pdu in
      var pdu = pdu
      pdu.additional = []
      if !data { pdu.data = [] }
      return pdu
    }
  }

  @Test("A stream gives the same PDUs wherever it is cut in two, with and without digests", arguments: 0..<4)
  func everySplit(choice: Int) {
    let digests = Self.digests[choice]
    let stream = Self.stream(Self.pdus, digests)
    for cut in 1..<stream.count {
      let result = receive(stream, pieces: [cut], headerDigest: digests.0, dataDigest: digests.1)
      #expect(result == Received(pdus: Self.seen(Self.pdus)), "cut at \(cut)")
    }
  }

  @Test("A stream gives the same PDUs in pieces of any one length, also byte by byte", arguments: 0..<4)
  func everyLength(choice: Int) {
    let digests = Self.digests[choice]
    let stream = Self.stream(Self.pdus, digests)
    for length in 1...120 {
      let pieces = [Int](repeating: length, count: stream.count)
      let result = receive(stream, pieces: pieces, headerDigest: digests.0, dataDigest: digests.1)
      #expect(result == Received(pdus: Self.seen(Self.pdus)), "pieces of \(length)")
    }
  }

  @Test("A stream gives the same PDUs cut in two places, received directly or copied or dropped", arguments: 0..<40)
  func random(seed: UInt64) {
    var random = SplitMix(seed: seed)
    let digests = Self.digests[Int(seed) % 4]
    let pdus = (0..<12).map { number in
      TestPDU(
        UInt32(number), additionalWords: random.next() % 3 == 0 ? Int(random.next() % 256) : 0,
        dataBytes: random.next() % 4 == 0 ? 0 : Int(random.next() % 9000))
    }
    let stream = Self.stream(pdus, digests)
    for _ in 0..<20 {
      let pieces = (0..<200).map { _ in Int(random.next() % (random.next() % 2 == 0 ? 60 : 4000)) }
      for minimum in [1, 100, 4096, .max] {
        let result = receive(
          stream, pieces: pieces, headerDigest: digests.0, dataDigest: digests.1, directMinimum: minimum)
        #expect(result == Received(pdus: Self.seen(pdus)), "direct from \(minimum)")
      }
      let dropped = receive(stream, pieces: pieces, headerDigest: digests.0, dataDigest: digests.1, drops: true)
      #expect(dropped == Received(pdus: Self.seen(pdus, data: false)))
    }
  }

  @Test("Any flipped bit of a header with a digest is found, and nothing after it is read (RFC 7143 §7.8)")
  func headerDigest() {
    let pdu = TestPDU(9, additionalWords: 1, dataBytes: 8)
    var stream = TestPDU(1).bytes(headerDigest: true, dataDigest: false)
    let start = stream.count
    stream += pdu.bytes(headerDigest: true, dataDigest: false)
    stream += [UInt8](repeating: 0, count: 1100)
    // The header, its additional headers and the digest itself. A flip in TotalAHSLength moves the place of the digest.
    for bit in 0..<56 * 8 {
      stream[start + bit / 8] ^= 1 << UInt8(bit % 8)
      for pieces in [[], [start + 20], [1, 1, 1]] {
        let result = receive(stream, pieces: pieces, headerDigest: true)
        #expect(result.fault == .headerDigest && result.pdus.count == 1, "bit \(bit)")
      }
      stream[start + bit / 8] ^= 1 << UInt8(bit % 8)
    }
  }

  @Test("Any flipped bit of a data segment, its padding or its digest is found (RFC 7143 §7.8)")
  func dataDigest() {
    for bytes in [1, 2, 3, 4, 37] {
      let pdu = TestPDU(9, dataBytes: bytes)
      var stream = pdu.bytes(headerDigest: false, dataDigest: true)
      for bit in 48 * 8..<stream.count * 8 {
        stream[bit / 8] ^= 1 << UInt8(bit % 8)
        for pieces in [[], [49], [50, 1, 1]] {
          let result = receive(stream, pieces: pieces, dataDigest: true, directMinimum: pieces.count == 1 ? 1 : .max)
          #expect(result == Received(fault: .dataDigest), "bit \(bit) of \(bytes)")
        }
        stream[bit / 8] ^= 1 << UInt8(bit % 8)
      }
    }
  }

  @Test("A data segment may be as long as was declared and not a byte longer; a longer one is not placed")
  func tooLong() {
    for limit in [512, 8192] {
      let fits = TestPDU(1, dataBytes: limit)
      #expect(receive(Self.stream([fits], (false, false)), pieces: [], limit: limit).pdus.count == 1)
      for bytes in [limit + 1, 0xFF_FFFF] {
        var header = TestPDU(2).header
        header.dataSegmentLength = bytes
        let result = receive(header.bytes + [1, 2, 3], pieces: [], limit: limit)
        #expect(result == Received(fault: .dataSegmentTooLong(bytes), left: 3))
      }
    }
  }

  @Test("The digest of a header is checked before its length is believed")
  func digestFirst() {
    var header = TestPDU(2).header
    header.dataSegmentLength = 0xFF_FFFF
    let result = receive(header.bytes + [0, 0, 0, 0], pieces: [], headerDigest: true)
    #expect(result.fault == .headerDigest)
  }

  @Test("An empty data segment has no digest (RFC 7143 §11.2.3)")
  func noData() {
    let stream =
      TestPDU(1).bytes(headerDigest: false, dataDigest: true) + TestPDU(2).bytes(headerDigest: false, dataDigest: true)
    #expect(receive(stream, pieces: [], dataDigest: true).pdus.count == 2)
  }

  @Test("Only the rest of a data segment is received directly, and only if enough of it is missing")
  func directPlace() {
    let pdu = TestPDU(1, dataBytes: 100)
    let stream = pdu.bytes(headerDigest: false, dataDigest: false)
    let receiver = ReceiverBench()
    let room = UnsafeMutableRawBufferPointer.allocate(byteCount: 100, alignment: 8)
    defer { room.deallocate() }
    #expect(receiver.directPlace(minimum: 0) == nil)
    stream.withUnsafeBytes { bytes in
      var input = UnsafeRawBufferPointer(rebasing: bytes[..<78])
      #expect(receiver.next(&input) == .placement)
      #expect(receiver.directPlace(minimum: 0) == nil)
      #expect(receiver.next(&input) == .placement)
      receiver.place(at: room.baseAddress)
      #expect(receiver.next(&input) == .needMore)
    }
    #expect(receiver.directPlace(minimum: 71) == nil)
    let place = receiver.directPlace(minimum: 70)
    #expect(place?.count == 70 && place?.baseAddress == room.baseAddress! + 30)
    place?.copyBytes(from: stream[78..<148])
    receiver.didReceive(count: 70)
    #expect(receiver.directPlace(minimum: 0) == nil)
    var nothing = UnsafeRawBufferPointer(start: nil, count: 0)
    #expect(receiver.next(&nothing) == .pdu)
    #expect(room.elementsEqual(pdu.data))
  }

  @Test("A data segment may stay in the input if all of its PDU is there", arguments: [false, true])
  func segmentInInput(dataDigest: Bool) {
    let pdu = TestPDU(1, dataBytes: 99)
    let stream = pdu.bytes(headerDigest: false, dataDigest: dataDigest)
    for missing in 0...1 {
      let receiver = ReceiverBench()
      receiver.receiver.dataDigest = dataDigest
      stream.withUnsafeBytes { bytes in
        var input = UnsafeRawBufferPointer(rebasing: bytes[..<(bytes.count - missing)])
        #expect(receiver.next(&input) == .placement)
        let segment = receiver.receiver.segment(in: input)
        #expect((segment == nil) == (missing == 1))
        guard let segment else { return }
        receiver.place(at: nil)
        #expect(receiver.next(&input) == .pdu)
        #expect(UnsafeRawBufferPointer(start: segment, count: 99).elementsEqual(pdu.data))
      }
    }
  }

  @Test("Digests that are agreed upon between two PDUs hold from the next one on")
  func digestsLater() {
    let receiver = ReceiverBench()
    let bytes =
      TestPDU(1).bytes(headerDigest: false, dataDigest: false) + TestPDU(2).bytes(headerDigest: true, dataDigest: true)
    bytes.withUnsafeBytes { bytes in
      var input = bytes
      #expect(receiver.next(&input) == .pdu && receiver.header.initiatorTaskTag == 1)
      receiver.receiver.headerDigest = true
      #expect(receiver.next(&input) == .pdu && receiver.header.initiatorTaskTag == 2)
      #expect(receiver.next(&input) == .needMore && input.isEmpty)
    }
  }

  @Test("Any bytes are taken without a trap, and give the same wherever they are cut", arguments: 0..<20)
  func anything(seed: UInt64) {
    var random = SplitMix(seed: seed)
    for _ in 0..<50 {
      let stream = (0..<Int(random.next() % 2000)).map { i in
        i % 48 == 5 && random.next() % 2 == 0
          ? 0 : UInt8(truncatingIfNeeded: random.next() & random.next() & random.next())
      }
      let digest = random.next() % 8 == 0
      let whole = receive(stream, pieces: [], dataDigest: digest)
      let pieces = (0..<300).map { _ in Int(random.next() % 70) }
      #expect(receive(stream, pieces: pieces, dataDigest: digest) == whole)
      #expect(receive(stream, pieces: pieces, dataDigest: digest, directMinimum: 10) == whole)
    }
  }
}
