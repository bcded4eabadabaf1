import CHogweed

/// The key that updates are signed with: Ed25519 (RFC 8032), over a file's bytes as they are.
public struct UpdateKey: Equatable, Sendable {
  public static let standardPath = "/usr/lib/gatewayd/update.pub"
  public static let signatureBytes = 64

  private var bytes: [UInt8]

  /// 64 hexadecimal digits; nil if they are not.
  public init?(hexadecimal text: String) {
    let digits = text.filter { !$0.isWhitespace }.map(\.hexDigitValue)
    guard digits.count == 64, !digits.contains(nil) else { return nil }
    let values = digits.compactMap { $0 }
    bytes = stride(from: 0, to: 64, by: 2).map { UInt8(values[$0] << 4 | values[$0 + 1]) }
  }

  public func isSignature(_ signature: [UInt8], of file: UnsafeRawBufferPointer) -> Bool {
    guard signature.count == Self.signatureBytes, let start = file.baseAddress else { return false }
    // The bounds of all three were checked: 32, `file.count` and 64 bytes.
    return nettle_ed25519_sha512_verify(bytes, file.count, start.assumingMemoryBound(to: UInt8.self), signature) == 1
  }
}
