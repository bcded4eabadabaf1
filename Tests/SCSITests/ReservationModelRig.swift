import Synchronization
import TestSupport
import Wire

@testable import SCSI

/// What is to be compared and is not the same.
struct Disagreement: Error, CustomStringConvertible {
  var description: String

  static func check<T: Equatable>(_ found: T, _ expected: T, _ what: @autoclosure () -> String) throws {
    if found != expected { throw Disagreement(description: "\(what()): \(found), not \(expected)") }
  }
}

extension ReservationModel.Path {
  /// Names of each format, and one that begins another.
  private static let nodes = [
    "iqn.2026-01.e:a", "eui.02004567a425678d", "naa.52004567ba64678d", "iqn.2026-01.e:b", "iqn.2026-01.e:bb",
  ]

  static func node(_ host: Int) -> String { nodes[host] }

  var identity: NexusIdentity {
    NexusIdentity(initiatorName: Self.node(host), isid: isid, relativeTargetPort: port)
  }

  /// The TransportID that READ FULL STATUS gives: 45h, the length, "NAME,i,0xISID", zeroes up to a multiple of four.
  var transportID: [UInt8] { ReserveOrder.Name.port(host: host, isid: isid).bytes(ReserveOrder.Style()) }
}

extension ReserveOrder {
  /// Ways to write a TransportID that mean the same.
  struct Style {
    var isUpperCase = false
    var digits = 12
    var extraZeroes = 0
  }

  static func randomStyle(_ random: inout SplitMix) -> Style {
    Style(
      isUpperCase: random.chance(20), digits: random.chance(20) ? 1 : 12, extraZeroes: random.chance(20) ? 4 : 0)
  }

  /// CDB and parameter list; `sent` is how many bytes of the list the initiator sends.
  func bytes(_ random: inout SplitMix) -> (cdb: [UInt8], list: [UInt8]) {
    var names: [UInt8] = []
    var last = 0
    for name in self.names {
      last = names.count
      names += name.bytes(Self.randomStyle(&random))
    }
    if !names.isEmpty, flaw == .truncatedName { names[last + 3] += 4 }
    if !names.isEmpty, flaw == .otherProtocol { names[last] = names[last] & 0xF0 | 0x06 }
    let told = UInt32(names.count) + (flaw == .wrongDataLength ? 4 : 0)
    var list: [UInt8] = []
    list.append(be: key)
    list.append(be: serviceKey)
    if action == .move {
      list += [0, (unregisters ? 2 : 0) | (persists ? 1 : 0)]
      list.append(be: port)
      list.append(be: told)
      list += names
    } else {
      let flags: UInt8 = (specifiesPorts ? 8 : 0) | (allTargetPorts ? 4 : 0) | (persists ? 1 : 0)
      list += [0, 0, 0, 0, flags, 0, 0, 0]
      if specifiesPorts, action == .register || action == .registerAndIgnore {
        list.append(be: told)
        list += names
      }
    }
    if flaw == .surplus { list += [0, 0, 0, 0] }
    var cdb: [UInt8] = [0x5F, Self.code(action), scope << 4 | type, 0, 0]
    cdb.append(be: UInt32(list.count))
    cdb.append(0)
    if flaw == .cutOff { list.removeLast(4) }
    return (cdb, list)
  }

  /// SERVICE ACTION.
  private static func code(_ action: Action) -> UInt8 {
    switch action {
    case .register: 0x00
    case .reserve: 0x01
    case .release: 0x02
    case .clear: 0x03
    case .preempt: 0x04
    case .preemptAndAbort: 0x05
    case .registerAndIgnore: 0x06
    case .move: 0x07
    }
  }
}

extension ReserveOrder.Name {
  func bytes(_ style: ReserveOrder.Style) -> [UInt8] {
    var text: String
    let format: UInt8
    switch self {
    case .port(let host, let isid):
      let hex = String(isid, radix: 16)
      text = ReservationModel.Path.node(host) + ",i,0x"
      for _ in 0..<max(0, style.digits - hex.count) { text += "0" }
      text += hex
      format = 0x45
    case .node(let host):
      text = ReservationModel.Path.node(host)
      format = 0x05
    }
    if style.isUpperCase { text = text.uppercased() }
    var name = Array(text.utf8) + [0]
    while name.count % 4 != 0 || name.count < 20 { name.append(0) }
    for _ in 0..<style.extraZeroes { name.append(0) }
    var bytes: [UInt8] = [format, 0]
    bytes.append(be: UInt16(name.count))
    return bytes + name
  }
}

