/// Who logs in to what, from the keys of a first Login Request (RFC 7143 §6.3.1), and what its access rule says.
struct LoginPeer: Sendable {
  var name: ISCSIName
  var alias: String?
  var isDiscovery: Bool
  var chap: CHAPRequirement?
  var luns: Set<UInt16>?

  init(_ keys: TextKeys, configuration: TargetConfiguration) throws(LoginFault) {
    guard let text = keys["InitiatorName"] else { throw LoginFault(.missingParameter, "no InitiatorName") }  // §13.5
    guard let name = ISCSIName(text) else { throw LoginFault(.initiatorError, "not an iSCSI name") }
    self.name = name
    alias = keys["InitiatorAlias"]
    switch keys["SessionType"] {
    case "Discovery": isDiscovery = true
    case "Normal", nil: isDiscovery = false
    default: throw LoginFault(.sessionTypeNotSupported, "an unknown SessionType")  // §13.21
    }
    if isDiscovery {
      chap = configuration.access.discovery
      return
    }
    guard let target = keys["TargetName"] else { throw LoginFault(.missingParameter, "no TargetName") }  // §13.4
    guard ISCSIName(target) == configuration.targetName else { throw LoginFault(.notFound, "another target") }
    guard case .allowed(let chap, let luns) = configuration.access.decide(initiatorName: name) else {
      throw LoginFault(.authorizationFailure, "no access rule lets it in")
    }
    self.chap = chap
    self.luns = luns
  }
}
