import Wire

/// The target's side of the login phase of one connection (RFC 7143 §6.3): one request in, one step out. It owns what
/// the initiator has said so far, and nothing of the session, which the composition settles between `established` and
/// `finish`.
///
/// Invariants:
///   bytes taken in <= byteCountMax, requests <= requestCountMax
///   no step follows `established`, `fail` or `close` but through `finish` and `refuse`
///   operational keys are answered only to an initiator that has proved what its access rule asks for
public struct LoginMachine: Sendable {
  /// Bytes of one Login Request's data segment: the MaxRecvDataSegmentLength before anything is declared (§13.12).
  public static let segmentByteCountMax = 8192
  /// Bytes of all Login Requests of a connection.
  public static let byteCountMax = TextKeys.byteCountMax
  /// Login Requests of a connection.
  public static let requestCountMax = 32

  /// What all requests of a login phase have in common (§11.12).
  struct Identity: Equatable, Sendable {
    var isid: UInt64
    var tsih: UInt16
    var cid: UInt16
    var initiatorTaskTag: UInt32
  }

  enum Phase: Sendable {
    case awaitingFirstRequest
    case security(Identity)
    case operational(Identity)
    /// The keys of the final response, kept until `finish`, and the stage it leaves.
    case established(Identity, TextKeys)
    case ended
  }

  let configuration: TargetConfiguration
  let transport: TransportCapabilities
  let portalGroupTag: UInt16
  var phase = Phase.awaitingFirstRequest
  var peer: LoginPeer?
  var authentication = LoginAuthentication.open
  var negotiation: OperationalNegotiation
  var hasDeclared = false
  /// Keys of earlier requests: none comes twice in a login (§6.2).
  var seenKeys: Set<String> = []
  private var held: [UInt8] = []
  private var byteCount = 0
  private var requestCount = 0
  private var request = BasicHeaderSegment()
  private var statSN: UInt32

  /// Why the login failed, for the log; nil while it has not.
  public private(set) var refusalReason: String?

  /// - Parameters:
  ///   - localPortal: the address the connection came to, in the form of `Portal.address`.
  ///   - initialStatSN: StatSN of the first Login Response.
  public init(
    configuration: TargetConfiguration, transport: TransportCapabilities, localPortal: String, initialStatSN: UInt32 = 0
  ) {
    self.configuration = configuration
    self.transport = transport
    portalGroupTag = configuration.portalGroupTag(of: localPortal)
    negotiation = OperationalNegotiation(limits: configuration.limits, transport: transport)
    statSN = initialStatSN
  }

  /// Takes a PDU. `random` gives as many unpredictable bytes as it is asked for.
  public mutating func receive(
    _ header: BasicHeaderSegment, data: [UInt8], random: (Int) -> [UInt8]
  ) -> LoginStep {
    switch phase {
    case .ended, .established:
      phase = .ended
      return .close
    case .awaitingFirstRequest where header.opcode != .loginRequest:
      phase = .ended
      return .close  // §6.3: nothing but a Login Request opens a connection
    case .awaitingFirstRequest, .security, .operational:
      break
    }
    guard header.opcode == .loginRequest else { return fail(LoginFault(.invalidDuringLogin, "not a Login Request")) }
    request = header
    do throws(LoginFault) {
      return try take(LoginFlags(header), data: data, random: random)
    } catch {
      return fail(error)
    }
  }

  private mutating func take(
    _ flags: LoginFlags, data: [UInt8], random: (Int) -> [UInt8]
  ) throws(LoginFault) -> LoginStep {
    try checkBounds(data)
    try flags.check()
    let identity = Identity(request)
    try enter(flags.stage, identity)
    held += data
    guard !flags.isContinued else { return .respond(reply(TextKeys())) }  // §11.12.2: an empty answer asks for the rest

    let bytes = held
    held = []
    let keys: TextKeys
    do throws(TextKeysError) {
      keys = try TextKeys(parsing: bytes)
    } catch {
      throw LoginFault(.initiatorError, "malformed text")
    }
    return try answer(keys, identity, next: flags.nextStage, random: random)
  }

  private mutating func checkBounds(_ data: [UInt8]) throws(LoginFault) {
    byteCount += data.count
    requestCount += 1
    guard request.dataSegmentLength == data.count, data.count <= Self.segmentByteCountMax else {
      throw LoginFault(.initiatorError, "data segment of a wrong length")
    }
    guard byteCount <= Self.byteCountMax, requestCount <= Self.requestCountMax else {
      throw LoginFault(.initiatorError, "a login without end")
    }
  }