/// A logical unit with its sessions, and the disk that keeps its record: what the model is compared with.
final class ReservationRig {
  typealias Path = ReservationModel.Path

  /// What is told of those who have no session here.
  private final class Absentees: Sendable {
    let notices = Mutex<[ReservationEffects.Notice]>([])
  }

  let registry = NexusRegistry()
  private var server: DeviceServer
  /// The pair's other node: in standby, with a logical unit of the same disk that knows nothing.
  private let standby: DeviceServer
  private let standbyMap: LogicalUnitMap
  private(set) var unit: LogicalUnit
  private var map: LogicalUnitMap
  private let absentees = Absentees()
  /// Sessions here, and those of the pair's other node, which hands its commands over.
  let sessions: [Path]
  private let nexuses: [Path: Nexus]
  private let remote: Set<Path>
  /// Every nexus that may be registered, by its identity and by its TransportID.
  private let paths: [NexusIdentity: Path]
  private let ports: [[UInt8]: Path]
  private(set) var record: [UInt8]?
  /// Whether what is on the disk is what is in force.
  private(set) var isRecordCurrent = false

  /// - Parameters:
  ///   - sessions: who is logged in here.
  ///   - remote: who is logged in at the other node of a pair, by ports 3 and 4; with any, those are the other node's.
  ///   - universe: who may be registered.
  init(sessions: [Path], remote: [Path], universe: [Path]) throws {
    let groups = Self.groups(ReservationModel.ports, isPair: !remote.isEmpty)
    server = DeviceServer(
      deviceName: "iqn.2026-01.org.example:gw", registry: registry,
      portGroups: TargetPortGroups(groups, own: remote.isEmpty ? nil : [1]))
    standby = DeviceServer(
      deviceName: "iqn.2026-01.org.example:gw", registry: NexusRegistry(),
      portGroups: TargetPortGroups(groups, own: [2]))
    standbyMap = LogicalUnitMap([try Self.makeUnit(standby.registry, nil, false)])
    unit = try Self.makeUnit(registry, nil, false)
    map = LogicalUnitMap([unit])
    var nexuses: [Path: Nexus] = [:]
    for path in sessions + remote {
      let isRemote = remote.contains(path)
      let id = isRemote ? UInt64.max : UInt64(nexuses.count + 1)
      let nexus = Nexus(identity: path.identity, id: id, targetPortGroup: path.port < 3 ? 1 : 2)
      nexuses[path] = nexus
      if !isRemote { registry.attach(nexus) }
    }
    self.nexuses = nexuses
    self.sessions = sessions
    self.remote = Set(remote)
    paths = Dictionary(uniqueKeysWithValues: universe.map { ($0.identity, $0) })
    ports = Dictionary(universe.map { ($0.transportID, $0) }, uniquingKeysWith: { first, _ in first })
    registry.elsewhere.withLock { [absentees] in $0 = { notices, _ in absentees.notices.withLock { $0 += notices } } }
  }

  private static func groups(_ ports: [UInt16], isPair: Bool) -> [TargetPortGroups.Group] {
    [
      .init(id: 1, relativeTargetPorts: ports.filter { $0 < 3 }),
      .init(id: 2, state: isPair ? .standby : .activeOptimized, relativeTargetPorts: ports.filter { $0 >= 3 }),
    ]
  }

  /// Of a gateway without another node.
  func setPorts(_ ports: [UInt16]) { server = server.with(TargetPortGroups(Self.groups(ports, isPair: false))) }

  private static func makeUnit(
    _ registry: NexusRegistry, _ record: [UInt8]?, _ afterTakeover: Bool
  ) throws -> LogicalUnit {
    try LogicalUnit(
      number: 0, identity: Bench.identity(), traits: Bench.traits(), blocks: 1 << 20, registry: registry,
      reservations: record, afterTakeover: afterTakeover)
  }

