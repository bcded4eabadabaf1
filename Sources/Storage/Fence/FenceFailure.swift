import Glibc

/// Why an order to a shared disk was not done. What the coordinator of a pair tells apart, and nothing more.
public enum FenceFailure: Error, Equatable, Sendable {
  /// RESERVATION CONFLICT: another node has the disk, or the key that was named is not registered.
  case conflict
  /// A unit attention came instead of an answer that says that registrations may be gone: power on or reset (29/xx), or
  /// reservations or registrations released or preempted (2A/03 to 2A/05). The order was not done.
  case disturbed
  /// Not done, for another reason; a positive errno.
  case failed(Int32)
  /// No answer in time, or it was lost on its way: whether the order was or will be done is not known.
  case timedOut

  /// The kernel lets this process send no such command.
  var isForbidden: Bool { self == .failed(EPERM) || self == .failed(EACCES) }
}
