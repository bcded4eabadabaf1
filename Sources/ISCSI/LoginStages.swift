/// How far an initiator has proved itself (RFC 7143 §12.1).
enum LoginAuthentication: Sendable {
  /// No AuthMethod came yet.
  case open
  case chap(CHAPExchange)
  /// As far as the rule asks: by CHAP with a name, or not at all.
  case settled(name: String?)

  var name: String? {
    if case .settled(let name) = self { name } else { nil }
  }
}

/// The keys of one request by what they are for.
struct SortedLoginKeys {
  var authMethod: String?
  var chap: [String: String] = [:]
  var operational: [(OperationalKey, String)] = []
  var notUnderstood: [String] = []
}

extension LoginMachine {
  /// What a key is for, and so where it may come (RFC 7143 §12.1, §13).
  private enum Role {
    /// Only in a first request, where `LoginPeer` reads it.
    case opening
    case security
    /// Never an offer of the initiator's during login.
    case misplaced
    /// A target's declaration: the initiator can at most say that it did not understand.
    case targetOnly
    /// A declaration that asks for nothing.
    case informational
  }

  private static let roles: [String: Role] = [
    "InitiatorName": .opening, "TargetName": .opening, "SessionType": .opening,
    "AuthMethod": .security, "CHAP_A": .security, "CHAP_I": .security, "CHAP_C": .security, "CHAP_N": .security,
    "CHAP_R": .security,
    "SendTargets": .misplaced,
    "TargetAlias": .targetOnly, "TargetAddress": .targetOnly, "TargetPortalGroupTag": .targetOnly,
    "InitiatorAlias": .informational, "X#NodeArchitecture": .informational,
  ]

  /// Whether `key` is one of the login phase that is not in the operational table.
  static func isLoginKey(_ key: String) -> Bool { roles[key] != nil }

  /// Sorts the keys of a request, and refuses those that may not come here or come a second time.
  mutating func sort(_ keys: TextKeys) throws(LoginFault) -> SortedLoginKeys {
    let isFirst = seenKeys.isEmpty
    var isSecurity = false
    if case .security = phase { isSecurity = true }
    var sorted = SortedLoginKeys()
    for pair in keys.pairs {
      guard seenKeys.insert(pair.key).inserted else { throw LoginFault(.initiatorError, "a key negotiated twice") }
      if let key = OperationalKey.byName[pair.key] {
        guard !isSecurity else { throw LoginFault(.initiatorError, "an operational key in the security stage") }
        sorted.operational.append((key, pair.value))
        continue
      }
      switch Self.roles[pair.key] {
      case .opening:
        guard isFirst else { throw LoginFault(.initiatorError, "an opening key in a later request") }
      case .security:
        guard isSecurity else { throw LoginFault(.initiatorError, "a security key in the operational stage") }
        if pair.key == "AuthMethod" { sorted.authMethod = pair.value } else { sorted.chap[pair.key] = pair.value }
      case .misplaced:
        throw LoginFault(.initiatorError, "a key of the full-feature phase")
      case .targetOnly:
        guard TextValue.isAnswer(pair.value) else { throw LoginFault(.initiatorError, "a key of the target's") }
      case .informational:
        if pair.key == "InitiatorAlias" { peer?.alias = pair.value }
      case nil:
        if !TextValue.isAnswer(pair.value) { sorted.notUnderstood.append(pair.key) }  // §6.2, §13.22
      }
    }
    return sorted
  }

  /// The security stage (§6.3.2). Returns whether the initiator may leave it.
  mutating func negotiateSecurity(
    _ keys: SortedLoginKeys, isLeaving: Bool, reply: inout TextKeys, random: (Int) -> [UInt8]
  ) throws(LoginFault) -> Bool {
    switch authentication {
    case .open:
      guard keys.chap.isEmpty else { throw LoginFault(.initiatorError, "CHAP before AuthMethod") }
      if let list = keys.authMethod {
        try chooseMethod(list, reply: &reply)
      } else if isLeaving, peer?.chap != nil {
        throw LoginFault(.authenticationFailure, "leaves without authentication")
      }
      if case .chap = authentication { return false }
      return peer?.chap == nil
    case .chap(var exchange):
      let outcome = exchange.receive(keys.chap, reply: &reply, random: random)
      authentication = .chap(exchange)
      switch outcome {
      case .proceed: return false
      case .authenticated(let name):
        authentication = .settled(name: name)
        return true
      case .failed: throw LoginFault(.authenticationFailure, "CHAP failed")
      case .protocolError: throw LoginFault(.initiatorError, "CHAP keys out of order")
      }
    case .settled:
      guard keys.chap.isEmpty else { throw LoginFault(.initiatorError, "CHAP after the verdict") }
      return true
    }
  }

  /// §12.1: the initiator's list of methods; ours is the one that the access rule asks for.
  private mutating func chooseMethod(_ text: String, reply: inout TextKeys) throws(LoginFault) {
    guard let list = TextValue.list(text) else { throw LoginFault(.initiatorError, "AuthMethod is not a list") }
    let method = peer?.chap == nil ? "None" : "CHAP"
    guard list.contains(method) else { throw LoginFault(.authenticationFailure, "no AuthMethod in common") }
    authentication = peer?.chap.map { .chap(CHAPExchange($0)) } ?? .settled(name: nil)
    reply.append("AuthMethod", method)
  }

  /// The operational stage (§6.3.3). Our declarations are in its first response.
  mutating func negotiateOperation(
    _ keys: SortedLoginKeys, isLeading: Bool, reply: inout TextKeys
  ) throws(LoginFault) {
    if peer?.chap != nil, authentication.name == nil {
      throw LoginFault(.authenticationFailure, "skips authentication")  // §6.3.2
    }
    if !hasDeclared {
      hasDeclared = true
      if let alias = configuration.targetAlias { reply.append("TargetAlias", alias) }  // §13.6
      negotiation.declare(in: &reply)
    }
    try negotiation.answer(
      keys.operational, isDiscovery: peer?.isDiscovery == true, isLeading: isLeading, reply: &reply)
  }
}
