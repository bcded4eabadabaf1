import PairWorld

#if canImport(Glibc)
  import Glibc
#endif

/// `./dev sim`: see its help.
@main
enum PairSimulation {
  static func main() {
    let options = Options(Array(CommandLine.arguments.dropFirst()))
    if options.triesMutations { exit(tryMutations(options) ? 0 : 1) }
    if options.takesTimes { exit(takeTimes(options) ? 0 : 1) }
    let isClean = run(options)
    // A fault that was built in must be found.
    exit(isClean == (options.mutation == .none) ? 0 : 1)
  }

  /// Whether each was found within the runs or seconds.
  static func tryMutations(_ options: Options) -> Bool {
    var options = options
    var found = 0
    let all = Mutation.allCases.filter { $0 != .none }
    for mutation in all {
      options.mutation = mutation
      if !run(options) { found += 1 }
    }
    print("mutations: \(found) passed, \(all.count - found) failed")
    return found == all.count
  }

  /// How long takeovers take, by number and speed of disks; whether all of them came to their end.
  static func takeTimes(_ options: Options) -> Bool {
    let rounds = min(options.runs, 200)
    var late = 0
    print("ms, p50 / max of \(rounds) rounds; a command takes a disk 0.1, 1 or 10 ms on average")
    for event in Timing.Event.allCases {
      for disks in [1, 3, 8] {
        for slowness: UInt64 in [1, 8, 80] {
          let timing = Timing(event: event, disks: disks, slowness: slowness)
          let found = (0..<rounds).compactMap { timing.round(seed: options.seed &+ $0) }
          late += Int(rounds) - found.count
          print(
            "\(event.rawValue), \(disks) disks, \(slowness == 1 ? "0.1" : slowness == 8 ? "1" : "10") ms: "
              + "noticed after \(shown(found.map(\.detection))), all served after \(shown(found.map(\.ready)))")
        }
      }
    }
    print("times: \(Int(rounds) * 18 - late) passed, \(late) failed")
    return late == 0
  }

  private static func shown(_ times: [UInt64]) -> String {
    let sorted = times.sorted()
    guard let last = sorted.last else { return "-" }
    return "\(sorted[sorted.count / 2] / 1_000_000) / \(last / 1_000_000)"
  }

  /// Whether all seeds were without a violation.
  static func run(_ options: Options) -> Bool {
    var events = 0, takeovers = 0, writes = 0, reads = 0, reservations = 0
    let begin = seconds()
    var done: UInt64 = 0
    for number in 0..<options.runs {
      if let limit = options.seconds, seconds() - begin >= limit { break }
      let seed = options.seed &+ number
      let world = World(seed: seed, plan: Plan(seed: seed), mutation: options.mutation)
      world.isTracing = options.traces
      let violation = world.run()
      done += 1
      events += world.statistics.events
      takeovers += world.statistics.takeovers
      writes += world.statistics.writes
      reads += world.statistics.reads
      reservations += world.statistics.reservations
      if options.traces { for line in world.trace { print(line) } }
      guard let violation else { continue }
      let rate = Double(done) / max(0.001, seconds() - begin)
      if options.mutation != .none {
        print(
          "\(options.mutation.rawValue): found with seed \(seed), after \(done) seeds, \(Int(rate)) a second: \(violation)"
        )
      }
      if options.mutation == .none || options.traces { explain(seed, violation, options) }
      if options.mutation == .none { print("simulation: \(done - 1) passed, 1 failed") }
      return false
    }
    let time = seconds() - begin
    print(
      "\(done) seeds in \(Int(time)) s (\(Int(Double(done) / max(0.001, time))) a second): \(takeovers) takeovers, "
        + "\(writes) writes, \(reads) reads, \(reservations) reservations, \(events) events")
    if options.mutation != .none {
      print("\(options.mutation.rawValue): NOT FOUND")
    } else {
      print("simulation: \(done) passed, 0 failed")
    }
    return true
  }

  /// The shortest run that still fails, step by step.
  static func explain(_ seed: UInt64, _ violation: String, _ options: Options) {
    var plan = Plan(seed: seed)
    var index = 0
    while index < plan.faultCount {
      var shorter = plan
      shorter.remove(fault: index)
      if World(seed: seed, plan: shorter, mutation: options.mutation).run() != nil {
        plan = shorter
      } else {
        index += 1
      }
    }
    let world = World(seed: seed, plan: plan, mutation: options.mutation)
    world.isTracing = true
    let found = world.run() ?? violation
    for line in world.trace.suffix(options.lines) { print(line) }
    print("FAIL seed \(seed): \(violation)")
    print("without what is not needed: \(found); with \(plan.faultCount) faults:")
    for line in plan.lines { print("  \(line)") }
    print("again: ./dev sim --seed \(seed) --runs 1")
  }

  static func seconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }
}

struct Options {
  var seed: UInt64 = 1
  var runs: UInt64 = 10_000
  var seconds: Double?
  var mutation = Mutation.none
  var traces = false
  var lines = 300
  var triesMutations = false
  var takesTimes = false

  init(_ arguments: [String]) {
    var index = 0
    while index < arguments.count {
      let name = arguments[index]
      index += 1
      switch name {
      case "--trace":
        traces = true
        continue
      case "--mutations":
        triesMutations = true
        continue
      case "--times":
        takesTimes = true
        continue
      default: break
      }
      let value = index < arguments.count ? arguments[index] : ""
      index += 1
      switch name {
      case "--seed": seed = number(value)
      case "--runs": runs = number(value)
      case "--seconds": seconds = Double(number(value))
      case "--lines": lines = Int(number(value))
      case "--mutation":
        guard let known = Mutation(rawValue: value) else {
          stop("mutations: \(Mutation.allCases.map(\.rawValue).joined(separator: " "))")
        }
        mutation = known
      default: stop("options: --seed N --runs N --seconds N --mutation NAME --trace --lines N")
      }
    }
  }

  private func number(_ text: String) -> UInt64 {
    guard let number = UInt64(text) else { stop("not a number: \(text)") }
    return number
  }

  private func stop(_ text: String) -> Never {
    print(text)
    exit(2)
  }
}
