import HA
import SCSI
import Wire

/// What the nodes say to each other of persistent reservations (the bodies of `PeerCall`s).
///
/// Layouts, big-endian; every nexus is ISID(8) RTPI(2) name length(1) name:
///
///     question 1: kind(1) disk(16) CDB(16) nexus, parameter list
///     question 2: kind(1) disk(16) count(2), for each: nexus, attention(1)
///     answer:     status(1) sense: key(1) code(2) field: kind(1) byte(2) bit(1), data
enum PeerQuestion: Equatable, Sendable {
  /// PERSISTENT RESERVE IN or OUT, of an initiator of the node in standby.
  case command(disk: DiskID, nexus: NexusIdentity, cdb: CDB, parameters: [UInt8])
  /// A change of the table that sessions of the other node must be told of.
  case attentions(disk: DiskID, [ReservationEffects.Notice])

  func encode() -> [UInt8] {
    var bytes: [UInt8] = []
    switch self {
    case .command(let disk, let nexus, let cdb, let parameters):
      bytes.append(1)
      bytes += disk.bytes
      bytes.append(be: cdb.high)
      bytes.append(be: cdb.low)
      Self.append(nexus, to: &bytes)
      bytes += parameters
    case .attentions(let disk, let notices):
      bytes.append(2)
      bytes += disk.bytes
      bytes.append(be: UInt16(notices.count))
      for notice in notices {
        Self.append(notice.nexus, to: &bytes)
        bytes.append(notice.attention.rawValue)
      }
    }
    return bytes
  }

  /// Total for any bytes.
  init?(decoding bytes: [UInt8]) {
    var reader = Reader(bytes: bytes)
    guard let kind = reader.number(1), let id = reader.take(16) else { return nil }
    let disk = UUID(bytes: id)
    switch kind {
    case 1:
      guard let high = reader.number(8), let low = reader.number(8), let nexus = reader.nexus() else { return nil }
      self = .command(disk: disk, nexus: nexus, cdb: CDB(high: high, low: low), parameters: reader.rest)
    case 2:
      guard let count = reader.number(2), count <= UInt64(PersistentReservations.registrantsMax) else { return nil }
      var notices: [ReservationEffects.Notice] = []
      for _ in 0..<count {
        guard let nexus = reader.nexus(), let code = reader.number(1),
          let attention = UnitAttention(rawValue: UInt8(code))
        else { return nil }
        notices.append(ReservationEffects.Notice(nexus: nexus, attention: attention))
      }
      guard reader.rest.isEmpty else { return nil }
      self = .attentions(disk: disk, notices)
    default: return nil
    }
  }

  private static func append(_ nexus: NexusIdentity, to bytes: inout [UInt8]) {
    bytes.append(be: nexus.isid)
    bytes.append(be: nexus.relativeTargetPort)
    let name = Array(nexus.initiatorName.text.utf8.prefix(255))
    bytes.append(UInt8(name.count))
    bytes += name
  }
}

/// How a command ended that the other node carried out.
struct PeerOutcome: Equatable, Sendable {
  var status: Status
  var sense: Sense?
  var data: [UInt8] = []

  func encode() -> [UInt8] {
    var bytes = [status.rawValue, sense?.key.rawValue ?? 0]
    bytes.append(be: sense?.code ?? 0)
    let field = sense?.field
    bytes.append(field.map { $0.inCDB ? 1 : 2 } ?? 0)
    bytes.append(be: field?.byte ?? 0)
    bytes.append(field?.bit ?? 0xFF)
    return bytes + data
  }

  init(status: Status, sense: Sense? = nil, data: [UInt8] = []) {
    self.status = status
    self.sense = sense
    self.data = data
  }

  /// Total for any bytes.
  init?(decoding bytes: [UInt8]) {
    var reader = Reader(bytes: bytes)
    guard let status = reader.number(1), let key = reader.number(1).flatMap({ SenseKey(rawValue: UInt8($0)) }),
      let code = reader.number(2), let place = reader.number(1), place <= 2, let byte = reader.number(2),
      let bit = reader.number(1), bit <= 7 || bit == 0xFF
    else { return nil }
    self.init(status: Status(rawValue: UInt8(status)), data: reader.rest)
    guard self.status == .checkCondition else { return }
    let field =
      place == 0
      ? nil : Sense.FieldPointer(inCDB: place == 1, byte: UInt16(byte), bit: bit == 0xFF ? nil : UInt8(bit))
    sense = Sense(key, UInt16(code), field: field)
  }
}

/// A cursor that never passes the end.
private struct Reader {
  let bytes: [UInt8]
  var offset = 0

  mutating func take(_ count: Int) -> [UInt8]? {
    guard bytes.count - offset >= count else { return nil }
    defer { offset += count }
    return Array(bytes[offset..<offset + count])
  }

  mutating func number(_ count: Int) -> UInt64? { take(count)?.reduce(0) { $0 << 8 | UInt64($1) } }

  mutating func nexus() -> NexusIdentity? {
    guard let isid = number(8), isid < 1 << 48, let port = number(2), let count = number(1),
      let name = take(Int(count)), let text = String(validating: name, as: UTF8.self)
    else { return nil }
    return NexusIdentity(initiatorName: text, isid: isid, relativeTargetPort: UInt16(port))
  }

  var rest: [UInt8] { Array(bytes[offset...]) }
}
