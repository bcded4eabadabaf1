/// Status-Class and Status-Detail of a Login Response (RFC 7143 §11.13.5), class in the high byte.
public struct LoginStatus: RawRepresentable, Hashable, Sendable {
  public var rawValue: UInt16

  public init(rawValue: UInt16) { self.rawValue = rawValue }

  public static let success = LoginStatus(rawValue: 0x0000)
  public static let targetMovedTemporarily = LoginStatus(rawValue: 0x0101)
  public static let targetMovedPermanently = LoginStatus(rawValue: 0x0102)
  public static let initiatorError = LoginStatus(rawValue: 0x0200)
  public static let authenticationFailure = LoginStatus(rawValue: 0x0201)
  public static let authorizationFailure = LoginStatus(rawValue: 0x0202)
  public static let notFound = LoginStatus(rawValue: 0x0203)
  public static let targetRemoved = LoginStatus(rawValue: 0x0204)
  public static let unsupportedVersion = LoginStatus(rawValue: 0x0205)
  public static let tooManyConnections = LoginStatus(rawValue: 0x0206)
  public static let missingParameter = LoginStatus(rawValue: 0x0207)
  public static let cannotIncludeInSession = LoginStatus(rawValue: 0x0208)
  public static let sessionTypeNotSupported = LoginStatus(rawValue: 0x0209)
  public static let sessionDoesNotExist = LoginStatus(rawValue: 0x020A)
  public static let invalidDuringLogin = LoginStatus(rawValue: 0x020B)
  public static let targetError = LoginStatus(rawValue: 0x0300)
  public static let serviceUnavailable = LoginStatus(rawValue: 0x0301)
  public static let outOfResources = LoginStatus(rawValue: 0x0302)
}

/// A Login Response, ready to send.
public struct LoginReply: Equatable, Sendable {
  public var header: BasicHeaderSegment
  public var data: [UInt8]

  public var status: LoginStatus { LoginStatus(rawValue: UInt16(truncatingIfNeeded: header.word9 >> 16)) }
}

/// What a login led to, all that the full-feature phase begins with.
public struct LoginResult: Sendable {
  public var isDiscovery: Bool
  public var initiatorName: ISCSIName
  public var initiatorAlias: String?
  /// Six bytes in the low end (RFC 7143 §11.12.5).
  public var isid: UInt64
  /// 0: a new session, or the reinstatement of one with the same initiator name, ISID and target portal group
  /// (RFC 7143 §6.3.5). Else a connection for that session: the same CID reinstates (§6.3.4), another one adds.
  public var tsihRequested: UInt16
  public var cid: UInt16
  /// CmdSN of the last Login Request. It is immediate, so it is also the first CmdSN of the full-feature phase
  /// (RFC 7143 §11.12.8).
  public var initialCmdSN: UInt32
  /// The StatSN after the final Login Response's.
  public var statSN: UInt32
  public var targetPortalGroupTag: UInt16
  public var parameters: NegotiatedParameters
  /// The CHAP name that was proved; nil without authentication.
  public var authenticatedName: String?
  /// LUNs this initiator may see; nil: all.
  public var luns: Set<UInt16>?
}

/// What to do after a Login Request.
public enum LoginStep: Sendable {
  /// Send, and wait for the next request.
  case respond(LoginReply)
  /// Nothing to send yet: settle the session (reinstatement, TSIH, resources), then send what `finish` or `refuse`
  /// gives.
  case established(LoginResult)
  /// Send, then close the connection.
  case fail(LoginReply)
  /// Close the connection without a word.
  case close
}
