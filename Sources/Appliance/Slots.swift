/// The versions of the system that are on the ESP, two at most, and which of them the boot loader takes.
///
/// A file is `gatewayd-VERSION.efi`, or while the boot loader counts its tries `gatewayd-VERSION+LEFT-DONE.efi`. It takes the
/// newest that has tries left, else one that has none (systemd-boot(7), automatic boot assessment). So everything here is
/// done by names, and no variable of the firmware is written.
public struct Slots: Equatable, Sendable {
  public struct Slot: Equatable, Sendable {
    public var file: String
    public var version: String
    /// Nil: it has proven itself.
    public var triesLeft: Int?
    /// How often the boot loader has started it since it had its tries.
    public var triesDone = 0

    public var hasFailed: Bool { triesLeft == 0 && triesDone > 0 }
    /// Another one is preferred, which is older; this one is taken when that one fails.
    public var isPutAside: Bool { triesLeft == 0 && triesDone == 0 }

    /// Nil if the file is none of ours.
    public init?(file: String) {
      guard file.hasPrefix("gatewayd-"), file.lowercased().hasSuffix(".efi") else { return nil }
      let stem = file.dropFirst("gatewayd-".count).dropLast(".efi".count)
      let parts = stem.split(separator: "+", omittingEmptySubsequences: false)
      guard let version = parts.first.map(String.init), ImageVersion.isValid(version), parts.count <= 2 else {
        return nil
      }
      self.file = file
      self.version = version
      if parts.count == 2 {
        let counts = parts[1].split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
        guard counts.count <= 2, let left = counts[0], left >= 0 else { return nil }
        triesLeft = left
        if counts.count == 2 {
          guard let done = counts[1], done >= 0 else { return nil }
          triesDone = done
        }
      }
    }

    public var state: String {
      switch triesLeft {
      case nil: "proven"
      case 0?: isPutAside ? "put aside" : "failed"
      case let left?: "on trial, \(left) \(left == 1 ? "try" : "tries") left"
      }
    }
  }

  /// The one that runs; nil: it is not on the ESP (a start over the network).
  public var current: Slot?
  public var others: [Slot]

  /// How often a new version may fail before the one before it is taken again.
  public static let tries = 3

  /// - Parameter files: the names in the ESP's EFI/Linux.
  public init(files: [String], runningVersion: String) {
    let slots = files.sorted().compactMap(Slot.init(file:))
    current = slots.first { $0.version == runningVersion }
    others = slots.filter { $0.version != runningVersion }
  }

  /// A change of names that is not possible, in words.
  public struct Refusal: Error, Equatable, Sendable, CustomStringConvertible {
    public var description: String
  }

  /// What is done to the directory to have another version: first this is removed, then the new file comes under its name,
  /// then these get other names.
  public struct Change: Equatable, Sendable {
    public var removed: [String] = []
    public var added: String?
    public var renamed: [Renaming] = []
  }

  public struct Renaming: Equatable, Sendable {
    public var from: String
    public var to: String
  }

  /// The new version is tried at the next start; the one that runs stays, for it is what is started when the new one fails. So
  /// it has tries again if it was to be left for another, and is put aside if it is the newer and would be preferred.
  public func installing(_ version: String) throws(Refusal) -> Change {
    guard ImageVersion.isValid(version) else { throw Refusal(description: "'\(version)' is no version") }
    guard let current else {
      throw Refusal(description: "the version that runs is not on the ESP: there is nothing to update")
    }
    guard version != current.version else { throw Refusal(description: "version \(version) runs already") }
    // Of two versions on trial none may be left, and what is proven would be gone.
    if current.triesLeft != nil, let proven = others.first(where: { $0.triesLeft == nil }) {
      throw Refusal(
        description: "version \(current.version), which runs, has not proven itself yet, and \(proven.version) "
          + "would go: wait until 'gatewayd slots' calls it proven, or 'gatewayd rollback --reboot' first")
    }
    var change = Change(removed: others.map(\.file), added: Self.name(version, tries: Self.tries))
    if ImageVersion.isOlder(version, than: current.version) {
      change.renamed = [Renaming(from: current.file, to: Self.name(current.version, tries: 0))]
    } else if current.triesLeft == 0 {
      change.renamed = [Renaming(from: current.file, to: Self.name(current.version, tries: Self.tries))]
    }
    return change
  }

  /// The other version is taken at the next start.
  public func goingBack() throws(Refusal) -> Change {
    guard let current else { throw Refusal(description: "the version that runs is not on the ESP") }
    guard let other = others.first(where: { !$0.hasFailed }) else {
      throw Refusal(description: others.isEmpty ? "there is no other version" : "the other version has failed")
    }
    guard ImageVersion.isOlder(other.version, than: current.version) else {
      return other.isPutAside
        ? Change(renamed: [Renaming(from: other.file, to: Self.name(other.version, tries: Self.tries))]) : Change()
    }
    return Change(renamed: [Renaming(from: current.file, to: Self.name(current.version, tries: 0))])
  }

  /// Whether another start would get a system that serves where this one does not: it is on trial, and there is another that
  /// has not failed. Else it stays as it is, because to start again for ever mends nothing.
  public var mayFallBack: Bool { current?.triesLeft != nil && others.contains { !$0.hasFailed } }

  private static func name(_ version: String, tries: Int) -> String { "gatewayd-\(version)+\(tries).efi" }
}
