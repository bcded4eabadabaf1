/// Invariants, whatever is offered in whatever order:
///   each result lies between the bounds of its key, and is what its result function gives for the two sides
///   firstBurstLength <= maxBurstLength
///   an answer is given for each offer that wants one, and for nothing else
///
/// The responder's side of the operational keys of one login (RFC 7143 §6.2, §13).
struct OperationalNegotiation: Sendable {
  private(set) var parameters = NegotiatedParameters()
  private let offers: NegotiatedParameters
  private let transport: TransportCapabilities
  private var isFirstBurstSettled = false

  init(limits: OfferLimits, transport: TransportCapabilities) {
    self.transport = transport
    let defaults = NegotiatedParameters()
    var offers = defaults
    offers.initialR2T = transport.forcesInitialR2T
    offers.maxConnections = 1
    offers.maxBurstLength = Self.clamp(limits.maxBurstLength, from: defaults.maxBurstLength)
    offers.firstBurstLength = Self.clamp(limits.firstBurstLength, from: defaults.firstBurstLength)
    offers.maxOutstandingR2T = min(max(limits.maxOutstandingR2T, 1), 65_535)
    offers.defaultTime2Wait = min(max(limits.defaultTime2Wait, 0), 3600)
    offers.defaultTime2Retain = min(max(limits.defaultTime2Retain, 0), 3600)
    offers.rdmaExtensions = transport.requiresRDMAExtensions
    offers.targetRecvDataSegmentLength =
      Self.clamp(limits.targetRecvDataSegmentLength, from: defaults.targetRecvDataSegmentLength)
    offers.initiatorRecvDataSegmentLength =
      Self.clamp(limits.initiatorRecvDataSegmentLength, from: defaults.initiatorRecvDataSegmentLength)
    offers.targetMaxRecvDataSegmentLength = min(
      max(limits.maxRecvDataSegmentLength, OperationalKey.segmentRange.lowerBound),
      OperationalKey.segmentRange.upperBound)
    self.offers = offers
  }

  private static func clamp(_ limit: Int, from minimum: Int) -> Int {
    min(max(limit, minimum), OperationalKey.segmentRange.upperBound)
  }

  /// What is negotiated so far, made consistent where the initiator was silent: a default FirstBurstLength gives way to
  /// a smaller MaxBurstLength (§13.14), and over RDMA the two RecvDataSegmentLengths stand for MaxRecvDataSegmentLength
  /// (RFC 7145 §6.2), so that who sends a PDU asks one field on every transport.
  var outcome: NegotiatedParameters {
    var outcome = parameters
    outcome.firstBurstLength = min(outcome.firstBurstLength, outcome.maxBurstLength)
    if !transport.declaresMaxRecvDataSegmentLength {
      outcome.maxRecvDataSegmentLength = outcome.initiatorRecvDataSegmentLength
      outcome.targetMaxRecvDataSegmentLength = outcome.targetRecvDataSegmentLength
    }
    return outcome
  }

  /// Our own declaration, which belongs into the first operational response (§13.12), where the transport has it.
  mutating func declare(in reply: inout TextKeys) {
    guard transport.declaresMaxRecvDataSegmentLength else { return }
    parameters.targetMaxRecvDataSegmentLength = offers.targetMaxRecvDataSegmentLength
    reply.append("MaxRecvDataSegmentLength", "\(parameters.targetMaxRecvDataSegmentLength)")
  }

  /// Answers the operational keys of one request in the order they came. `isLeading`: the login begins a session.
  mutating func answer(
    _ keys: [(OperationalKey, String)], isDiscovery: Bool, isLeading: Bool, reply: inout TextKeys
  ) throws(LoginFault) {
    // MaxBurstLength bounds FirstBurstLength, and RDMAExtensions decides what the RDMA keys mean, wherever they stand.
    var answers: [String: String] = [:]
    for pass in 0...1 {
      for (key, value) in keys where Self.comesFirst(key) == (pass == 0) {
        guard isLeading || key.use.contains(.everyConnection) else {
          throw LoginFault(.initiatorError, "a leading-only key on another connection")
        }
        answers[key.name] = try answer(key, value, isDiscovery: isDiscovery)
      }
    }
    for (key, _) in keys {
      if let answer = answers[key.name] { reply.append(key.name, answer) }
    }
  }

