/// Versions of images, in the order in which the boot loader prefers them (UAPI.10, Version Format Specification).
public enum ImageVersion {
  /// Digits, letters, '.', '~' and '-', a digit first: what may be part of a file's name on the ESP, and of an entry whose
  /// tries the boot loader counts after a '+'.
  public static func isValid(_ text: String) -> Bool {
    guard let first = text.utf8.first, isDigit(first), text.utf8.count <= 64 else { return false }
    return text.utf8.allSatisfy { isDigit($0) || isLetter($0) || [UInt8](".~-".utf8).contains($0) }
  }

  /// Whether `left` is older than `right`.
  public static func isOlder(_ left: String, than right: String) -> Bool {
    compare(Array(left.utf8)[...], Array(right.utf8)[...]) < 0
  }

  /// Below zero: `left` is older. The steps are the specification's, in its order; '^' is not among our characters.
  private static func compare(_ left: ArraySlice<UInt8>, _ right: ArraySlice<UInt8>) -> Int {
    var (left, right) = (left, right)
    while true {
      left = left.drop { !isSignificant($0) }
      right = right.drop { !isSignificant($0) }
      // '~' is before everything, even the end; the end before the rest; '-' ends the version proper; '.' separates.
      if let order = mark("~", &left, &right) { return order }
      if left.isEmpty || right.isEmpty { return left.isEmpty == right.isEmpty ? 0 : left.isEmpty ? -1 : 1 }
      if let order = mark("-", &left, &right) { return order }
      if let order = mark(".", &left, &right) { return order }
      let order =
        isDigit(left.first ?? 0) || isDigit(right.first ?? 0)
        ? numbers(&left, &right) : words(&left, &right)
      if order != 0 { return order }
    }
  }

  /// Takes a mark that both begin with; the one that alone begins with it is the older.
  private static func mark(
    _ mark: Unicode.Scalar, _ left: inout ArraySlice<UInt8>, _ right: inout ArraySlice<UInt8>
  ) -> Int? {
    let (has, other) = (left.first == UInt8(ascii: mark), right.first == UInt8(ascii: mark))
    if has != other { return has ? -1 : 1 }
    if has { (left, right) = (left.dropFirst(), right.dropFirst()) }
    return nil
  }

  private static func numbers(_ left: inout ArraySlice<UInt8>, _ right: inout ArraySlice<UInt8>) -> Int {
    let first = take(&left, isDigit).drop { $0 == UInt8(ascii: "0") }
    let second = take(&right, isDigit).drop { $0 == UInt8(ascii: "0") }
    if first.count != second.count { return first.count - second.count }
    return order(first, second)
  }

  private static func words(_ left: inout ArraySlice<UInt8>, _ right: inout ArraySlice<UInt8>) -> Int {
    order(take(&left, isLetter), take(&right, isLetter))
  }

  private static func order(_ first: ArraySlice<UInt8>, _ second: ArraySlice<UInt8>) -> Int {
    first.elementsEqual(second) ? 0 : first.lexicographicallyPrecedes(second) ? -1 : 1
  }

  private static func take(_ text: inout ArraySlice<UInt8>, _ belongs: (UInt8) -> Bool) -> ArraySlice<UInt8> {
    let taken = text.prefix(while: belongs)
    text = text.dropFirst(taken.count)
    return taken
  }

  private static func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) }
  private static func isLetter(_ byte: UInt8) -> Bool {
    (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
  }
  private static func isSignificant(_ byte: UInt8) -> Bool {
    isDigit(byte) || isLetter(byte) || [UInt8](".~-".utf8).contains(byte)
  }
}
