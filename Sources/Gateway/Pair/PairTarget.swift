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
    /// In this epoch these exports have been read again: a disk that goes and comes is another export.
    var recovered: (epoch: Epoch, exports: Set<ObjectIdentifier>) = (.none, [])
    /// Every port is in standby, so disks that come need not wait.
    var isStandby = false
    /// How often all was stopped, and each disk: what was begun before lets nothing go on after.
    var stops = 0
    var suspensions: [DiskID: Int] = [:]
    /// Why a disk cannot be served though it is ours.
    var problems: [DiskID: String] = [:]
  }

  private let context: ShardContext
  private let exports: @Sendable () -> [Export]
  private let setActive: @Sendable (Bool) -> Void
  private let queue = WorkQueue(name: "pair target")
  private let state = Mutex(State())

  /// - Parameters:
  ///   - exports: those of shared disks, as they are now.
  ///   - setActive: whether this node's ports are active or in standby; from now on it is known which they are.
  init(
    context: ShardContext, exports: @escaping @Sendable () -> [Export], setActive: @escaping @Sendable (Bool) -> Void
  ) {
    self.context = context
    self.exports = exports
    self.setActive = setActive
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
    case .suspend(let disk):
      state.withLock { state in
        state.suspensions[disk, default: 0] += 1
        exports().of(disk)?.unit.setSuspended(true)
      }
    case .recover(let epoch, let disks):
      queue.run { [self] in
        recover(epoch, disks, afterTakeover)
        report(.recovered(epoch))
      }
    case .serve(let epoch, let disks):
      let permit = self.permit
      queue.run { [self] in serve(epoch, disks, afterTakeover, permit) }
    case .admit(let epoch, let disk):
      let permit = self.permit
      queue.run { [self] in
        recover(epoch, [disk], afterTakeover)
        release([disk], permit)
      }
    case .drain(let deadline):
      suspendAll()
      queue.run { [self] in report(.drained(drain(until: deadline))) }
    case .standby:
      let permit = self.permit
      queue.run { [self] in standBy(permit) }
    }
  }

  /// What lets an order go on that waits in the queue: it was given after the last stop.
  private struct Permit: Sendable {
    var stops: Int
    var suspensions: [DiskID: Int]
  }

  private var permit: Permit { state.withLock { Permit(stops: $0.stops, suspensions: $0.suspensions) } }

  private func suspendAll() {
    state.withLock { state in
      state.stops += 1
      state.isStandby = false
      for export in exports() { export.unit.setSuspended(true) }
    }
  }

  /// Lets the commands of these exports go on, but of those that were stopped meanwhile.
  private func resume(_ exports: [Export], _ permit: Permit) {
    // The shards know which ports are active before they are let on.
    _ = context.collect(within: 500_000_000) { _ in true }
    state.withLock { state in
      guard state.stops == permit.stops else { return }
      for export in exports {
        guard let disk = export.label?.disk, state.suspensions[disk] == permit.suspensions[disk] else { continue }
        export.unit.setSuspended(false)
      }
    }
    for handle in context.handles { handle.post(.perform { $0.retryHeld() }) }
  }

  /// Reads the disks again, side by side, but those that this epoch has read.
  private func recover(_ epoch: Epoch, _ disks: [DiskID], _ afterTakeover: Bool) {
    let known = state.withLock { state in
      if state.recovered.epoch != epoch {
        state.recovered = (epoch, [])
        state.problems = [:]
      }
      return state.recovered.exports
    }
    let missing = exports().filter { export in
      guard let disk = export.label?.disk else { return false }
      return disks.contains(disk) && !known.contains(ObjectIdentifier(export))
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
          if problem == nil { state.recovered.exports.insert(ObjectIdentifier(export)) }
        }
      }
    }
    // A disk that does not answer keeps only its own LUN waiting.
    group.wait(milliseconds: 500)
  }

  private func serve(_ epoch: Epoch, _ disks: [DiskID], _ afterTakeover: Bool, _ permit: Permit) {
    recover(epoch, disks, afterTakeover)
    guard self.permit.stops == permit.stops else { return }
    // The initiators are told by it before anything is served.
    setActive(true)
    release(disks, permit)
  }

  /// Lets the commands of these disks' units go on, where the disk was read again.
  private func release(_ disks: [DiskID], _ permit: Permit) {
    let recovered = state.withLock { $0.recovered.exports }
    let ready = exports().filter { export in
      guard let disk = export.label?.disk else { return false }
      return disks.contains(disk) && recovered.contains(ObjectIdentifier(export))
    }
    resume(ready, permit)
  }

  private func standBy(_ permit: Permit) {
    let isInForce = state.withLock { state in
      state.recovered = (.none, [])
      state.isStandby = state.stops == permit.stops
      return state.isStandby
    }
    guard isInForce else { return }
    setActive(false)
    resume(exports(), permit)
  }

  /// Disks have come: in standby they are answered for like the others.
  func exportsChanged() {
    queue.run { [self] in
      let permit = self.permit
      if state.withLock({ $0.isStandby }) { resume(exports(), permit) }
    }
  }

  /// Waits until no command is under way but those that wait.
  private func drain(until deadline: Instant) -> Bool {
    while true {
      let now = BootClock.now
      guard now < deadline, let count = context.sum(within: deadline - now, { $0.commandsUnderWay }) else {
        return false
      }
      if count == 0, !exports().contains(where: \.isWritingRecord) { return true }
      usleep(1000)
    }
  }
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
