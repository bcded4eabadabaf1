import Glibc

/// A part of the gateway that has capabilities which the daemon has not: a process of its own that does a few operations for
/// it, and nothing else. Started by its socket (systemd/README.md).
public enum Part: UInt8, Sendable, CaseIterable {
  /// Persistent reservations: CAP_SYS_RAWIO and CAP_SYS_ADMIN.
  case fence = 1
  /// Service addresses: CAP_NET_ADMIN and CAP_NET_RAW.
  case addresses = 2

  public var name: String { "\(self)" }
  /// The unit that starts it.
  public var unit: String { "gatewayd-\(name).socket" }

  public init?(name: String) {
    guard let part = Self.allCases.first(where: { $0.name == name }) else { return nil }
    self = part
  }

  /// Its socket: in the directory that `GATEWAYD_PARTS` names, else in /run/gatewayd.
  public var socketPath: String {
    let told = getenv("GATEWAYD_PARTS").map { String(cString: $0) } ?? ""
    return "\(told.isEmpty ? "/run/gatewayd" : told)/\(name).sock"
  }

  /// What it sends to whoever connects: so the other end knows that it is there, which part it is and what it speaks.
  var greeting: [UInt8] { [UInt8]("gatewayd".utf8) + [rawValue, Self.version] }
  static let version: UInt8 = 1
}

/// Bounds of the messages. Their meaning belongs to the part; a message is a datagram (SOCK_SEQPACKET) each way, a request
/// perhaps with one descriptor beside it.
public enum PartMessage {
  public static let requestBytesMax = 64
  /// The longest list of keys that a disk can give is 64 KiB.
  public static let answerBytesMax = 66 << 10
}

/// Why a part gave no answer.
public enum PartFailure: Error, Equatable, Sendable {
  /// It is not there, or does not let this process in: nothing was done. A positive errno.
  case absent(Int32)
  /// The connection ended, or the answer was late: nobody knows whether the request was carried out.
  case lost
}
