import Glibc
import ISCSI
import SCSI

/// Why a connection was turned away before anything was read from it.
enum ConnectionRefusal: String, CaseIterable, Sendable {
  /// `[access] networks` does not admit the address.
  case network
  /// Its address has as many as it may.
  case addressLimit = "address_limit"
  case connectionLimit = "connection_limit"
  /// No queue pair, or no memory for one.
  case rdma
  /// It was not known in time which node of the pair this is.
  case undecided
  case shutdown
}

/// Why a connection ended.
enum EndCause: String, CaseIterable, Sendable {
  case logout
  case reinstated
  /// Without a session, its place was needed.
  case displaced
  case closedByInitiator = "closed_by_initiator"
  case reset
  /// TCP gave it up.
  case networkTimeout = "network_timeout"
  case networkError = "network_error"
  case loginRefused = "login_refused"
  case loginTimeout = "login_timeout"
  case protocolError = "protocol_error"
  case digestError = "digest_error"
  /// No answer to a NOP-In.
  case keepAlive = "keep_alive"
  /// It takes no data.
  case stalled
  case targetReset = "target_reset"
  /// To the pair's other node: the disk, or the address.
  case moved
  /// By an operator, or by settings that do not let it in any more.
  case revoked
  case deviceGone = "device_gone"
  case rdmaError = "rdma_error"
  case shutdown

  /// By a positive errno of the socket.
  init(errno code: Int32) {
    switch code {
    case ECONNRESET, EPIPE: self = .reset
    case ETIMEDOUT: self = .networkTimeout
    default: self = .networkError
    }
  }
}

/// What a peer did against the protocol.
enum ProtocolFault: String, CaseIterable, Sendable {
  case cmdSNGap = "cmdsn_gap"
  case opcode
  /// Data-Out whose DataSN, offset, length or F bit is not what was asked for.
  case dataSequence = "data_sequence"
  /// Immediate data that was not agreed to, or additional headers.
  case unexpectedData = "unexpected_data"
  case segmentTooLong = "segment_too_long"
  /// A first PDU that is no Login Request.
  case noLogin = "no_login"
  /// A PDU between the last Login Request and its answer.
  case tooEarly = "too_early"
  case iserMessage = "iser_message"
}

/// What wanted memory for data and got none.
enum BufferShortage: String, CaseIterable, Sendable {
  /// A part of a command that waits in order.
  case waited
  /// A command that ended with TASK SET FULL, BUSY or SYSTEM RESOURCE FAILURE.
  case refused
  /// A session's receives over RDMA: its login was refused.
  case login
}

/// Something refused or unusual that is counted.
enum CountedEvent: Hashable, Sendable {
  case connectionRefused(ConnectionRefusal)
  case connectionEnded(EndCause)
  case loginRefused(LoginStatus)
  case protocolError(ProtocolFault)
  case headerDigestError
  case dataDigestError
  case rejected(RejectReason)
  case outsideWindow
  /// Key, and ASC with ASCQ.
  case checkCondition(SenseKey, UInt16)
  /// Another status than GOOD and CHECK CONDITION.
  case status(Status)
  case taskManagement(TaskManagementFunction?, TaskManagementResponse)
  case commandAborted
  case noBuffer(BufferShortage)
  case keepAliveSent
  case keepAliveMissed
  case diskDeadline
  case dataDeadline
  case http(Int)
}

/// How often what happened. A dictionary: nothing of it is on the warm path.
struct EventCounts: Sendable, Equatable {
  /// Sense codes of our own are few; those that come from the other node of a pair need not be.
  private static let senseCodesMax = 64
  private static let otherSense: UInt16 = 0xFFFF

  private(set) var counts: [CountedEvent: UInt64] = [:]
  private var senseCodes = 0

  subscript(event: CountedEvent) -> UInt64 { counts[event] ?? 0 }

