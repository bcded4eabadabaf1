/// All times of the pair, in nanoseconds.
public enum PairTimers {
  private static let ms: UInt64 = 1_000_000

  /// Between two beats, on every link.
  public static let beat = 50 * ms
  /// Between two beats that the active writes to the arbiters; the write is also its poll, for a conflict ends it.
  public static let diskBeat = 200 * ms
  /// Between two looks of the active at each of its disks: foreign and left-over keys, lost registrations.
  public static let audit = 1_000 * ms
  /// The same where nobody else may take the disk: it cannot fence, and its label names this node only.
  public static let auditAlone = 5_000 * ms
  /// Between two looks of the passive at the arbiters, while it hears the active.
  public static let watch = 1_000 * ms
  /// The same, when the active is not heard.
  public static let watchClosely = 100 * ms

  /// Between two looks of the passive at a disk that does not decide.
  public static let watchOthers = 2_000 * ms

  /// Without a beat for this long, the passive watches the arbiters closely.
  public static let uneasy = 150 * ms
  /// Without a beat for this long, the active is suspected.
  public static let suspicion = 300 * ms
  /// Without a beat on any link and on the disks for this long, the active is gone. Rises under jitter up to `silenceMax`.
  public static let silence = 600 * ms
  public static let silenceMax = 3_000 * ms
  /// The limit is this many times the longest gap between two beats lately.
  public static let gapFactor: UInt64 = 4
  /// What "lately" means: the longest gap is halved at each.
  public static let gapWindow = 10_000 * ms
  /// A node that was not run for this long itself does not count the silence before.
  public static let stall = 250 * ms
  /// An active that for this long had no sign that it still is one (a passive that hears it, or a majority of the arbiters
  /// that takes its beats) answers nothing until it has one. Shorter than `silence`: it has stopped before another begins.
  public static let lease = 500 * ms
  /// The same while no other node is known. Shorter than `observe`.
  public static let leaseAlone = 2_500 * ms

  /// At the start: how long a node listens before it takes anything.
  public static let observe = 3_000 * ms
  /// With no active, a node waits for `jitter` at most, and in the second slot for `bias` more.
  public static let bias = 300 * ms
  public static let jitter = 200 * ms
  /// Whoever lost a race, or had no majority, waits this long, and for up to as long again.
  public static let backoff = 300 * ms
  /// Whoever released the disks leaves them to the other for this long.
  public static let releaseGrace = 2_000 * ms

  /// Between two records of a lease, at a disk that cannot fence.
  public static let leaseRenewal = 500 * ms
  /// A lease that was not renewed for this long is over for who has it.
  public static let leaseLimit = 3_000 * ms
  /// The watchdog resets a machine that did not keep it alive for this long.
  public static let watchdog = 3_000 * ms
  /// Between two signs to the watchdog.
  public static let keepAlive = 500 * ms
  /// A lease that stood still for this long is over for the other node: `leaseLimit`, `watchdog`, that once more if the program
  /// ends just before (the kernel keeps it alive then), and a second for clocks and for what a disk had accepted.
  public static let leaseExpiry = 10_000 * ms
  /// Two that enter themselves into a label, whose writes nothing orders: who is there after this long was the last.
  public static let naming = 1_500 * ms
  /// What an operator forces is done within this time, or not.
  public static let force = 30_000 * ms

  /// For each disk in a takeover.
  public static let diskLimit = 500 * ms
  /// A takeover waits this long for disks beyond the arbiters' majority to tell their keys.
  public static let surveyGrace = 200 * ms
  /// Between two attempts at a disk that failed.
  public static let retry = 1_000 * ms
  /// A successor of a node that may be alive serves only when its predecessor has said that it stopped, or this long after
  /// the fence: by then its poll has told it.
  public static let predecessor = 500 * ms

  /// For what is under way at a planned switchover.
  public static let drain = 100 * ms
  /// The oldest command of the active is older, or a disk has not answered a node for this long: the way to it hangs.
  public static let hungIO = 5_000 * ms
  /// How long the active is unreachable, or lacks a disk that the other has, before that counts.
  public static let impaired = 1_000 * ms
  /// For a set of arbiters that is no longer the right one.
  public static let arbiterChange = 2_000 * ms

  /// `takeoversMax` within this time, and there are none any more but for a silent active.
  public static let takeoverWindow = 600_000 * ms
  public static let takeoversMax = 3
}
