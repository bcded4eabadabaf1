import HA
import TestSupport

/// What happens in a run beside the nodes' own doings: made from a seed, and a list, so that one can be left out to see
/// whether the run still fails.
public struct Plan: Sendable {
  public struct Fault: Sendable, CustomStringConvertible {
    var at: UInt64
    var duration: UInt64
    var kind: Kind
    public var description: String { "\(at / 1_000_000) ms: \(kind) for \(duration / 1_000_000) ms" }
  }

  enum Kind: Sendable {
    /// The machine goes, and comes back.
    case crash(Int)
    /// The program goes, and is started again.
    case kill(Int)
    case pause(Int)
    /// At the node's next actions: before the one with this number.
    case pauseAt(Int, action: Int)
    case crashAt(Int, action: Int)
    /// Both machines and all disks.
    case blackout
    case cut(link: Int, from: Int?)
    case lossy(percent: Int)
    case delays(UInt64)
    case slow(disk: Int, factor: UInt64)
    case path(disk: Int, node: Int, isNoticed: Bool)
    case power(disk: Int)
    case loseStatus(percent: Int)
    /// Commands that the disks have taken are done late.
    case late(percent: Int)
    /// Commands wait in the node's kernel, for longer than the other waits for a lease.
    case stuck(percent: Int, disk: Int? = nil)
    case switchover(Int)
    case shutdown(Int)
    case unreachable(Int)
    /// The first node loses the paths to these disks, the second to the others, and they do not hear each other.
    case partition(disks: Int)
    /// These disks go, and the node other than this one: an operator has this one serve with the disks that are left, and
    /// keeps the other off until the disks are there again. They go without power, or their paths die.
    case force(Int, lost: Int, areOff: Bool, isNoticed: Bool)
    /// Another node starts, which the labels have no room for or do not know.
    case third
    /// Somebody sends again what was sent before, and what another key signed.
    case replay
  }

  var diskCount = 1
  var linkCount = 2
  var survivesPowerLoss = true
  /// These cannot fence.
  var leaseDisks: Set<Int> = []
  var hasWatchdog = true
  /// Nodes in the labels at the start.
  var labelled = 2
  /// Which nodes start, and when.
  var starts: [(node: Int, at: UInt64)] = []
  var seedsAreEqual = false
  var drift: [Double] = [1, 1, 1]
  var faults: [Fault] = []
  var end: UInt64 = 0

  static let ms: UInt64 = 1_000_000

  public var faultCount: Int { faults.count }
  public var lines: [String] { faults.map(\.description) }

  public mutating func remove(fault index: Int) { faults.remove(at: index) }

  init() {}

  /// Faults that matter together, and would seldom meet.
  private mutating func addScene(_ random: inout SplitMix) {
    let node = Int.random(in: 0...1, using: &random)
    let at = random.time(3600...6000)
    let leaves: [Kind] = [.crash(node), .kill(node), .pause(node), .shutdown(node)]
    let away = Fault(at: at, duration: random.time(900...3500), kind: leaves.randomElement(using: &random)!)
    switch Int.random(in: 0..<5, using: &random) {
    case 0:
      // The active goes while its commands are on their way.
      faults += [Fault(at: at - 400 * Self.ms, duration: random.time(400...600), kind: .late(percent: 60)), away]
    case 1:
      // A node alone is started again at once.
      (labelled, starts) = (Int.random(in: 0...1, using: &random), [(0, 0)])
      faults = [
        Fault(at: at - 700 * Self.ms, duration: 690 * Self.ms, kind: .loseStatus(percent: 60)),
        Fault(at: at, duration: random.time(5...100), kind: .kill(0)),
      ]
    case 2:
      let disk = Int.random(in: 0..<diskCount, using: &random)
      let factor = UInt64(Int.random(in: 500...4000, using: &random))
      faults += [
        Fault(at: at - 300 * Self.ms, duration: random.time(400...1500), kind: .slow(disk: disk, factor: factor)), away,
      ]
    case 3:
      // Two that do the same thing at the same time.
      (labelled, seedsAreEqual, diskCount, faults) = (0, true, 3, [])
      starts = [(0, 0), (1, random.time(0...1) / 2)]
    default:
      faults = [Fault(at: at, duration: random.time(700...3000), kind: .pause(node))]
    }
  }