  mutating func add(_ event: CountedEvent) {
    var event = event
    if case .checkCondition(let key, _) = event, counts[event] == nil {
      if senseCodes < Self.senseCodesMax { senseCodes += 1 } else { event = .checkCondition(key, Self.otherSense) }
    }
    counts[event, default: 0] += 1
  }

  mutating func add(_ other: EventCounts) { counts.merge(other.counts, uniquingKeysWith: +) }
}

/// What is counted under one name: one row of the metrics.
struct EventFamily: Sendable {
  var name: String
  var help: String
  /// Told also while they are zero: what is missing cannot be watched.
  var known: [CountedEvent]
  /// The labels of an event of this family; nil: it is of another.
  var labels: @Sendable (CountedEvent) -> KeyValuePairs<String, String>?

  static let all: [EventFamily] = [
    EventFamily(
      name: "gatewayd_connections_refused_total", help: "Connections turned away unread, by why.",
      known: ConnectionRefusal.allCases.map(CountedEvent.connectionRefused)
    ) { if case .connectionRefused(let why) = $0 { ["reason": why.rawValue] } else { nil } },
    EventFamily(
      name: "gatewayd_connections_ended_total", help: "Connections that ended, by why.",
      known: EndCause.allCases.map(CountedEvent.connectionEnded)
    ) { if case .connectionEnded(let why) = $0 { ["reason": why.rawValue] } else { nil } },
    EventFamily(
      name: "gatewayd_logins_refused_total", help: "Logins refused, by status class and detail (RFC 7143 11.13.5).",
      known: LoginStatus.refusals.map { .loginRefused($0.status) }
    ) {
      guard case .loginRefused(let status) = $0 else { return nil }
      return ["status": hexadecimal(status.rawValue), "reason": status.name]
    },
    EventFamily(
      name: "gatewayd_protocol_errors_total", help: "What initiators did against the protocol.",
      known: ProtocolFault.allCases.map(CountedEvent.protocolError)
    ) { if case .protocolError(let fault) = $0 { ["reason": fault.rawValue] } else { nil } },
    EventFamily(
      name: "gatewayd_digest_errors_total", help: "Wrong digests, by what they cover.",
      known: [.headerDigestError, .dataDigestError]
    ) {
      switch $0 {
      case .headerDigestError: ["digest": "header"]
      case .dataDigestError: ["digest": "data"]
      default: nil
      }
    },
    EventFamily(
      name: "gatewayd_rejects_total", help: "Reject PDUs sent, by reason (RFC 7143 11.17.1).",
      known: RejectReason.names.map { .rejected($0.reason) }
    ) { if case .rejected(let reason) = $0 { ["reason": reason.name] } else { nil } },
    EventFamily(
      name: "gatewayd_commands_outside_window_total", help: "Requests ignored, their CmdSN outside the window.",
      known: [.outsideWindow]
    ) { if case .outsideWindow = $0 { [:] } else { nil } },
    EventFamily(
      name: "gatewayd_check_conditions_total", help: "CHECK CONDITION, by sense key, and ASC with ASCQ.", known: []
    ) {
      guard case .checkCondition(let key, let code) = $0 else { return nil }
      return ["key": key.name, "asc": code == 0xFFFF ? "other" : hexadecimal(code)]
    },
    EventFamily(
      name: "gatewayd_statuses_total", help: "Commands that ended with another status than GOOD and CHECK CONDITION.",
      known: Status.refusals.map { .status($0.status) }
    ) {
      guard case .status(let status) = $0 else { return nil }
      return ["status": Status.refusals.first { $0.status == status }?.name ?? hexadecimal(UInt16(status.rawValue))]
    },
    EventFamily(
      name: "gatewayd_task_management_total", help: "Task management requests, by function and response.", known: []
    ) {
      guard case .taskManagement(let function, let response) = $0 else { return nil }
      return ["function": function?.name ?? "unknown", "response": response.name]
    },
    EventFamily(
      name: "gatewayd_commands_aborted_total", help: "Commands ended without an answer.", known: [.commandAborted]
    ) { if case .commandAborted = $0 { [:] } else { nil } },
    EventFamily(
      name: "gatewayd_buffer_shortages_total", help: "No memory for data, by what became of who wanted it.",
      known: BufferShortage.allCases.map(CountedEvent.noBuffer)
    ) { if case .noBuffer(let what) = $0 { ["outcome": what.rawValue] } else { nil } },
    EventFamily(
      name: "gatewayd_keep_alives_total", help: "NOP-In sent to silent initiators, and how often none answered.",
      known: [.keepAliveSent, .keepAliveMissed]
    ) {
      switch $0 {
      case .keepAliveSent: ["outcome": "sent"]
      case .keepAliveMissed: ["outcome": "missed"]
      default: nil
      }
    },
    EventFamily(
      name: "gatewayd_deadlines_missed_total", help: "Commands given up, by who was waited for.",
      known: [.diskDeadline, .dataDeadline]
    ) {
      switch $0 {
      case .diskDeadline: ["waited_for": "disk"]
      case .dataDeadline: ["waited_for": "initiator"]
      default: nil
      }
    },
    EventFamily(
      name: "gatewayd_http_responses_total", help: "Answers of the metrics' own server, by status.",
      known: [200, 400, 404, 405, 408, 413, 431, 503, 505].map(CountedEvent.http)
    ) { if case .http(let status) = $0 { ["status": "\(status)"] } else { nil } },
  ]
}

