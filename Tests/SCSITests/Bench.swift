import Testing
import Wire

@testable import SCSI

/// One logical unit, two initiators, one target port: what most of the tests need.
struct Bench {
  let registry = NexusRegistry()
  let unit: LogicalUnit
  let map: LogicalUnitMap
  let server: DeviceServer
  let a: Nexus
  let b: Nexus
  let c: Nexus

  static func identity(_ serial: String = "GW0001") -> LogicalUnitIdentity {
    LogicalUnitIdentity(
      uuid: Array(0x10..<0x20), serial: serial, vendor: "GATEWAYD", product: "Test disk", revision: "0.1")
  }

  static func traits(_ change: (inout LogicalUnitTraits) -> Void = { _ in }) -> LogicalUnitTraits {
    var traits = LogicalUnitTraits(blockBytes: 512)
    traits.isThin = true
    traits.tellsMapping = true
    traits.hasWriteCache = true
    traits.persistsReservations = true
    change(&traits)
    return traits
  }

  static func nexus(_ id: UInt64, name: String, isid: UInt64 = 0x8000_0000_0001, port: UInt16 = 1) -> Nexus {
    Nexus(
      identity: NexusIdentity(initiatorName: name, isid: isid, relativeTargetPort: port), id: id, targetPortGroup: 1)
  }

  init(
    blocks: UInt64 = 1 << 20, state: AsymmetricAccessState = .activeOptimized, record: [UInt8]? = nil,
    afterTakeover: Bool = false, _ change: (inout LogicalUnitTraits) -> Void = { _ in }
  ) throws {
    unit = try LogicalUnit(
      number: 0, identity: Self.identity(), traits: Self.traits(change), blocks: blocks, registry: registry,
      reservations: record, afterTakeover: afterTakeover)
    map = LogicalUnitMap([unit])
    server = DeviceServer(
      deviceName: "iqn.2026-01.org.example:gw", registry: registry,
      portGroups: TargetPortGroups([.init(id: 1, state: state, relativeTargetPorts: [1, 2])]))
    a = Self.nexus(1, name: "iqn.2026-01.org.example:a")
    b = Self.nexus(2, name: "iqn.2026-01.org.example:b")
    c = Self.nexus(3, name: "iqn.2026-01.org.example:c")
    for nexus in [a, b, c] { registry.attach(nexus) }
  }

  func send(_ cdb: [UInt8], from nexus: Nexus? = nil, lun: UInt64 = 0, dataOut: UInt32? = nil) -> Disposition {
    server.execute(
      Request(cdb: CDB(cdb), lun: lun, dataOutBytes: dataOut), nexus: nexus ?? a, map: map)
  }

  /// Sends a command with its parameter list.
  func send(_ cdb: [UInt8], _ parameters: [UInt8], from nexus: Nexus? = nil) -> Disposition {
    let request = Request(cdb: CDB(cdb), lun: 0)
    let first = server.execute(request, nexus: nexus ?? a, map: map)
    guard case .dataOut(let byteCount) = first else { return first }
    return server.resume(request, nexus: nexus ?? a, map: map, parameters: Array(parameters.prefix(byteCount)))
  }

  /// PERSISTENT RESERVE OUT, committed.
  @discardableResult
  func reserveOut(
    _ service: ReservationAction.Service, key: UInt64 = 0, serviceKey: UInt64 = 0, type: UInt8 = 0, flags: UInt8 = 0,
    from nexus: Nexus
  ) -> Answer {
    var list: [UInt8] = []
    list.append(be: key)
    list.append(be: serviceKey)
    list += [0, 0, 0, 0, flags, 0, 0, 0]
    let answer = send([0x5F, service.rawValue, type, 0, 0, 0, 0, 0, 24, 0], list, from: nexus)
    guard case .reservationChange(let change, let unit) = answer else { return Answer(answer) }
    return .status(unit.commit(change).status)
  }
}

/// A disposition in a form that can be compared.
enum Answer: Equatable {
  case status(Status)
  case sense(SenseKey, UInt16)
  case data([UInt8])
  case dataOut(Int)
  case medium(MediumOperation)
  case unmap([Extent])
  case reservationChange
  case wait
  case switchover
  case log(LogQuery)
  case copy(segments: Int)
  case sanitize(SanitizeOrder)
  case forward([UInt8])

  init(_ disposition: Disposition) {
    switch disposition {
    case .status(let status): self = .status(status)
    case .checkCondition(let sense): self = .sense(sense.key, sense.code)
    case .dataIn(let data): self = .data(data)
    case .dataOut(let byteCount): self = .dataOut(byteCount)
    case .medium(let operation, _): self = .medium(operation)
    case .unmap(let extents, _): self = .unmap(extents)
    case .reservationChange: self = .reservationChange
    case .wait: self = .wait
    case .switchover: self = .switchover
    case .log(let query, _): self = .log(query)
    case .copy(let order, _): self = .copy(segments: order.segments.count)
    case .sanitize(let order, _): self = .sanitize(order)
    case .forward(_, let parameters): self = .forward(parameters)
    }
  }

  static let invalidField = Answer.sense(.illegalRequest, 0x2400)
  static let invalidParameter = Answer.sense(.illegalRequest, 0x2600)
  static let outOfRange = Answer.sense(.illegalRequest, 0x2100)
  static let good = Answer.status(.good)
  static let conflict = Answer.status(.reservationConflict)
}

extension Disposition {
  var answer: Answer { Answer(self) }

  var data: [UInt8] {
    guard case .dataIn(let data) = self else { return [] }
    return data
  }

  var sense: Sense? {
    guard case .checkCondition(let sense) = self else { return nil }
    return sense
  }
}