  private static func comesFirst(_ key: OperationalKey) -> Bool {
    key.name == "MaxBurstLength" || key.name == "RDMAExtensions"
  }

  private mutating func answer(
    _ key: OperationalKey, _ value: String, isDiscovery: Bool
  ) throws(LoginFault) -> String? {
    let isRelevant =
      (!isDiscovery || key.use.contains(.discovery))
      && (!key.use.contains(.onlyRDMA) || parameters.rdmaExtensions)
    switch key.kind {
    case .declaredNumber(\.maxRecvDataSegmentLength, _, _) where !transport.declaresMaxRecvDataSegmentLength:
      return nil  // RFC 7145 §6.2
    case .declaredNumber(let field, let range, let zeroAllowed):
      guard let number = TextValue.number(value), range.contains(number) || zeroAllowed && number == 0 else {
        throw LoginFault(.initiatorError, "a declared value out of range")
      }
      parameters[keyPath: field] = number
      return nil
    case .declaredFlag(let field):
      guard let flag = TextValue.boolean(value) else {
        throw LoginFault(.initiatorError, "a declared value out of range")
      }
      parameters[keyPath: field] = flag
      return nil
    case .always(let answer):
      return answer
    default:
      return isRelevant ? try negotiate(key.kind, value) : TextValue.irrelevant
    }
  }

  /// The answer to an offer. An offer out of the key's format or range is rejected and changes nothing (§6.2).
  private mutating func negotiate(_ kind: OperationalKey.Kind, _ value: String) throws(LoginFault) -> String {
    switch kind {
    case .digest(let field):
      return digest(field, value)
    case .booleanOr(let field):
      return boolean(field, value) { $0 || $1 }
    case .booleanAnd(let field):
      return boolean(field, value) { $0 && $1 }
    case .minimum(let field, let range):
      let answer = number(field, value, range) { min($0, $1) }
      guard !isFirstBurstSettled || parameters.firstBurstLength <= parameters.maxBurstLength else {
        throw LoginFault(.initiatorError, "MaxBurstLength below an agreed FirstBurstLength")
      }
      return answer
    case .maximum(let field, let range):
      return number(field, value, range) { max($0, $1) }
    case .firstBurst:
      return firstBurst(value)
    case .choice(let ours):
      return TextValue.list(value)?.contains(ours) == true ? ours : TextValue.reject
    case .declaredNumber, .declaredFlag, .always:
      preconditionFailure("not negotiated")
    }
  }

  /// The first digest of the list that we have here (§6.2.1).
  private mutating func digest(_ field: OperationalKey.Flag, _ value: String) -> String {
    let ours = transport.allowsDigests ? ["CRC32C", "None"] : ["None"]
    guard let choice = TextValue.list(value)?.first(where: ours.contains) else { return TextValue.reject }
    parameters[keyPath: field] = choice == "CRC32C"
    return choice
  }

  private mutating func boolean(
    _ field: OperationalKey.Flag, _ value: String, _ function: (Bool, Bool) -> Bool
  ) -> String {
    guard let flag = TextValue.boolean(value) else { return TextValue.reject }
    parameters[keyPath: field] = function(flag, offers[keyPath: field])
    return TextValue.text(parameters[keyPath: field])
  }

  private mutating func number(
    _ field: OperationalKey.Number, _ value: String, _ range: ClosedRange<Int>, _ function: (Int, Int) -> Int
  ) -> String {
    guard let number = TextValue.number(value), range.contains(number) else { return TextValue.reject }
    parameters[keyPath: field] = function(number, offers[keyPath: field])
    return "\(parameters[keyPath: field])"
  }

  private mutating func firstBurst(_ value: String) -> String {
    guard let number = TextValue.number(value), OperationalKey.segmentRange.contains(number) else {
      return TextValue.reject
    }
    parameters.firstBurstLength = min(number, offers.firstBurstLength, parameters.maxBurstLength)
    isFirstBurstSettled = true
    return "\(parameters.firstBurstLength)"
  }
}
