/// One connection of the metrics' server, without its socket and without a clock: bytes and times in, bytes out. One request
/// is in work at a time; what comes behind it waits in the reader, which takes no more than one head.
///
/// Whatever has to come next has a `deadline` that bytes do not move, so nobody keeps a place for longer than the limits say,
/// however slowly it sends or reads.
struct HTTPConnection: Sendable {
  /// Nanoseconds.
  struct Limits: Sendable {
    /// From the connection, or the end of the answer before, to the first byte of a request.
    var idleNs: UInt64 = 75_000_000_000
    /// From the first byte of a request to its end; also of a connection's first request from the connection on.
    var headNs: UInt64 = 5_000_000_000
    /// For the answer's text to be made.
    var makeNs: UInt64 = 10_000_000_000
    /// For all of an answer to be taken.
    var sendNs: UInt64 = 20_000_000_000
    /// For the peer to end its side, once all is said: what it still sends is read, or the reset that follows could take the
    /// answer away from it.
    var lingerNs: UInt64 = 1_000_000_000
  }

  enum Phase: Sendable, Equatable {
    case reading
    /// The metrics are being made for this request.
    case waiting(HTTPRequest)
    case sending
    /// All is said and our side is ended.
    case lingering
    case ended
  }

  /// What may be read and thrown away while lingering.
  static let lingerBytesMax = 1 << 20

  private(set) var phase = Phase.reading
  private(set) var deadline: UInt64
  private let limits: Limits
  private var reader = HTTPRequestReader()
  private var head: [UInt8] = []
  private var body: [UInt8] = []
  private var sent = 0
  private var closesAfter = false
  private var lingered = 0
  /// Statuses of answers that were begun and nobody has counted.
  private var answered: [Int] = []

  init(limits: Limits, at now: UInt64) {
    self.limits = limits
    deadline = now + limits.headNs
  }

  /// How many bytes may be read now; 0: none.
  var readable: Int {
    switch phase {
    case .reading: reader.space
    case .lingering: 4096
    // What comes behind a request waits in the socket.
    case .waiting, .sending, .ended: 0
    }
  }

  /// It has said nothing of a request: the first to go when there is no place.
  var isIdle: Bool { phase == .reading && reader.isEmpty }

  /// Bytes came; none: the peer has ended its side.
  /// - Returns: a request to answer.
  mutating func receive(_ bytes: ArraySlice<UInt8>, at now: UInt64, time: Int) -> HTTPRequest? {
    if phase == .lingering {
      lingered += bytes.count
      if bytes.isEmpty || lingered > Self.lingerBytesMax { phase = .ended }
      return nil
    }
    guard phase == .reading else { return nil }
    guard !bytes.isEmpty else {
      phase = .ended
      return nil
    }
    if reader.isEmpty { deadline = min(deadline, now + limits.headNs) }
    reader.append(bytes)
    return take(at: now, time: time)
  }

  /// The next request out of what has come.
  private mutating func take(at now: UInt64, time: Int) -> HTTPRequest? {
    do throws(HTTPFault) {
      guard let request = try reader.next() else { return nil }
      phase = .waiting(request)
      deadline = now + limits.makeNs
      return request
    } catch {
      closesAfter = true
      begin(HTTPResponse(status: error.rawValue), isHead: false, at: now, time: time)
      return nil
    }
  }

  /// The answer to the request that `receive` or `sent` gave.
  mutating func answer(_ response: HTTPResponse, at now: UInt64, time: Int) {
    guard case .waiting(let request) = phase else { return }
    closesAfter = !request.keepsAlive
    begin(response, isHead: request.method == .head, at: now, time: time)
  }

  private mutating func begin(_ response: HTTPResponse, isHead: Bool, at now: UInt64, time: Int) {
    head = response.head(keepsAlive: !closesAfter, time: time)
    body = isHead ? [] : response.body
    sent = 0
    answered.append(response.status)
    phase = .sending
    deadline = now + limits.sendNs
  }

  /// Gives `send` what is to be sent, until there is no more or it takes none; it returns how many it took.
  /// - Returns: the next request, if one has come already.
  mutating func send(at now: UInt64, time: Int, _ send: (ArraySlice<UInt8>) -> Int) -> HTTPRequest? {
    while phase == .sending {
      let rest = sent < head.count ? head[sent...] : body[(sent - head.count)...]
      if rest.isEmpty { return finish(at: now, time: time) }
      let count = send(rest)
      guard count > 0 else { return nil }
      sent += count
    }
    return nil
  }

  mutating func takeAnswered() -> [Int] {
    defer { answered = [] }
    return answered
  }

  private mutating func finish(at now: UInt64, time: Int) -> HTTPRequest? {
    (head, body) = ([], [])
    guard !closesAfter else {
      phase = .lingering
      deadline = now + limits.lingerNs
      return nil
    }
    phase = .reading
    deadline = now + (reader.isEmpty ? limits.idleNs : limits.headNs)
    return take(at: now, time: time)
  }

  /// The deadline has passed. A peer that began a request is told why (RFC 9110 §15.5.9), and one whose text is not made in time.
  mutating func expire(at now: UInt64, time: Int) {
    switch phase {
    case .reading where !reader.isEmpty:
      closesAfter = true
      begin(HTTPResponse(status: 408), isHead: false, at: now, time: time)
    case .waiting(let request):
      closesAfter = true
      begin(HTTPResponse(status: 503), isHead: request.method == .head, at: now, time: time)
    case .reading, .sending, .lingering, .ended: phase = .ended
    }
  }
}
