import CHogweed
import Testing

@testable import Appliance

@Suite struct ImageTests {
  private static let release = "ID=gatewayd\nIMAGE_ID=gatewayd\nIMAGE_VERSION=\"1.2-3\"\n"

  /// A PE file with one section.
  private static func image(_ release: String, section: String = ".osrel", place: UInt32 = 512) -> [UInt8] {
    var file = [UInt8](repeating: 0, count: 512) + Array(release.utf8)
    func put(_ value: UInt32, at offset: Int, bytes: Int = 4) {
      for index in 0..<bytes { file[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * UInt32(index))) }
    }
    put(0x5A4D, at: 0, bytes: 2)
    put(0x80, at: 0x3C)
    put(0x4550, at: 0x80)
    put(1, at: 0x80 + 6, bytes: 2)
    put(16, at: 0x80 + 20, bytes: 2)
    let entry = 0x80 + 24 + 16
    for (index, byte) in section.utf8.enumerated() { file[entry + index] = byte }
    put(UInt32(release.utf8.count), at: entry + 8)
    put(UInt32(release.utf8.count), at: entry + 16)
    put(place, at: entry + 20)
    return file
  }

  private func version(_ file: [UInt8]) throws -> String {
    try file.withUnsafeBytes { try KernelImage(RawSpan(_unsafeBytes: $0)).version }
  }

  @Test("An image says its version in the section .osrel")
  func section() throws { #expect(try version(Self.image(Self.release)) == "1.2-3") }

  @Test("Another system's image, a damaged one and no image at all are refused")
  func refused() {
    let good = Self.image(Self.release)
    for file in [
      Self.image("ID=debian\n"), Self.image(Self.release, section: ".text"), Self.image(Self.release, place: .max),
      Self.image("IMAGE_ID=gatewayd\nIMAGE_VERSION=../x\n"), [0x4D], Array(good[..<100]), Array(good[..<200]),
    ] {
      #expect(throws: KernelImage.Problem.self) { try version(file) }
    }
  }

  @Test("A file that ends anywhere in its headers is read without harm")
  func truncated() {
    let good = Self.image(Self.release)
    for count in 1..<good.count { _ = try? version(Array(good[..<count])) }
  }

  @Test("A signature is good for its file and its key, and for no other (RFC 8032)")
  func signature() throws {
    let secret = [UInt8](repeating: 7, count: 32)
    var file = Self.image(Self.release)
    var publicKey = [UInt8](repeating: 0, count: 32)
    var signature = [UInt8](repeating: 0, count: 64)
    nettle_ed25519_sha512_public_key(&publicKey, secret)
    nettle_ed25519_sha512_sign(publicKey, secret, file.count, file, &signature)
    let text = publicKey.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    let key = try #require(UpdateKey(hexadecimal: text + "\n"))
    #expect(file.withUnsafeBytes { key.isSignature(signature, of: $0) })
    #expect(file.withUnsafeBytes { !key.isSignature(Array(signature.dropLast()), of: $0) })
    file[300] ^= 1
    #expect(file.withUnsafeBytes { !key.isSignature(signature, of: $0) })
    file[300] ^= 1
    let other = try #require(UpdateKey(hexadecimal: String(repeating: "42", count: 32)))
    #expect(file.withUnsafeBytes { !other.isSignature(signature, of: $0) })
  }

  @Test("A key is 64 hexadecimal digits", arguments: ["", "12", String(repeating: "x", count: 64)])
  func keys(text: String) { #expect(UpdateKey(hexadecimal: text) == nil) }
}
