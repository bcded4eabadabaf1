import SCSI
import Testing

@testable import Storage

@Suite("What disks tell of their persistent reservations")
struct ReservationDataTests {
  @Test("READ KEYS gives PRGENERATION and every key (SPC-5 §6.16.2)")
  func keys() {
    let bytes: [UInt8] = [
      0x00, 0x00, 0x00, 0x07,  // PRGENERATION
      0x00, 0x00, 0x00, 0x10,  // ADDITIONAL LENGTH: two keys
      0x67, 0x11, 0x22, 0x33, 0x00, 0x00, 0x00, 0x01,
      0x67, 0x91, 0x22, 0x33, 0x00, 0x00, 0x00, 0x02,
    ]
    let keys = RegisteredKeys(decoding: bytes)
    #expect(keys == RegisteredKeys(generation: 7, keys: [0x6711_2233_0000_0001, 0x6791_2233_0000_0002]))
    #expect(RegisteredKeys(decoding: [0, 0, 0, 9, 0, 0, 0, 0]) == RegisteredKeys(generation: 9, keys: []))
  }

  @Test("A list cut at the allocation length gives the keys that are whole, and its length")
  func cut() {
    let bytes: [UInt8] = [0, 0, 0, 1, 0, 0, 0, 0x18, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3]
    #expect(RegisteredKeys(decoding: bytes)?.keys == [0x0102_0304_0506_0708])
    #expect(RegisteredKeys.byteCount(bytes) == 32)
    #expect(RegisteredKeys(decoding: [0, 0, 0, 1, 0, 0, 0]) == nil)
    #expect(RegisteredKeys(decoding: [0, 0, 0, 1, 0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7]) == nil, "no multiple of 8")
  }

  @Test("READ RESERVATION gives holder and type (SPC-5 §6.16.3), or none")
  func reservation() throws {
    let bytes: [UInt8] = [
      0x00, 0x00, 0x00, 0x08,  // PRGENERATION
      0x00, 0x00, 0x00, 0x10,  // ADDITIONAL LENGTH
      0x67, 0x11, 0x22, 0x33, 0x00, 0x00, 0x00, 0x01,  // RESERVATION KEY
      0x00, 0x00, 0x00, 0x00,  // obsolete
      0x00,  // reserved
      0x05,  // SCOPE 0, TYPE: Write Exclusive - Registrants Only
      0x00, 0x00,  // obsolete
    ]
    let found = try #require(HeldReservation.read(bytes))
    #expect(found.generation == 8)
    #expect(found.reservation == HeldReservation(key: 0x6711_2233_0000_0001, type: 5))
    #expect(found.reservation?.isOurType == true)
    #expect(HeldReservation(key: 1, type: 6).isOurType == false)
    let none = try #require(HeldReservation.read([0, 0, 0, 8, 0, 0, 0, 0]))
    #expect(none.generation == 8 && none.reservation == nil)
    #expect(HeldReservation.read(Array(bytes.prefix(23))) == nil)
    #expect(HeldReservation.read([]) == nil)
  }

  @Test("REPORT CAPABILITIES tells of power loss and types (SPC-5 §6.16.4); a mask that is not valid tells no type")
  func capabilities() throws {
    let bytes: [UInt8] = [
      0x00, 0x08,  // LENGTH
      0x15,  // CRH, SIP_C 0, ATP_C, PTPL_C
      0x81,  // TMV, PTPL_A
      0xEA, 0x01,  // WR_EX_AR, EX_AC_RO, WR_EX_RO, EX_AC, WR_EX; EX_AC_AR
      0x00, 0x00,
    ]
    let all = try #require(ReservationCapabilities(decoding: bytes))
    #expect(all.canPersist && all.persists)
    #expect(PersistentReservations.Kind.allCases.allSatisfy(all.has))
    let some = try #require(ReservationCapabilities(decoding: [0, 8, 0, 0x80, 0x20, 0, 0, 0]))
    #expect(!some.canPersist && !some.persists)
    #expect(PersistentReservations.Kind.allCases.filter(some.has) == [.writeExclusiveRegistrantsOnly])
    let silent = try #require(ReservationCapabilities(decoding: [0, 8, 1, 0, 0xEA, 1, 0, 0]))
    #expect(silent.types == nil && !silent.has(.writeExclusiveRegistrantsOnly))
    #expect(ReservationCapabilities(decoding: [0, 8, 1, 0]) == nil)
    #expect(ReservationCapabilities(decoding: [0, 0, 0, 0, 0, 0, 0, 0]) == nil)
  }

