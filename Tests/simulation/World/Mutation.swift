import HA

/// A fault built in on purpose: the simulator must find each.
public enum Mutation: String, CaseIterable, Sendable {
  case none
  /// The disks are told PREEMPT where PREEMPT AND ABORT is meant.
  case preemptWithoutAbort = "preempt-without-abort"
  /// Keys are taken back before the successor has preempted them.
  case unregisterBeforePreempt = "unregister-before-preempt"
  /// Service addresses are taken before the fence is complete.
  case addressBeforeFence = "address-before-fence"
  /// The arbiters are preempted in any order.
  case noArbiterOrder = "no-arbiter-order"
  /// PERSISTENT RESERVE OUT is answered before its table is on the disk.
  case earlyAcknowledgement = "early-acknowledgement"
  /// A disk is served without having been looked at after the fence.
  case noReadBack = "no-read-back"
  /// A node registers while its old writes are still on their way.
  case registerWithStaleWrites = "register-with-stale-writes"
  /// A node that stood still goes on as if it had not.
  case trustStalls = "trust-stalls"
  /// A takeover needs no majority.
  case noMajority = "no-majority"
  /// Another's lease is taken for over after two seconds.
  case earlyLease = "early-lease"
  /// Records say that a watchdog is armed, and there is none.
  case noWatchdog = "no-watchdog"
  /// A program that starts again sets or stops the watchdog that stands for its earlier life's writes.
  case forgetEarlierLife = "forget-earlier-life"
  /// A lease is taken without a look at whether another wants it.
  case noLeaseCheck = "no-lease-check"

  /// A node that does not know whether it is still the active is made to serve by a handover that fails.
  case serveInDoubt = "serve-in-doubt"
  /// A takeover that an operator forces leaves it to the lost disks who may be active.
  case keepArbiters = "keep-arbiters"

  var policy: EnginePolicy {
    var policy = EnginePolicy()
    switch self {
    case .none, .preemptWithoutAbort, .earlyAcknowledgement, .registerWithStaleWrites: break
    case .unregisterBeforePreempt: policy.unregistersAtHandover = true
    case .addressBeforeFence: policy.takesAddressesEarly = true
    case .noArbiterOrder: policy.ignoresArbiterOrder = true
    case .noReadBack: policy.skipsReadBack = true
    case .trustStalls: policy.trustsStalls = true
    case .noMajority: policy.needsNoMajority = true
    case .earlyLease: policy.takesLeasesEarly = true
    case .noWatchdog: policy.armsNoWatchdog = true
    case .forgetEarlierLife: policy.forgetsEarlierLife = true
    case .noLeaseCheck: policy.skipsLeaseCheck = true
    case .serveInDoubt: policy.servesInDoubt = true
    case .keepArbiters: policy.keepsArbiters = true
    }
    return policy
  }
}
