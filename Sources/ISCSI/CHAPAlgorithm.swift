import CNettle

/// The hash of a CHAP response, by its number in CHAP_A (RFC 7143 §12.1.3; SHA-256 and SHA3-256 as registered with
/// IANA).
public struct CHAPAlgorithm: RawRepresentable, Hashable, Sendable {
  public var rawValue: Int

  public init(rawValue: Int) { self.rawValue = rawValue }

  public static let md5 = CHAPAlgorithm(rawValue: 5)
  public static let sha1 = CHAPAlgorithm(rawValue: 6)
  public static let sha256 = CHAPAlgorithm(rawValue: 7)
  public static let sha3256 = CHAPAlgorithm(rawValue: 8)

  public static let supported: Set<CHAPAlgorithm> = [.md5, .sha1, .sha256, .sha3256]

  /// Bytes of a response; 0 for an algorithm we do not have.
  var digestByteCount: Int {
    switch self {
    case .md5: Int(MD5_DIGEST_SIZE)
    case .sha1: Int(SHA1_DIGEST_SIZE)
    case .sha256: Int(SHA256_DIGEST_SIZE)
    case .sha3256: Int(SHA3_256_DIGEST_SIZE)
    default: 0
    }
  }

  /// The response: the hash over identifier, secret and challenge (RFC 1994 §4.1).
  func response(identifier: UInt8, secret: [UInt8], challenge: [UInt8]) -> [UInt8] {
    hash([identifier] + secret + challenge)
  }

  private func hash(_ bytes: [UInt8]) -> [UInt8] {
    var digest = [UInt8](repeating: 0, count: digestByteCount)
    switch self {
    case .md5:
      var context = md5_ctx()
      nettle_md5_init(&context)
      nettle_md5_update(&context, bytes.count, bytes)
      nettle_md5_digest(&context, digest.count, &digest)
    case .sha1:
      var context = sha1_ctx()
      nettle_sha1_init(&context)
      nettle_sha1_update(&context, bytes.count, bytes)
      nettle_sha1_digest(&context, digest.count, &digest)
    case .sha256:
      var context = sha256_ctx()
      nettle_sha256_init(&context)
      nettle_sha256_update(&context, bytes.count, bytes)
      nettle_sha256_digest(&context, digest.count, &digest)
    case .sha3256:
      var context = sha3_256_ctx()
      nettle_sha3_256_init(&context)
      nettle_sha3_256_update(&context, bytes.count, bytes)
      nettle_sha3_256_digest(&context, digest.count, &digest)
    default:
      preconditionFailure("a hash that is not in `supported`")
    }
    return digest
  }

  /// Whether two byte strings are equal, in a time that tells nothing of where they differ.
  static func isEqualInConstantTime(_ one: [UInt8], _ other: [UInt8]) -> Bool {
    one.count == other.count && nettle_memeql_sec(one, other, one.count) != 0
  }
}