  @Test("RESCAP of an NVMe namespace is PTPL and the six types, from bit 1")
  func rescap() {
    let all = ReservationCapabilities(rescap: 0x7F, persists: true)
    #expect(all.canPersist && all.persists && PersistentReservations.Kind.allCases.allSatisfy(all.has))
    let one = ReservationCapabilities(rescap: 0x08)
    #expect(!one.canPersist && PersistentReservations.Kind.allCases.filter(one.has) == [.writeExclusiveRegistrantsOnly])
  }

  /// A registered controller of a report: CNTLID, RCSTS, then host and key in the structure's order, little-endian.
  private static func controller(_ id: UInt8, holds: Bool, key: UInt8, isExtended: Bool) -> [UInt8] {
    let head = [id, 0, holds ? 1 : 0, 0, 0, 0, 0, 0]
    let key = [key, 0, 0, 0, 0x33, 0x22, 0x11, 0x67]
    return isExtended
      ? head + key + [UInt8](repeating: 0xB0 + id, count: 16) + [UInt8](repeating: 0, count: 32)
      : head + [UInt8](repeating: 0xA0 + id, count: 8) + key
  }

  @Test("NVMe's reservation report gives the same, in either structure", arguments: [false, true])
  func report(isExtended: Bool) throws {
    // GEN, RTYPE 3, REGCTL 2, reserved, PTPLS
    var bytes: [UInt8] = [9, 0, 0, 0, 3, 2, 0, 0, 0, 1]
    bytes += [UInt8](repeating: 0, count: (isExtended ? 64 : 24) - bytes.count)
    bytes += Self.controller(1, holds: false, key: 1, isExtended: isExtended)
    bytes += Self.controller(2, holds: true, key: 2, isExtended: isExtended)
    let report = try #require(NVMeReservationReport(decoding: bytes, isExtended: isExtended))
    #expect(report.keys == RegisteredKeys(generation: 9, keys: [0x6711_2233_0000_0001, 0x6711_2233_0000_0002]))
    #expect(report.reservation == HeldReservation(key: 0x6711_2233_0000_0002, type: 5))
    #expect(report.persists)
    #expect(NVMeReservationReport.byteCount(bytes, isExtended: isExtended) == bytes.count)
    bytes.removeLast()
    #expect(NVMeReservationReport(decoding: bytes, isExtended: isExtended)?.keys.keys.count == 1, "cut")
    bytes[4] = 0
    #expect(NVMeReservationReport(decoding: bytes, isExtended: isExtended)?.reservation == nil)
    bytes[4] = 7
    #expect(NVMeReservationReport(decoding: bytes, isExtended: isExtended) == nil, "no such type")
  }

  @Test("Sense data of both formats gives key and codes (SPC-5 §4.4)")
  func sense() {
    let fixed: [UInt8] = [0x70, 0, 0x06, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x2A, 0x05, 0, 0, 0, 0]
    #expect(SenseData(decoding: fixed) == SenseData(key: 6, code: 0x2A05))
    #expect(SenseData(decoding: [0xF0] + fixed.dropFirst()) == SenseData(key: 6, code: 0x2A05), "VALID is set")
    #expect(SenseData(decoding: [0x72, 0x06, 0x29, 0x01, 0, 0, 0, 0]) == SenseData(key: 6, code: 0x2901))
    #expect(SenseData(decoding: [0x70, 0, 0x05, 0, 0, 0, 0, 0]) == SenseData(key: 5, code: 0), "no codes")
    for bytes in [[], [0x70], [0x72, 6, 0x29], [0x7F, 0, 0, 0], [0, 0, 0, 0]] as [[UInt8]] {
      #expect(SenseData(decoding: bytes) == nil)
    }
  }

