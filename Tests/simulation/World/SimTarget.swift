import HA
import SCSI
import Storage
import Wire

/// A command of an initiator, while a node has it.
final class Operation {
  enum Kind: Equatable {
    case read
    case write(UInt64)
    case reserve
    case release
  }
  enum State { case waiting, underWay, done }
  enum Answer { case good(UInt64), conflict, notReady, closed }

  let initiator: Int
  let kind: Kind
  let disk: Int
  let block: Int
  let since: UInt64
  var state = State.waiting
  /// When a node took it up.
  var startedAt: UInt64 = 0
  let answer: (Answer) -> Void

  init(initiator: Int, kind: Kind, disk: Int, block: Int, since: UInt64, answer: @escaping (Answer) -> Void) {
    self.initiator = initiator
    self.kind = kind
    self.disk = disk
    self.block = block
    self.since = since
    self.answer = answer
  }
}

extension SimNode {
  static let initiatorNexuses = (0..<4).map {
    NexusIdentity(initiatorName: "iqn.2026-01.example:\($0)", isid: UInt64($0), relativeTargetPort: 1)
  }

  func obey(_ order: TargetOrder) {
    if world.isTracing { world.log { "\(self.name): target \(order.shown(self.world))" } }
    switch order {
    case .hold:
      stops += 1
      mode = .hold
      isDraining = false
      letGo = letGo.map { _ in false }
    case .recover(let epoch, let disks):
      mode = .hold
      servedEpoch = epoch
      served = served.map { _ in false }
      letGo = served
      recover(epoch, disks.compactMap { world.disk($0) })
    case .serve(let epoch, let disks):
      mode = .serving
      isDraining = false
      servedEpoch = epoch
      served = served.map { _ in false }
      letGo = served
      for disk in disks.compactMap({ world.disk($0) }) { served[disk] = true }
      world.check(serving: disks.compactMap { world.disk($0) }, by: self, epoch)
      pump()
    case .admit(let epoch, let id):
      guard let disk = world.disk(id) else { return }
      let current = instance
      let inSession = session
      let afterStops = stops
      admitted[disk] = true
      readTable(disk, epoch) { [self] in
        guard instance == current, session == inSession, servedEpoch == epoch, admitted[disk] else { return }
        world.check(serving: [disk], by: self, epoch)
        served[disk] = true
        letGo[disk] = mode == .hold && stops == afterStops
        pump()
      }
    case .suspend(let id):
      if let disk = world.disk(id) { (served[disk], admitted[disk], letGo[disk]) = (false, false, false) }
    case .drain(let until): drain(until)
    case .closeWithoutAnswer:
      mode = .hold
      isDraining = false
      served = served.map { _ in false }
      letGo = served
      servedEpoch = .none
      closeSessions(after: 100_000)
    case .standby:
      mode = .standby
      isDraining = false
      served = served.map { _ in false }
      letGo = served
      servedEpoch = .none
      let held = operations.filter { $0.state == .waiting }
      operations.removeAll { $0.state == .waiting }
      for operation in held { answer(operation, .notReady) }
    }
  }

  func closeSessions(after delay: UInt64) {
    session += 1
    let dropped = operations
    operations = []
    for operation in dropped where operation.state != .done {
      operation.state = .done
      world.after(delay) { operation.answer(.closed) }
    }
  }

  /// An initiator's command comes in.
  func receive(_ operation: Operation) {
    if mode == .standby { return answer(operation, .notReady) }
    operations.append(operation)
    pump()
  }

  private func answer(_ operation: Operation, _ result: Operation.Answer) {
    guard operation.state != .done else { return }
    if operation.state == .underWay || result.isConflict { world.checkAnswer(operation, by: self) }
    operation.state = .done
    operations.removeAll { $0 === operation }
    world.after(world.random.time(20...200) / 1000) { operation.answer(result) }
    if isDraining, !operations.contains(where: { $0.state == .underWay }) { finishDrain(true) }
  }

  func pump() {
    guard mode == .serving || letGo.contains(true), !isDraining, hasPulse else { return }
    for operation in operations where operation.state == .waiting && served[operation.disk] {
      if mode == .serving || letGo[operation.disk] { start(operation) }
    }
  }

  private func start(_ operation: Operation) {
    let nexus = Self.initiatorNexuses[operation.initiator]
    operation.startedAt = world.now
    let table = tables[operation.disk]
    let current = instance
    let inSession = session
    let then = { [self] (body: @escaping (DiskCommand.Result) -> Void) in
      { [self] (result: DiskCommand.Result) in run(current) { self.came(result, operation, inSession, body) } }
    }
    switch operation.kind {
    case .read:
      operation.state = .underWay
      send(
        .read(block: operation.block), to: operation.disk,
        reply: then { [self] result in if case .value(let value) = result { answer(operation, .good(value)) } })
    case .write(let value):
      if let reservation = table.reservation,
        !PersistentAccess.writing.isAllowed(
          with: reservation.kind, holder: table.isHolder(nexus), registered: table.isRegistered(nexus))
      {
        return answer(operation, .conflict)
      }
      // What an aborted write may still write keeps its place.
      guard writing[operation.disk][operation.block] == 0 else { return }
      operation.state = .underWay
      writing[operation.disk][operation.block] += 1
      send(
        .write(block: operation.block, value: value), to: operation.disk,
        reply: { [self] result in
          run(current) { self.writing[operation.disk][operation.block] -= 1 }
          then { [self] _ in answer(operation, .good(value)) }(result)
          run(current) { self.pump() }
        })
    case .reserve, .release: changeTable(operation, nexus, then)
    }
  }

