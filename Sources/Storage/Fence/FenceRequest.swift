import Wire

/// What a disk's reservations can be asked or told: all that the privileged part does for the daemon (docs/ARCHITECTURE.md).
enum FenceRequest: Equatable, Sendable {
  case register(UInt64)
  case reserve(UInt64)
  case preempt(own: UInt64, victim: UInt64, aborts: Bool)
  case unregister(UInt64)
  case readKeys
  case readReservation
  case readState
  case readCapabilities
  case hasHostIdentifier
  case resetUnit

  /// It changes nothing, and may be asked again.
  var isQuestion: Bool {
    switch self {
    case .readKeys, .readReservation, .readState, .readCapabilities, .hasHostIdentifier: true
    case .register, .reserve, .preempt, .unregister, .resetUnit: false
    }
  }
}

/// Who is registered at a disk, and who holds it.
public struct FenceState: Equatable, Sendable {
  public var generation: UInt32
  /// One for each registration.
  public var keys: [UInt64]
  public var reservation: HeldReservation?

  public init(generation: UInt32, keys: [UInt64], reservation: HeldReservation?) {
    self.generation = generation
    self.keys = keys
    self.reservation = reservation
  }

  /// The key that holds the reservation; nil: none is held. 0 for an all-registrants type.
  public var holder: UInt64? { reservation?.key }
  /// The reservation is Write Exclusive - Registrants Only.
  public var isOurType: Bool { reservation?.isOurType ?? false }
}

/// What came of a request that was carried out.
enum FenceAnswer: Equatable, Sendable {
  case done
  /// To `readState`; to `readKeys` without a reservation, to `readReservation` without keys.
  case state(FenceState)
  case capabilities(ReservationCapabilities)
  case flag(Bool)
}

/// Requests and answers as messages between the daemon and its part. Big-endian; readers are total: any bytes give a value or
/// nil, and the part believes none of them.
enum FenceMessages {
  static let requestBytes = 24
  static let timeoutMilliseconds: ClosedRange<UInt32> = 1...60_000
  /// What READ KEYS can hold.
  static let keysMax = 8191

  private enum Operation: UInt8 {
    case register = 1
    case reserve = 2
    case preempt = 3
    case preemptAndAbort = 4
    case unregister = 5
    case readKeys = 6
    case readReservation = 7
    case readState = 8
    case readCapabilities = 9
    case hasHostIdentifier = 10
    case resetUnit = 11
  }

  // MARK: Requests: operation, three zeroes, the bound for each command (ms), two keys.

  static func encode(_ request: FenceRequest, timeoutMilliseconds: UInt32) -> [UInt8] {
    let (operation, key, victim): (Operation, UInt64, UInt64) =
      switch request {
      case .register(let key): (.register, key, 0)
      case .reserve(let key): (.reserve, key, 0)
      case .preempt(let own, let victim, let aborts): (aborts ? .preemptAndAbort : .preempt, own, victim)
      case .unregister(let key): (.unregister, key, 0)
      case .readKeys: (.readKeys, 0, 0)
      case .readReservation: (.readReservation, 0, 0)
      case .readState: (.readState, 0, 0)
      case .readCapabilities: (.readCapabilities, 0, 0)
      case .hasHostIdentifier: (.hasHostIdentifier, 0, 0)
      case .resetUnit: (.resetUnit, 0, 0)
      }
    var bytes: [UInt8] = [operation.rawValue, 0, 0, 0]
    bytes.append(be: timeoutMilliseconds)
    bytes.append(be: key)
    bytes.append(be: victim)
    return bytes
  }

  /// nil: it is no request. What a request does not use is zero.
  static func request(_ bytes: [UInt8]) -> (request: FenceRequest, timeoutMilliseconds: UInt32)? {
    guard bytes.count == requestBytes, let operation = Operation(rawValue: bytes[0]), bytes[1...3] == [0, 0, 0] else {
      return nil
    }
    let span = bytes.span.bytes
    let (timeout, key, victim) = (span.be32(4), span.be64(8), span.be64(16))
    guard timeoutMilliseconds.contains(timeout) else { return nil }
    let request: FenceRequest =
      switch operation {
      case .register: .register(key)
      case .reserve: .reserve(key)
      case .preempt: .preempt(own: key, victim: victim, aborts: false)
      case .preemptAndAbort: .preempt(own: key, victim: victim, aborts: true)
      case .unregister: .unregister(key)
      case .readKeys: .readKeys
      case .readReservation: .readReservation
      case .readState: .readState
      case .readCapabilities: .readCapabilities
      case .hasHostIdentifier: .hasHostIdentifier
      case .resetUnit: .resetUnit
      }
    // One form for each request: so nothing is hidden in what it does not use.
    return encode(request, timeoutMilliseconds: timeout) == bytes ? (request, timeout) : nil
  }

