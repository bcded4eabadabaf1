/// A request of HTTP/1.x (RFC 9112) as far as a server of a few short texts has to know it.
package struct HTTPRequest: Equatable, Sendable {
  package enum Method: String, Sendable {
    case get = "GET"
    case head = "HEAD"
  }

  package var method: Method
  /// Of the target, without its query: `/metrics`.
  package var path: String
  /// Whether the connection may have another request after this one (RFC 9112 §9.3).
  package var keepsAlive: Bool
}

/// What is wrong with a request: it is answered with this status, and the connection ends.
package enum HTTPFault: Int, Error, Sendable {
  case badRequest = 400
  case methodNotAllowed = 405
  case contentTooLarge = 413
  case headerFieldsTooLarge = 431
  case versionNotSupported = 505
}

/// Cuts the bytes of a connection into requests. Pure: it is given bytes and says what it found.
///
/// Invariants:
///   bytes held <= headBytesMax; no byte is looked for a line's end twice
///   a request has no body: one that announces one is refused, so that nothing is ever taken for a request that was none
package struct HTTPRequestReader: Sendable {
  /// Of a request line and its header fields.
  package static let headBytesMax = 8192
  package static let fieldCountMax = 64

  private var bytes: [UInt8] = []
  /// Where the line at hand begins, and from where its end is looked for.
  private var lineStart = 0
  private var scanned = 0

  package init() {}

  /// Nothing of a request has come.
  package var isEmpty: Bool { bytes.isEmpty }
  /// So many bytes it takes before `next` must be asked.
  package var space: Int { Self.headBytesMax - bytes.count }

  /// Takes at most `space` bytes.
  package mutating func append(_ more: some Collection<UInt8>) {
    precondition(more.count <= space)
    bytes += more
  }

  /// The next request; nil: more bytes are needed.
  /// - Throws: What is wrong with it. Nothing more can be read then.
  package mutating func next() throws(HTTPFault) -> HTTPRequest? {
    while scanned < bytes.count {
      let byte = bytes[scanned]
      scanned += 1
      // A server may take a line feed alone for the end of a line (RFC 9112 §2.2).
      guard byte == 0x0A else { continue }
      let isEmptyLine = Self.withoutEnd(bytes[lineStart..<scanned]).isEmpty
      if isEmptyLine, lineStart == 0 {
        // Empty lines before a request are ignored (RFC 9112 §2.2).
        bytes.removeFirst(scanned)
        scanned = 0
        continue
      }
      lineStart = scanned
      guard isEmptyLine else { continue }
      let head = Array(bytes[..<scanned])
      bytes.removeFirst(scanned)
      (scanned, lineStart) = (0, 0)
      return try Self.parse(head)
    }
    // What is no HTTP at all (TLS, for one) is told so at once.
    if let first = bytes.first, first != 0x0D, !isToken(first) { throw .badRequest }
    if bytes.count >= Self.headBytesMax { throw .headerFieldsTooLarge }
    return nil
  }

  private static func parse(_ head: [UInt8]) throws(HTTPFault) -> HTTPRequest {
    var lines = head.split(separator: 0x0A, omittingEmptySubsequences: false).map { withoutEnd($0) }
    // The empty line, and what is behind its end.
    lines.removeLast(2)
    let words = lines[0].split(separator: 0x20, omittingEmptySubsequences: false)
    guard words.count == 3, !words[0].isEmpty, words[0].allSatisfy(isToken) else { throw .badRequest }
    guard lines.count - 1 <= fieldCountMax else { throw .headerFieldsTooLarge }
    let minor = try minorVersion(words[2])
    let fields = try Fields(lines.dropFirst())
    // Exactly one Host (RFC 9112 §3.2).
    guard fields.hosts == 1 || minor == 0 && fields.hosts == 0 else { throw .badRequest }
    guard let method = HTTPRequest.Method(rawValue: String(decoding: words[0], as: UTF8.self)) else {
      throw .methodNotAllowed
    }
    guard !fields.hasBody else { throw .contentTooLarge }
    let keepsAlive = !fields.options.contains("close") && (minor > 0 || fields.options.contains("keep-alive"))
    return HTTPRequest(method: method, path: try path(words[1]), keepsAlive: keepsAlive)
  }

  /// `HTTP/1.0` or `HTTP/1.1`; a higher minor version is understood as 1.1 (RFC 9110 §2.5).
  private static func minorVersion(_ word: ArraySlice<UInt8>) throws(HTTPFault) -> Int {
    let bytes = Array(word)
    guard bytes.count == 8, bytes.starts(with: "HTTP/".utf8), bytes[6] == UInt8(ascii: "."), isDigit(bytes[5]),
      isDigit(bytes[7])
    else { throw .badRequest }
    guard bytes[5] == UInt8(ascii: "1") else { throw .versionNotSupported }
    return bytes[7] == UInt8(ascii: "0") ? 0 : 1
  }

  /// The path of an origin-form or absolute-form target (RFC 9112 §3.2).
  private static func path(_ word: ArraySlice<UInt8>) throws(HTTPFault) -> String {
    guard word.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { throw .badRequest }
    var target = word
    let scheme = Array("http://".utf8)
    if target.prefix(scheme.count).map({ $0 | 0x20 }) == scheme.map({ $0 | 0x20 }) {
      target = target.dropFirst(scheme.count).drop { $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: "?") }
      if target.first != UInt8(ascii: "/") { return "/" }
    }
    guard target.first == UInt8(ascii: "/") else { throw .badRequest }
    return String(decoding: target.prefix { $0 != UInt8(ascii: "?") && $0 != UInt8(ascii: "#") }, as: UTF8.self)
  }

  /// What the header fields say that matters here.
  private struct Fields {
    var hosts = 0
    var hasBody = false
    /// Of Connection, in lower case.
    var options: [String] = []

    init(_ lines: ArraySlice<ArraySlice<UInt8>>) throws(HTTPFault) {
      for line in lines {
        guard let colon = line.firstIndex(of: UInt8(ascii: ":")) else { throw .badRequest }
        let name = line[..<colon]
        // No blank before the colon, and no line that goes on from the one before (RFC 9112 §5.1, §5.2).
        guard !name.isEmpty, name.allSatisfy(isToken) else { throw .badRequest }
        let value = HTTPRequestReader.trimmed(line[(colon + 1)...])
        guard value.allSatisfy({ $0 >= 0x20 && $0 != 0x7F || $0 == 0x09 }) else { throw .badRequest }
        try take(HTTPRequestReader.lowercase(name), value)
      }
    }

    private mutating func take(_ name: String, _ value: ArraySlice<UInt8>) throws(HTTPFault) {
      switch name {
      case "host": hosts += 1
      case "transfer-encoding": hasBody = true
      case "content-length":
        guard !value.isEmpty, value.allSatisfy(isDigit) else { throw .badRequest }
        if value.contains(where: { $0 != UInt8(ascii: "0") }) { hasBody = true }
      case "connection":
        options += value.split(separator: UInt8(ascii: ",")).map {
          HTTPRequestReader.lowercase(HTTPRequestReader.trimmed($0))
        }
      default: break
      }
    }
  }

  private static func withoutEnd(_ line: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
    var line = line
    if line.last == 0x0A { line.removeLast() }
    if line.last == 0x0D { line.removeLast() }
    return line
  }

  private static func trimmed(_ text: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
    func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }
    var text = text.drop(while: isBlank)
    while let last = text.last, isBlank(last) { text.removeLast() }
    return text
  }

  private static func lowercase(_ text: ArraySlice<UInt8>) -> String {
    String(
      decoding: text.map { (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains($0) ? $0 | 0x20 : $0 }, as: UTF8.self)
  }
}

/// tchar (RFC 9110 §5.6.2).
private func isToken(_ byte: UInt8) -> Bool {
  switch byte {
  case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): true
  case _ where isDigit(byte): true
  default: tokenMarks.contains(byte)
  }
}

private let tokenMarks = Array("!#$%&'*+-.^_`|~".utf8)

private func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }
