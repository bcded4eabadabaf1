import CSystem
import Glibc
import Synchronization

/// A network namespace of a test: interfaces, addresses and routes of its own. It takes root; who has not skips the test.
final class NetworkNamespace: Sendable {
  let name: String
  /// A wire goes with either of its ends.
  private let neighbours = Mutex<[NetworkNamespace]>([])

  /// Why there are none here; nil: there are.
  static let obstacle: String? = {
    guard geteuid() == 0 else { return "not root" }
    guard let namespace = NetworkNamespace() else { return "no network namespace can be made" }
    return namespace.ip("link add p0 type veth peer name p1") ? nil : "no pair of interfaces (veth) can be made"
  }()

  init?() {
    var random: UInt32 = 0
    system_random(&random, 4)
    name = "gatewayd-test-\(random)"
    guard Self.run("ip netns add \(name)") else { return nil }
    Self.remember(name)
    guard ip("link set lo up") else { return nil }
  }

  deinit { Self.forget(name) }

  // A thread that sleeps when the tests end keeps its namespace, whose name would outlive the program.
  private static let names = Mutex<Set<String>>([])
  private static let leaving: Void = { atexit { NetworkNamespace.forgetAll() } }()

  private static func remember(_ name: String) {
    _ = leaving
    names.withLock { _ = $0.insert(name) }
  }

  private static func forget(_ name: String) {
    guard names.withLock({ $0.remove(name) }) != nil else { return }
    _ = run("ip netns delete \(name)")
  }

  fileprivate static func forgetAll() {
    for name in names.withLock({ $0 }) { forget(name) }
  }

  /// Puts the calling thread into it, for the rest of its life.
  func enter() {
    let descriptor = open("/run/netns/\(name)", O_RDONLY | O_CLOEXEC)
    precondition(descriptor >= 0 && system_enter_namespace(descriptor) == 0, "the namespace cannot be entered")
    close(descriptor)
  }

  /// `ip` with these words, in the namespace.
  @discardableResult
  func ip(_ words: String) -> Bool { Self.run("ip -n \(name) \(words)") }

  /// What `ip` prints.
  func show(_ words: String) -> String { Self.output("ip -n \(name) \(words)") }

  /// A wire to another namespace: `a` here, `b` there, both up.
  func connect(_ a: String, to other: NetworkNamespace, as b: String) -> Bool {
    neighbours.withLock { $0.append(other) }
    return ip("link add \(a) type veth peer name \(b) netns \(other.name)") && ip("link set \(a) up")
      && other.ip("link set \(b) up")
  }

  private static func run(_ command: String) -> Bool { system(command + " 2>/dev/null >/dev/null") == 0 }

  private static func output(_ command: String) -> String {
    guard let pipe = popen(command, "re") else { return "" }
    defer { pclose(pipe) }
    var text = [UInt8](repeating: 0, count: 1 << 16)
    let count = fread(&text, 1, text.count, pipe)
    return String(decoding: text[..<count], as: UTF8.self)
  }
}
