/// Shell patterns over whole texts: `*` is any run of characters (slashes too), `?` one character. Nothing else is special.
public enum Glob {
  /// Whether `text` matches `pattern` from end to end. Time is at most the product of the lengths: a hostile text cannot
  /// make it backtrack.
  public static func matches(_ pattern: String, _ text: String) -> Bool {
    let pattern = [UInt8](pattern.utf8)
    let text = [UInt8](text.utf8)
    var p = 0
    var t = 0
    var star: (pattern: Int, text: Int)?
    while t < text.count {
      if p < pattern.count, pattern[p] == UInt8(ascii: "*") {
        star = (p, t)
        p += 1
      } else if p < pattern.count, pattern[p] == UInt8(ascii: "?") || pattern[p] == text[t] {
        p += 1
        t += 1
      } else if let last = star {
        // Only the last star needs to give: an earlier one that took more would only move the later match right.
        star = (last.pattern, last.text + 1)
        p = last.pattern + 1
        t = last.text + 1
      } else {
        return false
      }
    }
    return pattern[p...].allSatisfy { $0 == UInt8(ascii: "*") }
  }
}