  // MARK: - Commands

  func send(_ cdb: [UInt8], _ list: [UInt8] = [], from path: Path) throws -> Disposition {
    guard let nexus = nexuses[path] else { throw Disagreement(description: "\(path) has no session") }
    let request = Request(cdb: CDB(cdb), lun: 0)
    guard remote.contains(path) else { return Self.carryOut(request, list, nexus, server, map) }
    let answer = Self.carryOut(request, list, nexus, standby, standbyMap)
    guard case .forward(_, let parameters) = answer else { return answer }
    return server.reserve(request, nexus: nexus, map: map, parameters: parameters)
  }

  private static func carryOut(
    _ request: Request, _ list: [UInt8], _ nexus: Nexus, _ server: DeviceServer, _ map: LogicalUnitMap
  ) -> Disposition {
    let first = server.execute(request, nexus: nexus, map: map)
    guard !list.isEmpty, case .dataOut(let byteCount) = first else { return first }
    return server.resume(request, nexus: nexus, map: map, parameters: Array(list.prefix(byteCount)))
  }

  static func outcome(_ disposition: Disposition) throws -> ReservationModel.Outcome {
    switch disposition.answer {
    case .good: return .good
    case .conflict: return .conflict
    case .sense(.illegalRequest, let code): return .refused(code)
    case let answer: throw Disagreement(description: "answered \(answer)")
    }
  }

  /// PERSISTENT RESERVE OUT: what came of it, and whose commands are to end.
  func order(
    _ order: ReserveOrder, from path: Path, _ random: inout SplitMix, isWritten: Bool = true
  ) throws -> (outcome: ReservationModel.Outcome, aborts: Set<Path>) {
    let (cdb, list) = order.bytes(&random)
    let answer = try send(cdb, list, from: path)
    guard case .reservationChange(let change, let unit) = answer else { return (try Self.outcome(answer), []) }
    guard isWritten else {
      // Until it is known whether the record is on the disk, another change has to come again.
      try Disagreement.check(send(cdb, list, from: path).answer, .status(.busy), "meanwhile")
      unit.abandon(change)
      return (.good, [])
    }
    let commit = unit.commit(change)
    try Disagreement.check(commit.status, .good, "commit")
    record = change.record
    isRecordCurrent = true
    return (.good, Set(try commit.aborts.map(path(of:))))
  }

  // MARK: - Power and nodes

  func powerOn() throws {
    unit = try Self.makeUnit(registry, record, false)
    map = LogicalUnitMap([unit])
    isRecordCurrent = false
  }

  func takeOver(inPlace: Bool) throws {
    if inPlace {
      try unit.adopt(reservations: record, afterTakeover: true, blocks: unit.blocks)
    } else {
      unit = try Self.makeUnit(registry, record, true)
      map = LogicalUnitMap([unit])
    }
  }

  func lose(_ path: Path) throws {
    guard let nexus = nexuses[path] else { throw Disagreement(description: "\(path) has no session") }
    unit.nexusLost(nexus)
  }

  // MARK: - What is told

  private func path(of identity: NexusIdentity) throws -> Path {
    guard let path = paths[identity] else { throw Disagreement(description: "unknown nexus \(identity)") }
    return path
  }

  /// The unit attentions of a session, by TEST UNIT READY until there is none; and its last answer.
  func attentions(of path: Path) throws -> (codes: Set<UInt16>, last: Answer) {
    var codes: Set<UInt16> = []
    while true {
      let answer = try send([0, 0, 0, 0, 0, 0], from: path).answer
      guard case .sense(.unitAttention, let code) = answer else { return (codes, answer) }
      if !codes.insert(code).inserted { throw Disagreement(description: "\(path) is told \(code) twice") }
    }
  }

  /// What has been told since of those who have no session here.
  func noticesElsewhere() throws -> [Path: Set<UInt16>] {
    let notices = absentees.notices.withLock { notices in
      defer { notices = [] }
      return notices
    }
    var result: [Path: Set<UInt16>] = [:]
    for notice in notices { result[try path(of: notice.nexus), default: []].insert(notice.attention.code) }
    return result
  }

