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
