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

/// Why a request over the control socket came to nothing.
public struct ControlError: Error, Codable, Sendable, Equatable, CustomStringConvertible {
  /// What kind of failure; part of the contract with scripts.
  public enum Code: String, Codable, Sendable {
    /// No daemon answers at the socket.
    case noDaemon
    /// The caller may read but not change.
    case notPermitted
    /// The request was not understood: another version, unknown, too long.
    case badRequest
    /// The disk does not exist or is not one that the daemon sees.
    case noSuchDisk
    /// The disk or the setting cannot be changed as asked.
    case refused
    /// The daemon answers as many as it can; try again.
    case busy
    /// No answer in time.
    case timedOut
    /// Anything else that went wrong inside.
    case failed
  }

  public var code: Code
  /// A sentence for a person.
  public var message: String

  public init(_ code: Code, _ message: String) {
    self.code = code
    self.message = message
  }

  public var description: String { message }
}
