import Glibc
import Reactor

/// A table of entries at fixed addresses with a free list: entries are reused, never moved, and the memory of those never
/// used is never touched. An entry's generation is its owner's to keep, in the entry.
struct Slab<Element>: ~Copyable {
  private let base: UnsafeMutablePointer<Element>
  let capacity: Int
  private var free: UnsafeMutablePointer<UInt32>
  private var freeCount = 0
  /// Entries below this have been used.
  private var fresh = 0
  private(set) var count = 0
  private let initial: Element

  /// - Parameter initial: what an entry is before its first use; a trivial type.
  init(capacity: Int, initial: Element) {
    precondition(_isPOD(Element.self))
    self.capacity = capacity
    self.initial = initial
    base = AddressSpace.reserve(capacity * MemoryLayout<Element>.stride, for: "a table")
      .bindMemory(to: Element.self, capacity: capacity)
    free = AddressSpace.reserve(capacity * 4, for: "a table").bindMemory(to: UInt32.self, capacity: capacity)
  }

  deinit {
    munmap(base, capacity * MemoryLayout<Element>.stride)
    munmap(free, capacity * 4)
  }

  /// The index of a free entry, or nil when all are taken.
  mutating func take() -> Int? {
    if freeCount > 0 {
      freeCount -= 1
      count += 1
      return Int(free[freeCount])
    }
    guard fresh < capacity else { return nil }
    (base + fresh).initialize(to: initial)
    fresh += 1
    count += 1
    return fresh - 1
  }

  mutating func give(_ index: Int) {
    free[freeCount] = UInt32(index)
    freeCount += 1
    count -= 1
  }

  /// How many entries were ever used: all of these may be looked at.
  var used: Int { fresh }

  /// Whether the index is of an entry that was ever used: for indices from a peer.
  @inline(__always)
  func holds(_ index: Int) -> Bool { index >= 0 && index < fresh }

  @inline(__always)
  subscript(index: Int) -> UnsafeMutablePointer<Element> { base + index }
}
