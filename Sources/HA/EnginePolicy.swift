/// Faults that the simulator builds into the engine, to see that it would find them. The product has none.
package struct EnginePolicy: Sendable {
  /// Gives its own key back when it hands over, before the successor has preempted it.
  package var unregistersAtHandover = false
  /// Takes the service addresses when it begins to take over.
  package var takesAddressesEarly = false
  /// Preempts the arbiters in any order.
  package var ignoresArbiterOrder = false
  /// Believes that what it ordered was done, and that nobody else was registered.
  package var skipsReadBack = false
  /// Does not make sure of the disks after it stood still.
  package var trustsStalls = false
  /// Decides without a majority of the arbiters.
  package var needsNoMajority = false
  /// Takes another's lease for over after two seconds.
  package var takesLeasesEarly = false
  /// Tells its records that a watchdog is armed, and has none.
  package var armsNoWatchdog = false
  /// Sets or stops a watchdog that stands for what an earlier life has under way.
  package var forgetsEarlierLife = false
  /// Hands over while it is not known whether it is still the active, and serves when that fails.
  package var servesInDoubt = false
  /// Lets the disks decide that did, though an operator says that they are gone.
  package var keepsArbiters = false
  /// Goes on with a claim without having looked at the other's.
  package var skipsLeaseCheck = false

  package init() {}
}

/// Numbers that look random and follow from a seed (SplitMix64).
struct Jitter: Sendable {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  /// 0 up to, but not, `limit`.
  mutating func next(below limit: UInt64) -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
    return (z ^ z >> 31) % limit
  }
}
