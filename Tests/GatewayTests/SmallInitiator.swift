import Glibc
import ISCSI

/// An initiator of the least that a test needs: one connection, one command at a time, over a plain socket. Every read has
/// a bound of ten seconds.
final class SmallInitiator {
  struct Failure: Error {
    var what: String
  }

  private let fd: Int32
  private var cmdSN: UInt32 = 1
  private var expStatSN: UInt32 = 0
  private var tag: UInt32 = 0
  /// By task tag: what R2Ts may ask for.
  private var outgoing: [UInt32: [UInt8]] = [:]

  /// Connects and logs in to a normal session (RFC 7143 §6.3) in one request.
  init(port: UInt16, target: String, name: String) throws {
    fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var bound = timeval(tv_sec: 10, tv_usec: 0)
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &bound, socklen_t(MemoryLayout<timeval>.size))
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    let code = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(fd, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard code == 0 else { throw Failure(what: "connect: \(errno)") }
    // I, T, CSG 1, NSG 3; ISID 80.
    var header = BasicHeaderSegment(Opcode(rawValue: 0x43), flags: 0x87, initiatorTaskTag: 0)
    header.word2 = 0x8000_0000
    header.word6 = cmdSN
    let keys = ["InitiatorName=\(name)", "TargetName=\(target)", "SessionType=Normal", "InitialR2T=No"]
    try send(header, Array(keys.joined(separator: "\0").utf8) + [0])
    let (answer, _) = try receive()
    guard answer.opcode == .loginResponse, answer.word9 >> 16 == 0 else {
      throw Failure(what: "login status \(answer.word9 >> 16)")
    }
    expStatSN = answer.statSN &+ 1
  }

  deinit { close(fd) }

  private func send(_ header: BasicHeaderSegment, _ data: [UInt8]) throws {
    var header = header
    header.dataSegmentLength = data.count
    let bytes = header.bytes + data + [UInt8](repeating: 0, count: -data.count & 3)
    guard Glibc.send(fd, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count else {
      throw Failure(what: "send: \(errno)")
    }
  }

  private func read(_ count: Int) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var done = 0
    while done < count {
      let got = bytes.withUnsafeMutableBytes { recv(fd, $0.baseAddress! + done, count - done, 0) }
      if got < 0, errno == EINTR { continue }
      guard got > 0 else { throw Failure(what: got == 0 ? "closed" : "receive: \(errno)") }
      done += got
    }
    return bytes
  }

  private func receive() throws -> (BasicHeaderSegment, [UInt8]) {
    let header = try read(48).withUnsafeBytes { BasicHeaderSegment(at: $0.baseAddress!) }
    let data = try read((header.dataSegmentLength + 3) & ~3)
    return (header, Array(data[..<header.dataSegmentLength]))
  }

  /// One command with immediate data or an expected amount of Data-In; its SCSI status and what was read.
  func command(_ cdb: [UInt8], lun: UInt8 = 0, write: [UInt8] = [], read expected: Int = 0) throws -> (
    status: UInt8, data: [UInt8]
  ) {
    try post(cdb, lun: lun, write: write, read: expected)
    var data = [UInt8](repeating: 0, count: expected)
    while true {
      let (answer, bytes) = try receive()
      guard answer.initiatorTaskTag == tag else { continue }
      switch answer.opcode {
      case .dataIn:
        let offset = Int(answer.bufferOffset)
        data.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        guard answer.flags & 1 != 0 else { continue }
      case .scsiResponse: break
      default: throw Failure(what: "opcode \(answer.opcode)")
      }
      expStatSN = answer.statSN &+ 1
      return (answer.byte3, data)
    }
  }

