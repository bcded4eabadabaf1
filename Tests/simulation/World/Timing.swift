import HA
import TestSupport

/// How long the engine takes where nothing but the disks' answers, its own timers and one fault decide it: what emulated
/// machines, which are several times too slow, cannot tell.
public struct Timing: Sendable {
  public enum Event: String, CaseIterable, Sendable {
    case crash = "the active loses power"
    case switchover = "planned switchover"
  }

  public struct Round: Sendable {
    /// Nanoseconds from the event until the other node begins to take over.
    public let detection: UInt64
    /// And until it serves every disk.
    public let ready: UInt64
  }

  public let event: Event
  public let disks: Int
  /// A command takes 0.03 to 0.23 ms times this at the disk.
  public let slowness: UInt64

  public init(event: Event, disks: Int, slowness: UInt64) {
    self.event = event
    self.disks = disks
    self.slowness = slowness
  }

  /// nil: the other node did not serve every disk, or an invariant was violated.
  public func round(seed: UInt64) -> Round? {
    var random = SplitMix(seed: seed)
    var plan = Plan()
    plan.diskCount = disks
    plan.starts = [(0, 0), (1, 40 * Plan.ms)]
    let at = random.time(5000...6000)
    let kind: Plan.Kind = event == .crash ? .crash(0) : .switchover(0)
    plan.faults = [Plan.Fault(at: at, duration: 5000 * Plan.ms, kind: kind)]
    plan.end = at + 5000 * Plan.ms
    let world = World(seed: seed, plan: plan)
    for disk in world.disks { disk.slowness = slowness }
    guard world.run() == nil, let begun = world.takeoversBegunAt.first(where: { $0 >= at }) else { return nil }
    // What comes later is the end of the run, in which a node may go once more.
    let served = (0..<disks).compactMap { disk in world.servedFirst.first { $0.disk == disk && $0.at >= at }?.at }
    guard served.count == disks, let last = served.max() else { return nil }
    return Round(detection: begun - at, ready: last - at)
  }
}
