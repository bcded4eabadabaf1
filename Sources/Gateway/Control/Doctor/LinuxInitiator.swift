/// The settings of a Linux initiator (open-iscsi, dm-multipath) by which it notices a fault and waits for the gateway. The one
/// place for them: `gatewayd attach` sets them, `gatewayd doctor` shows them and counts what they mean.
public struct LinuxInitiator: Sendable, Equatable {
  /// Seconds of silence on a connection before it is pinged.
  public var noopInterval: Int
  /// Seconds that the answer may take.
  public var noopTimeout: Int
  /// Seconds that requests wait for a session to come back. With multipath `fastIOFail` counts instead.
  public var replacementTimeout: Int
  /// Seconds until a path whose session is gone gives its requests back to multipath; nil: no multipath.
  public var fastIOFail: Int?
  /// With no path at all requests wait for so many checks of the paths; five seconds each, unless told otherwise.
  public static let checksWithoutPath = 12
  static let checkSeconds = 5

  /// Two paths or more: one that is lost is given up soon, for there is another.
  public static let multipath = LinuxInitiator(
    noopInterval: 5, noopTimeout: 5, replacementTimeout: 5, fastIOFail: 5)
  /// The same, for networks that never make anybody wait for two seconds.
  public static let hasty = LinuxInitiator(noopInterval: 2, noopTimeout: 2, replacementTimeout: 2, fastIOFail: 2)
  /// One path: what waits for it must not fail.
  public static let singlePath = LinuxInitiator(
    noopInterval: 5, noopTimeout: 5, replacementTimeout: 120, fastIOFail: nil)

  /// For `iscsiadm -o update -n NAME -v VALUE`, and for iscsid.conf.
  public var nodeSettings: [(name: String, value: Int)] {
    [
      ("node.session.timeo.replacement_timeout", replacementTimeout),
      ("node.conn[0].timeo.noop_out_interval", noopInterval),
      ("node.conn[0].timeo.noop_out_timeout", noopTimeout),
    ]
  }

  /// multipath.conf(5), with the vendor and product of our INQUIRY data. `dev_loss_tmo` is not there: it is for Fibre Channel
  /// and SAS only. `fast_io_fail_tmo` sets the session's recovery_tmo.
  public var multipathDevices: [String] {
    [
      "devices {",
      "  device {",
      "    vendor \"GATEWAYD\"",
      "    product \"DISK\"",
      "    path_grouping_policy group_by_prio",
      "    prio alua",
      "    path_checker tur",
      "    hardware_handler \"1 alua\"",
      "    failback immediate",
      "    no_path_retry \(Self.checksWithoutPath)",
      "    fast_io_fail_tmo \(fastIOFail ?? replacementTimeout)",
      "  }",
      "}",
    ]
  }

  public static let dropIn = "/etc/multipath/conf.d/gatewayd.conf"
}
