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
    /// In this epoch these exports have been read again, by serial: a disk that goes and comes is another export.
    var recovered: (epoch: Epoch, exports: Set<UInt64>) = (.none, [])
    /// And these disks, whatever exports they were: their records are what this node has served since.
    var own: Set<DiskID> = []
    /// Those that could not be, when it was tried last.
    var failed: Set<UInt64> = []
    /// One at a time for each export: a second one would take back what was changed since the first.
    var reloads: [UInt64: Reload] = [:]
    /// Exports that go on as soon as they have been read, by what lets them.
    var late: [UInt64: Permit] = [:]
    /// Every port is in standby, so disks that come need not wait.
    var isStandby = false
    /// How often all was stopped, and each disk: what was begun before lets nothing go on after.
    var stops = 0
    var suspensions: [DiskID: Int] = [:]
    /// Why a disk cannot be served though it is ours.
    var problems: [DiskID: String] = [:]

    /// What was read for another epoch counts no more.
    mutating func forget(_ epoch: Epoch) {
      recovered = (epoch, [])
      (own, failed, late, problems) = ([], [], [:], [:])
    }
  }

  /// A thread reads an export again, until it has or is not to any more.
  private struct Reload {
    var epoch: Epoch
    var afterTakeover: Bool
    var permit: Permit
    /// It was asked for since the last attempt began.
    var isAsked = true
  }

  private let context: ShardContext
  private let exports: @Sendable () -> [Export]
  private let setActive: @Sendable (Bool) -> Void
  private let admitted: @Sendable (Export) -> Void
  private let reload: @Sendable (Export, Bool) -> String?
  private let queue = WorkQueue(name: "pair target")
  private let state = Mutex(State())

  /// - Parameters:
  ///   - exports: those of shared disks, as they are now.
  ///   - setActive: whether this node's ports are active or in standby; from now on it is known which they are.
  ///   - admitted: told of each disk that this node may write to from now on.
  ///   - reload: reads a disk's records again, after a takeover or not; what keeps it from being served.
  init(
    context: ShardContext, exports: @escaping @Sendable () -> [Export], setActive: @escaping @Sendable (Bool) -> Void,
    admitted: @escaping @Sendable (Export) -> Void = { _ in },
    reload: @escaping @Sendable (Export, Bool) -> String? = { $0.reload(afterTakeover: $1) }
  ) {
    self.reload = reload
    self.admitted = admitted
    self.context = context
    self.exports = exports
    self.setActive = setActive
  }

  var problems: [DiskID: String] { state.withLock { $0.problems } }

  /// - Parameters:
  ///   - afterTakeover: a node of the pair had served before, so reservations stay that do not survive a loss of power.
  ///   - report: takes what follows, on the target's thread.
  func perform(_ order: TargetOrder, afterTakeover: Bool, report: @escaping @Sendable (Event) -> Void) {
    switch order {
    // These two are in force at once: what comes after must find them so.
    case .hold: suspendAll()
    case .closeWithoutAnswer:
      suspendAll()
      for handle in context.handles { handle.post(.perform { $0.closeAll("another node has the disks") }) }
    case .suspend(let disk):
      let export = state.withLock { state in
        state.suspensions[disk, default: 0] += 1
        let export = exports().of(disk)
        if let export { Self.suspend(export) }
        return export
      }
      // Where nothing fences, data that comes now must not be written later. Before the disk is asked whether it is quiet.
      guard let export, export.fence == .lease else { return }
      for handle in context.handles { handle.post(.perform { $0.endBegun(at: export.unit) }) }
    case .recover(let epoch, let disks):
      let permit = self.permit
      queue.run { [self] in
        recover(epoch, disks, afterTakeover, permit)
        report(.recovered(epoch))
      }
    case .serve(let epoch, let disks):
      let permit = self.permit
      queue.run { [self] in serve(epoch, disks, afterTakeover, permit) }
    case .admit(let epoch, let disk):
      let permit = self.permit
      queue.run { [self] in
        recover(epoch, [disk], afterTakeover, permit)
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

  private static func isGood(_ permit: Permit, for export: Export, _ state: State) -> Bool {
    guard let disk = export.label?.disk else { return false }
    return state.stops == permit.stops && state.suspensions[disk] == permit.suspensions[disk]
  }

  private var permit: Permit { state.withLock { Permit(stops: $0.stops, suspensions: $0.suspensions) } }

  private func suspendAll() {
    state.withLock { state in
      state.stops += 1
      state.isStandby = false
      for export in exports() { Self.suspend(export) }
    }
  }

  private static func suspend(_ export: Export) {
    export.unit.setSuspended(true)
    export.setAdmitted(false)
  }

  /// Lets the commands of these exports go on, but of those that were stopped meanwhile.
  /// - Parameter admits: their disks are this node's; else another has them, and the tables of reservations.
  private func resume(_ exports: [Export], _ permit: Permit, admits: Bool) {
    // The shards know which ports are active before they are let on.
    _ = context.collect(within: 500_000_000) { _ in true }
    let new = state.withLock { state -> [Export] in
      guard state.stops == permit.stops else { return [] }
      var new: [Export] = []
      for export in exports {
        guard Self.isGood(permit, for: export, state) else { continue }
        if admits, !export.isAdmitted { new.append(export) }
        if !admits { export.unit.forgetReservations() }
        export.setAdmitted(admits)
        export.unit.setSuspended(false)
      }
      return new
    }
    for export in new { admitted(export) }
    for handle in context.handles { handle.post(.perform { $0.retryHeld() }) }
  }

  private static let patience: Instant = 500_000_000
  private static let retryMicroseconds: UInt32 = 1_000_000

  /// Has the disks read again, side by side, but those that this epoch has read, and waits for that, though not for long.
  private func recover(_ epoch: Epoch, _ disks: [DiskID], _ afterTakeover: Bool, _ permit: Permit) {
    let wanted = exports().filter { export in export.label.map { disks.contains($0.disk) } ?? false }
    let new = state.withLock { state -> [Export] in
      if state.recovered.epoch != epoch { state.forget(epoch) }
      return wanted.filter { export in
        let id = export.serial
        guard !state.recovered.exports.contains(id) else { return false }
        state.failed.remove(id)
        let isUnderWay = state.reloads[id] != nil
        // In one epoch nobody else serves a disk: one that comes again has lost nothing, whatever came before the epoch.
        let isOwn = export.label.map { state.own.contains($0.disk) } ?? false
        state.reloads[id] = Reload(epoch: epoch, afterTakeover: afterTakeover || isOwn, permit: permit)
        return !isUnderWay
      }
    }
    for export in new { startThread(name: "recover") { [self] in read(export) } }
    // A disk that does not answer keeps only its own LUN waiting.
    let ids = wanted.map(\.serial)
    let deadline = BootClock.now + Self.patience
    while BootClock.now < deadline {
      let isDone = state.withLock { state in
        ids.allSatisfy {
          state.recovered.exports.contains($0) || state.failed.contains($0) || state.reloads[$0] == nil
        }
      }
      if isDone { return }
      usleep(200)
    }
  }

  /// Reads a disk again until that is done, each second while it cannot be, and lets its unit go on if that waited for it.
  private func read(_ export: Export) {
    while let reload = begin(export) {
      let problem = self.reload(export, reload.afterTakeover)
      export.setReloading(false)
      let (late, isNew) = end(export, reload, problem)
      if let problem, isNew {
        Log.error("LUN \(export.unit.number): \(export.disk.path): \(problem); it is not served")
      }
      if let late { resume([export], late, admits: true) }
      guard problem != nil else { continue }
      for _ in 0..<50 where state.withLock({ $0.reloads[export.serial]?.isAsked == false }) {
        usleep(Self.retryMicroseconds / 50)
      }
    }
  }

  /// The next attempt; nil: there is none to make. Not at a disk that was given up meanwhile: an attempt may write.
  private func begin(_ export: Export) -> Reload? {
    let isThere = exports().contains { $0 === export }
    let id = export.serial
    return state.withLock { state in
      guard isThere, let reload = state.reloads[id], reload.epoch == state.recovered.epoch,
        !state.recovered.exports.contains(id), Self.isGood(reload.permit, for: export, state)
      else {
        state.reloads[id] = nil
        return nil
      }
      state.reloads[id]?.isAsked = false
      // In force before the disk can be given up: what this writes counts as under way.
      export.setReloading(true)
      return reload
    }
  }

  /// What lets the unit go on, if it waited for this; and whether the problem is new.
  private func end(_ export: Export, _ reload: Reload, _ problem: String?) -> (late: Permit?, isNew: Bool) {
    let id = export.serial
    return state.withLock { state in
      guard state.recovered.epoch == reload.epoch, let disk = export.label?.disk else {
        // It was read in vain, and in standby nothing must be judged by what came of it.
        if state.isStandby { export.unit.forgetReservations() }
        return (nil, false)
      }
      let isNew = problem != nil && state.problems[disk] != problem
      state.problems[disk] = problem
      guard problem == nil else {
        state.failed.insert(id)
        return (nil, isNew)
      }
      state.recovered.exports.insert(id)
      state.own.insert(disk)
      return (state.late.removeValue(forKey: id), false)
    }
  }

  private func serve(_ epoch: Epoch, _ disks: [DiskID], _ afterTakeover: Bool, _ permit: Permit) {
    recover(epoch, disks, afterTakeover, permit)
    guard self.permit.stops == permit.stops else { return }
    // The initiators are told by it before anything is served.
    setActive(true)
    release(disks, permit)
  }

  /// Lets the commands of these disks' units go on: now where the disk was read again, else as soon as it was.
  private func release(_ disks: [DiskID], _ permit: Permit) {
    let wanted = exports().filter { export in export.label.map { disks.contains($0.disk) } ?? false }
    let ready = state.withLock { state in
      wanted.filter { export in
        let id = export.serial
        if state.recovered.exports.contains(id) { return true }
        state.late[id] = permit
        if let disk = export.label?.disk, Self.isGood(permit, for: export, state), state.problems[disk] == nil {
          state.problems[disk] = Self.stillReading
        }
        return false
      }
    }
    resume(ready, permit, admits: true)
  }

  private static let stillReading = "its label and reservations are still being read"

  private func standBy(_ permit: Permit) {
    let isInForce = state.withLock { state in
      state.forget(.none)
      state.isStandby = state.stops == permit.stops
      return state.isStandby
    }
    guard isInForce else { return }
    setActive(false)
    resume(exports(), permit, admits: false)
  }

  /// Disks have come: in standby they are answered for like the others.
  func exportsChanged() {
    queue.run { [self] in
      let permit = self.permit
      if state.withLock({ $0.isStandby }) { resume(exports(), permit, admits: false) }
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
