/// Persistent reservations of one logical unit, written a second time from the standard (SPC-4 §5.12, SPC-5 §5.14) and
/// differently: every nexus carries whether it holds, a change is made nexus by nexus, and what others may do is read off
/// the rows of the standard's table. It shares no code with what it checks.
struct ReservationModel {
  /// An I_T nexus: initiator node, ISID and relative target port.
  struct Path: Hashable, Comparable, CustomStringConvertible {
    var host: Int
    var isid: UInt64
    var port: UInt16

    var description: String { "h\(host),\(String(isid, radix: 16))@\(port)" }

    func isSameInitiatorPort(as other: Path) -> Bool { host == other.host && isid == other.isid }

    static func < (left: Path, right: Path) -> Bool {
      (left.host, left.isid, left.port) < (right.host, right.isid, right.port)
    }
  }

  enum Outcome: Equatable, CustomStringConvertible {
    case good
    case conflict
    /// ILLEGAL REQUEST with this additional sense code; nil where the standard leaves the code open.
    case refused(UInt16?)

    var description: String {
      switch self {
      case .good: "GOOD"
      case .conflict: "RESERVATION CONFLICT"
      case .refused(let code): "ILLEGAL REQUEST \(code.map { String($0, radix: 16) } ?? "")"
      }
    }

    func covers(_ other: Outcome) -> Bool {
      if case .refused(nil) = self, case .refused = other { return true }
      return self == other
    }
  }

  static let invalidFieldInCDB = Outcome.refused(0x2400)
  static let invalidFieldInList = Outcome.refused(0x2600)
  static let listLengthError = Outcome.refused(0x1A00)

  /// ADDITIONAL SENSE CODE and QUALIFIER of the unit attentions.
  static let reservationsPreempted: UInt16 = 0x2A03
  static let reservationsReleased: UInt16 = 0x2A04
  static let registrationsPreempted: UInt16 = 0x2A05

  /// Every target port that there may be.
  static let ports: [UInt16] = [1, 2, 3, 4]
  /// How many registrations there is room for: ours to say.
  static let room = 64

  /// Sessions that are here: who is meant by a TransportID that names a node alone.
  let sessions: [Path]
  /// Ports of the other node of a pair. A registration through one of them counts for the initiator's reads and writes here.
  let portsElsewhere: Set<UInt16>

  /// Target ports that are there now: those of RDMA come and go.
  var ports = Self.ports
  private(set) var keys: [Path: UInt64] = [:]
  private(set) var holders: Set<Path> = []
  /// TYPE; 0: nothing is reserved.
  private(set) var type: UInt8 = 0
  private(set) var generation: UInt32 = 0
  private(set) var persists = false
  /// Who has the SPC-2 reservation.
  private(set) var legacyHolder: Path?
  /// What the last command has brought for others.
  private(set) var attentions: [Path: Set<UInt16>] = [:]
  private(set) var aborted: Set<Path> = []

  init(sessions: [Path], portsElsewhere: Set<UInt16>) {
    self.sessions = sessions
    self.portsElsewhere = portsElsewhere
  }

  private var isHeld: Bool { type != 0 }
  private static func isAllRegistrants(_ type: UInt8) -> Bool { type == 7 || type == 8 }
  private static func isRegistrantsOnly(_ type: UInt8) -> Bool { type == 5 || type == 6 }
  private static func isType(_ type: UInt8) -> Bool { [1, 3, 5, 6, 7, 8].contains(type) }

  /// READ RESERVATION's key: 0 where all registrants hold.
  var holderKey: UInt64 { Self.isAllRegistrants(type) ? 0 : holders.first.flatMap { keys[$0] } ?? 0 }

  // MARK: - What is not PERSISTENT RESERVE OUT

  mutating func begin() {
    attentions = [:]
    aborted = []
  }

  /// Power on: everything goes but for what APTPL keeps, and PRGENERATION begins anew in any case.
  mutating func powerOn() {
    begin()
    legacyHolder = nil
    generation = 0
    if persists { return }
    keys = [:]
    holders = []
    type = 0
  }

  /// The peer's node goes on with the disk: no power was lost as far as initiators see, but for an SPC-2 reservation.
  /// - Parameter inPlace: sessions have seen the logical unit before.
  mutating func takeOver(inPlace: Bool) {
    begin()
    if legacyHolder != nil, inPlace { for path in sessions { attentions[path] = [0x2900] } }
    legacyHolder = nil
  }

