import CSystem
import Glibc

/// What makes a thread wake in time on a busy machine. Nothing of it is needed: where it is not allowed, the reason is told.
enum UrgentThread {
  /// Above ordinary threads, below what the kernel's own real-time threads have (50).
  static let priority: Int32 = 20

  /// For the calling thread. - Returns: Why it is not as urgent as it should be; nil: it is.
  static func begin() -> String? {
    let code = system_make_urgent(priority)
    lockProgram()
    guard code < 0 else { return nil }
    return "no real-time priority (\(SystemError.text(-code))): a busy machine may delay the beats"
  }

  /// The program's pages may be dropped when memory is short, and have to be read from a disk again: that takes as long as the
  /// disk does. Heap and stacks stay where there is no swap.
  static func lockProgram() {
    for part in programParts() { _ = system_lock_when_read(part.start, part.end - part.start) }
  }

  /// What is mapped from the program's file and its libraries' and never written.
  private static func programParts() -> [(start: UInt64, end: UInt64)] {
    guard let file = fopen("/proc/self/maps", "re") else { return [] }
    defer { fclose(file) }
    var parts: [(start: UInt64, end: UInt64)] = []
    var buffer = [CChar](repeating: 0, count: 4096)
    while fgets(&buffer, Int32(buffer.count), file) != nil {
      let line = String(decoding: buffer.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
      if let part = programPart(line) { parts.append(part) }
    }
    return parts
  }

  /// Reads `7f12a000-7f13b000 r-xp 00000000 08:01 1234 /usr/bin/gatewayd`.
  static func programPart(_ line: String) -> (start: UInt64, end: UInt64)? {
    let words = line.split(separator: " ")
    guard words.count >= 6, words[1].hasPrefix("r"), !words[1].contains("w"), words[5].hasPrefix("/") else {
      return nil
    }
    let range = words[0].split(separator: "-").compactMap { UInt64($0, radix: 16) }
    return range.count == 2 && range[0] < range[1] ? (range[0], range[1]) : nil
  }
}
