/// A name and a secret for CHAP (RFC 7143 §12.1.3). The secret shows in no description.
public struct CHAPCredential: Sendable, Equatable, CustomStringConvertible, CustomDebugStringConvertible,
  CustomReflectable
{
  /// RFC 7143 §12.1.3: an implementation must be able to reject secrets under 96 bits where there is no IPsec.
  public static let secretByteCountMin = 12

  public let name: String
  let secret: [UInt8]

  public init(name: String, secret: [UInt8]) {
    self.name = name
    self.secret = secret
  }

  public init(name: String, secret: String) { self.init(name: name, secret: Array(secret.utf8)) }

  /// Whether the secret has the 96 bits that RFC 7143 §12.1.3 asks for; settings warn or refuse below.
  public var hasLongSecret: Bool { secret.count >= Self.secretByteCountMin }

  public var description: String { "\(name) (secret withheld)" }
  public var debugDescription: String { description }
  public var customMirror: Mirror { Mirror(self, children: ["name": name]) }
}

/// What an initiator has to prove before it is let in.
public struct CHAPRequirement: Sendable, Equatable {
  /// Any one of these proves the initiator.
  public var initiators: [CHAPCredential]
  /// What we answer with if the initiator asks who we are (mutual CHAP); nil: such a login fails.
  public var target: CHAPCredential?

  public init(initiators: [CHAPCredential], target: CHAPCredential? = nil) {
    self.initiators = initiators
    self.target = target
  }
}

/// Whether, how and to which LUNs an initiator name may log in.
public enum AccessDecision: Sendable, Equatable {
  case denied
  /// `chap` nil: AuthMethod=None does. `luns` nil: every LUN.
  case allowed(chap: CHAPRequirement?, luns: Set<UInt16>?)

  /// What is shown: none if it is denied; nil: every LUN.
  public var luns: Set<UInt16>? {
    switch self {
    case .denied: []
    case .allowed(_, let luns): luns
    }
  }
}

/// A pattern for initiator names: `*` is any run of characters, `?` any one byte, the rest itself whatever its case.
public struct InitiatorPattern: Sendable, Hashable {
  public let text: String
  private let bytes: [UInt8]

  public init(_ text: String) {
    self.text = text
    bytes = text.utf8.map { $0 >= 0x41 && $0 <= 0x5A ? $0 | 0x20 : $0 }
  }

  /// Linear in name times pattern: only the last `*` is ever gone back to.
  public func matches(_ name: ISCSIName) -> Bool {
    let name = Array(name.text.utf8)
    var position = 0
    var next = 0
    var star: (pattern: Int, name: Int)?
    while position < name.count {
      if next < bytes.count, bytes[next] == 0x2A {
        star = (next, position)
        next += 1
      } else if next < bytes.count, bytes[next] == 0x3F || bytes[next] == name[position] {
        next += 1
        position += 1
      } else if let last = star {
        star = (last.pattern, last.name + 1)
        next = last.pattern + 1
        position = last.name + 1
      } else {
        return false
      }
    }
    return bytes[next...].allSatisfy { $0 == 0x2A }
  }
}

/// Who may log in, once the composition has admitted the connection's network. The first rule whose pattern matches
/// decides.
public struct AccessRules: Sendable, Equatable {
  public struct Rule: Sendable, Equatable {
    public var initiator: InitiatorPattern
    public var decision: AccessDecision

    public init(initiator: String, decision: AccessDecision) {
      self.initiator = InitiatorPattern(initiator)
      self.decision = decision
    }
  }

  public var rules: [Rule]
  /// For an initiator that no rule names.
  public var otherwise: AccessDecision
  /// What a discovery session has to prove; nil: nothing. A denied initiator still sees no target in it.
  public var discovery: CHAPRequirement?

  public init(rules: [Rule], otherwise: AccessDecision = .denied, discovery: CHAPRequirement? = nil) {
    self.rules = rules
    self.otherwise = otherwise
    self.discovery = discovery
  }

  /// Every initiator, every LUN, no authentication.
  public static let open = AccessRules(rules: [], otherwise: .allowed(chap: nil, luns: nil))

  public func decide(initiatorName: ISCSIName) -> AccessDecision {
    rules.first { $0.initiator.matches(initiatorName) }?.decision ?? otherwise
  }
}