// MARK: Names

/// Four digits.
private func hexadecimal(_ number: UInt16) -> String {
  let digits = String(number, radix: 16, uppercase: true)
  return String(repeating: "0", count: 4 - digits.count) + digits
}

extension LoginStatus {
  /// What this target may refuse a login with.
  static let refusals: [(status: LoginStatus, name: String)] = [
    (.initiatorError, "initiator_error"), (.authenticationFailure, "authentication_failure"),
    (.authorizationFailure, "authorization_failure"), (.notFound, "not_found"),
    (.unsupportedVersion, "unsupported_version"), (.tooManyConnections, "too_many_connections"),
    (.missingParameter, "missing_parameter"), (.sessionTypeNotSupported, "session_type_not_supported"),
    (.sessionDoesNotExist, "session_does_not_exist"), (.invalidDuringLogin, "invalid_during_login"),
    (.targetError, "target_error"), (.serviceUnavailable, "service_unavailable"),
    (.outOfResources, "out_of_resources"),
  ]

  var name: String { Self.refusals.first { $0.status == self }?.name ?? "other" }
}

extension RejectReason {
  static let names: [(reason: RejectReason, name: String)] = [
    (.dataDigestError, "data_digest_error"), (.snackReject, "snack_reject"), (.protocolError, "protocol_error"),
    (.commandNotSupported, "command_not_supported"), (.taskInProgress, "task_in_progress"),
    (.invalidPDUField, "invalid_pdu_field"), (.outOfResources, "out_of_resources"),
  ]

  var name: String { Self.names.first { $0.reason == self }?.name ?? hexadecimal(UInt16(rawValue)) }
}

extension Status {
  static let refusals: [(status: Status, name: String)] = [
    (.busy, "busy"), (.taskSetFull, "task_set_full"), (.reservationConflict, "reservation_conflict"),
  ]
}

extension SenseKey {
  /// `illegal_request`.
  var name: String { snakeCase("\(self)") }
}

extension TaskManagementFunction {
  /// `abort_task_set`, `logical_unit_reset`.
  var name: String { snakeCase("\(self)") }
}

extension TaskManagementResponse {
  /// `function_complete`.
  var name: String { snakeCase("\(self)") }
}

/// `clearACA` as `clear_aca`.
private func snakeCase(_ name: String) -> String {
  var text = ""
  var wasCapital = false
  for character in name {
    if character.isUppercase, !wasCapital { text += "_" }
    wasCapital = character.isUppercase
    text += character.lowercased()
  }
  return text
}
