import CSystem
import Glibc
import HA
import Reactor
import SCSI
import Synchronization

/// The target as the pair's engine commands it: which units are served, which wait, which ports are in standby. Orders are
/// carried out one after another on a thread of their own, for they may take as long as a disk does.
final class PairTarget: Sendable {
  private struct State {
    /// In this epoch these disks have been read again.
    var recovered: (epoch: Epoch, disks: Set<DiskID>) = (.none, [])
    /// Why a disk cannot be served though it is ours.
    var problems: [DiskID: String] = [:]
  }

  private let context: ShardContext
  private let exports: @Sendable () -> [Export]
  private let setPortGroups: @Sendable (@escaping (inout PortGroupState) -> Void) -> Void
  private let setTakesLogins: @Sendable () -> Void
  private let queue = WorkQueue(name: "pair target")
  private let state = Mutex(State())

  /// - Parameters:
  ///   - exports: those of shared disks, as they are now.
  ///   - setPortGroups: changes what REPORT TARGET PORT GROUPS says.
  ///   - setTakesLogins: it is known which ports are this node's.
  init(
    context: ShardContext, exports: @escaping @Sendable () -> [Export],
    setPortGroups: @escaping @Sendable (@escaping (inout PortGroupState) -> Void) -> Void,
    setTakesLogins: @escaping @Sendable () -> Void
  ) {
    self.context = context
    self.exports = exports
    self.setPortGroups = setPortGroups
    self.setTakesLogins = setTakesLogins
  }

  var problems: [DiskID: String] { state.withLock { $0.problems } }

  /// - Parameters:
  ///   - afterTakeover: the peer was active until now, so reservations stay that do not survive a loss of power.
  ///   - report: takes what follows, on the target's thread.
  func perform(_ order: TargetOrder, afterTakeover: Bool, report: @escaping @Sendable (Event) -> Void) {
    switch order {
    // These two are in force at once: what comes after must find them so.
    case .hold: suspendAll()
    case .closeWithoutAnswer:
      suspendAll()
      for handle in context.handles { handle.post(.perform { $0.closeAll("another node has the disks") }) }
    case .suspend(let disk): export(disk)?.unit.setSuspended(true)
    case .recover(let epoch, let disks):
      queue.run { [self] in
        recover(epoch, disks, afterTakeover)
        report(.recovered(epoch))
      }
    case .serve(let epoch, let disks): queue.run { [self] in serve(epoch, disks, afterTakeover) }
    case .admit(let epoch, let disk):
      queue.run { [self] in
        recover(epoch, [disk], afterTakeover)
        release([disk])
      }
    case .drain(let deadline): queue.run { [self] in report(.drained(drain(until: deadline))) }
    case .standby: queue.run { [self] in standBy() }
    }
  }

  private func export(_ disk: DiskID) -> Export? { exports().first { $0.label?.disk == disk } }

  private func suspendAll() {
    for export in exports() { export.unit.setSuspended(true) }
  }

  /// Reads the disks again, side by side, but those that this epoch has read.
  private func recover(_ epoch: Epoch, _ disks: [DiskID], _ afterTakeover: Bool) {
    let known = state.withLock { state in
      if state.recovered.epoch != epoch {
        state.recovered = (epoch, [])
        state.problems = [:]
      }
      return state.recovered.disks
    }
    let missing = exports().filter { export in
      guard let disk = export.label?.disk else { return false }
      return disks.contains(disk) && !known.contains(disk)
    }
    let group = WorkGroup(missing.count)
    for export in missing {
      startThread(name: "recover") { [self] in
        defer { group.done() }
        guard let disk = export.label?.disk else { return }
        let problem = export.reload(afterTakeover: afterTakeover)
        if let problem { Log.error("LUN \(export.unit.number): \(export.disk.path): \(problem); it is not served") }
        state.withLock { state in
          guard state.recovered.epoch == epoch else { return }
          state.problems[disk] = problem
          if problem == nil { state.recovered.disks.insert(disk) }
        }
      }
    }
    // A disk that does not answer keeps only its own LUN waiting.
    group.wait(milliseconds: 500)
  }

  private func serve(_ epoch: Epoch, _ disks: [DiskID], _ afterTakeover: Bool) {
    recover(epoch, disks, afterTakeover)
    setPortGroups { $0.isActive = true }
    setTakesLogins()
    // Before anything is served, so that nobody misses it.
    context.registry.raiseForAll(.asymmetricAccessStateChanged)
    release(disks)
  }

  /// Lets the commands of these disks' units go on, where the disk was read again.
  private func release(_ disks: [DiskID]) {
    let recovered = state.withLock { $0.recovered.disks }
    for export in exports() {
      guard let disk = export.label?.disk, disks.contains(disk), recovered.contains(disk) else { continue }
      export.unit.setSuspended(false)
    }
    retryHeld()
  }

  private func standBy() {
    state.withLock { $0.recovered = (.none, []) }
    setPortGroups { $0.isActive = false }
    setTakesLogins()
    context.registry.raiseForAll(.asymmetricAccessStateChanged)
    for export in exports() { export.unit.setSuspended(false) }
    retryHeld()
  }

  private func retryHeld() {
    for handle in context.handles { handle.post(.perform { $0.retryHeld() }) }
  }

  /// Waits until no command is under way but those that wait.
  private func drain(until deadline: Instant) -> Bool {
    while true {
      let sum = ThreadSum(context.handles.count)
      for handle in context.handles { handle.post(.perform { sum.add($0.commandsUnderWay) }) }
      while !sum.isComplete {
        guard BootClock.now < deadline else { return false }
        usleep(200)
      }
      if sum.total == 0 { return true }
      guard BootClock.now < deadline else { return false }
      usleep(1000)
    }
  }
}

/// A number that several threads add to.
final class ThreadSum: Sendable {
  private let state: Mutex<(missing: Int, total: Int)>

  init(_ count: Int) { state = Mutex((count, 0)) }

  func add(_ value: Int) {
    state.withLock { state in
      state.missing -= 1
      state.total += value
    }
  }

  var isComplete: Bool { state.withLock { $0.missing == 0 } }
  var total: Int { state.withLock { $0.total } }
}

/// Waits for several threads, with a bound.
private final class WorkGroup: Sendable {
  private let missing: Atomic<Int>

  init(_ count: Int) { missing = Atomic(count) }

  func done() { missing.subtract(1, ordering: .releasing) }

  func wait(milliseconds: Int) {
    for _ in 0..<milliseconds * 5 where missing.load(ordering: .acquiring) > 0 { usleep(200) }
  }
}

/// The clock of the pair (`Instant`).
enum BootClock {
  static var now: Instant {
    var time = timespec()
    clock_gettime(CLOCK_BOOTTIME, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}

/// Things to do one after another on a thread that is there while there are any.
final class WorkQueue: Sendable {
  typealias Work = @Sendable () -> Void

  private let name: String
  private let waiting = Mutex<(work: [Work], isRunning: Bool)>(([], false))

  init(name: String) { self.name = name }

  func run(_ work: @escaping Work) {
    let isFirst = waiting.withLock { waiting in
      waiting.work.append(work)
      defer { waiting.isRunning = true }
      return !waiting.isRunning
    }
    guard isFirst else { return }
    startThread(name: name) { [self] in
      while let work = next() { work() }
    }
  }

  private func next() -> Work? {
    waiting.withLock { waiting in
      guard !waiting.work.isEmpty else {
        waiting.isRunning = false
        return nil
      }
      return waiting.work.removeFirst()
    }
  }
}
