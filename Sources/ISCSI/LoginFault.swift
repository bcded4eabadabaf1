/// A login that cannot go on: the status for the initiator and, for the log, what was wrong.
struct LoginFault: Error, Equatable {
  var status: LoginStatus
  var reason: StaticString

  init(_ status: LoginStatus, _ reason: StaticString) {
    self.status = status
    self.reason = reason
  }

  static func == (one: LoginFault, other: LoginFault) -> Bool { one.status == other.status }
}