  public init(seed: UInt64) {
    var random = SplitMix(seed: seed)
    diskCount = [1, 1, 2, 3, 3, 3, 4, 8].randomElement(using: &random)!
    linkCount = random.chance(30) ? 1 : 2
    survivesPowerLoss = random.chance(70)
    labelled = [0, 1, 2, 2, 2].randomElement(using: &random)!
    seedsAreEqual = random.chance(25)
    drift = (0..<3).map { _ in 1 + Double(Int.random(in: -200...200, using: &random)) / 1_000_000 }
    starts = [(0, 0)]
    switch Int.random(in: 0..<10, using: &random) {
    case 0..<5: starts.append((1, seedsAreEqual ? 0 : random.time(0...3000)))
    case 5..<8: starts.append((1, random.time(0...300)))
    case 8: starts = [(1, 0), (0, random.time(0...3500))]
    default: break
    }
    if seedsAreEqual, random.chance(50) { labelled = 0 }
    let count = [0, 1, 2, 2, 3, 3, 4, 6].randomElement(using: &random)!
    // Faults that come alone are borne; those that meet are the ones to fear.
    let moment = random.time(0...5000)
    for _ in 0..<count {
      let at = random.chance(65) ? moment + random.time(0...700) : random.time(100...5500)
      faults.append(Fault(at: at, duration: 0, kind: .replay).drawn(&random, diskCount, linkCount))
    }
    if labelled > 0, random.chance(8) {
      let at = random.chance(40) ? 0 : moment
      faults.append(
        Fault(
          at: at, duration: random.time(4000...7000),
          kind: .partition(disks: Int.random(in: 0..<(1 << diskCount), using: &random))))
    }
    if random.chance(35) { addScene(&random) }
    faults.sort { $0.at < $1.at }
    if seed % 3 == 0 { addLeases(seed) }
    if seed % 5 == 1 { addLostPath(seed) }
    if seed % 7 == 2 { addForce(seed) } else if seed % 13 == 6 { addDoubt(seed) }
    end = (faults.map { $0.at + $0.duration }.max() ?? 3500 * Self.ms) + 200 * Self.ms
  }

  /// The way of one node to one disk dies for so long that the node is the wrong one to serve it, and may come back as the
  /// disks change hands.
  private mutating func addLostPath(_ seed: UInt64) {
    var random = SplitMix(seed: seed ^ 0x9A7_4000_0000_0000)
    let kind = Plan.Kind.path(
      disk: Int.random(in: 0..<diskCount, using: &random), node: Int.random(in: 0...1, using: &random), isNoticed: false
    )
    faults.append(Fault(at: random.time(3300...5000), duration: random.time(4500...9000), kind: kind))
    faults.sort { $0.at < $1.at }
  }

  /// Disks are lost, often those that decide, and a node with them; an operator forces the other. Nothing else that would break
  /// what the operator promises.
  private mutating func addForce(_ seed: UInt64) {
    var random = SplitMix(seed: seed ^ 0xF0C3_0000_0000_0000)
    if diskCount == 1 {
      diskCount = Int.random(in: 2...3, using: &random)
      if !leaseDisks.isEmpty { leaseDisks = Set(0..<diskCount) }
    }
    labelled = random.chance(80) ? 2 : labelled
    let node = Int.random(in: 0...1, using: &random)
    if !starts.contains(where: { $0.node == node }) { starts.append((node, random.time(0...3000))) }
    // One is left, at least, and it is a higher one most often.
    let some = Int.random(in: 1..<(1 << diskCount) - 1, using: &random)
    let lost = random.chance(60) ? (1 << Int.random(in: 1..<diskCount, using: &random)) - 1 : some
    let at = random.time(3600...6000)
    let length = leaseDisks.isEmpty ? random.time(14_000...18_000) : random.time(42_000...48_000)
    let kind = Kind.force(node, lost: lost, areOff: random.chance(50), isNoticed: random.chance(60))
    faults = [Fault(at: at, duration: length, kind: kind)]
    if random.chance(30) { faults.append(Fault(at: at, duration: random.time(100...900), kind: .kill(node))) }
    let early = at + random.time(0...4000)
    var mild: [Kind] = [.late(percent: 40), .loseStatus(percent: 30), .pause(node), .lossy(percent: 50)]
    // For longer than the rest takes where disks can fence.
    if !leaseDisks.isEmpty { mild.append(.stuck(percent: 30)) }
    if random.chance(50) {
      faults.append(Fault(at: early, duration: random.time(100...1500), kind: mild.randomElement(using: &random)!))
    }
    // What is written down must do for a start with these disks.
    let late = at + length - (leaseDisks.isEmpty ? 7000 : 24_000) * Self.ms
    if random.chance(40) { faults.append(Fault(at: late, duration: random.time(50...500), kind: .kill(node))) }
    faults.sort { $0.at < $1.at }
  }