  @Test("Resets, and reservations or registrations released or preempted, are told apart from other unit attentions")
  func attentions() {
    for code in [0x2900, 0x2901, 0x2904, 0x2907, 0x2A03, 0x2A04, 0x2A05] as [UInt16] {
      #expect(Self.end(6, code) == .failure(.disturbed))
    }
    for code in [0x2A01, 0x2A06, 0x2A09, 0x3F0E, 0x2800] as [UInt16] { #expect(Self.end(6, code) == .again) }
    #expect(Self.end(5, 0x2900) == .failure(.failed(22)), "no unit attention")
  }

  private static func end(_ key: UInt8, _ code: UInt16) -> SCSIEnd {
    SCSIEnd(status: .checkCondition, host: 0, sense: SenseData(key: key, code: code))
  }

  @Test("How a command ends is told by its status, then by what the kernel says of its way")
  func ends() {
    #expect(SCSIEnd(status: .good, host: 0, sense: nil) == .good)
    #expect(SCSIEnd(status: .reservationConflict, host: 0, sense: nil) == .failure(.conflict))
    #expect(SCSIEnd(status: .reservationConflict, host: 0x11, sense: nil) == .failure(.conflict), "DID_NEXUS_FAILURE")
    #expect(SCSIEnd(status: .good, host: 0x01, sense: nil) == .failure(.failed(6)), "DID_NO_CONNECT: ENXIO")
    for host in [0x03, 0x05, 0x08, 0x0E, 0x0F] as [UInt16] {
      #expect(SCSIEnd(status: .good, host: host, sense: nil) == .failure(.timedOut), "it may have been done")
    }
    #expect(SCSIEnd(status: .busy, host: 0, sense: nil) == .again)
    #expect(SCSIEnd(status: .taskSetFull, host: 0, sense: nil) == .again)
    #expect(SCSIEnd(status: .checkCondition, host: 0, sense: nil) == .failure(.failed(5)), "EIO")
    #expect(Self.end(1, 0x1700) == .good, "recovered")
    #expect(Self.end(2, 0x040A) == .again, "asymmetric access in transition")
    #expect(Self.end(5, 0x2000) == .failure(.failed(95)), "EOPNOTSUPP")
    #expect(Self.end(5, 0x5504) == .failure(.failed(28)), "ENOSPC: no room for a registration")
    #expect(Self.end(3, 0x1100) == .failure(.failed(5)), "EIO")
  }

  @Test("The status of an NVMe completion is read without DNR; what the host lost may have been done")
  func nvmeStatus() {
    #expect(NVMeStatus(rawValue: 0).failure == nil)
    #expect(NVMeStatus(rawValue: 0x4083).failure == .conflict)
    #expect(NVMeStatus(rawValue: 0x4002).failure == .failed(22))
    #expect(NVMeStatus(rawValue: 0x4001).failure == .failed(95))
    #expect(NVMeStatus(rawValue: 0x0370).failure == .timedOut)
    #expect(NVMeStatus(rawValue: 0x0371).failure == .timedOut)
    #expect(NVMeStatus(rawValue: 0x0281).failure == .failed(5))
  }

  @Test("One of the kernel's calls gives an errno, or a status with remarks of the kernel's above it")
  func kernel() {
    #expect(SCSIEnd(kernel: 0, isNVMe: false) == .good && SCSIEnd(kernel: 0, isNVMe: true) == .good)
    // As it is; with 6.1's remark in the second byte; with the host status of older kernels.
    for value in [0x18, 0x0118, 0x11_0018] as [Int32] {
      #expect(SCSIEnd(kernel: value, isNVMe: false) == .failure(.conflict))
    }
    #expect(SCSIEnd(kernel: 0x02, isNVMe: false) == .again)
    #expect(SCSIEnd(kernel: 0x01_0000, isNVMe: false) == .failure(.failed(6)), "no path: ENXIO")
    #expect(SCSIEnd(kernel: 0x0F_0000, isNVMe: false) == .failure(.timedOut))
    #expect(SCSIEnd(kernel: -95, isNVMe: false) == .failure(.failed(95)))
    #expect(SCSIEnd(kernel: 0x83, isNVMe: true) == .failure(.conflict))
    #expect(SCSIEnd(kernel: 0x4083, isNVMe: true) == .failure(.conflict))
    #expect(SCSIEnd(kernel: 0x18, isNVMe: true) == .failure(.conflict), "newer kernels")
    #expect(SCSIEnd(kernel: 0x01_0000, isNVMe: true) == .failure(.failed(6)), "no path is not success")
    #expect(SCSIEnd(kernel: 0x4002, isNVMe: true) == .failure(.failed(22)))
  }

  @Test("An errno of a write: EBADE is the block layer's reservation conflict, ETIMEDOUT an end that nobody saw")
  func errnos() {
    #expect(FenceFailure(errno: 52) == .conflict)
    #expect(FenceFailure(errno: 110) == .timedOut)
    #expect(FenceFailure(errno: 5) == .failed(5))
  }

  @Test("A file cannot fence, and neither can memory")
  func unable() throws {
    let file = TemporaryFile(bytes: 17 << 20)
    #expect(FenceSupport.probe(try Disk.open(path: file.path)) == .unable(.noCommands))
    #expect(FenceSupport.probe(try Disk.memory(byteCount: 1 << 20, path: "memory")) == .unable(.noCommands))
    #expect(Fence(try Disk.open(path: file.path)) == nil)
  }
}
