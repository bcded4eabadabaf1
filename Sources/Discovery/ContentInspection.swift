import CBlkid
import Glibc

/// Looks at the contents behind a descriptor, of a block device or of a regular file, without moving its offset and
/// without writing. First libblkid's signatures and partition tables, then the bytes themselves: head, tail and samples
/// between them.
///
/// - Parameters:
///   - bytes: how much of the device or file counts.
///   - sampleCount: how many places between head and tail are read.
public func inspect(fd: Int32, bytes: UInt64, sampleCount: Int = 64) -> ContentFinding {
  // libblkid seeks.
  let offset = lseek(fd, 0, SEEK_CUR)
  defer { lseek(fd, offset, SEEK_SET) }
  // The other node of a pair may have written since these pages were read.
  _ = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)
  var finding = ContentFinding()
  probeSuperblocks(fd, bytes, into: &finding)
  probePartitions(fd, bytes, into: &finding)
  if finding.isBlank { scan(fd, bytes, sampleCount, into: &finding) }
  return finding
}

/// Results of blkid_do_safeprobe(3).
private enum ProbeResult {
  static let found: Int32 = 0
  static let nothing: Int32 = 1
  static let ambivalent: Int32 = -2
}

private func withProbe(_ fd: Int32, _ bytes: UInt64, into finding: inout ContentFinding, body: (blkid_probe) -> Int32) {
  guard let probe = blkid_new_probe() else {
    finding.readError = ENOMEM
    return
  }
  defer { blkid_free_probe(probe) }
  errno = 0
  guard blkid_probe_set_device(probe, fd, 0, Int64(clamping: bytes)) == 0 else {
    finding.readError = errno == 0 ? EIO : errno
    return
  }
  switch body(probe) {
  case ProbeResult.found, ProbeResult.nothing: break
  case ProbeResult.ambivalent: finding.isAmbivalent = true
  default: finding.readError = errno == 0 ? EIO : errno
  }
}

private func probeSuperblocks(_ fd: Int32, _ bytes: UInt64, into finding: inout ContentFinding) {
  var signature: ContentFinding.Signature?
  withProbe(fd, bytes, into: &finding) { probe in
    blkid_probe_enable_superblocks(probe, 1)
    blkid_probe_set_superblocks_flags(
      probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_UUID)
    let result = blkid_do_safeprobe(probe)
    if result == ProbeResult.found, let type = value("TYPE", of: probe) {
      signature = .init(
        type: type, usage: .init(blkid: value("USAGE", of: probe)), label: value("LABEL", of: probe),
        uuid: value("UUID", of: probe))
    }
    return result
  }
  finding.signature = signature
}

private func probePartitions(_ fd: Int32, _ bytes: UInt64, into finding: inout ContentFinding) {
  var table: ContentFinding.PartitionTable?
  withProbe(fd, bytes, into: &finding) { probe in
    // Superblocks are on unless turned off.
    blkid_probe_enable_superblocks(probe, 0)
    blkid_probe_enable_partitions(probe, 1)
    let result = blkid_do_safeprobe(probe)
    if result == ProbeResult.found, let type = value("PTTYPE", of: probe) {
      table = .init(type: type, entries: entries(of: probe))
    }
    return result
  }
  finding.partitionTable = table
}

private func entries(of probe: blkid_probe) -> [ContentFinding.PartitionTable.Entry] {
  guard let list = blkid_probe_get_partitions(probe) else { return [] }
  // A GPT has 128 entries; a chain of logical partitions may have more.
  return (0..<min(max(0, blkid_partlist_numof_partitions(list)), 1024)).compactMap { index in
    guard let partition = blkid_partlist_get_partition(list, index) else { return nil }
    return .init(
      label: blkid_partition_get_name(partition).map { String(cString: $0) },
      uuid: blkid_partition_get_uuid(partition).map { String(cString: $0).lowercased() })
  }
}

private func value(_ name: String, of probe: blkid_probe) -> String? {
  var data: UnsafePointer<CChar>?
  var length = 0
  guard blkid_probe_lookup_value(probe, name, &data, &length) == 0, let data else { return nil }
  // `length` counts the NUL that ends the text.
  return data.withMemoryRebound(to: UInt8.self, capacity: length) {
    String(decoding: UnsafeBufferPointer(start: $0, count: length).prefix { $0 != 0 }, as: UTF8.self)
  }
}

extension ContentFinding.Signature.Usage {
  fileprivate init(blkid text: String?) {
    switch text {
    case "filesystem": self = .fileSystem
    case "raid": self = .raid
    case "crypto": self = .crypto
    default: self = .other
    }
  }
}

/// The ends of the device are read whole: file systems and volume managers keep their first and last structures there.
private let endBytes: UInt64 = 1 << 20
private let chunkBytes = 64 << 10
private let sampleBytes = 4096

private func scan(_ fd: Int32, _ bytes: UInt64, _ sampleCount: Int, into finding: inout ContentFinding) {
  let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: chunkBytes, alignment: 4096)
  defer { buffer.deallocate() }
  for range in scanRanges(bytes: bytes, sampleCount: sampleCount) {
    let outcome = firstNonZero(fd, range, buffer)
    finding.firstDataOffset = outcome.offset
    finding.readError = outcome.error
    if !finding.isBlank { return }
  }
}

/// What is read in search of data, in order: head, tail, then 4 KiB at even distances between them.
func scanRanges(bytes: UInt64, sampleCount: Int) -> [Range<UInt64>] {
  guard bytes > 2 * endBytes else { return [0..<bytes] }
  let tail = bytes - endBytes
  let step = (tail - endBytes) / UInt64(max(0, sampleCount) + 1) / 4096 * 4096
  let samples = step == 0 ? [] : (1...UInt64(max(1, sampleCount))).map { endBytes + $0 * step }
  return [0..<endBytes, tail..<bytes]
    + (sampleCount > 0 ? samples.map { $0..<min($0 + UInt64(sampleBytes), bytes) } : [])
}

private func firstNonZero(
  _ fd: Int32, _ range: Range<UInt64>, _ buffer: UnsafeMutableRawBufferPointer
) -> (offset: UInt64?, error: Int32?) {
  var position = range.lowerBound
  while position < range.upperBound {
    let wanted = min(buffer.count, Int(range.upperBound - position))
    let count = pread(fd, buffer.baseAddress, wanted, off_t(position))
    if count < 0 && errno == EINTR { continue }
    // The end before its time: the medium shrank, and what was not read is not known to be blank.
    guard count > 0 else { return (nil, count < 0 ? errno : EIO) }
    // All are zero if the first is and each equals the next.
    let isZero = buffer[0] == 0 && buffer.baseAddress.map { memcmp($0, $0 + 1, count - 1) == 0 } ?? true
    if !isZero { return (position + UInt64(buffer[..<count].firstIndex { $0 != 0 } ?? 0), nil) }
    position += UInt64(count)
  }
  return (nil, nil)
}
