import Wire

/// Payloads of the pair's records in the label area. Whoever keeps the record (double slots, checksum, sequence) adds the
/// rest; these are total for any bytes and refuse what no version of this program wrote.

extension OwnerRecord {
  /// More are never needed: a majority of three tolerates one that is gone.
  public static let arbitersMax = 3

  static let fixedBytes = 32

  /// Big-endian: epoch(4) arbiter count(4) node(16) boot(8), arbiters(16 each).
  public func encode() -> [UInt8] {
    let arbiters = arbiters.prefix(Self.arbitersMax)
    var bytes: [UInt8] = []
    bytes.append(be: epoch.value)
    bytes.append(be: UInt32(arbiters.count))
    bytes += node.bytes
    bytes.append(be: bootID)
    for arbiter in arbiters { bytes += arbiter.bytes }
    return bytes
  }

  public init?(decoding bytes: [UInt8]) {
    guard bytes.count >= Self.fixedBytes else { return nil }
    let span = bytes.span.bytes
    guard span.be32(4) <= UInt32(Self.arbitersMax) else { return nil }
    let count = Int(span.be32(4))
    guard bytes.count == Self.fixedBytes + 16 * count else { return nil }
    self.init(
      epoch: Epoch(span.be32(0)), node: uuid(bytes, at: 8), bootID: span.be64(24),
      arbiters: (0..<count).map { uuid(bytes, at: Self.fixedBytes + 16 * $0) })
  }
}

extension DiskBeat {
  static let byteCount = 40

  /// Big-endian: epoch(4) flags(4; 1: offers a handover) node(16) boot(8) sequence(8).
  public func encode() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(be: epoch.value)
    bytes.append(be: UInt32(offersHandover ? 1 : 0))
    bytes += node.bytes
    bytes.append(be: bootID)
    bytes.append(be: sequence)
    return bytes
  }

  public init?(decoding bytes: [UInt8]) {
    guard bytes.count == Self.byteCount else { return nil }
    let span = bytes.span.bytes
    guard span.be32(4) <= 1 else { return nil }
    self.init(
      epoch: Epoch(span.be32(0)), node: uuid(bytes, at: 8), bootID: span.be64(24), sequence: span.be64(32),
      offersHandover: span.be32(4) == 1)
  }
}
