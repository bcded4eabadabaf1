import CSystem
import Glibc
import HA
import Storage
import Wire

/// Identities that are made here: of clusters, disks, pair keys.
package enum Identity {
  static func randomBytes(_ count: Int) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
      system_random(buffer.baseAddress, UInt64(count))
      initialized = count
    }
  }

  static func randomNumber() -> UInt64 { randomBytes(8).span.bytes.be64(0) }

  static func randomUUID() -> UUID { UUID(random: randomBytes(16)) }

  /// The cluster of a machine that has no labelled disk: the same at each start, made from the machine's id by a hash, for
  /// the id itself is not to be shown.
  static func machineCluster() -> UUID {
    guard let id = readLine(of: "/etc/machine-id"), id.utf8.count >= 32 else { return randomUUID() }
    return derivedUUID("gatewayd cluster of " + id)
  }

  /// A UUID that follows from a text: two FNV-1a hashes of 64 bits with different offsets.
  static func derivedUUID(_ text: String) -> UUID {
    var bytes: [UInt8] = []
    for offset: UInt64 in [0xCBF2_9CE4_8422_2325, 0x6C62_272E_07BB_0142] {
      var hash = offset
      for byte in text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
      bytes.append(be: hash)
    }
    return UUID(random: bytes)
  }

  /// Who this node is in a pair: kept in the state directory, else the same at each start as long as machine-id and network
  /// cards are. The cards count because machines that were copied have the same machine-id.
  static func node(stateDirectory: String?) -> NodeIdentity {
    let path = stateDirectory.map { "\($0)/node" }
    let kept = path.flatMap(readLine(of:)).flatMap(UUID.init)
    let node = kept ?? derivedUUID("gatewayd node of \(readLine(of: "/etc/machine-id") ?? "") \(hardwareAddresses())")
    if kept == nil, let path, let file = fopen(path, "w") {
      // Where it cannot be kept it is made again.
      fputs("\(node)\n", file)
      fclose(file)
    }
    return NodeIdentity(node: node, bootID: max(randomNumber(), 1), name: hostName)
  }

  package static var hostName: String {
    var name = [CChar](repeating: 0, count: 65)
    gethostname(&name, 64)
    return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// The addresses of the network cards that are hardware, sorted.
  private static func hardwareAddresses() -> String {
    guard let directory = opendir("/sys/class/net") else { return "" }
    defer { closedir(directory) }
    var found: [String] = []
    while let entry = readdir(directory) {
      let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      guard access("/sys/class/net/\(name)/device", F_OK) == 0,
        let address = readLine(of: "/sys/class/net/\(name)/address")
      else { continue }
      found.append(address)
    }
    return found.sorted().joined(separator: " ")
  }

  static func readLine(of path: String) -> String? {
    guard let file = fopen(path, "r") else { return nil }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    guard fgets(&line, 256, file) != nil else { return nil }
    let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return text.split(separator: "\n").first.map(String.init)
  }

  static func targetName(cluster: UUID) -> String { "iqn.2026-01.io.gatewayd:\(cluster)" }
}
