import Glibc
import TestSupport
import Testing

@testable import SCSI

/// Who is there in a walk, and what it tends to.
struct ReservationWalk: CustomTestStringConvertible, Sendable {
  typealias Path = ReservationModel.Path

  var name: String
  var hosts: Int
  var isids: Int
  /// Sessions here: host, ISID, port.
  var sessions: [Path]
  /// Sessions at the pair's other node.
  var remote: [Path] = []
  /// In percent: how often a registration is for many.
  var many = 15
  /// In percent: how much of CLEAR and of PREEMPT is left out.
  var sparing = 70
  /// In percent: how often APTPL is set.
  var lasting = 50
  /// Target ports come and go.
  var changesPorts = false

  var testDescription: String { name }

  var universe: [Path] {
    var result: [Path] = []
    for host in 0..<hosts {
      for isid in 1...UInt64(isids) {
        for port in ReservationModel.ports { result.append(Path(host: host, isid: Self.isid(isid), port: port)) }
      }
    }
    return result
  }

  /// One has leading zeroes.
  static func isid(_ number: UInt64) -> UInt64 { number == 2 ? 0x23D : 0x8000_01A0_0000 | number }

  private static func path(_ host: Int, _ isid: UInt64, _ port: UInt16) -> Path {
    Path(host: host, isid: Self.isid(isid), port: port)
  }

  /// Two initiator ports of one host at one target port, one initiator port at two target ports, and others.
  static let one = ReservationWalk(
    name: "one node", hosts: 3, isids: 2,
    sessions: [
      path(0, 1, 1), path(0, 1, 2), path(0, 2, 1), path(1, 1, 1), path(1, 2, 3), path(2, 1, 2), path(2, 1, 4),
    ], changesPorts: true)
  /// So few that the last registrant goes now and then.
  static let few = ReservationWalk(
    name: "few", hosts: 2, isids: 1, sessions: [path(0, 1, 1), path(0, 1, 2), path(1, 1, 1)], many: 0, sparing: 50)
  static let crowded = ReservationWalk(
    name: "more than there is room for", hosts: 5, isids: 4,
    sessions: [path(0, 1, 1), path(0, 1, 2), path(1, 2, 3), path(2, 3, 4), path(3, 4, 1), path(4, 1, 2)],
    many: 60, sparing: 97, lasting: 95)
  static let pair = ReservationWalk(
    name: "a pair of nodes", hosts: 3, isids: 2,
    sessions: [path(0, 1, 1), path(0, 1, 2), path(1, 1, 1), path(1, 2, 2), path(2, 1, 1)],
    remote: [path(0, 1, 3), path(0, 2, 4), path(1, 1, 3), path(2, 2, 4)])
}

@Suite("Persistent reservations against a model")
struct ReservationModelTests {
  typealias Model = ReservationModel
  typealias Path = ReservationModel.Path

  /// Steps of each walk: enough for every outcome, and few enough for every run. More by GATEWAYD_MODEL_STEPS: 25000 make
  /// 100000 of all.
  private static let steps = getenv("GATEWAYD_MODEL_STEPS").flatMap { Int(String(cString: $0)) } ?? 6000

  @Test(
    "What random commands do over the six types and many nexuses is what the model says",
    arguments: [.one, .few, .pair, .crowded] as [ReservationWalk])
  func random(_ walk: ReservationWalk) throws {
    var seen: Set<String> = []
    for seed: UInt64 in 1...4 {
      var walker = try Walker(walk, seed)
      for step in 0..<Self.steps / 4 {
        walker.story = ""
        do { try walker.step() } catch {
          throw Disagreement(description: "\(walk.name), seed \(seed), step \(step): \(walker.story): \(error)")
        }
      }
      seen.formUnion(walker.seen)
    }
    // Every outcome that an action has was met, and every type.
    let missed = Self.outcomes(walk).subtracting(seen)
    #expect(missed.isEmpty, "never met: \(missed.sorted())")
  }

  private static func outcomes(_ walk: ReservationWalk) -> Set<String> {
    var result: Set<String> = ["takeover", "power on", "power on kept"]
    for action in ReserveOrder.Action.allCases { result.formUnion(["\(action) good", "\(action) refused"]) }
    // With REGISTER AND IGNORE EXISTING KEY nothing conflicts but an SPC-2 reservation.
    for action in ReserveOrder.Action.allCases where action != .registerAndIgnore {
      result.insert("\(action) conflict")
    }
    for type in [1, 3, 5, 6, 7, 8] { result.insert("type \(type)") }
    switch walk.name {
    case ReservationWalk.crowded.name: result.insert("no room")
    case ReservationWalk.few.name: result.formUnion(["last of all by register", "last of all by preempt"])
    default: break
    }
    return result
  }

