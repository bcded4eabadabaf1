/// What the control socket and the signals may ask of a running gateway. Answers are snapshots; none of these waits for
/// a disk or a peer longer than a second or two.
public protocol GatewayControl: Sendable {
  func status() -> StatusReport
  /// Every disk seen, exported or not.
  func disks() -> [DiskReport]
  /// Every RDMA NIC seen, usable or not.
  func nics() -> [NICReport]
  func sessions() -> [SessionReport]
  /// The first two of these with what else is counted, all of one moment.
  func look() -> (StatusReport, [SessionReport], Observations)
  /// What became of the connections of a session, open or not; of 0: of those that had none.
  func traces(session: UInt16) -> [TraceReport]
  /// Ends a session; its initiator may log in again.
  func endSession(_ session: UInt16) throws(ControlError) -> EndReport
  /// Takes a held disk.
  /// - Parameter path: As the user gave it: an absolute path to a device node, or to a link to one.
  func adopt(path: String, mode: AdoptMode) throws(ControlError) -> AdoptReport
  /// The pair, as this node sees it.
  func pair() -> PairReport
  /// What an operator asks of the pair; returns when it is done.
  func operate(_ operation: PairOperation) throws(ControlError) -> PairReport
  /// Replaces the settings of the running gateway. They were checked. Keys of `Settings.keysNeedingRestart` are left as
  /// they were.
  /// - Throws: When they cannot take effect; then the old ones stay, all of them.
  func reload(_ settings: Settings) throws(ControlError)
}
