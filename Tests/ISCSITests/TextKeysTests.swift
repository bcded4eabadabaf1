import TestSupport
import Testing

@testable import ISCSI

@Suite("Text format (RFC 7143 §6.1)")
struct TextKeysTests {
  private func parse(_ text: String) throws(TextKeysError) -> [String] {
    try TextKeys(parsing: Array(text.utf8)).pairs.map { "\($0.key)=\($0.value)" }
  }

  @Test("Pairs are read in order, each closed by a NUL (§6.1)")
  func order() throws {
    #expect(try parse("B=1\0A=x=y\0C=\0") == ["B=1", "A=x=y", "C="])
    #expect(try parse("") == [])
  }

  @Test("More NULs than one between pairs are padding")
  func padding() throws {
    #expect(try parse("\0A=1\0\0\0B=2\0\0") == ["A=1", "B=2"])
  }

  @Test("The last pair is closed by a NUL like every other (§6.1)")
  func unterminated() {
    #expect(throws: TextKeysError.unterminated) { try parse("A=1\0B=2") }
  }

  @Test("A key has 1 to 63 printable bytes (§6.1)", arguments: ["=1\0", "A\0", "A B=1\0", "\u{7}A=1\0", "É=1\0"])
  func malformedKey(_ text: String) {
    #expect(throws: TextKeysError.malformedKey) { try parse(text) }
  }

  @Test("A key of 63 bytes is read, one of 64 is not")
  func keyLength() throws {
    let key = String(repeating: "K", count: 63)
    #expect(try parse("\(key)=1\0") == ["\(key)=1"])
    #expect(throws: TextKeysError.malformedKey) { try parse("K\(key)=1\0") }
  }

  @Test("A value has at most 255 bytes, a large binary one 1024 as digits (§6.1)")
  func valueLength() throws {
    let fits = String(repeating: "v", count: 255)
    #expect(try parse("A=\(fits)\0") == ["A=\(fits)"])
    #expect(throws: TextKeysError.malformedValue(key: "A")) { try parse("A=\(fits)v\0") }
    let large = "0x" + String(repeating: "00", count: 1024)
    #expect(try parse("CHAP_C=\(large)\0").count == 1)
    #expect(throws: TextKeysError.malformedValue(key: "CHAP_C")) { try parse("CHAP_C=\(large)0\0") }
  }

  @Test("A value is UTF-8")
  func utf8() {
    #expect(throws: TextKeysError.malformedValue(key: "A")) { try TextKeys(parsing: [0x41, 0x3D, 0xC3, 0x28, 0]) }
  }

  @Test("A key comes once (§6.2), names differing in case being two")
  func duplicates() throws {
    #expect(throws: TextKeysError.duplicate(key: "A")) { try parse("A=1\0B=2\0A=1\0") }
    #expect(try parse("A=1\0a=1\0").count == 2)
  }

  @Test("64 pairs and 64 KiB are the most")
  func limits() throws {
    let pairs = (0..<64).map { "K\($0)=1\0" }.joined()
    #expect(try parse(pairs).count == 64)
    #expect(throws: TextKeysError.tooMany) { try parse(pairs + "K64=1\0") }
    #expect(try TextKeys(parsing: [UInt8](repeating: 0, count: 65_536)).isEmpty)
    #expect(throws: TextKeysError.tooLong) { try TextKeys(parsing: [UInt8](repeating: 0, count: 65_537)) }
  }

  @Test("What is formatted is read back")
  func roundTrip() throws {
    var keys = TextKeys()
    keys.append("TargetName", "iqn.2024-01.org.example:a")
    keys.append("Empty", "")
    #expect(keys.bytes == Array("TargetName=iqn.2024-01.org.example:a\0Empty=\0".utf8))
    #expect(try TextKeys(parsing: keys.bytes) == keys)
  }

  @Test("Random bytes are read or refused, and what is read formats to the same pairs")
  func randomBytes() {
    var generator = SplitMix(seed: 0x7E47)
    let alphabet: [UInt8] = [0, 0, 0, 0x3D, 0x3D, 0x3D, 0x41, 0x42, 0x2C]
    var readCount = 0
    for _ in 0..<20_000 * fuzzFactor {
      let count = Int.random(in: 0...16, using: &generator)
      let bytes = (0..<count).map { _ in
        generator.chance(97) ? alphabet.randomElement(using: &generator)! : UInt8.random(in: 0...255, using: &generator)
      }
      guard let keys = try? TextKeys(parsing: bytes), !keys.isEmpty else { continue }
      readCount += 1
      let again = try? TextKeys(parsing: keys.bytes)
      if again != keys { Issue.record("\(bytes)") }
    }
    #expect(readCount > 200)
  }
}

@Suite("Value formats (RFC 7143 §6.1)")
struct TextValueTests {
  @Test("A number is decimal or hexadecimal, without sign or blank")
  func numbers() {
    #expect(TextValue.number("0") == 0)
    #expect(TextValue.number("00262144") == 262_144)
    #expect(TextValue.number("0x40") == 64)
    #expect(TextValue.number("0XfF") == 255)
    #expect(TextValue.number("4294967295") == 4_294_967_295)
    for text in ["", "-1", "+1", " 1", "1 ", "0x", "1a", "4294967296", "0x100000000", "99999999999999999999999"] {
      #expect(TextValue.number(text) == nil, "\(text)")
    }
  }

  @Test("A boolean is Yes or No and nothing else")
  func booleans() {
    #expect(TextValue.boolean("Yes") == true)
    #expect(TextValue.boolean("No") == false)
    for text in ["yes", "NO", "1", "", "Yes,No"] { #expect(TextValue.boolean(text) == nil) }
  }

  @Test("A list has no empty entry")
  func lists() {
    #expect(TextValue.list("CRC32C,None") == ["CRC32C", "None"])
    for text in ["", ",", "a,", ",a", "a,,b"] { #expect(TextValue.list(text) == nil) }
  }

  @Test("A large binary value is hexadecimal or base64, with padding that holds no bits")
  func binary() {
    #expect(TextValue.binary("0x0aFF", byteCountMax: 8) == [0x0A, 0xFF])
    #expect(TextValue.binary("0xaFF", byteCountMax: 8) == [0x0A, 0xFF])
    #expect(TextValue.binary("0bYQ==", byteCountMax: 8) == Array("a".utf8))
    #expect(TextValue.binary("0bYWI=", byteCountMax: 8) == Array("ab".utf8))
    #expect(TextValue.binary("0BYWJj", byteCountMax: 8) == Array("abc".utf8))
    #expect(TextValue.binary("0b//79/A==", byteCountMax: 8) == [0xFF, 0xFE, 0xFD, 0xFC])
    for text in ["", "0x", "0b", "12", "0xfg", "0bYQ=", "0bY===", "0bYR==", "0b====", "0bY=Q=", "0bYQ==YQ==", "0c00"] {
      #expect(TextValue.binary(text, byteCountMax: 8) == nil, "\(text)")
    }
    #expect(TextValue.binary("0x010203", byteCountMax: 2) == nil)
  }

  @Test("Both binary formats are read back, whatever the length")
  func binaryRoundTrip() {
    var generator = SplitMix(seed: 64)
    for count in 1...70 {
      let bytes = generator.bytes(count)
      #expect(TextValue.binary(TextValue.hexText(bytes), byteCountMax: 70) == bytes)
      #expect(TextValue.binary(TextValue.base64Text(bytes), byteCountMax: 70) == bytes)
    }
  }
}
