/// What is on a disk or in a file, as far as can be told by reading a little of it.
public struct ContentFinding: Equatable, Sendable {
  public struct PartitionTable: Equatable, Sendable {
    public struct Entry: Equatable, Sendable {
      public var label: String?
      /// PARTUUID, lower case.
      public var uuid: String?

      public init(label: String? = nil, uuid: String? = nil) {
        self.label = label
        self.uuid = uuid
      }
    }
    /// libblkid's name: "gpt", "dos", "bsd", …
    public var type: String
    public var entries: [Entry]

    public init(type: String, entries: [Entry] = []) {
      self.type = type
      self.entries = entries
    }
  }

  public struct Signature: Equatable, Sendable {
    public enum Usage: Sendable { case fileSystem, raid, crypto, other }
    /// libblkid's name: "ext4", "linux_raid_member", "LVM2_member", "crypto_LUKS", "zfs_member", …
    public var type: String
    public var usage: Usage
    public var label: String?
    public var uuid: String?

    public init(type: String, usage: Usage, label: String? = nil, uuid: String? = nil) {
      self.type = type
      self.usage = usage
      self.label = label
      self.uuid = uuid
    }
  }

  public var partitionTable: PartitionTable?
  public var signature: Signature?
  /// Several signatures that contradict one another.
  public var isAmbivalent = false
  /// Byte offset of the first block found that is not zero.
  public var firstDataOffset: UInt64?
  /// The error that kept us from reading all that had to be read; then nothing may be concluded.
  public var readError: Int32?

  public init() {}

  public var isBlank: Bool {
    partitionTable == nil && signature == nil && !isAmbivalent && firstDataOffset == nil && readError == nil
  }
}