  /// Sends a command without waiting for its answer.
  /// - Parameter immediate: bytes of `write` that go with it; nil: all.
  func post(
    _ cdb: [UInt8], lun: UInt8 = 0, write: [UInt8] = [], immediate: Int? = nil, read expected: Int = 0
  ) throws {
    tag += 1
    outgoing[tag] = write
    var header = BasicHeaderSegment(
      .scsiCommand, flags: 0x80 | (write.isEmpty ? 0 : 0x20) | (expected > 0 ? 0x40 : 0), initiatorTaskTag: tag)
    header.lun = UInt64(lun) << 48
    header.word5 = UInt32(max(write.count, expected))
    header.word6 = cmdSN
    header.word7 = expStatSN
    let words = (cdb + [UInt8](repeating: 0, count: 16 - cdb.count)).withUnsafeBytes { bytes in
      (0..<4).map { UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: $0 * 4, as: UInt32.self)) }
    }
    (header.word8, header.word9, header.word10, header.word11) = (words[0], words[1], words[2], words[3])
    cmdSN &+= 1
    try send(header, Array(write.prefix(immediate ?? write.count)))
  }

  /// Sends a WRITE (10) without data, and returns what asks for it.
  func beginWrite(_ bytes: [UInt8], block: UInt32, lun: UInt8 = 0) throws -> BasicHeaderSegment {
    try post(Self.cdb(0x2A, block, bytes.count), lun: lun, write: bytes, immediate: 0)
    while true {
      let (answer, _) = try receive()
      if answer.opcode == .readyToTransfer { return answer }
    }
  }

  /// Whether the target ends the connection, within ten seconds.
  func isEnded() -> Bool {
    do {
      while true { _ = try receive() }
    } catch let failure as Failure {
      return failure.what == "closed" || failure.what == "receive: \(ECONNRESET)"
    } catch {
      return false
    }
  }

  /// The Data-Out that an R2T asks for, in segments that every target takes (RFC 7143 §13.12).
  func sendData(_ r2t: BasicHeaderSegment) throws {
    let data = outgoing[r2t.initiatorTaskTag] ?? []
    let end = Int(r2t.bufferOffset + r2t.word11)
    var (offset, number) = (Int(r2t.bufferOffset), UInt32(0))
    while offset < end {
      let count = min(end - offset, 8192)
      var header = BasicHeaderSegment(
        .dataOut, flags: offset + count == end ? 0x80 : 0, initiatorTaskTag: r2t.initiatorTaskTag)
      header.lun = r2t.lun
      header.targetTransferTag = r2t.targetTransferTag
      header.word7 = expStatSN
      header.word9 = number
      header.bufferOffset = UInt32(offset)
      try send(header, Array(data[offset..<offset + count]))
      (offset, number) = (offset + count, number + 1)
    }
  }

  /// Receives until `count` commands that were posted are answered; their statuses.
  func answers(_ count: Int) throws -> [UInt8] {
    var statuses: [UInt8] = []
    while statuses.count < count {
      let (answer, _) = try receive()
      if answer.opcode == .readyToTransfer { try sendData(answer) }
      guard answer.opcode == .scsiResponse || answer.opcode == .dataIn && answer.flags & 1 != 0 else { continue }
      expStatSN = answer.statSN &+ 1
      statuses.append(answer.byte3)
    }
    return statuses
  }

  /// Sends a READ (10) of one block without waiting for its answer.
  func post(block: UInt32) throws { try post(Self.cdb(0x28, block, 512), read: 512) }

  /// TEST UNIT READY until there is no unit attention left.
  func ready(lun: UInt8 = 0) throws {
    for _ in 0..<8 where try command([0, 0, 0, 0, 0, 0], lun: lun).status == 0 { return }
    throw Failure(what: "never ready")
  }

  func write(_ bytes: [UInt8], block: UInt32, lun: UInt8 = 0) throws -> UInt8 {
    try command(Self.cdb(0x2A, block, bytes.count), lun: lun, write: bytes).status
  }

  func read(_ count: Int, block: UInt32, lun: UInt8 = 0) throws -> (status: UInt8, data: [UInt8]) {
    try command(Self.cdb(0x28, block, count), lun: lun, read: count)
  }

  /// READ (10) and WRITE (10) in blocks of 512 bytes.
  private static func cdb(_ operation: UInt8, _ block: UInt32, _ count: Int) -> [UInt8] {
    let place = withUnsafeBytes(of: block.bigEndian) { Array($0) }
    return [operation, 0] + place + [0, UInt8((count / 512) >> 8), UInt8((count / 512) & 0xFF), 0]
  }
}