  mutating func reset() {
    begin()
    legacyHolder = nil
    for path in sessions { attentions[path] = [0x2903] }
  }

  mutating func lose(_ path: Path) {
    begin()
    if legacyHolder == path { legacyHolder = nil }
  }

  /// RESERVE(6) and (10), CRH 0: there is no SPC-2 reservation beside registrations.
  mutating func reserveLegacy(_ path: Path) -> Outcome {
    begin()
    if !keys.isEmpty { return .conflict }
    if let legacyHolder, legacyHolder != path { return .conflict }
    legacyHolder = path
    return .good
  }

  mutating func releaseLegacy(_ path: Path) -> Outcome {
    begin()
    if !keys.isEmpty { return .conflict }
    if legacyHolder == path { legacyHolder = nil }
    return .good
  }

  // MARK: - Access

  /// A row of the standard's tables of what is allowed: "A" or "C" for SPC-2 RESERVE by another; WRITE EXCLUSIVE, EXCLUSIVE
  /// ACCESS held by another; from a registered nexus with the other types; from an unregistered one with WRITE EXCLUSIVE,
  /// with EXCLUSIVE ACCESS, each REGISTRANTS ONLY or ALL REGISTRANTS.
  struct Row {
    var name: String
    var cdb: [UInt8]
    var columns: [Character]

    init(_ name: String, _ columns: String, _ cdb: [UInt8]) {
      self.name = name
      self.cdb = cdb
      self.columns = columns.filter { $0 != " " }
    }
  }

  func conflicts(_ row: Row, from path: Path) -> Bool {
    if let legacyHolder, legacyHolder != path { return row.columns[0] == "C" }
    guard isHeld else { return false }
    let standing = keys.keys.filter { $0 == path || (portsElsewhere.contains($0.port) && $0.host == path.host) }
    if standing.contains(where: holders.contains) { return false }
    let column: Int
    switch type {
    case 1: column = 1
    case 3: column = 2
    case _ where !standing.isEmpty: column = 3
    case 5, 7: column = 4
    default: column = 5
    }
    return row.columns[column] == "C"
  }

  /// PERSISTENT RESERVE IN.
  var readConflicts: Bool { legacyHolder != nil }

  // MARK: - PERSISTENT RESERVE OUT

  mutating func apply(_ order: ReserveOrder, from sender: Path) -> Outcome {
    begin()
    if legacyHolder != nil { return .conflict }
    if let fault = fault(in: order, from: sender) { return fault }
    switch order.action {
    case .register, .registerAndIgnore: return register(order, sender)
    default: break
    }
    guard let mine = keys[sender], mine == order.key else { return .conflict }
    switch order.action {
    case .reserve: return reserve(order, sender)
    case .release: return release(order, sender)
    case .clear: return clear(sender)
    case .preempt, .preemptAndAbort: return preempt(order, sender)
    case .move: return move(order, sender)
    case .register, .registerAndIgnore: return .conflict
    }
  }

  /// What is wrong with the CDB or the parameter list whatever the state.
  private func fault(in order: ReserveOrder, from sender: Path) -> Outcome? {
    switch order.action {
    case .reserve, .release:
      if order.scope != 0 || !Self.isType(order.type) { return Self.invalidFieldInCDB }
    default: break
    }
    switch order.action {
    case .move:
      if let flaw = order.flaw { return flaw.outcome }
      if !ports.contains(order.port) { return Self.invalidFieldInList }
      // One initiator port must be meant.
      guard order.names.count == 1, case .port = order.names[0] else { return Self.invalidFieldInList }
    case .register:
      if let flaw = order.flaw { return flaw.outcome }
      if order.specifiesPorts, named(order, sender) == nil { return Self.invalidFieldInList }
    default:
      if order.specifiesPorts { return order.flaw == nil ? Self.invalidFieldInList : .refused(nil) }
      if let flaw = order.flaw { return flaw.outcome }
    }
    return nil
  }

