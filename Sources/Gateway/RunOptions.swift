import Discovery
import Glibc

/// Everything that `gatewayd run` was told: the settings file and, above it, the command line. Whatever the command line
/// says stays in force when the settings file is read again.
public struct RunOptions: Sendable, Equatable {
  /// The settings file, or the defaults.
  public var settings: Settings
  /// Where identity is kept between starts; nil: nowhere, identity lives in the disks' labels only.
  public var stateDirectory: String?
  /// `--listen`; empty: the settings' addresses.
  public var listen: [ListenAddress]
  /// Listening TCP sockets that the service manager passed: the portals are these, whatever else says where to listen.
  public var sockets: [Int32] = []
  /// `--disk`, in LUN order.
  public var disks: [DiskSpecification]
  /// False after `--no-discovery`.
  public var discovery: Bool
  /// False after `--no-iser`.
  public var iser: Bool
  /// `--only`: what discovery may touch; empty: every disk.
  public var only: [String]
  /// `--target`; nil: the settings' name, else one made from the machine's identity.
  public var targetName: String?
  /// `--threads`; nil: the settings' number, else one per processor.
  public var threads: Int?
  /// The control socket.
  public var controlPath: String

  public init(
    settings: Settings = Settings(), stateDirectory: String? = nil, listen: [ListenAddress] = [],
    disks: [DiskSpecification] = [], discovery: Bool = true, iser: Bool = true, only: [String] = [],
    targetName: String? = nil, threads: Int? = nil,
    controlPath: String = ControlPath.standard()
  ) {
    self.settings = settings
    self.stateDirectory = stateDirectory
    self.listen = listen
    self.disks = disks
    self.discovery = discovery
    self.iser = iser
    self.only = only
    self.targetName = targetName
    self.threads = threads
    self.controlPath = controlPath
  }

  /// The addresses to listen on.
  public var listenAddresses: [ListenAddress] { listen.isEmpty ? settings.target.listen : listen }
  /// The target name that was asked for; nil: the gateway makes one.
  public var requestedTargetName: String? { targetName ?? settings.target.name }
  /// The number of reactor threads that was asked for; nil: one per processor.
  public var requestedThreads: Int? { threads ?? settings.target.threads }
  /// Whether disks are looked for.
  public var discoversDisks: Bool { discovery && settings.discovery.isEnabled }
  /// Whether iSER is served where a NIC allows.
  public var servesISER: Bool { iser && settings.iser.isEnabled }
}

/// One `--disk`: a block device or file by path, or a device made of nothing for benchmarks and tests.
public enum DiskSpecification: Sendable, Equatable {
  /// A block device or a regular file.
  case path(String)
  /// Kept in memory, lost at exit.
  case memory(bytes: UInt64)
  /// Reads zeroes, forgets writes.
  case null(bytes: UInt64)
  /// Memory that answers every request this much later.
  case slow(bytes: UInt64, milliseconds: UInt32)
  /// Memory that fails by rules; the text of the rules belongs to the device.
  case faulty(bytes: UInt64, rules: String)
}

/// A value that could not be read: what was given and what is allowed, in one sentence for a person.
public struct ValueError: Error, Equatable, CustomStringConvertible {
  public var description: String

  public init(_ description: String) { self.description = description }
}

extension DiskSpecification {
  static let allowed = "a path, memory:SIZE, null:SIZE, slow:SIZE:MILLISECONDS or faulty:SIZE:RULES"

  /// Reads `PATH`, `memory:SIZE`, `null:SIZE`, `slow:SIZE:MILLISECONDS` or `faulty:SIZE:RULES`. A path with a colon in it
  /// is written with a slash in front of it (`./memory:1`).
  /// - Throws: `ValueError` that says what is allowed.
  public init(parsing text: String) throws(ValueError) {
    guard !text.isEmpty, !text.utf8.contains(0) else {
      throw ValueError("a disk is \(Self.allowed); an empty text is none of these")
    }
    let parts = text.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false).map(String.init)
    guard parts.count > 1, !parts[0].contains("/") else {
      self = .path(text)
      return
    }
    switch (parts[0], parts.count) {
    case ("memory", 2): self = .memory(bytes: try Self.capacity(parts[1], of: text))
    case ("null", 2): self = .null(bytes: try Self.capacity(parts[1], of: text))
    case ("slow", 3):
      guard let milliseconds = UInt32(parts[2]) else {
        throw ValueError("'\(text)': '\(parts[2])' is not a number of milliseconds (0 to \(UInt32.max))")
      }
      self = .slow(bytes: try Self.capacity(parts[1], of: text), milliseconds: milliseconds)
    case ("faulty", 3): self = .faulty(bytes: try Self.capacity(parts[1], of: text), rules: parts[2])
    default: throw ValueError("'\(text)' is not \(Self.allowed)")
    }
  }

  /// A capacity in whole 512-byte blocks, at least one.
  private static func capacity(_ text: String, of whole: String) throws(ValueError) -> UInt64 {
    let bytes: UInt64
    do { bytes = try ByteCount.parse(text) } catch { throw ValueError("'\(whole)': \(error.description)") }
    guard bytes > 0, bytes % 512 == 0 else {
      throw ValueError("'\(whole)': a disk is a multiple of 512 bytes and not empty")
    }
    return bytes
  }
}

/// Numbers of bytes as people write them.
public enum ByteCount {
  static let shifts: [(suffix: String, shift: UInt64)] = [("K", 10), ("M", 20), ("G", 30), ("T", 40), ("P", 50)]

