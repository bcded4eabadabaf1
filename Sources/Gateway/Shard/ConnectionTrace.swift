import ISCSI

/// A change of a connection's state. Never a secret; never one for each I/O.
enum TraceEvent: Sendable {
  case accepted
  /// A transition that both sides agreed to, by the numbers of RFC 7143 §11.12.3: 0, 1, 3.
  case loginStage(from: UInt8, to: UInt8)
  /// The CHAP name that was proved; nil: nothing had to be.
  case authenticated(String?)
  case loginRefused(LoginStatus, String?)
  case reinstates
  /// With what was negotiated, which the trace has.
  case fullFeature(tsih: UInt16)
  case taskManagement(TaskManagementFunction?, lun: UInt64, tag: UInt32)
  case taskManagementAnswered(TaskManagementResponse, tag: UInt32)
  case rejected(RejectReason)
  case protocolError(ProtocolFault)
  case digestError(isHeader: Bool)
  /// NOP-In, so many one after another.
  case keepAlive(count: Int)
  case keepAliveMissed
  case asyncMessage(AsyncEvent)
  case logout(reason: UInt8)
  case ended(EndCause, String)
}

/// What became of one connection: its first events, which tell how it began, and its last ones. An event costs some tens of
/// bytes, and a connection has six or so.
struct ConnectionTrace: Sendable {
  static let firstMax = 16
  static let lastMax = 48

  struct Entry: Sendable {
    /// CLOCK_MONOTONIC, nanoseconds.
    var at: UInt64
    var event: TraceEvent
  }

  private var first: [Entry] = []
  /// A ring once it is full; `oldest` is its beginning.
  private var last: [Entry] = []
  private var oldest = 0
  /// Events between the first and the last that are not here any more.
  private(set) var forgotten = 0

  var entries: [Entry] { first + last[oldest...] + last[..<oldest] }

  mutating func add(_ event: TraceEvent, at now: UInt64) {
    if case .keepAlive = event, repeats(at: now) { return }
    let entry = Entry(at: now, event: event)
    // As many as a connection usually has, in one allocation.
    if first.isEmpty { first.reserveCapacity(8) }
    if first.count < Self.firstMax {
      first.append(entry)
    } else if last.count < Self.lastMax {
      last.append(entry)
    } else {
      last[oldest] = entry
      oldest = (oldest + 1) % Self.lastMax
      forgotten += 1
    }
  }

  /// Silence fills no trace: keep-alives that follow each other are one event, with the time of the last.
  private mutating func repeats(at now: UInt64) -> Bool {
    func next(_ entry: Entry) -> Entry? {
      guard case .keepAlive(let count) = entry.event else { return nil }
      return Entry(at: now, event: .keepAlive(count: count + 1))
    }
    if last.isEmpty {
      guard let entry = first.last.flatMap(next) else { return false }
      first[first.count - 1] = entry
    } else {
      let newest = (oldest + last.count - 1) % last.count
      guard let entry = next(last[newest]) else { return false }
      last[newest] = entry
    }
    return true
  }
}

/// The traces of connections that have ended: the last of those with a session with the target, and, apart, of all others, so
/// that who knocks at the door, or asks for discovery, pushes out no session.
struct EndedTraces: Sendable {
  static let countMax = 32

  struct Ended: Sendable {
    var subject: TraceSubject
    var trace: ConnectionTrace
  }

  private(set) var sessions: [Ended] = []
  private(set) var others: [Ended] = []

  mutating func add(_ subject: TraceSubject, _ trace: ConnectionTrace) {
    let ended = Ended(subject: subject, trace: trace)
    if subject.tsih != 0, !subject.isDiscovery { Self.add(ended, to: &sessions) } else { Self.add(ended, to: &others) }
  }

  private static func add(_ ended: Ended, to list: inout [Ended]) {
    if list.count >= countMax { list.removeFirst() }
    list.append(ended)
  }
}

/// Whose trace it is.
struct TraceSubject: Sendable {
  /// 0: it had no session.
  var tsih: UInt16
  var isDiscovery: Bool
  var initiator: String?
  var peer: String
  var portal: String
  var transport: String
  var parameters: NegotiatedParameters?
}

extension Connection {
  var traceSubject: TraceSubject {
    TraceSubject(
      tsih: tsih, isDiscovery: result?.isDiscovery ?? false, initiator: result?.initiatorName.text, peer: peer,
      portal: local, transport: mover.name, parameters: tsih == 0 ? nil : parameters)
  }
}

extension Shard {
  /// The traces of a session, the open one and ended ones that had its number; of 0: of connections without one.
  func traces(tsih: UInt16, time: TraceClock) -> [TraceReport] {
    let ended = (endedTraces.others + endedTraces.sessions).filter { $0.subject.tsih == tsih }
    let open = connections.compactMap { $0 }.filter { $0.tsih == tsih }
    return ended.map { TraceReport($0.subject, $0.trace, isOpen: false, time) }
      + open.map { TraceReport($0.traceSubject, $0.trace, isOpen: true, time) }
  }

  func trace(_ connection: Connection, _ event: TraceEvent) { connection.trace.add(event, at: now) }
}
