import FoundationEssentials

/// The control socket's language: one JSON object on one line each way, then the connection ends.
///
/// Request: `{"version":1,"command":"status"}`, `{"version":1,"command":"adopt","path":"/dev/sdb","mode":"wipe"}`,
/// `{"version":1,"command":"operate","operation":"switchover"}`.
/// Reply: `{"version":1,"result":…}` or `{"version":1,"error":{"code":"refused","message":"…"}}`.
public enum ControlProtocol {
  /// Grows when an old client would misread a new daemon, not when a field is added.
  public static let version = 1
  /// A longer request is refused unread.
  public static let requestBytesMax = 64 << 10
  /// A longer reply is not one of ours.
  public static let replyBytesMax = 64 << 20
}

/// What is asked.
public enum ControlCommand: String, Codable, Sendable, CaseIterable {
  case status
  case disks
  case nics
  case sessions
  case adopt
  case pair
  case operate
  case metrics
  case trace
  case end

  /// Whether it changes anything, and so needs root or the daemon's own user.
  var changes: Bool {
    switch self {
    case .status, .disks, .nics, .sessions, .pair, .metrics, .trace: false
    case .adopt, .operate, .end: true
    }
  }
}

/// How a held disk is taken.
public enum AdoptMode: String, Codable, Sendable {
  /// What is on the disk is discarded: it becomes a blank labelled disk.
  case wipe
  /// The content stays and the whole disk is exported as it is; the label is kept elsewhere than on the disk.
  case whole
  /// The content stays, and LUN number and name: the label of a disk that grew while the gateway was off moves to its end.
  case grow
}

/// One request.
public struct ControlRequest: Codable, Sendable, Equatable {
  public var version = ControlProtocol.version
  public var command: ControlCommand
  /// Of `adopt`: an absolute path.
  public var path: String?
  /// Of `adopt`.
  public var mode: AdoptMode?
  /// Of `operate`.
  public var operation: PairOperation?
  /// Of `trace`: a TSIH; 0: connections without a session. Of `end`: a TSIH.
  public var session: UInt16?

  public init(
    _ command: ControlCommand, path: String? = nil, mode: AdoptMode? = nil, operation: PairOperation? = nil,
    session: UInt16? = nil
  ) {
    self.session = session
    self.command = command
    self.path = path
    self.mode = mode
    self.operation = operation
  }

  /// The request in one line, without its newline.
  /// - Throws: `badRequest` that says what was not understood.
  static func decode(_ line: [UInt8]) throws(ControlError) -> ControlRequest {
    guard let envelope = try? JSONDecoder().decode(Envelope.self, from: Data(line)) else {
      throw ControlError(.badRequest, "the request is not a JSON object with 'version' and 'command'")
    }
    guard envelope.version == ControlProtocol.version else {
      throw ControlError(
        .badRequest,
        "this gatewayd speaks version \(ControlProtocol.version) of the control protocol, not "
          + "\(envelope.version): use the client that came with the daemon")
    }
    guard ControlCommand(rawValue: envelope.command) != nil else {
      let known = ControlCommand.allCases.map(\.rawValue).joined(separator: ", ")
      throw ControlError(.badRequest, "unknown command; this gatewayd (\(GatewayVersion.current)) knows \(known)")
    }
    guard let request = try? JSONDecoder().decode(ControlRequest.self, from: Data(line)) else {
      throw ControlError(.badRequest, "'\(envelope.command)' has a field that is not understood")
    }
    return request
  }

  private struct Envelope: Decodable {
    var version: Int
    var command: String
  }
}

/// One reply: a result or an error.
struct ControlReply<Result: Codable & Sendable>: Codable, Sendable {
  var version = ControlProtocol.version
  var result: Result?
  var error: ControlError?
}

extension ControlReply {
  /// The line that goes out, with its newline.
  func line() -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    // A newline inside a text is escaped by JSON, so the only one is the last.
    guard let data = try? encoder.encode(self) else {
      return Array(#"{"error":{"code":"failed","message":"the reply cannot be encoded"},"version":1}"#.utf8) + [0x0A]
    }
    return [UInt8](data) + [0x0A]
  }
}

/// The result of a reply that is only an error.
struct NoResult: Codable, Sendable {}
