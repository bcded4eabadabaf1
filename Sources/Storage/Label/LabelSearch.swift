import CSystem
import Glibc
import Wire

/// Looks for a label area that is not at the end of its disk: of a disk that grew while no gateway looked. Such a disk must
/// not be taken for a blank one.
///
/// An area is 8 MiB long and no block of it is zero (`LabelBeacon`), so of the places at multiples of 8 MiB exactly one lies
/// in it, whatever size the disk had: reading them all is a proof, at 131,072 reads for 1 TiB. Where a read costs a movement
/// of heads that may take hours; then the likely places and those near the end are read in any case, and the rest as long as
/// it is quick.
public enum LabelSearch {
  public enum Finding: Equatable, Sendable {
    /// A valid label at the end of the size that the disk had.
    case grown(Label)
    /// Something of a label area, at this byte, that no valid label goes with.
    case remains(at: UInt64)
    /// Something else that is not zero, at this byte.
    case data(at: UInt64)
    /// Not all could be read: a negative errno.
    case unreadable(Int32)
  }

  /// How much is read.
  public enum Extent: Equatable, Sendable {
    /// Every place: a proof.
    case whole
    /// So many bytes back from the end and the ends of all whole GiB, and the rest until so many seconds have passed.
    case atLeast(bytes: UInt64, seconds: Int)

    /// Of a disk of which it is not known that it has no heads: the kernel takes many virtual disks, which are quick, for
    /// rotational ones. 8192 reads and one for each GiB, a minute for a large disk.
    public static let rotational = Extent.atLeast(bytes: 64 << 30, seconds: 30)
    /// Only to tell better why a disk is held.
    public static let brief = Extent.atLeast(bytes: 8 << 30, seconds: 0)
  }

  /// Every area has one block at a multiple of this.
  static let stepBytes = LabelArea.byteCount

  /// Byte offsets to look at, each a multiple of `LabelArea.alignment`, likely ones first. Made when asked for: there may be
  /// millions.
  struct Places: RandomAccessCollection {
    private let likely: [UInt64]
    /// The last multiple of 8 MiB.
    private let last: UInt64
    /// How many of them must be looked at.
    let required: Int

    /// - Parameter knownBytes: sizes that labelled disks are known to have had.
    init(diskBytes: UInt64, knownBytes: [UInt64], extent: Extent) {
      let end = diskBytes - LabelArea.alignment
      likely =
        knownBytes.filter { LabelArea.diskBytesMin <= $0 && $0 < diskBytes }.map { LabelArea.start(diskBytes: $0) }
        + (extent == .whole ? [] : Array(stride(from: (1 << 30) - stepBytes, through: end, by: 1 << 30)))
      last = end / stepBytes
      switch extent {
      case .whole: required = likely.count + Int(last) + 1
      case .atLeast(let bytes, _): required = likely.count + Int(Swift.min(bytes / stepBytes, last)) + 1
      }
    }

    var startIndex: Int { 0 }
    var endIndex: Int { likely.count + Int(last) + 1 }

    subscript(index: Int) -> UInt64 {
      index < likely.count ? likely[index] : (last - UInt64(index - likely.count)) * stepBytes
    }
  }

  /// Searches the disk open as `fd`, readable and without O_DIRECT. nil: there is nothing at any of the places.
  /// - Parameter ignoresData: goes on past what is no label; else a finding too.
  public static func search(
    fd: Int32, diskBytes: UInt64, knownBytes: [UInt64] = [], extent: Extent = .whole, ignoresData: Bool = false
  ) -> Finding? {
    guard diskBytes >= LabelArea.diskBytesMin else { return nil }
    // What another node wrote since is not in our pages, and what comes next is far away.
    _ = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)
    _ = posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM)
    let places = Places(diskBytes: diskBytes, knownBytes: knownBytes, extent: extent)
    var deadline = UInt64.max
    if case .atLeast(_, let seconds) = extent { deadline = system_monotonic_ns() + UInt64(seconds) * 1_000_000_000 }
    for first in stride(from: 0, to: places.count, by: readsAtOnce) {
      if first >= places.required, system_monotonic_ns() >= deadline { return nil }
      let batch = places[first..<min(first + readsAtOnce, places.count)]
      // All of them are on their way before the first is waited for.
      for place in batch { _ = posix_fadvise(fd, off_t(place), off_t(LabelArea.alignment), POSIX_FADV_WILLNEED) }
      for place in batch {
        guard let block = LabelStore.readBytes(fd: fd, offset: place, count: Int(LabelArea.alignment)) else {
          if ignoresData { continue }
          return .unreadable(errno == 0 ? -EIO : -errno)
        }
        guard block.contains(where: { $0 != 0 }), let finding = judge(block, at: place, fd: fd, diskBytes: diskBytes)
        else { continue }
        if case .data = finding, ignoresData { continue }
        return finding
      }
    }
    return nil
  }

  private static let readsAtOnce = 64

  /// What a block that is not zero means; nil: it belongs to the area at the disk's own end, which is judged by its label.
  private static func judge(_ block: [UInt8], at place: UInt64, fd: Int32, diskBytes: UInt64) -> Finding? {
    let own = LabelArea.start(diskBytes: diskBytes)
    let starts: [UInt64]
    if let beacon = LabelBeacon(decoding: block) {
      starts = [beacon.start]
    } else if block.span.bytes.be64(0) == Record.magic {
      starts = LabelArea.Kind.allCases.flatMap { kind in
        [kind.offset, kind.offset + kind.slotBytes].filter { $0 <= place }.map { place - $0 }
      }
    } else {
      return place >= own ? nil : .data(at: place)
    }
    for start in starts where start != own && start <= diskBytes {
      if let label = label(at: start, fd: fd), label.diskBytes < diskBytes { return .grown(label) }
    }
    return starts.contains(own) ? nil : .remains(at: place)
  }

  /// The valid label of an area that starts at this byte and is where the label says that it is.
  private static func label(at start: UInt64, fd: Int32) -> Label? {
    guard start % LabelArea.alignment == 0, start <= UInt64(Int64.max) - LabelArea.byteCount else { return nil }
    let diskBytes = start + LabelArea.byteCount
    guard diskBytes >= LabelArea.diskBytesMin,
      case .label(let label) = LabelStore.readLabel(fd: fd, diskBytes: diskBytes), label.exportedBytes == start
    else { return nil }
    return label
  }
}
