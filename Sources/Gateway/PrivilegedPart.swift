import CSystem
import Discovery
import Glibc
import Privileged
import Storage
import Synchronization

/// Why a part cannot run.
public struct PartError: Error, Sendable, CustomStringConvertible {
  public let description: String
}

/// `gatewayd privileged`: one of the two parts, in a process of its own (docs/ARCHITECTURE.md).
public enum PrivilegedPart {
  public static let names = Part.allCases.map(\.name)

  /// Answers at the socket that systemd passed, for as long as the process lives.
  ///
  /// - Parameter user: who may ask besides root: a name or a number.
  public static func run(named name: String, user: String) throws(PartError) -> Never {
    guard let part = Part(name: name) else { throw PartError(description: "there is no such part") }
    guard let owner = userNumber(user) else { throw PartError(description: "there is no user '\(user)'") }
    let passed = PassedSockets.take()
    guard passed.count == 1, system_is_packet_listener(passed[0]) != 0 else {
      throw PartError(description: "it is started by its socket: systemctl start \(part.unit)")
    }
    // It must answer also while the disk that this program lies on does not.
    UrgentThread.lockProgram()
    let log = { @Sendable (text: String) in Log.warning("\(part.name): \(text)") }
    let server = PartServer(part, admits: { $0 == 0 || $0 == owner }, log: log, handler: handler(part, log))
    throw PartError(description: "its socket: \(SystemError.text(server.run(passed[0])))")
  }

  private static func handler(_ part: Part, _ log: @escaping @Sendable (String) -> Void) -> PartServer.Handler {
    switch part {
    case .fence:
      let systemDisks = SystemDisks()
      let service = FenceService(obstacle: { systemDisks.obstacle($0) }, log: log)
      return { service.answer($0, $1) }
    case .addresses:
      let service = AddressService(log: log)
      return { service.answer($0, $1) }
    }
  }

  private static func userNumber(_ name: String) -> uid_t? {
    if let number = uid_t(name) { return number }
    // Called once, before there is a second thread.
    return getpwnam(name)?.pointee.pw_uid
  }
}

/// Disks that the running system stands on, or that the gateway's own image is on: their reservations are nobody's to touch.
final class SystemDisks: Sendable {
  /// What was found lately is believed, and looked at anew meanwhile when it is older than half of that: a disk that is in use
  /// by a pair is asked about all the time, so no order in a hurry waits for an enumeration.
  private static let believedNanoseconds: UInt64 = 120_000_000_000
  private static let knownMax = 4096

  private struct Finding {
    var obstacle: String?
    var at: UInt64
    var isLookedAtAnew = false
  }

  private let known = Mutex<[UInt64: Finding]>([:])
  private let find: @Sendable (UInt64) -> String?

  init(find: @escaping @Sendable (UInt64) -> String? = SystemDisks.read) { self.find = find }

  /// - Parameter number: a block device's, as stat(2) gives it.
  func obstacle(_ number: UInt64) -> String? { obstacle(number, at: system_monotonic_ns()) }

  func obstacle(_ number: UInt64, at now: UInt64) -> String? {
    let (old, isDue) = known.withLock { known -> (Finding?, Bool) in
      guard let old = known[number], now - old.at < Self.believedNanoseconds else { return (nil, false) }
      let isDue = now - old.at >= Self.believedNanoseconds / 2 && !old.isLookedAtAnew
      if isDue { known[number]?.isLookedAtAnew = true }
      return (old, isDue)
    }
    guard let old else { return look(number, at: now) }
    if isDue { ControlThread.start { [self] in _ = look(number, at: now) } }
    return old.obstacle
  }

  private func look(_ number: UInt64, at now: UInt64) -> String? {
    let obstacle = find(number)
    known.withLock { known in
      if known.count >= Self.knownMax { known = [:] }
      known[number] = Finding(obstacle: obstacle, at: now)
    }
    return obstacle
  }

  @Sendable static func read(_ number: UInt64) -> String? {
    let devices = BlockDeviceReader().enumerate()
    return obstacle(DeviceNumber(dev_t(number)), SystemUse.read(devices: devices), devices)
  }

  /// Everything beneath the device counts: a partition's reservations are its disk's.
  static func obstacle(_ number: DeviceNumber, _ use: SystemUse, _ devices: [BlockDevice]) -> String? {
    guard let name = use.graph.name(of: number) else { return "nothing is known of block device \(number)" }
    for device in use.graph.beneath(name).sorted() {
      if let worst = use.uses[device]?.first { return "\(device) is in use (\(worst.place))" }
      let labels = devices.first { $0.name == device }?.partitions.compactMap(\.label) ?? []
      if labels.contains(where: { $0.hasPrefix(DiscoveryPolicy().ownPartitionLabelPrefix) }) {
        return "\(device) has the gateway's own system on it"
      }
    }
    return nil
  }
}
