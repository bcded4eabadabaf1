/// Faults of a disk made for tests, by block: `medium=LBA+COUNT`, `short=LBA+COUNT`, `hang=LBA+COUNT`,
/// `slow=LBA+COUNT:MS`, `gone`, `flush-error` or `flush-error=COUNT`, joined by commas. Blocks are 512 bytes.
public struct FaultRules: Equatable, Sendable {
  public enum Effect: Equatable, Sendable {
    /// EIO.
    case medium
    /// Moves half of what it should, without an error.
    case short
    /// No completion, ever.
    case hang
    /// Completes this much later.
    case slow(milliseconds: UInt32)
  }

  struct Rule: Equatable, Sendable {
    var bytes: Range<UInt64>
    var effect: Effect
  }

  var rules: [Rule] = []
  /// Every request fails with ENODEV.
  var isGone = false
  /// So many flushes fail with EIO, the first ones.
  var failingFlushes = 0

  /// Every request takes this long.
  public static func slow(milliseconds: UInt32) -> FaultRules {
    var faults = FaultRules()
    faults.rules = [Rule(bytes: 0..<UInt64.max, effect: .slow(milliseconds: milliseconds))]
    return faults
  }

  private init() {}

  /// Reads the form above; nil if any part is not of it.
  public init?(_ text: String) {
    guard !text.isEmpty else { return }
    for part in text.split(separator: ",", omittingEmptySubsequences: false) {
      if part == "gone" {
        isGone = true
      } else if part == "flush-error" {
        failingFlushes = .max
      } else if part.hasPrefix("flush-error=") {
        guard let count = UInt16(part.dropFirst(12)), count > 0, !part.contains("+") else { return nil }
        failingFlushes = Int(count)
      } else {
        guard let rule = Self.rule(part) else { return nil }
        rules.append(rule)
      }
    }
  }

  private static func rule(_ text: Substring) -> Rule? {
    let sides = text.split(separator: "=", omittingEmptySubsequences: false)
    guard sides.count == 2, let plus = sides[1].firstIndex(of: "+") else { return nil }
    // A plus sign in front of a number would be read as part of it; there is only the one between LBA and COUNT.
    let rest = sides[1][sides[1].index(after: plus)...]
    guard !rest.contains("+") else { return nil }
    let numbers = ([sides[1][..<plus]] + rest.split(separator: ":", omittingEmptySubsequences: false)).map {
      UInt64($0)
    }
    guard let lba = numbers[0], let count = numbers[1], lba < 1 << 48, 0 < count, count < 1 << 48 else { return nil }
    let bytes = lba * 512..<(lba + count) * 512
    switch (sides[0], numbers.count) {
    case ("medium", 2): return Rule(bytes: bytes, effect: .medium)
    case ("short", 2): return Rule(bytes: bytes, effect: .short)
    case ("hang", 2): return Rule(bytes: bytes, effect: .hang)
    case ("slow", 3):
      guard let value = numbers[2], let milliseconds = UInt32(exactly: value) else { return nil }
      return Rule(bytes: bytes, effect: .slow(milliseconds: milliseconds))
    default: return nil
    }
  }

  /// What happens to a request for these bytes.
  func effect(offset: UInt64, count: UInt64) -> Effect? {
    rules.first { $0.bytes.lowerBound < offset + max(count, 1) && offset < $0.bytes.upperBound }?.effect
  }
}
