import Wire

/// Why a persisted reservation record was not taken.
public enum ReservationRecordError: Error, Equatable, Sendable {
  case truncated
  case unknownVersion(UInt8)
  case checksum
  case trailingBytes
  case tooManyRegistrants(Int)
  case badName
  case badType(UInt8)
  case duplicateNexus
  case zeroKey
  case holderNotRegistered
}

/// The record in the label area, big-endian:
///
///     0  version (1)           8  PRGENERATION (4)
///     1  flags: bit 0 APTPL   12  reserved, zero (4)
///     2  TYPE, 0: not reserved
///     3  reserved, zero
///     4  holder's index or FFFFh
///     6  number of registrants
///    16  registrants: key (8), ISID (6), RTPI (2), name length (1), iSCSI name (1 to 223 bytes)
///     …  CRC32C of all before (4)
///
/// At most 64 registrants of 240 bytes: 15380 bytes.
extension PersistentReservations {
  static let recordVersion: UInt8 = 1
  static let recordBytesMax = 16 + registrantsMax * (17 + nameBytesMax) + 4
  /// RFC 7143 §4.2.7.1.
  static let nameBytesMax = 223

  public func encodeRecord() -> [UInt8] {
    let holder = registrants.firstIndex { $0.nexus == reservation?.holder }
    var record: [UInt8] = [
      Self.recordVersion, activatesThroughPowerLoss ? 1 : 0, reservation?.kind.rawValue ?? 0, 0,
    ]
    record.append(be: UInt16(holder ?? 0xFFFF))
    record.append(be: UInt16(registrants.count))
    record.append(be: generation)
    record.append(be: UInt32(0))
    for registrant in registrants {
      record.append(be: registrant.key)
      record.append(be: UInt16(truncatingIfNeeded: registrant.nexus.isid >> 32))
      record.append(be: UInt32(truncatingIfNeeded: registrant.nexus.isid))
      record.append(be: registrant.nexus.relativeTargetPort)
      let name = Array(registrant.nexus.initiatorName.text.utf8.prefix(Self.nameBytesMax))
      record.append(UInt8(name.count))
      record += name
    }
    record.append(be: CRC32C.of(record))
    return record
  }

  /// Total: any bytes give a value that keeps the invariants, or an error. An area longer than its record is accepted
  /// when the rest is zero, as a label area is.
  public init(record: [UInt8]) throws(ReservationRecordError) {
    self.init()
    var reader = RecordReader(bytes: record)
    let version = try reader.u8()
    guard version == Self.recordVersion else { throw .unknownVersion(version) }
    activatesThroughPowerLoss = try reader.u8() & 1 != 0
    let type = try reader.u8()
    _ = try reader.u8()
    let holder = Int(try reader.unsigned(bytes: 2))
    let count = Int(try reader.unsigned(bytes: 2))
    guard count <= Self.registrantsMax else { throw .tooManyRegistrants(count) }
    generation = UInt32(try reader.unsigned(bytes: 4))
    _ = try reader.unsigned(bytes: 4)
    for _ in 0..<count {
      let registrant = try reader.registrant()
      guard !isRegistered(registrant.nexus) else { throw .duplicateNexus }
      registrants.append(registrant)
    }
    try reader.finish()
    if type == 0 {
      guard holder == 0xFFFF else { throw .holderNotRegistered }
      return
    }
    guard let kind = Kind(rawValue: type) else { throw .badType(type) }
    if kind.isAllRegistrants {
      guard holder == 0xFFFF, count > 0 else { throw .holderNotRegistered }
      reservation = Reservation(kind: kind, holder: nil)
    } else {
      guard holder < count else { throw .holderNotRegistered }
      reservation = Reservation(kind: kind, holder: registrants[holder].nexus)
    }
  }
}

extension PersistentReservations {
  /// What is in force by a record: after a takeover all of it; after a loss of power nothing, or with APTPL all but
  /// PRGENERATION, which begins anew in any case (SPC-5 §5.14.5, §6.16.2).
  init(onRecord record: [UInt8]?, afterTakeover: Bool) throws(ReservationRecordError) {
    self.init()
    guard let record else { return }
    let persisted = try PersistentReservations(record: record)
    if afterTakeover || persisted.activatesThroughPowerLoss { self = persisted }
    if !afterTakeover { generation = 0 }
  }
}

/// A cursor that never passes the end.
private struct RecordReader {
  let bytes: [UInt8]
  var offset = 0

  mutating func u8() throws(ReservationRecordError) -> UInt8 {
    guard offset < bytes.count else { throw .truncated }
    offset += 1
    return bytes[offset - 1]
  }

  mutating func unsigned(bytes count: Int) throws(ReservationRecordError) -> UInt64 {
    var value: UInt64 = 0
    for _ in 0..<count { value = value << 8 | UInt64(try u8()) }
    return value
  }

  mutating func registrant() throws(ReservationRecordError) -> PersistentReservations.Registrant {
    let key = try unsigned(bytes: 8)
    guard key != 0 else { throw .zeroKey }
    let isid = try unsigned(bytes: 6)
    let port = UInt16(try unsigned(bytes: 2))
    let length = Int(try u8())
    guard length > 0, length <= PersistentReservations.nameBytesMax else { throw .badName }
    guard bytes.count - offset >= length else { throw .truncated }
    guard let name = String(validating: bytes[offset..<offset + length], as: UTF8.self) else { throw .badName }
    offset += length
    return .init(nexus: NexusIdentity(initiatorName: name, isid: isid, relativeTargetPort: port), key: key)
  }

  mutating func finish() throws(ReservationRecordError) {
    let computed = CRC32C.of(Array(bytes[..<offset]))
    guard try unsigned(bytes: 4) == UInt64(computed) else { throw .checksum }
    guard bytes[offset...].allSatisfy({ $0 == 0 }) else { throw .trailingBytes }
  }
}
