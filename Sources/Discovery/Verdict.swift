/// What may become of a disk.
public enum Verdict: Equatable, Sendable {
  /// Nothing on it: may be labelled and exported without being asked.
  case blank
  /// Has our label: its contents belong to the initiators and were not looked at.
  case labelled
  /// Something of somebody's is on it: never written, until the operator adopts it.
  case held(Reason)
  /// Never.
  case refused(Reason)
}

/// Why a disk is held or refused, for machines (`code`) and for people (`sentence`).
public struct Reason: Equatable, Sendable, CustomStringConvertible {
  /// Stable across releases; tests and the control socket speak it.
  public struct Code: RawRepresentable, Hashable, Sendable {
    public var rawValue: String
    public init(rawValue: String) { self.rawValue = rawValue }

    // Refused.
    public static let systemDisk = Code(rawValue: "system-disk")
    public static let mounted = Code(rawValue: "mounted")
    public static let swap = Code(rawValue: "swap")
    public static let claimed = Code(rawValue: "claimed")
    public static let multipathPath = Code(rawValue: "multipath-path")
    public static let readOnly = Code(rawValue: "read-only")
    public static let kind = Code(rawValue: "kind")
    public static let partition = Code(rawValue: "partition")
    public static let ownUnit = Code(rawValue: "own-unit")
    public static let ownImage = Code(rawValue: "own-image")
    public static let tooSmall = Code(rawValue: "too-small")
    public static let blockSize = Code(rawValue: "block-size")
    public static let zoned = Code(rawValue: "zoned")
    public static let removable = Code(rawValue: "removable")
    public static let noMedium = Code(rawValue: "no-medium")
    public static let cannotOpen = Code(rawValue: "cannot-open")
    public static let cannotRead = Code(rawValue: "cannot-read")
    public static let identityChanged = Code(rawValue: "identity-changed")

    // Held.
    public static let notChosen = Code(rawValue: "not-chosen")
    public static let partitionTable = Code(rawValue: "partition-table")
    public static let fileSystem = Code(rawValue: "file-system")
    public static let volumeMember = Code(rawValue: "volume-member")
    public static let encrypted = Code(rawValue: "encrypted")
    public static let signature = Code(rawValue: "signature")
    public static let ambivalent = Code(rawValue: "ambivalent")
    public static let data = Code(rawValue: "data")
    public static let assembledVolume = Code(rawValue: "assembled-volume")
  }

  public var code: Code
  /// One sentence, printable, without the device's path: "It is mounted at /srv."
  public var sentence: String
  /// The one command that exports the disk all the same; nil where none does.
  public var remedy: String?

  public init(_ code: Code, _ sentence: String, remedy: String? = nil) {
    self.code = code
    self.sentence = sentence
    self.remedy = remedy
  }

  public var description: String { remedy.map { "\(sentence) To export it: \($0)" } ?? sentence }
}