  /// What the disk said to a command of the data path.
  private func came(
    _ result: DiskCommand.Result, _ operation: Operation, _ inSession: Int, _ body: (DiskCommand.Result) -> Void
  ) {
    let id = world.disks[operation.disk].shared.id
    guard session == inSession, operation.state == .underWay else { return }
    switch result {
    case .done, .value: body(result)
    case .conflict:
      operation.state = .waiting
      step(.conflict(id))
    case .attention:
      operation.state = .waiting
      step(.disturbed(id))
    case .lost:
      operation.state = .waiting
      pump()
    case .keys, .records: break
    }
  }

  // MARK: Reservations of initiators

  private func changeTable(
    _ operation: Operation, _ nexus: NexusIdentity,
    _ then: (@escaping (DiskCommand.Result) -> Void) -> ((DiskCommand.Result) -> Void)
  ) {
    let disk = operation.disk
    guard !isChanging[disk] else { return }
    var next = tables[disk]
    let key = UInt64(operation.initiator + 1)
    let steps: [ReservationAction]
    if operation.kind == .reserve {
      steps = [
        ReservationAction(.registerAndIgnoreExistingKey, serviceKey: key),
        ReservationAction(.reserve, key: key, kind: .writeExclusive),
      ]
    } else {
      steps = [
        ReservationAction(.release, key: key, kind: .writeExclusive),
        ReservationAction(.registerAndIgnoreExistingKey, serviceKey: 0),
      ]
    }
    for action in steps {
      if case .changed(let effects) = next.applying(action, from: nexus) { next = effects.next }
    }
    let (sequence, slot) = tableRecords[disk]
    tableRecords[disk] = (sequence + 1, 1 - slot)
    isChanging[disk] = true
    operation.state = .underWay
    let table = next
    if world.mutation == .earlyAcknowledgement {
      tables[disk] = table
      answer(operation, .good(0))
    }
    let bytes = world.disks[disk].encode(table.encodeRecord(), .reservations, sequence: sequence + 1)
    let current = instance
    let inSession = session
    let committed = then { [self] _ in
      tables[disk] = table
      answer(operation, .good(0))
    }
    send(
      .writeRecord(.reservations, slot: slot, bytes), to: disk,
      reply: { [self] result in
        run(current) { if self.session == inSession { self.isChanging[disk] = false } }
        // What did not arrive is written again, to the same slot: the other has the valid one.
        if case .done = result {} else { run(current) { self.tableRecords[disk] = (sequence, slot) } }
        committed(result)
        run(current) { self.pump() }
      })
  }

  private func readTable(_ disk: Int, _ epoch: Epoch, _ then: @escaping () -> Void) {
    let current = instance
    send(.readRecords, to: disk) { [self] result in
      run(current) {
        guard self.servedEpoch == epoch else { return }
        let area = SimDisk.Area.reservations
        guard case .records(let areas) = result,
          let newest = try? Record.newest(areas[area.rawValue], kind: area.kind),
          let table = try? PersistentReservations(record: newest.record.payload)
        else {
          if result.isAttention { self.step(.disturbed(self.world.disks[disk].shared.id)) }
          return self.world.after(50_000_000) { self.run(current) { self.readTable(disk, epoch, then) } }
        }
        self.tables[disk] = table
        self.tableRecords[disk] = (newest.record.sequence, newest.nextSlot)
        self.isChanging[disk] = false
        then()
      }
    }
  }

  private func recover(_ epoch: Epoch, _ disks: [Int]) {
    var left = disks.count
    if disks.isEmpty {
      // All that was taken is gone again.
      let current = instance
      world.after(10_000) { self.run(current) { self.step(.recovered(epoch)) } }
    }
    for disk in disks {
      readTable(disk, epoch) { [self] in
        left -= 1
        if left == 0 { step(.recovered(epoch)) }
      }
    }
  }

  // MARK: Drain

  private func drain(_ until: Instant) {
    isDraining = true
    stops += 1
    let current = instance
    if !operations.contains(where: { $0.state == .underWay }) {
      world.after(10_000) { self.run(current) { self.finishDrain(true) } }
      return
    }
    let now = local(world.now)
    world.after(until > now ? until - now : 0) { self.run(current) { self.finishDrain(false) } }
  }

  private func finishDrain(_ isEmpty: Bool) {
    guard isDraining, mode == .serving || mode == .hold else { return }
    isDraining = false
    // Nothing is taken until the engine says what comes next.
    mode = .hold
    step(.drained(isEmpty))
  }
}

extension TargetOrder {
  func shown(_ world: World) -> String {
    let names = { (ids: [DiskID]) in ids.compactMap { world.disk($0) }.map { "d\($0)" }.joined(separator: " ") }
    return switch self {
    case .hold: "hold"
    case .recover(let epoch, let disks): "recover \(epoch): \(names(disks))"
    case .serve(let epoch, let disks): "serve \(epoch): \(names(disks))"
    case .admit(let epoch, let disk): "admit \(epoch): \(names([disk]))"
    case .suspend(let disk): "suspend \(names([disk]))"
    case .drain: "drain"
    case .closeWithoutAnswer: "close without answer"
    case .standby: "standby"
    }
  }
}

extension Operation.Answer {
  var isConflict: Bool { if case .conflict = self { true } else { false } }
}
