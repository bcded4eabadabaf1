import Glibc
import TestSupport
import Testing

@testable import Discovery

/// Contents made by hand, by the formats' own definitions.
enum Contents {
  static let bytes = 16 << 20

  static func little(_ value: some FixedWidthInteger) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
  }

  /// The reflected CRC-32 of IEEE 802.3, as GPT uses it (UEFI §5.3.2).
  static func crc32(_ bytes: some Sequence<UInt8>) -> UInt32 {
    var crc: UInt32 = 0xffff_ffff
    for byte in bytes {
      crc ^= UInt32(byte)
      for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0xedb8_8320 : crc >> 1 }
    }
    return ~crc
  }

  /// A primary GPT at block 1 with one partition, behind a protective MBR.
  static func gpt(label: String) -> [Int: [UInt8]] {
    var entry = [UInt8](repeating: 0x11, count: 16) + [UInt8](repeating: 0x22, count: 16)
    entry += little(UInt64(2048)) + little(UInt64(4095)) + little(UInt64(0))
    entry += label.utf16.flatMap { little($0) }
    entry += [UInt8](repeating: 0, count: 128 - entry.count)
    let entries = entry + [UInt8](repeating: 0, count: 127 * 128)
    let last = UInt64(bytes / 512 - 1)
    func header(crc: UInt32) -> [UInt8] {
      Array("EFI PART".utf8) + little(UInt32(0x10000)) + little(UInt32(92)) + little(crc) + little(UInt32(0))
        + little(UInt64(1)) + little(last) + little(UInt64(34)) + little(last - 33)
        + [UInt8](repeating: 0x33, count: 16) + little(UInt64(2)) + little(UInt32(128)) + little(UInt32(128))
        + little(crc32(entries))
    }
    let protective: [UInt8] =
      [0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff] + little(UInt32(1)) + little(UInt32(truncatingIfNeeded: last))
    return [446: protective, 510: [0x55, 0xaa], 512: header(crc: crc32(header(crc: 0))), 1024: entries]
  }

  /// md superblock 1.2, 4 KiB into the device, with its checksum: the sum of its words, carries folded in.
  static func md() -> [Int: [UInt8]] {
    var block = [UInt8](repeating: 0, count: 258)
    func set(_ offset: Int, _ value: [UInt8]) { block.replaceSubrange(offset..<offset + value.count, with: value) }
    set(0, little(UInt32(0xa92b_4efc)))
    set(4, little(UInt32(1)))
    set(16, [UInt8](repeating: 0x44, count: 16))
    set(32, Array("host:0".utf8))
    set(72, little(UInt32(1)))
    set(80, little(UInt64(bytes / 512 - 2048)))
    set(92, little(UInt32(2)))
    set(128, little(UInt64(2048)))
    set(136, little(UInt64(bytes / 512 - 2048)))
    set(144, little(UInt64(8)))
    set(220, little(UInt32(1)))
    var sum: UInt64 = 0
    for offset in stride(from: 0, to: 256, by: 4) {
      sum +=
        UInt64(block[offset]) | UInt64(block[offset + 1]) << 8 | UInt64(block[offset + 2]) << 16
        | UInt64(block[offset + 3]) << 24
    }
    sum += UInt64(block[256]) | UInt64(block[257]) << 8
    set(216, little(UInt32(truncatingIfNeeded: (sum & 0xffff_ffff) + sum >> 32)))
    return [4096: block]
  }

  /// The header that mkswap(8) writes, for pages of 4 KiB.
  static func swap(bytes: Int = Contents.bytes) -> [Int: [UInt8]] {
    [1024: little(UInt32(1)) + little(UInt32(bytes / 4096 - 1)) + little(UInt32(0)), 4086: Array("SWAPSPACE2".utf8)]
  }

  static let luks: [Int: [UInt8]] = [0: Array("LUKS".utf8) + [0xba, 0xbe, 0, 1]]
  static let dos: [Int: [UInt8]] = [
    446: [0, 0, 2, 0, 0x83, 0xff, 0xff, 0xff] + little(UInt32(2048)) + little(UInt32(2048)), 510: [0x55, 0xaa],
  ]
}

/// A regular file with these pieces in it.
final class ContentFile {
  let tree = TemporaryTree()
  let fd: Int32

  init(_ pieces: [Int: [UInt8]] = [:], bytes: Int = Contents.bytes) {
    fd = open("\(tree.path)/disk", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    ftruncate(fd, off_t(bytes))
    for (offset, piece) in pieces { write(piece, at: offset) }
  }

  deinit { close(fd) }

  func write(_ piece: [UInt8], at offset: Int) {
    _ = piece.withUnsafeBytes { pwrite(fd, $0.baseAddress, $0.count, off_t(offset)) }
  }

  func inspected(bytes: Int = Contents.bytes) -> ContentFinding { inspect(fd: fd, bytes: UInt64(bytes)) }
}

@Suite("Contents")
struct ContentInspectionTests {
  @Test("A file of zeroes is blank, and the descriptor's offset stays")
  func blank() {
    let file = ContentFile()
    lseek(file.fd, 77, SEEK_SET)
    #expect(file.inspected() == ContentFinding())
    #expect(lseek(file.fd, 0, SEEK_CUR) == 77)
  }

