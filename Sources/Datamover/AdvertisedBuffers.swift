/// Where an initiator has a command's data, as the header in front of the command told it (RFC 7145 §9.2); empty on a
/// transport whose PDUs carry the data. Opaque to everybody but the datamover: taken from it with the command and handed
/// back with each request to move data.
public struct AdvertisedBuffers: Equatable, Sendable {
  /// Steering tags; nil in effect when the flag is not set. 0 is a tag like any other.
  public var readSTag: UInt32 = 0
  public var writeSTag: UInt32 = 0
  public var readVA: UInt64 = 0
  /// Of the first byte that is not sent with the command.
  public var writeVA: UInt64 = 0
  public var hasRead = false
  public var hasWrite = false

  public init() {}
}