  // MARK: - The standard's tables

  /// SPC-5 table 60 and SBC-4 table 14; the first column is of SPC-2 §5.5.
  static let rows: [Model.Row] = [
    .init("TEST UNIT READY", "C AAAAA", [0x00, 0, 0, 0, 0, 0]),
    .init("REQUEST SENSE", "A AAAAA", [0x03, 0, 0, 0, 18, 0]),
    .init("INQUIRY", "A AAAAA", [0x12, 0, 0, 0, 96, 0]),
    .init("REPORT LUNS", "A AAAAA", [0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]),
    .init("LOG SENSE", "A AAAAA", [0x4D, 0, 0x40, 0, 0, 0, 0, 0, 64, 0]),
    .init("READ CAPACITY(10)", "A AAAAA", [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    .init("READ CAPACITY(16)", "A AAAAA", [0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]),
    .init("REPORT TARGET PORT GROUPS", "A AAAAA", [0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0]),
    .init("REPORT TIMESTAMP", "C AAAAA", [0xA3, 0x0F, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0]),
    .init("REPORT SUPPORTED OPERATION CODES", "C ACAAC", [0xA3, 0x0C, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0]),
    .init("REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", "C ACAAC", [0xA3, 0x0D, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]),
    .init("READ(6)", "C ACAAC", [0x08, 0, 0, 0, 1, 0]),
    .init("READ(10)", "C ACAAC", [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]),
    .init("READ(12)", "C ACAAC", [0xA8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]),
    .init("READ(16)", "C ACAAC", [0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]),
    .init("VERIFY(10)", "C ACAAC", [0x2F, 0, 0, 0, 0, 0, 0, 0, 1, 0]),
    .init("PRE-FETCH(10)", "C ACAAC", [0x34, 0, 0, 0, 0, 0, 0, 0, 1, 0]),
    .init("GET LBA STATUS", "C ACAAC", [0x9E, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]),
    .init("READ DEFECT DATA(10)", "C ACAAC", [0x37, 0, 0x0D, 0, 0, 0, 0, 0, 8, 0]),
    .init("MODE SENSE(6)", "C ACAAC", [0x1A, 0, 0x3F, 0, 255, 0]),
    .init("MODE SENSE(10)", "C ACAAC", [0x5A, 0, 0x3F, 0, 0, 0, 0, 0, 255, 0]),
    .init("READ BUFFER(10)", "C ACAAC", [0x3C, 0x03, 0, 0, 0, 0, 0, 0, 4, 0]),
    .init("RECEIVE DIAGNOSTIC RESULTS", "C ACAAC", [0x1C, 0x01, 0, 0, 64, 0]),
    .init("WRITE(6)", "C CCACC", [0x0A, 0, 0, 0, 1, 0]),
    .init("WRITE(10)", "C CCACC", [0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0]),
    .init("WRITE(12)", "C CCACC", [0xAA, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]),
    .init("WRITE(16)", "C CCACC", [0x8A, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]),
    .init("WRITE AND VERIFY(10)", "C CCACC", [0x2E, 0, 0, 0, 0, 0, 0, 0, 1, 0]),
    .init("WRITE SAME(10)", "C CCACC", [0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0]),
    .init("ORWRITE(16)", "C CCACC", [0x8B, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]),
    .init("COMPARE AND WRITE", "C CCACC", [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]),
    .init("UNMAP", "C CCACC", [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]),
    .init("SYNCHRONIZE CACHE(10)", "C CCACC", [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    .init("MODE SELECT(6)", "C CCACC", [0x15, 0x10, 0, 0, 16, 0]),
    .init("WRITE BUFFER", "C CCACC", [0x3B, 0x02, 0, 0, 0, 0, 0, 0, 4, 0]),
    .init("SEND DIAGNOSTIC", "C CCACC", [0x1D, 0x04, 0, 0, 0, 0]),
    .init("EXTENDED COPY", "C CCACC", [0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]),
    .init("START STOP UNIT, START", "A AAAAA", [0x1B, 0, 0, 0, 1, 0]),
    .init("START STOP UNIT, STOP", "C CCACC", [0x1B, 0, 0, 0, 0, 0]),
    .init("PREVENT ALLOW MEDIUM REMOVAL, ALLOW", "A AAAAA", [0x1E, 0, 0, 0, 0, 0]),
    .init("PREVENT ALLOW MEDIUM REMOVAL, PREVENT", "C CCACC", [0x1E, 0, 0, 0, 1, 0]),
  ]

  // MARK: - One walk

  struct Walker {
    let walk: ReservationWalk
    var random: SplitMix
    let universe: [Path]
    /// Who sends PERSISTENT RESERVE commands.
    let senders: [Path]
    var model: Model
    let rig: ReservationRig
    /// What this step does, for who has to find out.
    var story = ""
    var seen: Set<String> = []

    init(_ walk: ReservationWalk, _ seed: UInt64) throws {
      self.walk = walk
      random = SplitMix(seed: seed)
      universe = walk.universe
      senders = (walk.sessions + walk.remote).sorted()
      model = Model(sessions: walk.sessions, portsElsewhere: walk.remote.isEmpty ? [] : [3, 4])
      rig = try ReservationRig(sessions: walk.sessions, remote: walk.remote, universe: universe)
    }

    private mutating func pick<T>(_ from: [T]) -> T { from[Int.random(in: 0..<from.count, using: &random)] }

    mutating func step() throws {
      model.begin()
      switch Int.random(in: 0..<100, using: &random) {
      case _ where model.legacyHolder != nil && random.chance(40): try legacy(isRelease: true)
      case 0..<3: try legacy(isRelease: false)
      case 3..<5: try legacy(isRelease: true)
      case 5:
        story = "reset"
        model.reset()
        rig.unit.reset()
      case 6:
        let path = pick(walk.sessions)
        story = "\(path) is lost"
        model.lose(path)
        try rig.lose(path)
      case 7: try power()
      case 8: try takeover()
      case 9, 10: try order(isWritten: false)
      case 11 where walk.changesPorts: changePorts()
      default: try order(isWritten: true)
      }
      try compare()
    }

    private mutating func legacy(isRelease: Bool) throws {
      var path = pick(walk.sessions)
      if isRelease, let holder = model.legacyHolder, random.chance(70) { path = holder }
      let isTen = random.chance(50)
      let opcode: UInt8 = (isRelease ? 0x17 : 0x16) + (isTen ? 0x40 : 0)
      story = "\(path): \(isRelease ? "RELEASE" : "RESERVE")(\(isTen ? 10 : 6))"
      let expected = isRelease ? model.releaseLegacy(path) : model.reserveLegacy(path)
      let cdb = [opcode] + [UInt8](repeating: 0, count: isTen ? 9 : 5)
      try Disagreement.check(ReservationRig.outcome(rig.send(cdb, from: path)), expected, "outcome")
    }

    private mutating func power() throws {
      if random.chance(40) { return }
      story = "loss of power"
      seen.insert(model.persists && !model.keys.isEmpty ? "power on kept" : "power on")
      model.powerOn()
      try rig.powerOn()
    }

    private mutating func takeover() throws {
      guard rig.isRecordCurrent else { return }
      let inPlace = random.chance(50)
      story = "takeover"
      seen.insert(story)
      model.takeOver(inPlace: inPlace)
      try rig.takeOver(inPlace: inPlace)
    }

    private mutating func changePorts() {
      model.ports = Model.ports.filter { $0 == 1 || random.chance(75) }
      story = "the target ports are \(model.ports)"
      rig.setPorts(model.ports)
    }

    private mutating func order(isWritten: Bool) throws {
      let sender = pick(senders)
      let order = randomOrder(sender)
      story = "\(sender): \(order)\(isWritten ? "" : ", not written")"
      let before = model
      let expected = model.apply(order, from: sender)
      let (outcome, aborts) = try rig.order(order, from: sender, &random, isWritten: isWritten)
      guard expected.covers(outcome) else {
        throw Disagreement(description: "outcome: \(outcome), not \(expected)")
      }
      switch outcome {
      case .good: seen.insert("\(order.action) good")
      case .conflict: seen.insert("\(order.action) conflict")
      case .refused(0x5504): seen.insert("no room")
      case .refused: seen.insert("\(order.action) refused")
      }
      if before.type >= 7, model.keys.isEmpty {
        seen.insert("last of all by \(order.action == .preemptAndAbort ? .preempt : order.action)")
      }
      if !isWritten {
        model = before
        model.begin()
      }
      try Disagreement.check(aborts, model.aborted, "commands to abort")
    }

    // MARK: - Random orders

    /// Keys that are not the same read in another order of bytes.
    private static func key(_ number: UInt64) -> UInt64 { number == 0 ? 0 : 0x0123_4567_89AB_CDE0 | number }

    /// Mostly what can succeed: CLEAR is rare, keys are mostly right, the type is often the one that is held.
    private mutating func randomOrder(_ sender: Path) -> ReserveOrder {
      var action = pick(ReserveOrder.Action.allCases)
      if action == .clear || action == .preempt || action == .preemptAndAbort, random.chance(walk.sparing) {
        action = .register
      }
      var order = ReserveOrder(action)
      order.key = random.chance(12) ? Self.key(4) : model.keys[sender] ?? 0
      order.serviceKey = Self.key(.random(in: 0...3, using: &random))
      order.type = pick([1, 3, 5, 6, 7, 8])
      if model.type != 0, random.chance(50) { order.type = model.type }
      if random.chance(4) { order.type = .random(in: 0...15, using: &random) }
      if random.chance(3) { order.scope = .random(in: 1...15, using: &random) }
      order.persists = random.chance(walk.lasting)
      // Its own key, which takes itself away as well.
      if action == .preempt || action == .preemptAndAbort, random.chance(100 - walk.sparing) {
        order.serviceKey = order.key
      }
      switch action {
      case .register, .registerAndIgnore: widen(&order, sender)
      case .move:
        order.unregisters = random.chance(50)
        let goal = random.chance(60) ? pick(senders) : pick(universe)
        order.port = random.chance(3) ? .random(in: 0...6, using: &random) : goal.port
        order.names = [random.chance(3) ? .node(host: goal.host) : .port(host: goal.host, isid: goal.isid)]
        if random.chance(4) { order.flaw = pick(ReserveOrder.Flaw.allCases) }
      default:
        order.specifiesPorts = random.chance(3)
        order.allTargetPorts = random.chance(10)
        if random.chance(2) { order.flaw = pick([.surplus, .cutOff]) }
      }
      // One fault at a time: which of two is told is left open.
      if order.flaw != nil {
        order.scope = 0
        order.type = 1
      }
      return order
    }

    /// SPEC_I_PT, ALL_TG_PT and TransportIDs.
    private mutating func widen(_ order: inout ReserveOrder, _ sender: Path) {
      order.allTargetPorts = random.chance(walk.many)
      order.specifiesPorts = random.chance(order.action == .register ? walk.many : 3)
      guard order.specifiesPorts else {
        if random.chance(2) { order.flaw = pick([.surplus, .cutOff]) }
        return
      }
      // Who is not registered yet, but for some.
      let ports = order.allTargetPorts ? model.ports : [sender.port]
      let known = model.keys.keys.filter { ports.contains($0.port) }
      let unknown = universe.filter { path in
        path.port == sender.port && path != sender && !known.contains(where: path.isSameInitiatorPort)
      }
      for _ in 0..<Int.random(in: 0...4, using: &random) {
        let path = unknown.isEmpty || random.chance(8) ? pick(universe) : pick(unknown)
        let name: ReserveOrder.Name =
          random.chance(8) ? .node(host: path.host) : .port(host: path.host, isid: path.isid)
        if random.chance(5) || !order.names.contains(name) { order.names.append(name) }
      }
      if random.chance(6) { order.flaw = pick(ReserveOrder.Flaw.allCases) }
      if order.names.isEmpty, order.flaw == .truncatedName || order.flaw == .otherProtocol { order.flaw = nil }
    }

    // MARK: - Comparison

    private mutating func compare() throws {
      try compareAttentions()
      let reader = pick(senders)
      if model.readConflicts {
        let action = UInt8.random(in: 0...3, using: &random)
        let answer = try rig.send([0x5E, action, 0, 0, 0, 0, 0, 0, 255, 0], from: reader).answer
        try Disagreement.check(answer, .conflict, "PERSISTENT RESERVE IN \(action)")
      } else {
        let status = try rig.status(by: reader)
        try Disagreement.check(status.keys, model.keys, "registered")
        try Disagreement.check(status.holders, model.holders, "holders")
        try Disagreement.check(status.type, model.type, "TYPE")
        try Disagreement.check(status.holderKey, model.holderKey, "READ RESERVATION's key")
        try Disagreement.check(status.generation, model.generation, "PRGENERATION")
        try Disagreement.check(status.persists, model.persists, "PTPL_A")
      }
      if model.type != 0 { seen.insert("type \(model.type)") }
      let row = pick(ReservationModelTests.rows)
      for path in walk.sessions {
        let isConflict = try rig.send(row.cdb, from: path).answer == .conflict
        try Disagreement.check(isConflict, model.conflicts(row, from: path), "\(row.name) of \(path) conflicts")
      }
    }

    private func compareAttentions() throws {
      let unitReady = ReservationModelTests.rows[0]
      for path in walk.sessions {
        let (codes, last) = try rig.attentions(of: path)
        try Disagreement.check(codes, model.attentions[path] ?? [], "unit attentions of \(path)")
        let expected: Answer = model.conflicts(unitReady, from: path) ? .conflict : .good
        try Disagreement.check(last, expected, "TEST UNIT READY of \(path)")
      }
      let absent = model.attentions.filter { !walk.sessions.contains($0.key) }
      try Disagreement.check(rig.noticesElsewhere(), absent, "told of those without a session here")
    }
  }
}