  // MARK: Answers: outcome, kind, two zeroes, an errno; then what the kind has.

  private enum Outcome: UInt8 {
    case done = 0
    case conflict = 1
    case disturbed = 2
    case failed = 3
    case timedOut = 4
  }

  private enum Kind: UInt8 {
    case nothing = 0
    case state = 1
    case capabilities = 2
    case flag = 3
  }

  static func encode(_ result: Result<FenceAnswer, FenceFailure>) -> [UInt8] {
    switch result {
    case .success(let answer): head(.done, kind(of: answer)) + body(answer)
    case .failure(.conflict): head(.conflict)
    case .failure(.disturbed): head(.disturbed)
    case .failure(.failed(let code)): head(.failed, errno: code)
    case .failure(.timedOut): head(.timedOut)
    }
  }

  private static func head(_ outcome: Outcome, _ kind: Kind = .nothing, errno: Int32 = 0) -> [UInt8] {
    var bytes: [UInt8] = [outcome.rawValue, kind.rawValue, 0, 0]
    bytes.append(be: UInt32(bitPattern: errno))
    return bytes
  }

  private static func kind(of answer: FenceAnswer) -> Kind {
    switch answer {
    case .done: .nothing
    case .state: .state
    case .capabilities: .capabilities
    case .flag: .flag
    }
  }

  private static func body(_ answer: FenceAnswer) -> [UInt8] {
    var bytes: [UInt8] = []
    switch answer {
    case .done: break
    case .state(let state):
      bytes.append(be: state.generation)
      bytes += [state.reservation == nil ? 0 : 1, state.reservation?.type ?? 0, 0, 0]
      bytes.append(be: state.reservation?.key ?? 0)
      for key in state.keys.prefix(keysMax) { bytes.append(be: key) }
    case .capabilities(let can):
      bytes += [can.canPersist ? 1 : 0, can.persists ? 1 : 0]
      bytes += [can.types == nil ? 0 : 1, 0]
      bytes.append(be: can.types ?? 0)
    case .flag(let flag): bytes = [flag ? 1 : 0]
    }
    return bytes
  }

  static func answer(_ bytes: [UInt8]) -> Result<FenceAnswer, FenceFailure>? {
    guard bytes.count >= 8, let outcome = Outcome(rawValue: bytes[0]), let kind = Kind(rawValue: bytes[1]) else {
      return nil
    }
    switch outcome {
    case .done: return body(kind, Array(bytes[8...])).map(Result.success)
    case .conflict: return .failure(.conflict)
    case .disturbed: return .failure(.disturbed)
    case .failed: return .failure(.failed(Int32(bitPattern: bytes.span.bytes.be32(4))))
    case .timedOut: return .failure(.timedOut)
    }
  }

  private static func body(_ kind: Kind, _ bytes: [UInt8]) -> FenceAnswer? {
    let span = bytes.span.bytes
    switch kind {
    case .nothing: return bytes.isEmpty ? .done : nil
    case .state:
      guard bytes.count >= 16, bytes.count % 8 == 0 else { return nil }
      let held = span.byte(4) == 1 ? HeldReservation(key: span.be64(8), type: span.byte(5)) : nil
      let keys = (0..<(bytes.count - 16) / 8).map { span.be64(16 + 8 * $0) }
      return .state(FenceState(generation: span.be32(0), keys: keys, reservation: held))
    case .capabilities:
      guard bytes.count == 6 else { return nil }
      return .capabilities(
        ReservationCapabilities(
          canPersist: span.byte(0) == 1, persists: span.byte(1) == 1, types: span.byte(2) == 1 ? span.be16(4) : nil))
    case .flag: return bytes.count == 1 ? .flag(bytes[0] == 1) : nil
    }
  }
}