  /// The active is heard no more, and its way to the disk that decides hangs, for so long that it does not know whether it is
  /// still the active, and no longer: it is asked to hand over meanwhile, and cannot. Then it is heard no more for longer.
  private mutating func addDoubt(_ seed: UInt64) {
    var random = SplitMix(seed: seed ^ 0xD0B7_0000_0000_0000)
    let node = Int.random(in: 0...1, using: &random)
    let at = random.time(4000...6000)
    let back = at + random.time(500...600)
    faults = [
      Fault(
        at: at - random.time(0...300), duration: random.time(4000...7000),
        kind: .path(disk: 0, node: node, isNoticed: false)),
      Fault(at: at, duration: back - at, kind: .cut(link: linkCount, from: nil)),
      Fault(at: back + random.time(10...150), duration: 0, kind: .switchover(Int.random(in: 0...1, using: &random))),
      Fault(
        at: back + random.time(200...600), duration: random.time(1500...4000), kind: .cut(link: linkCount, from: nil)),
    ]
    if diskCount > 1, random.chance(50) {
      let disk = Int.random(in: 1..<diskCount, using: &random)
      faults.append(
        Fault(
          at: at - random.time(0...400), duration: random.time(100...700),
          kind: .path(disk: disk, node: node, isNoticed: false)))
    }
    faults.sort { $0.at < $1.at }
  }

  /// Numbers of their own, so that other seeds' plans do not change.
  private mutating func addLeases(_ seed: UInt64) {
    var random = SplitMix(seed: seed ^ 0x1EA5_E000_0000_0000)
    let areAll = random.chance(60)
    leaseDisks = Set((0..<diskCount).filter { _ in areAll || random.chance(50) })
    hasWatchdog = random.chance(85)
    switch Int.random(in: 0..<10, using: &random) {
    case 0..<2: addDuel(&random)
    case 2..<6: addStop(&random)
    case 6..<8: addHang(&random)
    default: addRestart(&random)
    }
    faults.sort { $0.at < $1.at }
  }

  /// The active stops in the midst of its writes, which its kernel or the disk still has.
  private mutating func addStop(_ random: inout SplitMix) {
    let node = Int.random(in: 0...1, using: &random)
    let at = random.time(3600...6000)
    let leaves: [Kind] = [.crash(node), .crash(node), .kill(node), .pause(node), .pause(node)]
    faults.append(
      Fault(at: at, duration: random.time(1000...16_000), kind: leaves.randomElement(using: &random)!))
    let hold: [Kind] = [.late(percent: 60), .stuck(percent: 80)]
    faults.append(
      Fault(at: at - 600 * Self.ms, duration: random.time(600...900), kind: hold.randomElement(using: &random)!))
  }

