import Wire

/// The command window of a session with one connection (RFC 7143 §4.2.2.1): which CmdSN may come, and how many more the
/// initiator may send. The window is the back-pressure: it closes while commands are unanswered.
///
/// Invariant: MaxCmdSN = ExpCmdSN - 1 + depth - outstanding, so it never goes back: admitting a command moves both by one.
public struct CommandWindow: Sendable {
  public enum Admission: Sendable {
    /// The next in order, or immediate: deliver it.
    case deliver
    /// Outside the window: to be ignored without an answer.
    case ignore
    /// Inside the window, but commands before it are missing. On the only connection of a session, where an initiator sends
    /// in CmdSN order, they cannot come any more: a protocol error.
    case gap
  }

  public private(set) var expCmdSN: SerialNumber
  /// Commands the initiator may have unanswered.
  public let depth: UInt32
  /// Non-immediate commands delivered and not yet answered.
  public private(set) var outstanding: UInt32 = 0

  public init(initialCmdSN: UInt32, depth: UInt32) {
    expCmdSN = SerialNumber(initialCmdSN)
    self.depth = depth
  }

  @inlinable
  public var maxCmdSN: SerialNumber { SerialNumber(expCmdSN.value &+ depth &- outstanding &- 1) }

  /// Whether a request with this CmdSN is delivered; a non-immediate one takes a place of the window.
  public mutating func admit(cmdSN: UInt32, isImmediate: Bool) -> Admission {
    // An immediate command takes no number of its own (RFC 7143 §4.2.2.1), so its CmdSN only has to be plausible.
    if isImmediate { return .deliver }
    let number = SerialNumber(cmdSN)
    if number == expCmdSN, outstanding < depth {
      expCmdSN = expCmdSN + 1
      outstanding += 1
      return .deliver
    }
    return number.isWithin(expCmdSN, maxCmdSN) ? .gap : .ignore
  }

  /// A non-immediate request was answered (or needs no answer): its place is free.
  public mutating func release() {
    precondition(outstanding > 0, "a place of the command window given back twice")
    outstanding -= 1
  }
}