  /// Reads `4096`, `512M`, `4GiB`, `1T`. K, M, G, T and P (or KiB …) are powers of 1024; KB and the like are refused
  /// because people mean two different things by them.
  public static func parse(_ text: String) throws(ValueError) -> UInt64 {
    let digits = text.prefix { $0.isASCII && $0.isNumber }
    let suffix = text.dropFirst(digits.count).uppercased()
    let shift: UInt64? =
      suffix.isEmpty ? 0 : shifts.first { suffix == $0.suffix || suffix == $0.suffix + "IB" }?.shift
    guard let shift, let number = UInt64(digits) else {
      throw ValueError(
        "'\(text)' is not a size; allowed: a number of bytes, or a number with K, M, G, T, P (or KiB, MiB, …), as in 512M"
      )
    }
    let bytes = number << shift
    guard bytes >> shift == number, bytes <= UInt64(Int64.max) else {
      throw ValueError("the size '\(text)' is too large")
    }
    return bytes
  }

  /// `4 GiB`, `1.5 TiB`, `512 B`: three digits at most after the unit was chosen.
  public static func describe(_ bytes: UInt64) -> String {
    guard let unit = shifts.last(where: { bytes >> $0.shift != 0 }) else { return "\(bytes) B" }
    let tenths = (bytes >> (unit.shift - 10)) * 10 / 1024
    let whole = tenths / 10
    return whole >= 100 || tenths % 10 == 0 ? "\(whole) \(unit.suffix)iB" : "\(whole).\(tenths % 10) \(unit.suffix)iB"
  }
}

/// An address and port to listen on. Numeric only: a name that cannot be looked up must not keep storage down.
public struct ListenAddress: Sendable, Equatable, Hashable, CustomStringConvertible {
  public static let standardPort: UInt16 = 3260

  /// `::`, `10.0.0.1`, `fe80::1%eth0`; without brackets.
  public var host: String
  /// 0: any free port.
  public var port: UInt16

  public init(host: String, port: UInt16) {
    self.host = host
    self.port = port
  }

  public var isIPv6: Bool { host.contains(":") }
  /// Nobody but this machine can come to it.
  var isLoopback: Bool { IPNetwork.bytes(ofAddress: host).flatMap(NetworkAddress.init)?.isLoopback ?? false }

  /// `[::]:3260`, `0.0.0.0:3260`.
  public var description: String { isIPv6 ? "[\(host)]:\(port)" : "\(host):\(port)" }

  static let allowed = "ADDRESS:PORT, [IPv6]:PORT, ADDRESS or PORT, as in [::]:3260, 10.0.0.1:3260, 3260"

  /// Reads `[::]:3260`, `0.0.0.0:3260`, `127.0.0.1:0`, `[fe80::1%eth0]:3260`, an address alone (port 3260) or a port alone
  /// (every address).
  public init(parsing text: String) throws(ValueError) {
    try self.init(text, standardPort: Self.standardPort, everyHost: "::", allowed: Self.allowed)
  }

  static let allowedForMetrics =
    "ADDRESS:PORT, [IPv6]:PORT, ADDRESS or PORT, as in 127.0.0.1:9862, [::1]:9862, 9862"

  /// The same with the metrics' port; a port alone is on loopback.
  init(parsingForMetrics text: String) throws(ValueError) {
    try self.init(
      text, standardPort: Settings.Metrics.standardPort, everyHost: "127.0.0.1", allowed: Self.allowedForMetrics)
  }

  /// - Parameter everyHost: Of a port alone.
  private init(_ text: String, standardPort: UInt16, everyHost: String, allowed: String) throws(ValueError) {
    let bad = ValueError("'\(text)' is not an address to listen on; allowed: \(allowed)")
    let (host, port) = try Self.split(text, everyHost: everyHost, orThrow: bad)
    guard let number = port.isEmpty ? standardPort : UInt16(port), port.allSatisfy(\.isASCII),
      !port.hasPrefix("+"), Self.isNumeric(host)
    else { throw bad }
    self.init(host: host, port: number)
  }

  private static func split(
    _ text: String, everyHost: String, orThrow bad: ValueError
  ) throws(ValueError) -> (String, String) {
    if text.hasPrefix("[") {
      guard let close = text.firstIndex(of: "]") else { throw bad }
      let host = String(text[text.index(after: text.startIndex)..<close])
      let rest = text[text.index(after: close)...]
      guard host.contains(":"), rest.isEmpty || (rest.hasPrefix(":") && rest.count > 1) else { throw bad }
      return (host, String(rest.dropFirst()))
    }
    let colons = text.filter { $0 == ":" }.count
    if colons > 1 { return (text, "") }
    if colons == 1, let colon = text.firstIndex(of: ":") {
      let port = String(text[text.index(after: colon)...])
      guard !port.isEmpty else { throw bad }
      return (String(text[..<colon]), port)
    }
    if !text.isEmpty, text.allSatisfy({ $0.isASCII && $0.isNumber }) { return (everyHost, text) }
    return (text, "")
  }

  private static func isNumeric(_ host: String) -> Bool {
    let parts = host.split(separator: "%", maxSplits: 1, omittingEmptySubsequences: false)
    if parts.count == 2, parts[1].isEmpty || !host.contains(":") { return false }
    return IPNetwork.bytes(ofAddress: String(parts[0])) != nil
  }
}
