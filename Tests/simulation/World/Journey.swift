import HA

/// A few runs that are written down: docs/HA.md speaks of them, and Tests/HATests compares them word by word.
public enum Journey: String, CaseIterable, Sendable {
  case bootAlone = "boot-alone"
  case bothBoot = "both-boot"
  case crashTakeover = "crash-takeover"
  case switchover
  case cutLinks = "cut-links"
  case raceLost = "race-lost"
  case conflictWhileActive = "conflict-while-active"
  case secondNodeJoins = "second-node-joins"
  case pathLost = "path-lost"

  public var plan: Plan {
    let ms = Plan.ms
    var plan = Plan()
    plan.diskCount = 3
    plan.starts = [(0, 0), (1, 40 * ms)]
    plan.end = 7000 * ms
    switch self {
    case .bootAlone:
      plan.labelled = 0
      plan.starts = [(0, 0)]
    case .bothBoot: break
    case .crashTakeover:
      plan.faults = [Plan.Fault(at: 4000 * ms, duration: 2500 * ms, kind: .crash(0))]
    case .switchover:
      plan.faults = [Plan.Fault(at: 4000 * ms, duration: 0, kind: .switchover(0))]
    case .cutLinks:
      plan.faults = [Plan.Fault(at: 4000 * ms, duration: 2000 * ms, kind: .cut(link: 2, from: nil))]
    case .raceLost:
      plan.labelled = 0
      plan.seedsAreEqual = true
      plan.starts = [(0, 0), (1, 0)]
    case .conflictWhileActive:
      // The active stands still for so long that the other takes over, and goes on.
      plan.faults = [Plan.Fault(at: 4000 * ms, duration: 1500 * ms, kind: .pause(0))]
    case .pathLost:
      // The active's way to a disk that does not decide dies, and its kernel says nothing.
      plan.diskCount = 2
      plan.faults = [Plan.Fault(at: 4000 * ms, duration: 9000 * ms, kind: .path(disk: 1, node: 0, isNoticed: false))]
      plan.end = 14_000 * ms
    case .secondNodeJoins:
      plan.labelled = 1
      plan.starts = [(0, 0), (1, 2000 * ms)]
    }
    return plan
  }

  /// What happened, line by line; initiators are quiet, so that only the nodes' doings are told.
  public func transcript() -> [String] {
    let world = World(seed: 1, plan: plan)
    world.isTracing = true
    world.isQuiet = true
    let violation = world.run()
    return world.trace + (violation.map { ["VIOLATION: \($0)"] } ?? [])
  }
}
