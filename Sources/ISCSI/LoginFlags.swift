/// The stages of the login phase (RFC 7143 §11.12.3).
enum LoginStage: UInt8, Sendable {
  case security = 0
  case operational = 1
  case fullFeature = 3
}

/// The first bytes of a Login Request: T, C, CSG, NSG and the versions (RFC 7143 §11.12).
struct LoginFlags {
  let header: BasicHeaderSegment
  let stage: LoginStage
  /// The stage the initiator wants to go to; nil: T is 0.
  let nextStage: LoginStage?

  var isContinued: Bool { header.flags & 0x40 != 0 }

  init(_ header: BasicHeaderSegment) throws(LoginFault) {
    self.header = header
    guard header.byte3 == 0 else { throw LoginFault(.unsupportedVersion, "Version-min above 0") }  // §11.12.4.2
    guard let stage = LoginStage(rawValue: header.flags >> 2 & 3), stage != .fullFeature else {
      throw LoginFault(.initiatorError, "a reserved current stage")
    }
    self.stage = stage
    guard header.flags & 0x80 != 0 else {
      nextStage = nil
      return
    }
    guard let next = LoginStage(rawValue: header.flags & 3), next.rawValue > stage.rawValue else {
      throw LoginFault(.initiatorError, "a transition that does not exist")
    }
    nextStage = next
  }

  func check() throws(LoginFault) {
    guard header.isImmediate else { throw LoginFault(.initiatorError, "not immediate") }  // §11.12
    guard header.additionalHeaderBytes == 0 else { throw LoginFault(.initiatorError, "additional header segments") }
    // §11.12.2: a request to be continued cannot ask for a transition.
    guard !(isContinued && nextStage != nil) else { throw LoginFault(.initiatorError, "T and C together") }
  }
}

extension LoginMachine.Identity {
  init(_ header: BasicHeaderSegment) {
    isid = header.lun >> 16
    tsih = UInt16(truncatingIfNeeded: header.lun)
    cid = UInt16(truncatingIfNeeded: header.word5 >> 16)
    initiatorTaskTag = header.initiatorTaskTag
  }
}