  struct Status: Equatable {
    var keys: [Path: UInt64] = [:]
    var holders: Set<Path> = []
    var type: UInt8 = 0
    var holderKey: UInt64 = 0
    var generation: UInt32 = 0
    var persists = false
  }

  /// READ KEYS, READ RESERVATION, REPORT CAPABILITIES and READ FULL STATUS by one session, which have to agree.
  func status(by path: Path) throws -> Status {
    var status = Status()
    let keys = try Reader(self, 0x00, path)
    let reservation = try Reader(self, 0x01, path)
    let full = try Reader(self, 0x03, path)
    status.generation = keys.generation
    try Disagreement.check(reservation.generation, status.generation, "PRGENERATION of READ RESERVATION")
    try Disagreement.check(full.generation, status.generation, "PRGENERATION of READ FULL STATUS")
    if !reservation.isAtEnd {
      try Disagreement.check(reservation.bytes.count, 24, "READ RESERVATION's length")
      status.holderKey = reservation.be64(8)
      status.type = reservation.bytes[21]
    }
    try readFullStatus(full, &status)
    let listed = stride(from: 8, to: keys.bytes.count, by: 8).map { keys.be64($0) }
    try Disagreement.check(listed.sorted(), status.keys.values.sorted(), "READ KEYS beside READ FULL STATUS")
    let capabilities = try send([0x5E, 2, 0, 0, 0, 0, 0, 0, 8, 0], from: path).data
    try Disagreement.check(capabilities.count, 8, "REPORT CAPABILITIES' length")
    status.persists = capabilities[3] & 1 != 0
    return status
  }

  private func readFullStatus(_ full: Reader, _ status: inout Status) throws {
    var at = 8
    while at < full.bytes.count {
      let length = Int(full.be32(at + 20))
      guard at + 24 + length <= full.bytes.count, var path = ports[Array(full.bytes[at + 24..<at + 24 + length])] else {
        throw Disagreement(description: "READ FULL STATUS has at \(at) what is no descriptor of a known port")
      }
      let flags = full.bytes[at + 12]
      // ALL_TG_PT: one descriptor for the nexuses through all target ports.
      for port in flags & 2 != 0 ? ReservationModel.ports : [full.be16(at + 18)] {
        path.port = port
        if status.keys.updateValue(full.be64(at), forKey: path) != nil {
          throw Disagreement(description: "READ FULL STATUS has \(path) twice")
        }
        if flags & 1 != 0 {
          status.holders.insert(path)
          try Disagreement.check(full.bytes[at + 13], status.type, "SCOPE and TYPE of \(path)")
        }
      }
      at += 24 + length
    }
  }

  /// Parameter data of PERSISTENT RESERVE IN: PRGENERATION, ADDITIONAL LENGTH and what follows.
  private struct Reader {
    let bytes: [UInt8]
    var generation: UInt32 { be32(0) }
    var isAtEnd: Bool { bytes.count == 8 }

    init(_ rig: ReservationRig, _ serviceAction: UInt8, _ path: Path) throws {
      let answer = try rig.send([0x5E, serviceAction, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0], from: path)
      guard case .dataIn(let data) = answer else {
        throw Disagreement(description: "PERSISTENT RESERVE IN \(serviceAction) is answered \(answer.answer)")
      }
      bytes = data
      guard data.count >= 8 else { throw Disagreement(description: "\(data.count) bytes of parameter data") }
      try Disagreement.check(Int(be32(4)), data.count - 8, "ADDITIONAL LENGTH")
    }

    private func be(_ at: Int, _ count: Int) -> UInt64 {
      var value: UInt64 = 0
      for i in at..<at + count { value = value << 8 | UInt64(i < bytes.count ? bytes[i] : 0) }
      return value
    }
    func be16(_ at: Int) -> UInt16 { UInt16(be(at, 2)) }
    func be32(_ at: Int) -> UInt32 { UInt32(be(at, 4)) }
    func be64(_ at: Int) -> UInt64 { be(at, 8) }
  }
}
