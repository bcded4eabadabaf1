import FoundationEssentials

@testable import Gateway

/// A line that came over the control socket. What is understood and written again is understood as the same.
@Sendable func fuzzControl(_ data: UnsafeRawBufferPointer) {
  do throws(ControlError) {
    let request = try ControlRequest.decode([UInt8](data))
    guard let again = try? JSONEncoder().encode(request) else { preconditionFailure("not encoded") }
    precondition((try? ControlRequest.decode([UInt8](again))) == request)
  } catch {
    precondition(error.code == .badRequest && !error.message.isEmpty)
  }
}
