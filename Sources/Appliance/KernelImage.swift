/// What a unified kernel image says of itself: a PE file whose section `.osrel` is an os-release(5).
public struct KernelImage: Equatable, Sendable {
  public var imageID: String
  public var version: String

  public struct Problem: Error, Equatable, Sendable, CustomStringConvertible {
    public var description: String
  }

  /// Reads the headers and that section; every offset is checked, for the file may be anything.
  public init(_ file: RawSpan) throws(Problem) {
    guard let text = Self.section(".osrel", of: file) else { throw Problem(description: "it is no system image (UKI)") }
    let facts = Self.facts(text)
    guard facts["IMAGE_ID"] == "gatewayd", let version = facts["IMAGE_VERSION"], ImageVersion.isValid(version) else {
      throw Problem(description: "it is not an image of gatewayd")
    }
    (imageID, self.version) = ("gatewayd", version)
  }

  /// The lines `KEY=value` of an os-release, without quotes.
  public static func facts(_ text: String) -> [String: String] {
    var facts: [String: String] = [:]
    for line in text.split(whereSeparator: \.isNewline) {
      let parts = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      if parts.count == 2 { facts[String(parts[0])] = String(parts[1].filter { $0 != "\"" }) }
    }
    return facts
  }

  /// The text of a section. PE/COFF: the header's place is at 0x3C; 20 bytes of it follow the signature, then an optional
  /// header, then 40 bytes for each section: name, size in memory, address, size in the file, place in the file.
  private static func section(_ name: String, of file: RawSpan) -> String? {
    func number(_ offset: Int, bytes: Int) -> Int? {
      guard offset >= 0, offset <= file.byteCount - bytes else { return nil }
      return (0..<bytes).reduce(0) {
        $0 | Int(file.unsafeLoad(fromByteOffset: offset + $1, as: UInt8.self)) << ($1 * 8)
      }
    }
    func text(_ offset: Int, _ count: Int) -> String? {
      guard offset >= 0, count >= 0, count <= 64 << 10, offset <= file.byteCount - count else { return nil }
      let bytes = (0..<count).map { file.unsafeLoad(fromByteOffset: offset + $0, as: UInt8.self) }
      return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
    guard number(0, bytes: 2) == 0x5A4D, let header = number(0x3C, bytes: 4), number(header, bytes: 4) == 0x4550,
      let sections = number(header + 6, bytes: 2), let optional = number(header + 20, bytes: 2)
    else { return nil }
    for index in 0..<min(sections, 96) {
      let entry = header + 24 + optional + 40 * index
      guard let found = text(entry, 8) else { return nil }
      guard found == name else { continue }
      guard let size = number(entry + 8, bytes: 4), let inFile = number(entry + 16, bytes: 4),
        let place = number(entry + 20, bytes: 4)
      else { return nil }
      return text(place, min(size, inFile))
    }
    return nil
  }
}