  /// A first request opens the stage it names; the others stay in theirs and keep their identity (§11.12.3, §4.2.3).
  private mutating func enter(_ stage: LoginStage, _ identity: Identity) throws(LoginFault) {
    switch (phase, stage) {
    case (.awaitingFirstRequest, .security): phase = .security(identity)
    case (.awaitingFirstRequest, .operational): phase = .operational(identity)
    case (.security(let first), .security), (.operational(let first), .operational):
      guard identity == first else { throw LoginFault(.initiatorError, "the identity of a login changed") }
    default: throw LoginFault(.initiatorError, "not the current stage")
    }
  }

  private mutating func answer(
    _ keys: TextKeys, _ identity: Identity, next: LoginStage?, random: (Int) -> [UInt8]
  ) throws(LoginFault) -> LoginStep {
    var answers = TextKeys()
    if peer == nil {
      let peer = try LoginPeer(keys, configuration: configuration)
      self.peer = peer
      // §13.9: in the first response of a normal session.
      if !peer.isDiscovery { answers.append("TargetPortalGroupTag", "\(portalGroupTag)") }
    }
    let sorted = try sort(keys)
    let isDone: Bool
    if case .security = phase {
      isDone = try negotiateSecurity(sorted, isLeaving: next != nil, reply: &answers, random: random)
    } else {
      try negotiateOperation(sorted, isLeading: identity.tsih == 0, reply: &answers)
      isDone = true
    }
    for key in sorted.notUnderstood { answers.append(key, TextValue.notUnderstood) }

    switch isDone ? next : nil {
    case .fullFeature: return try establish(identity, answers)
    case .operational:
      let response = reply(answers, next: .operational)
      phase = .operational(identity)
      return .respond(response)
    case .security, nil: return .respond(reply(answers))
    }
  }

  private mutating func establish(_ identity: Identity, _ answers: TextKeys) throws(LoginFault) -> LoginStep {
    guard let peer else { preconditionFailure("keys were answered to nobody") }
    if transport.requiresRDMAExtensions, !peer.isDiscovery, !negotiation.parameters.rdmaExtensions {
      // RFC 7145 §6.3: without it the connection cannot become iSER-assisted.
      let isOffered = seenKeys.contains("RDMAExtensions")
      throw LoginFault(isOffered ? .initiatorError : .missingParameter, "RDMAExtensions is not Yes")
    }
    phase = .established(identity, answers)
    return .established(
      LoginResult(
        isDiscovery: peer.isDiscovery, initiatorName: peer.name, initiatorAlias: peer.alias, isid: identity.isid,
        tsihRequested: identity.tsih, cid: identity.cid, initialCmdSN: request.cmdSN, statSN: statSN &+ 1,
        targetPortalGroupTag: portalGroupTag, parameters: negotiation.outcome,
        authenticatedName: authentication.name, luns: peer.luns))
  }

  /// The final Login Response, after `established` and only then. MaxCmdSN becomes ExpCmdSN + `commandWindow` - 1.
  public mutating func finish(tsih: UInt16, commandWindow: UInt32) -> LoginReply {
    guard case .established(_, let answers) = phase else { preconditionFailure("no login to finish") }
    var response = reply(answers, next: .fullFeature)
    response.header.word3 = response.header.word3 & 0xFFFF_0000 | UInt32(tsih)
    response.header.maxCmdSN = response.header.expCmdSN &+ commandWindow &- 1
    phase = .ended
    return response
  }

  /// A Login Response that ends the login: send it, then close. For what only the composition knows, at any time after
  /// a first request. A redirection (class 1) names where to go in `targetAddress`.
  public mutating func refuse(_ status: LoginStatus, targetAddress: String? = nil) -> LoginReply {
    var keys = TextKeys()
    if let targetAddress { keys.append("TargetAddress", targetAddress) }
    phase = .ended
    var response = reply(keys)
    response.header.word0 &= 0xFF00_FFFF  // no transition, no stage: reserved in a refusal (§11.13)
    response.header.word9 = UInt32(status.rawValue) << 16
    return response
  }

  private mutating func fail(_ fault: LoginFault) -> LoginStep {
    refusalReason = "\(fault.reason)"
    return .fail(refuse(fault.status))
  }

  /// A Login Response with status 0000 to the latest request (§11.13). `next`: the transition we agree to.
  private mutating func reply(_ keys: TextKeys, next: LoginStage? = nil) -> LoginReply {
    let data = keys.bytes
    let stage = (request.flags >> 2 & 3) << 2
    let flags = next.map { 0x80 | stage | $0.rawValue } ?? stage
    var header = BasicHeaderSegment(.loginResponse, flags: flags, initiatorTaskTag: request.initiatorTaskTag)
    header.dataSegmentLength = data.count  // Version-max and Version-active: 0
    header.lun = request.lun  // ISID and TSIH
    header.statSN = statSN
    header.expCmdSN = request.cmdSN
    header.maxCmdSN = request.cmdSN
    statSN &+= 1
    return LoginReply(header: header, data: data)
  }
}