  /// The nexuses of the TransportIDs with the sender's target port; nil: the sender, or one twice.
  private func named(_ order: ReserveOrder, _ sender: Path) -> [Path]? {
    var result: [Path] = []
    for name in order.names {
      var meant: [Path] = []
      switch name {
      case .port(let host, let isid): meant = [Path(host: host, isid: isid, port: sender.port)]
      case .node(let host):
        for isid in Set(sessions.filter { $0.host == host }.map(\.isid)) {
          meant.append(Path(host: host, isid: isid, port: sender.port))
        }
      }
      for path in meant where path == sender || result.contains(path) { return nil }
      result += meant
    }
    return result
  }

  /// Of the initiator port through each target port that is there.
  private func everywhere(_ path: Path) -> Set<Path> {
    Set(ports.map { Path(host: path.host, isid: path.isid, port: $0) } + [path])
  }

  /// SPC-5 tables 55 and 56. ALL_TG_PT is the same request through each target port: where there is a registration with
  /// another key than it gives, it fails, and with it the whole. Registrations through a target port that is gone are reached
  /// where their key is the one that is given, or none has to be.
  private mutating func register(_ order: ReserveOrder, _ sender: Path) -> Outcome {
    let mine = keys[sender]
    var own = order.allTargetPorts ? everywhere(sender) : [sender]
    if order.action == .register {
      if (mine ?? 0) != order.key { return .conflict }
      for path in own { if let key = keys[path], key != order.key { return .conflict } }
      if order.specifiesPorts, mine != nil { return Self.invalidFieldInList }
    }
    if order.allTargetPorts {
      own.formUnion(
        keys.filter { path, key in
          sender.isSameInitiatorPort(as: path) && (order.action != .register || key == order.key)
        }.keys)
    }
    if order.serviceKey == 0 {
      // Nothing is done for who is not registered, whatever else the list says.
      let leaving = Set(own.filter { keys[$0] != nil })
      if leaving.isEmpty { return .good }
      let wasOnly = Self.isRegistrantsOnly(type)
      let wasHeld = isHeld
      remove(leaving)
      if wasHeld, !isHeld, wasOnly { tell(Self.reservationsReleased, Array(keys.keys), sender) }
    } else {
      var arriving = own
      if order.specifiesPorts {
        for path in named(order, sender) ?? [] {
          let all = order.allTargetPorts ? everywhere(path) : [path]
          // One that is registered is not registered by another: no registration is made then.
          for path in all where keys[path] != nil { return Self.invalidFieldInList }
          arriving.formUnion(all)
        }
      }
      if Set(keys.keys).union(arriving).count > Self.room { return .refused(0x5504) }
      for path in arriving {
        if keys[path] == nil, Self.isAllRegistrants(type) { holders.insert(path) }
        keys[path] = order.serviceKey
      }
    }
    persists = order.persists
    generation &+= 1
    return .good
  }

  private mutating func reserve(_ order: ReserveOrder, _ sender: Path) -> Outcome {
    if isHeld { return holders.contains(sender) && type == order.type ? .good : .conflict }
    hold(order.type, sender)
    return .good
  }

  private mutating func release(_ order: ReserveOrder, _ sender: Path) -> Outcome {
    if !isHeld || !holders.contains(sender) { return .good }
    if type != order.type { return .refused(0x2604) }
    if Self.isRegistrantsOnly(type) || Self.isAllRegistrants(type) {
      tell(Self.reservationsReleased, Array(keys.keys), sender)
    }
    type = 0
    holders = []
    return .good
  }

  private mutating func clear(_ sender: Path) -> Outcome {
    tell(Self.reservationsPreempted, Array(keys.keys), sender)
    remove(Set(keys.keys))
    generation &+= 1
    return .good
  }

  private mutating func preempt(_ order: ReserveOrder, _ sender: Path) -> Outcome {
    let isAll = Self.isAllRegistrants(type)
    if order.serviceKey == 0, !isAll { return Self.invalidFieldInList }
    let takes = isHeld && (isAll ? order.serviceKey == 0 : holderKey == order.serviceKey)
    var victims: Set<Path> = []
    for (path, key) in keys where order.serviceKey == 0 || key == order.serviceKey { victims.insert(path) }
    if victims.isEmpty { return .conflict }
    // SCOPE and TYPE are only for a reservation that is made.
    if takes, order.scope != 0 || !Self.isType(order.type) { return Self.invalidFieldInCDB }
    tell(Self.registrationsPreempted, Array(victims), sender)
    if order.action == .preemptAndAbort { aborted = victims.subtracting([sender]) }
    generation &+= 1
    guard takes else {
      remove(victims)
      return .good
    }
    let former = type
    for path in victims where path != sender { keys[path] = nil }
    hold(order.type, sender)
    if former != type { tell(Self.reservationsReleased, Array(keys.keys), sender) }
    return .good
  }

