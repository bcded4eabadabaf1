/// Writes values that only grow to a block of its own on each disk, reads them back, and (the first) reserves. One command
/// at a time; a command without an answer is asked again, of the other node.
final class Initiator {
  let index: Int
  unowned let world: World
  private var node = 0
  private var value: UInt64 = 0
  private var holds: Int?
  /// When the last command was begun that was answered.
  var answeredSince: UInt64 = 0
  /// Disks that answered a command begun after the faults, for the check.
  var answeredDisks: Set<Int> = []

  init(index: Int, world: World) {
    self.index = index
    self.world = world
  }

  func next() {
    let disk = Int.random(in: 0..<world.disks.count, using: &world.random)
    if index == 0, world.random.chance(25) {
      if let held = holds {
        begin(.release, held)
      } else {
        begin(.reserve, disk)
      }
    } else if world.random.chance(60) {
      value += 1
      begin(.write(value), disk)
    } else {
      begin(.read, disk)
    }
  }

  private func begin(_ kind: Operation.Kind, _ disk: Int) {
    let issued = world.now
    if kind == .release { world.willRelease(disk) }
    attempt(kind, disk, issued, world.disks[disk].acknowledged[index])
  }

  private func attempt(_ kind: Operation.Kind, _ disk: Int, _ issued: UInt64, _ known: UInt64) {
    let target = world.nodes[node]
    guard target.isRunning else { return retry(kind, disk, issued, known, after: 20_000_000) }
    var isDone = false
    let operation = Operation(initiator: index, kind: kind, disk: disk, block: index, since: world.now) {
      [self] answer in
      guard !isDone else { return }
      isDone = true
      switch answer {
      case .good(let value): good(kind, disk, issued, known, value)
      case .conflict: conflict(kind, disk, issued)
      case .notReady: retry(kind, disk, issued, known, after: 20_000_000)
      case .closed: retry(kind, disk, issued, known, after: 5_000_000)
      }
    }
    target.run(target.instance) { target.receive(operation) }
    // After a while without an answer the connection is given up.
    world.after(3_000_000_000) { [self] in
      guard !isDone else { return }
      isDone = true
      operation.state = .done
      target.operations.removeAll { $0 === operation }
      retry(kind, disk, issued, known, after: 1_000_000)
    }
  }

  private func retry(_ kind: Operation.Kind, _ disk: Int, _ issued: UInt64, _ known: UInt64, after time: UInt64) {
    node = 1 - node
    world.after(time) { self.attempt(kind, disk, issued, known) }
  }

  private func good(_ kind: Operation.Kind, _ disk: Int, _ issued: UInt64, _ known: UInt64, _ value: UInt64) {
    switch kind {
    case .read:
      world.statistics.reads += 1
      if value < known {
        world.fail("initiator \(index) reads \(value) from disk \(disk), was told \(known) is written")
      }
      if value > self.value { world.fail("initiator \(index) reads \(value), which it has not written") }
    case .write:
      world.statistics.writes += 1
      world.disks[disk].acknowledged[index] = value
      world.checkReservation(disk, writer: index, issued: issued)
    case .reserve:
      world.statistics.reservations += 1
      holds = disk
      world.didReserve(disk, by: index)
    case .release: holds = nil
    }
    proceed(disk, issued)
  }

  private func conflict(_ kind: Operation.Kind, _ disk: Int, _ issued: UInt64) { proceed(disk, issued) }

  private func proceed(_ disk: Int, _ issued: UInt64) {
    answeredSince = issued
    if issued > world.plan.end { answeredDisks.insert(disk) }
    world.after(world.random.time(1...200)) { self.next() }
  }
}