  /// The active's program ends in the midst of writes to the disk that decides, and is started again before its watchdog resets the
  /// machine.
  private mutating func addRestart(_ random: inout SplitMix) {
    let node = Int.random(in: 0...1, using: &random)
    let at = random.time(3600...6000)
    let stuck = Kind.stuck(percent: Int.random(in: 60...100, using: &random), disk: 0)
    (diskCount, labelled, leaseDisks) = (2, 2, [0, 1])
    starts = [(node, 0), (1 - node, random.time(0...1000))]
    faults = [
      Fault(at: at - 900 * Self.ms, duration: random.time(900...1000), kind: stuck),
      Fault(at: at, duration: random.time(30...2500), kind: .kill(node)),
    ]
  }

  /// The active is not heard any more, and nothing that it writes comes to the disk, or comes back, for some time.
  private mutating func addHang(_ random: inout SplitMix) {
    let at = random.time(3600...6000)
    faults += [
      Fault(at: at, duration: random.time(6000...9000), kind: .cut(link: linkCount, from: nil)),
      Fault(at: at, duration: random.time(500...6000), kind: .stuck(percent: Int.random(in: 70...100, using: &random))),
    ]
  }

  /// Two that do not hear each other want the same slow disk.
  private mutating func addDuel(_ random: inout SplitMix) {
    (diskCount, labelled, leaseDisks) = (1, 2, [0])
    starts = [(0, random.time(0...300)), (1, 0)]
    faults = [
      Fault(at: 0, duration: random.time(4500...7000), kind: .cut(link: linkCount, from: nil)),
      Fault(
        at: 2500 * Self.ms, duration: random.time(1000...2500),
        kind: .slow(disk: 0, factor: UInt64(Int.random(in: 500...5000, using: &random)))),
    ]
  }
}

extension Plan.Fault {
  /// One at the same time, of any kind.
  fileprivate func drawn(_ random: inout SplitMix, _ disks: Int, _ links: Int) -> Plan.Fault {
    let node = Int.random(in: 0...1, using: &random)
    let disk = Int.random(in: 0..<disks, using: &random)
    let short = random.time(1...1500)
    let long = random.time(200...4000)
    let action = Int.random(in: 0..<60, using: &random)
    switch Int.random(in: 0..<26, using: &random) {
    case 0, 1: return with(.crash(node), random.time(1000...5000))
    case 2, 3: return with(.kill(node), random.time(30...1500))
    case 4, 5:
      return with(.pause(node), random.chance(4) ? random.time(10_000...60_000) : random.chance(50) ? short : long)
    case 6, 7: return with(.pauseAt(node, action: action), long)
    case 8, 9: return with(.crashAt(node, action: action), long)
    case 10: return with(.blackout, random.time(500...3000))
    case 11, 12: return with(.cut(link: random.chance(50) ? links : 0, from: random.chance(50) ? nil : node), long)
    case 13: return with(.lossy(percent: Int.random(in: 10...90, using: &random)), long)
    case 14: return with(.delays(random.time(10...400)), long)
    case 15: return with(.slow(disk: disk, factor: [10, 100, 1000, 6000].randomElement(using: &random)!), long)
    case 16, 17: return with(.path(disk: disk, node: node, isNoticed: random.chance(60)), long)
    case 18: return with(.power(disk: disk), random.time(50...3000))
    case 19: return with(.late(percent: Int.random(in: 5...70, using: &random)), long)
    case 20: return with(.loseStatus(percent: Int.random(in: 5...70, using: &random)), long)
    case 21, 22: return with(.switchover(node), 500_000_000)
    case 23: return with(.shutdown(node), random.time(500...3000))
    case 24: return with(.unreachable(node), random.time(500...3000))
    default: return with(random.chance(50) ? .third : .replay, long)
    }
  }

  private func with(_ kind: Plan.Kind, _ duration: UInt64) -> Plan.Fault {
    Plan.Fault(at: at, duration: duration, kind: kind)
  }
}

extension SplitMix {
  /// A time in this range of milliseconds, to the microsecond, in nanoseconds.
  mutating func time(_ milliseconds: ClosedRange<Int>) -> UInt64 {
    let low = milliseconds.lowerBound * 1000
    let high = max(milliseconds.upperBound * 1000, low + 1)
    return UInt64(Int.random(in: low...high, using: &self)) * 1000
  }
}
