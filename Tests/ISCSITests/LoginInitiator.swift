import Glibc

@testable import ISCSI

/// The initiator's side of a login, as far as tests need it: it builds requests and reads answers.
struct LoginInitiator {
  static let name = "iqn.1993-08.org.debian:01:abcdef"
  static let target = "iqn.2024-01.org.example:disks"
  static let portal = "192.0.2.1:3260"

  var machine: LoginMachine
  var isid: UInt64 = 0x00_02_3D_00_00_01
  var tsih: UInt16 = 0
  var cid: UInt16 = 1
  var cmdSN: UInt32 = 0x100
  var initiatorTaskTag: UInt32 = 7
  var random: (Int) -> [UInt8] = { Array(0..<UInt8($0)) }

  init(
    _ access: AccessRules = .open, transport: TransportCapabilities = .tcp, alias: String? = nil,
    limits: OfferLimits = OfferLimits()
  ) {
    machine = LoginMachine(
      configuration: Self.configuration(access, alias: alias, limits: limits), transport: transport,
      localPortal: Self.portal, initialStatSN: 0x5000)
  }

  static func configuration(
    _ access: AccessRules = .open, alias: String? = nil, limits: OfferLimits = OfferLimits()
  ) -> TargetConfiguration {
    TargetConfiguration(
      targetName: ISCSIName(target)!, targetAlias: alias,
      portals: [Portal(address: portal, portalGroupTag: 3), Portal(address: "[fe80::1]:3260", portalGroupTag: 4)],
      access: access, limits: limits)
  }

  static let opening = ["InitiatorName=\(name)", "TargetName=\(target)", "SessionType=Normal"]
  static let discovery = ["InitiatorName=\(name)", "SessionType=Discovery"]

  func header(
    from stage: LoginStage, to next: LoginStage? = nil, isContinued: Bool = false, byteCount: Int = 0
  ) -> BasicHeaderSegment {
    var flags = stage.rawValue << 2
    if let next { flags |= 0x80 | next.rawValue }
    if isContinued { flags |= 0x40 }
    var header = BasicHeaderSegment(.loginRequest, flags: flags, initiatorTaskTag: initiatorTaskTag)
    header.word0 |= 0x4000_0000
    header.dataSegmentLength = byteCount
    header.lun = isid << 16 | UInt64(tsih)
    header.word5 = UInt32(cid) << 16
    header.word6 = cmdSN
    return header
  }

  static func bytes(_ keys: [String]) -> [UInt8] { keys.flatMap { Array($0.utf8) + [0] } }

  mutating func send(
    from stage: LoginStage, to next: LoginStage? = nil, isContinued: Bool = false, _ keys: [String]
  ) -> LoginStep {
    let data = Self.bytes(keys)
    return machine.receive(
      header(from: stage, to: next, isContinued: isContinued, byteCount: data.count), data: data, random: random)
  }
}

extension LoginStep {
  var reply: LoginReply? {
    switch self {
    case .respond(let reply), .fail(let reply): reply
    case .established, .close: nil
    }
  }

  /// The status of a refusal; nil for any other step.
  var failure: LoginStatus? {
    if case .fail(let reply) = self { reply.status } else { nil }
  }

  var result: LoginResult? {
    if case .established(let result) = self { result } else { nil }
  }

  /// The answer's keys, "key=value", where the login goes on.
  var answers: [String]? {
    if case .respond(let reply) = self { reply.pairs } else { nil }
  }

  var isClose: Bool {
    if case .close = self { true } else { false }
  }
}

extension LoginReply {
  var pairs: [String] { data.split(separator: 0).map { String(decoding: $0, as: UTF8.self) } }
  /// T and the next stage, where the target agrees to go on.
  var transition: LoginStage? { header.isFinal ? LoginStage(rawValue: header.flags & 3) : nil }
}

/// How often random tests go round, as a multiple of their everyday count: FUZZ_FACTOR in the environment.
let fuzzFactor = getenv("FUZZ_FACTOR").flatMap { Int(String(cString: $0)) } ?? 1