  @Test("A GPT is told with the labels and identifiers of its partitions")
  func gpt() {
    let table = ContentFile(Contents.gpt(label: "gatewayd-root")).inspected().partitionTable
    #expect(table?.type == "gpt")
    #expect(table?.entries == [.init(label: "gatewayd-root", uuid: "22222222-2222-2222-2222-222222222222")])
  }

  @Test("A GPT of which only the backup is sound is not blank")
  func damagedGPT() {
    var pieces = Contents.gpt(label: "x")
    pieces[446] = nil
    pieces[510] = nil
    #expect(!ContentFile(pieces).inspected().isBlank)
  }

  @Test("An MBR with a partition")
  func dos() {
    let table = ContentFile(Contents.dos).inspected().partitionTable
    #expect(table?.type == "dos")
    #expect(table?.entries.count == 1)
  }

  @Test("A member of an md array, by a superblock 1.2 with a valid checksum")
  func md() {
    let signature = ContentFile(Contents.md()).inspected().signature
    #expect(signature?.type == "linux_raid_member")
    #expect(signature?.usage == .raid)
    #expect(signature?.label == "host:0")
  }

  @Test("Swap and LUKS")
  func others() {
    #expect(ContentFile(Contents.swap()).inspected().signature?.type == "swap")
    #expect(ContentFile(Contents.luks).inspected().signature?.usage == .crypto)
  }

  @Test("Signatures that contradict one another are ambivalent or at least not blank")
  func ambivalent() {
    let finding = ContentFile(Contents.md().merging(Contents.luks) { first, _ in first }).inspected()
    #expect(finding.isAmbivalent || finding.signature != nil)
    #expect(finding.holdReason != nil)
  }

  @Test(
    "One byte that is not zero is found in the first MiB and in the last",
    arguments: [0, 1, 4095, 65_536, 1 << 20 - 1, Contents.bytes - 1 << 20, Contents.bytes - 65_537, Contents.bytes - 1])
  func oneByte(offset: Int) {
    #expect(ContentFile([offset: [1]]).inspected().firstDataOffset == UInt64(offset))
  }

  @Test("Data in the middle is found by the samples")
  func middle() {
    let finding = ContentFile([5 << 20: [UInt8](repeating: 7, count: 1 << 20)]).inspected()
    #expect(finding.firstDataOffset.map { (5 << 20..<6 << 20).contains($0) } == true)
  }

  @Test("A device shorter than was said cannot be called blank")
  func short() {
    #expect(ContentFile(bytes: 1 << 20).inspected().readError != nil)
    #expect(ContentFile(bytes: Contents.bytes - 512).inspected().readError != nil)
  }

  @Test("What cannot be read cannot be called blank")
  func unreadable() {
    let file = ContentFile()
    let writeOnly = open("\(file.tree.path)/disk", O_WRONLY | O_CLOEXEC)
    defer { close(writeOnly) }
    #expect(inspect(fd: writeOnly, bytes: UInt64(Contents.bytes)).readError != nil)
    #expect(inspect(fd: -1, bytes: UInt64(Contents.bytes)).readError != nil)
  }

  @Test("The places read lie within the device, whatever its size and however many are asked for")
  func ranges() {
    for bytes: UInt64 in [0, 1, 512, 1 << 20, 2 << 20, 2 << 20 + 512, 3 << 20, 16 << 20, 1 << 40, 1 << 62] {
      for count in [-1, 0, 1, 64, 4096] {
        let ranges = scanRanges(bytes: bytes, sampleCount: count)
        #expect(ranges.allSatisfy { $0.upperBound <= bytes })
        #expect(ranges.first?.lowerBound == 0)
        #expect(ranges.contains { $0.upperBound == bytes })
        #expect(ranges.count <= max(0, count) + 2)
      }
    }
  }

  @Test("Random contents and random damage to known formats never trap and are never blank")
  func random() {
    var random = SplitMix(seed: 16)
    let formats = [Contents.gpt(label: "x"), Contents.md(), Contents.dos, Contents.swap(), Contents.luks]
    let file = ContentFile(bytes: 4 << 20)
    for round in 0..<60 {
      ftruncate(file.fd, 0)
      ftruncate(file.fd, 4 << 20)
      for (offset, piece) in formats[round % formats.count] { file.write(piece, at: offset) }
      for _ in 0..<Int.random(in: 1...20, using: &random) {
        file.write([UInt8.random(in: 1...255, using: &random)], at: Int.random(in: 0..<16384, using: &random))
      }
      #expect(!file.inspected(bytes: 4 << 20).isBlank)
    }
  }
}