  private mutating func move(_ order: ReserveOrder, _ sender: Path) -> Outcome {
    if !isHeld { return Self.invalidFieldInCDB }
    if Self.isAllRegistrants(type) || !holders.contains(sender) { return .conflict }
    guard case .port(let host, let isid)? = order.names.first else { return Self.invalidFieldInList }
    let goal = Path(host: host, isid: isid, port: order.port)
    if goal.isSameInitiatorPort(as: sender) || order.serviceKey == 0 { return Self.invalidFieldInList }
    var next = keys
    next[goal] = order.serviceKey
    if order.unregisters { next[sender] = nil }
    if next.count > Self.room { return .refused(0x5504) }
    keys = next
    holders = [goal]
    persists = order.persists
    generation &+= 1
    return .good
  }

  // MARK: - Pieces

  private mutating func hold(_ type: UInt8, _ path: Path) {
    self.type = type
    holders = Self.isAllRegistrants(type) ? Set(keys.keys) : [path]
  }

  /// A reservation that nobody holds any more is released.
  private mutating func remove(_ leaving: Set<Path>) {
    for path in leaving {
      keys[path] = nil
      holders.remove(path)
    }
    if holders.isEmpty { type = 0 }
  }

  private mutating func tell(_ attention: UInt16, _ paths: [Path], _ sender: Path) {
    for path in paths where path != sender { attentions[path, default: []].insert(attention) }
  }
}

/// A PERSISTENT RESERVE OUT by its fields.
struct ReserveOrder: CustomStringConvertible {
  enum Action: UInt8, CaseIterable {
    case register, reserve, release, clear, preempt, preemptAndAbort, registerAndIgnore, move
  }

  /// A TransportID.
  enum Name: Equatable, CustomStringConvertible {
    case port(host: Int, isid: UInt64)
    case node(host: Int)

    var description: String {
      switch self {
      case .port(let host, let isid): "h\(host),\(String(isid, radix: 16))"
      case .node(let host): "h\(host)"
      }
    }
  }

  /// Parameter data that does not add up.
  enum Flaw: CaseIterable {
    /// Four bytes more than the list has fields for.
    case surplus
    /// The initiator sends four bytes less than the CDB says.
    case cutOff
    /// The length of the TransportIDs is told as four more than it is.
    case wrongDataLength
    /// The last TransportID's own length reaches past the end.
    case truncatedName
    /// A TransportID of another protocol.
    case otherProtocol

    var outcome: ReservationModel.Outcome {
      switch self {
      case .surplus, .cutOff, .wrongDataLength: ReservationModel.listLengthError
      // SPC-4 says ILLEGAL REQUEST for the one, and nothing of the other's code.
      case .truncatedName, .otherProtocol: .refused(nil)
      }
    }
  }

  var action: Action
  var scope: UInt8 = 0
  var type: UInt8 = 0
  var key: UInt64 = 0
  var serviceKey: UInt64 = 0
  var specifiesPorts = false
  var allTargetPorts = false
  var persists = false
  var unregisters = false
  var names: [Name] = []
  /// REGISTER AND MOVE: RELATIVE TARGET PORT IDENTIFIER.
  var port: UInt16 = 1
  var flaw: Flaw?

  init(_ action: Action) { self.action = action }

  var description: String {
    var text = "\(action), scope and type \(String(scope << 4 | type, radix: 16)), "
    text += "keys \(String(key, radix: 16)) \(String(serviceKey, radix: 16))"
    if specifiesPorts { text += " SPEC_I_PT" }
    if allTargetPorts { text += " ALL_TG_PT" }
    if persists { text += " APTPL" }
    if action == .move { text += unregisters ? " UNREG to port \(port)" : " to port \(port)" }
    if !names.isEmpty { text += " \(names)" }
    if let flaw { text += " \(flaw)" }
    return text
  }
}
