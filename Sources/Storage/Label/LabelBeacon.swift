import Glibc
import Wire

/// What fills the blocks of a label area that no record uses: each names the area it belongs to. So a disk that grew while
/// no gateway looked, whose label is no longer at its end, is recognized by any block of its old area (`LabelSearch`).
///
/// A block of `LabelArea.alignment` bytes, big-endian: magic(8) area's start on the disk in bytes(8) disk UUID(16) CRC32C
/// of these(4), zeroes. It is no record, so a slot that holds one reads as absent.
public struct LabelBeacon: Equatable, Sendable {
  /// "GATEAREA"
  public static let magic: UInt64 = 0x4741_5445_4152_4541
  static let coveredBytes = 32

  /// Byte offset of the area on the disk.
  public var start: UInt64
  /// The disk it was written for.
  public var disk: UUID

  public init(start: UInt64, disk: UUID) {
    self.start = start
    self.disk = disk
  }

  public func encode() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(be: Self.magic)
    bytes.append(be: start)
    bytes += disk.bytes
    bytes.append(be: CRC32C.of(bytes))
    return bytes + [UInt8](repeating: 0, count: Int(LabelArea.alignment) - bytes.count)
  }

  /// Reads a block; nil for anything else.
  public init?(decoding bytes: [UInt8]) {
    guard bytes.count >= Self.coveredBytes + 4 else { return nil }
    let span = bytes.span.bytes
    guard span.be64(0) == Self.magic, CRC32C.of(Array(bytes[..<Self.coveredBytes])) == span.be32(Self.coveredBytes)
    else { return nil }
    start = span.be64(8)
    disk = UUID(bytes: Array(bytes[16..<32]))
  }

  /// `bytes`, a whole number of blocks, filled up with beacons to `count`.
  func pad(_ bytes: [UInt8], to count: Int) -> [UInt8] {
    var bytes = bytes
    let block = encode()
    while bytes.count < count { bytes += block }
    return bytes
  }

  /// Bytes of the area between and behind its slots, from its start.
  static var gaps: [Range<UInt64>] {
    var gaps: [Range<UInt64>] = []
    var end: UInt64 = 0
    for kind in LabelArea.Kind.allCases.sorted(by: { $0.offset < $1.offset }) {
      if end < kind.offset { gaps.append(end..<kind.offset) }
      end = kind.offset + 2 * kind.slotBytes
    }
    return gaps + [end..<LabelArea.byteCount]
  }
}

extension LabelStore {
  /// Fills the gaps of the label's area; the slots are filled when they are first written. The last block comes last: it
  /// tells that all is done. Returns 0 or a negative errno.
  static func fillGaps(_ label: Label, fd: Int32) -> Int32 {
    let beacon = LabelBeacon(start: label.exportedBytes, disk: label.disk)
    let most: UInt64 = 1 << 20
    let part = beacon.pad([], to: Int(most))
    let last = LabelArea.byteCount - LabelArea.alignment
    for gap in LabelBeacon.gaps {
      let end = min(gap.upperBound, last)
      for offset in stride(from: gap.lowerBound, to: end, by: Int(most)) {
        let bytes = Array(part[..<Int(min(most, end - offset))])
        let code = writeBytes(bytes, fd: fd, offset: beacon.start + offset, flushes: false)
        guard code == 0 else { return code }
      }
    }
    guard fdatasync(fd) == 0 else { return -errno }
    return writeBytes(beacon.encode(), fd: fd, offset: beacon.start + last)
  }

  /// Fills the gaps of an area that a crash left without. Returns 0 or a negative errno.
  static func completeArea(_ label: Label, fd: Int32) -> Int32 {
    let last = label.exportedBytes + LabelArea.byteCount - LabelArea.alignment
    guard let bytes = readBytes(fd: fd, offset: last, count: Int(LabelArea.alignment)) else { return -EIO }
    let isComplete = LabelBeacon(decoding: bytes) == LabelBeacon(start: label.exportedBytes, disk: label.disk)
    return isComplete ? 0 : fillGaps(label, fd: fd)
  }
}
