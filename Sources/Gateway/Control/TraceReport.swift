import CSystem
import Glibc
import ISCSI
import SCSI

/// `gatewayd sessions --trace ID`: what became of a connection, in order.
public struct TraceReport: Codable, Sendable, Equatable {
  public struct Event: Codable, Sendable, Equatable {
    /// UTC, RFC 3339, to the millisecond.
    public var time: String
    /// One word of those in docs/COMMANDS.md.
    public var event: String
    public var detail: String?
  }

  /// TSIH; 0: it had no session.
  public var session: UInt16
  /// Absent: it never said.
  public var initiator: String?
  public var address: String
  /// The address that it came to.
  public var portal: String
  /// `tcp` or `iser`.
  public var transport: String
  public var isOpen: Bool
  /// Events after the first ones that are forgotten.
  public var forgotten: Int
  public var events: [Event]
}

/// Both clocks at one moment.
struct TraceClock: Sendable {
  private let monotonic: UInt64
  private let wall: UInt64

  init() {
    wall = WallClock.nanoseconds
    monotonic = system_monotonic_ns()
  }

  func text(_ at: UInt64) -> String { WallClock.text(wall &- (monotonic &- min(at, monotonic))) }
}

extension TraceReport {
  init(_ subject: TraceSubject, _ trace: ConnectionTrace, isOpen: Bool, _ clock: TraceClock) {
    session = subject.tsih
    initiator = subject.initiator
    address = subject.peer
    portal = subject.portal
    transport = subject.transport
    self.isOpen = isOpen
    forgotten = trace.forgotten
    events = trace.entries.map { entry in
      let (event, detail) = entry.event.words(subject.parameters)
      return Event(time: clock.text(entry.at), event: event, detail: detail)
    }
  }

  public static func text(_ traces: [TraceReport]) -> String {
    guard !traces.isEmpty else { return "Nothing is known of it.\n" }
    return traces.map(\.text).joined(separator: "\n")
  }

  private var text: String {
    let who = initiator ?? "nobody known"
    let name = session == 0 ? "Connection" : "Session \(session)"
    var text = "\(name) of \(who), \(address) to \(portal) over \(transport), \(isOpen ? "open" : "ended")\n"
    var table = TextTable([])
    for (index, event) in events.enumerated() {
      if forgotten > 0, index == ConnectionTrace.firstMax { table.add(["", "…", "\(forgotten) events are forgotten"]) }
      table.add([event.time, event.event, event.detail ?? ""])
    }
    text = Printable.text(String(text.dropLast())) + "\n"
    return text + String(table.text.drop { $0 == "\n" })
  }
}

extension TraceEvent {
  private static let stages: [UInt8: String] = [0: "security", 1: "operational", 3: "full feature"]

  /// One word, and what belongs to it.
  func words(_ parameters: NegotiatedParameters?) -> (String, String?) {
    switch self {
    case .accepted: ("accepted", nil)
    case .loginStage(let from, let to): ("login-stage", "\(Self.stages[from] ?? "?") to \(Self.stages[to] ?? "?")")
    case .authenticated(let name): ("authenticated", name.map { "CHAP, \($0)" } ?? "nothing was asked for")
    case .loginRefused(let status, let reason):
      ("login-refused", "\(status.name)\(reason.map { ": \($0)" } ?? "")")
    case .reinstates: ("reinstates", "an older session of the same name and ISID is ended first")
    case .fullFeature(let tsih):
      ("full-feature", "session \(tsih)\(parameters.map { ", \($0.traceText)" } ?? "")")
    case .taskManagement(let function, let lun, let tag):
      (
        "task-management",
        "\(function?.name ?? "unknown"), LUN \(LogicalUnitMap.number(of: lun).map { "\($0)" } ?? "?"), tag \(tag)"
      )
    case .taskManagementAnswered(let response, let tag): ("task-management-answered", "\(response.name), tag \(tag)")
    case .rejected(let reason): ("rejected", reason.name)
    case .protocolError(let fault): ("protocol-error", fault.rawValue)
    case .digestError(let isHeader): ("digest-error", isHeader ? "header" : "data")
    case .keepAlive(let count): ("keep-alive", count == 1 ? nil : "\(count) in a row, the last one at this time")
    case .keepAliveMissed: ("keep-alive-missed", nil)
    case .asyncMessage(let event): ("async-message", "\(event)")
    case .logout(let reason): ("logout", reason == 0 ? "of the session" : reason == 1 ? "of the connection" : "refused")
    case .ended(let cause, let reason): ("ended", "\(cause.rawValue): \(reason)")
    }
  }
}

extension NegotiatedParameters {
  /// What differs from connection to connection.
  fileprivate var traceText: String {
    [
      "HeaderDigest=\(headerDigest ? "CRC32C" : "None")", "DataDigest=\(dataDigest ? "CRC32C" : "None")",
      "ImmediateData=\(immediateData ? "Yes" : "No")", "InitialR2T=\(initialR2T ? "Yes" : "No")",
      "FirstBurstLength=\(firstBurstLength)", "MaxBurstLength=\(maxBurstLength)",
      "MaxRecvDataSegmentLength=\(maxRecvDataSegmentLength)",
    ].joined(separator: " ")
  }
}
