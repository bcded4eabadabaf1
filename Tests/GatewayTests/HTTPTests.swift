import Glibc
import Synchronization
import TestSupport
import Testing

@testable import Gateway

@Suite("HTTP requests (RFC 9112)")
struct HTTPRequestTests {
  /// What comes of bytes that are given `step` at a time; nil: more is needed.
  private func read(_ text: String, step: Int = .max) throws(HTTPFault) -> HTTPRequest? {
    var reader = HTTPRequestReader()
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
      let part = rest.prefix(min(step, reader.space))
      reader.append(part)
      rest = rest.dropFirst(part.count)
      if let request = try reader.next() { return request }
    }
    return nil
  }

  private func fault(_ text: String) -> HTTPFault? {
    do throws(HTTPFault) {
      _ = try read(text)
      return nil
    } catch { return error }
  }

  @Test("A request is the same however it is cut", arguments: [1, 2, 3, 7, 1000])
  func cuts(step: Int) throws {
    let text = "\r\n\r\nGET /metrics?x=1 HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n"
    #expect(try read(text, step: step) == HTTPRequest(method: .get, path: "/metrics", keepsAlive: true))
  }

  @Test("Lines may end in a line feed alone (§2.2), targets may be absolute (§3.2.2), queries are not looked at")
  func forms() throws {
    #expect(try read("HEAD / HTTP/1.0\n\n") == HTTPRequest(method: .head, path: "/", keepsAlive: false))
    #expect(try read("GET http://h:1/a?b HTTP/1.1\nHost: h\n\n")?.path == "/a")
    #expect(try read("GET HTTP://h HTTP/1.1\nHost: h\n\n")?.path == "/")
    #expect(try read("GET /a%00b HTTP/1.9\nHost: h\n\n")?.path == "/a%00b")
  }

  @Test("A connection goes on as RFC 9112 §9.3 says")
  func persistence() throws {
    #expect(try read("GET / HTTP/1.1\nHost: h\nConnection: x , Close\n\n")?.keepsAlive == false)
    #expect(try read("GET / HTTP/1.0\nConnection: Keep-Alive\n\n")?.keepsAlive == true)
    #expect(try read("GET / HTTP/1.0\nConnection: keep-alive, close\n\n")?.keepsAlive == false)
  }

  @Test(
    "What is no request is refused with its status",
    arguments: [
      ("GET /\r\n\r\n", .badRequest), ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", .badRequest),
      ("GET / HTTP/1.1\r\n\r\n", .badRequest), ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", .badRequest),
      ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", .badRequest), ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", .badRequest),
      ("GET / HTTP/1.1\r\nHost: a\u{0}\r\n\r\n", .badRequest), ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", .badRequest),
      ("GET metrics HTTP/1.1\r\nHost: a\r\n\r\n", .badRequest), ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", .badRequest),
      ("GET / http/1.1\r\nHost: a\r\n\r\n", .badRequest), ("GET / HTTP/1.1.1\r\nHost: a\r\n\r\n", .badRequest),
      ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", .badRequest),
      ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", .badRequest), ("\u{16}\u{3}\u{1}", .badRequest),
      ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", .versionNotSupported),
      ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", .methodNotAllowed),
      ("get / HTTP/1.1\r\nHost: a\r\n\r\n", .methodNotAllowed),
      ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", .contentTooLarge),
      ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", .contentTooLarge),
    ] as [(String, HTTPFault)])
  func faults(text: String, expected: HTTPFault) {
    #expect(fault(text) == expected)
  }

  @Test("A head has at most 8192 bytes and 64 fields, and a longer one is refused before it ends")
  func bounds() throws {
    let fields = String(repeating: "A: b\r\n", count: 63)
    #expect(try read("GET / HTTP/1.1\r\nHost: h\r\n\(fields)\r\n") != nil)
    #expect(fault("GET / HTTP/1.1\r\nHost: h\r\n\(fields)A: b\r\n\r\n") == .headerFieldsTooLarge)
    let long = String(repeating: "a", count: 9000)
    #expect(fault("GET /\(long)") == .headerFieldsTooLarge)
    #expect(fault("GET / HTTP/1.1\r\nHost: h\r\nA: \(long)") == .headerFieldsTooLarge)
    let head = "GET / HTTP/1.1\r\nHost: h\r\nA: "
    let fitting = head + String(repeating: "a", count: 8192 - head.utf8.count - 4) + "\r\n\r\n"
    #expect(try read(fitting) != nil && fitting.utf8.count == 8192)
  }

  @Test("Noise is refused or waited for, never more than is taken")
  func noise() {
    var random = SplitMix(seed: 7)
    let words = [
      "GET ", "/", " HTTP/1.1", "\r\n", "\n", "Host: h", ": ", "\r\n\r\n", "\u{0}", "é", "Connection: close",
    ]
    for _ in 0..<3000 {
      var reader = HTTPRequestReader()
      var isOver = false
      while !isOver, reader.space > 64 {
        reader.append(Array(words[Int(random.next() % UInt64(words.count))].utf8))
        do throws(HTTPFault) {
          while let request = try reader.next() { #expect(request.path.hasPrefix("/")) }
        } catch { isOver = true }
        if random.next() % 16 == 0 { isOver = true }
      }
    }
  }

  @Test("Date has the form of RFC 9110 §5.6.7")
  func date() {
    #expect(HTTPResponse.date(784_111_777) == "Sun, 06 Nov 1994 08:49:37 GMT")
  }
}

@Suite("HTTP connections, by their clock")
struct HTTPConnectionTests {
  private let limits = HTTPConnection.Limits(idleNs: 1000, headNs: 100, makeNs: 200, sendNs: 300, lingerNs: 50)
  private func bytes(_ text: String) -> ArraySlice<UInt8> { Array(text.utf8)[...] }

  /// Everything that it wants to send now.
  private func sent(_ connection: inout HTTPConnection, at now: UInt64) -> String {
    var all: [UInt8] = []
    _ = connection.send(at: now, time: 0) {
      all += $0
      return $0.count
    }
    return String(decoding: all, as: UTF8.self)
  }

  @Test("A request has its time from its first byte, and bytes do not move it")
  func slowLoris() {
    var connection = HTTPConnection(limits: limits, at: 0)
    #expect(connection.deadline == 100 && connection.isIdle)
    for at in stride(from: 10, to: 100, by: 10) as StrideTo<UInt64> {
      #expect(connection.receive(bytes("G"), at: at, time: 0) == nil && connection.deadline == 100)
    }
    connection.expire(at: 100, time: 0)
    #expect(sent(&connection, at: 100).hasPrefix("HTTP/1.1 408 ") && connection.phase == .lingering)
    connection.expire(at: connection.deadline, time: 0)
    #expect(connection.phase == .ended)
  }

  @Test("A silent connection goes without a word; after an answer it may wait longer")
  func idle() {
    var connection = HTTPConnection(limits: limits, at: 0)
    connection.expire(at: 100, time: 0)
    #expect(connection.phase == .ended)
    connection = HTTPConnection(limits: limits, at: 0)
    #expect(connection.receive(bytes("GET /x HTTP/1.1\nHost: h\n\n"), at: 1, time: 0)?.path == "/x")
    #expect(connection.deadline == 201 && connection.readable == 0)
    connection.answer(HTTPResponse(status: 404), at: 5, time: 0)
    #expect(sent(&connection, at: 6).hasSuffix("\r\n\r\n404 Not Found\n"))
    #expect(connection.phase == .reading && connection.deadline == 1006)
    #expect(connection.receive(bytes("G"), at: 10, time: 0) == nil && connection.deadline == 110)
  }

  @Test("Requests that come at once are answered in their order, and the last word is the last")
  func pipelining() {
    var connection = HTTPConnection(limits: limits, at: 0)
    let text =
      "GET /1 HTTP/1.1\nHost: h\n\nHEAD /2 HTTP/1.1\nHost: h\nConnection: close\n\n"
      + "GET /3 HTTP/1.1\nHost: h\n\n"
    var request = connection.receive(bytes(text), at: 1, time: 0)
    var all = ""
    var paths: [String] = []
    while let next = request {
      paths.append(next.path)
      connection.answer(HTTPResponse(type: "t", text: "body of \(next.path)\n"), at: 1, time: 0)
      request = connection.send(at: 1, time: 0) { part in
        // A byte at a time.
        all += String(decoding: part.prefix(1), as: UTF8.self)
        return 1
      }
    }
    #expect(paths == ["/1", "/2"] && connection.phase == .lingering)
    #expect(all.contains("body of /1") && !all.contains("body of /2") && all.contains("Content-Length: 11"))
    #expect(all.contains("Connection: close"))
    // What is still sent is read, up to a bound.
    for _ in 0..<300 { _ = connection.receive(ArraySlice(repeating: 0, count: 4096), at: 2, time: 0) }
    #expect(connection.phase == .ended)
  }

  @Test("Who takes nothing, and who waits for a text that is not made, is let go")
  func stalled() {
    var connection = HTTPConnection(limits: limits, at: 0)
    _ = connection.receive(bytes("GET /metrics HTTP/1.1\nHost: h\n\n"), at: 1, time: 0)
    connection.expire(at: 201, time: 0)
    #expect(connection.phase == .sending && connection.deadline == 501)
    #expect(connection.send(at: 202, time: 0) { _ in -1 } == nil)
    connection.expire(at: 501, time: 0)
    #expect(connection.phase == .ended)
  }
}

@Suite("The metrics' server", .serialized)
struct MetricsServerTests {
  private static let loopback = ListenAddress(host: "127.0.0.1", port: 0)

  /// A server with one address; its port.
  private static func run(
    limits: HTTPConnection.Limits = HTTPConnection.Limits(), _ make: @escaping @Sendable () -> String = { "a 1\n" },
    _ body: (MetricsServer, UInt16) throws -> Void
  ) throws {
    let server = MetricsServer(limits: limits, make)
    server.listen(on: [loopback])
    defer { server.stop() }
    try body(server, try port(server))
  }

  private static func port(_ server: MetricsServer) throws -> UInt16 {
    for _ in 0..<2000 where server.reports.isEmpty { usleep(1000) }
    let address = try #require(server.reports.first?.address)
    return try #require(UInt16(address.split(separator: ":").last!))
  }

  /// A connection whose reads have a bound of ten seconds.
  private final class Client {
    let fd: Int32

    init(_ port: UInt16) throws {
      fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
      var bound = timeval(tv_sec: 10, tv_usec: 0)
      setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &bound, socklen_t(MemoryLayout<timeval>.size))
      let address = try #require(SocketAddress(ListenAddress(host: "127.0.0.1", port: port)))
      let code = address.withBytes { connect(fd, $0.assumingMemoryBound(to: sockaddr.self), $1) }
      try #require(code == 0, "connect: \(errno)")
    }

    deinit { close(fd) }

    func send(_ text: String) {
      let bytes = Array(text.utf8)
      _ = Glibc.send(fd, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    }

    /// Everything until the peer ends, or until what came has `end` in it.
    func read(until end: String? = nil) -> String {
      var all: [UInt8] = []
      var chunk = [UInt8](repeating: 0, count: 65536)
      while true {
        let count = recv(fd, &chunk, chunk.count, 0)
        guard count > 0 else { return String(decoding: all, as: UTF8.self) }
        all += chunk[..<count]
        if let end, String(decoding: all, as: UTF8.self).contains(end) { return String(decoding: all, as: UTF8.self) }
      }
    }
  }

  private static func get(_ port: UInt16, _ path: String = "/metrics") throws -> String {
    let client = try Client(port)
    client.send("GET \(path) HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    return client.read()
  }

  @Test("It serves the text, a page, a sign of life, and nothing else")
  func paths() async throws {
    try await blocking {
      try Self.run { _, port in
        let answer = try Self.get(port)
        #expect(answer.hasPrefix("HTTP/1.1 200 OK\r\n") && answer.hasSuffix("\r\n\r\na 1\n"))
        #expect(answer.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"))
        #expect(try Self.get(port, "/").contains("<a href=\"/metrics\">"))
        #expect(try Self.get(port, "/healthz").hasSuffix("\r\n\r\nok\n"))
        #expect(try Self.get(port, "/metrics/").hasPrefix("HTTP/1.1 404 "))
        let client = try Client(port)
        client.send("DELETE / HTTP/1.1\r\nHost: h\r\n\r\n")
        let refusal = client.read()
        #expect(refusal.hasPrefix("HTTP/1.1 405 ") && refusal.contains("Allow: GET, HEAD\r\n"))
      }
    }
  }

  @Test("However many ask, one text is made at a time, and one that is young is given again")
  func oneText() async throws {
    let made = Shared(Atomic(0))
    try await blocking {
      try Self.run {
        made.value.add(1, ordering: .relaxed)
        usleep(100_000)
        return String(repeating: "x", count: 1 << 20)
      } _: { _, port in
        let clients = try (0..<20).map { _ in try Client(port) }
        for client in clients { client.send("GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n") }
        for client in clients { #expect(client.read().utf8.count > 1 << 20) }
        #expect(made.value.load(ordering: .relaxed) <= 2)
      }
    }
  }

  @Test("A text that is never made costs those who wait an error, and nobody else anything")
  func hang() async throws {
    let mayEnd = Shared(Atomic(0))
    try await blocking {
      var limits = HTTPConnection.Limits()
      limits.makeNs = 200_000_000
      try Self.run(limits: limits) {
        while mayEnd.value.load(ordering: .relaxed) == 0 { usleep(1000) }
        return "late\n"
      } _: { _, port in
        #expect(try Self.get(port).hasPrefix("HTTP/1.1 503 "))
        #expect(try Self.get(port, "/healthz").hasSuffix("ok\n"))
        mayEnd.value.store(1, ordering: .relaxed)
        for _ in 0..<200 where try !Self.get(port).hasSuffix("late\n") { usleep(10_000) }
        #expect(try Self.get(port).hasSuffix("late\n"))
      }
    }
  }

  @Test("Connections that say nothing keep nobody out, and are bounded")
  func flood() async throws {
    try await blocking {
      try Self.run { _, port in
        let idle = try (0..<300).map { _ in try Client(port) }
        for client in idle.prefix(100) { client.send("GET / HT") }
        for _ in 0..<5 { #expect(try Self.get(port).hasSuffix("a 1\n")) }
        let open = idle.filter { client in
          var byte: UInt8 = 0
          return recv(client.fd, &byte, 1, Int32(MSG_DONTWAIT)) < 0 && errno == EAGAIN
        }
        #expect(open.count <= MetricsServer.connectionsMax)
      }
    }
  }

  @Test("Addresses come and go while it runs; a port that is taken is told, and taken once it is free")
  func addresses() async throws {
    try await blocking {
      try Self.run { server, port in
        let kept = try Client(port)
        kept.send("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
        #expect(kept.read(until: "ok\n").hasSuffix("ok\n"))
        let other = MetricsServer { "" }
        defer { other.stop() }
        other.listen(on: [ListenAddress(host: "127.0.0.1", port: port)])
        for _ in 0..<2000 where other.reports.isEmpty { usleep(1000) }
        #expect(other.reports.map(\.state) == ["Address already in use"])
        server.listen(on: [])
        #expect(kept.read() == "")
        for _ in 0..<2000 where !server.reports.isEmpty { usleep(1000) }
        // Told again, it is tried at once.
        other.listen(on: [ListenAddress(host: "127.0.0.1", port: port)])
        for _ in 0..<2000 where other.reports.map(\.state) != ["listening"] { usleep(1000) }
        #expect(try Self.get(port, "/healthz").hasSuffix("ok\n"))
        server.listen(on: [Self.loopback])
        for _ in 0..<2000 where server.reports.isEmpty { usleep(1000) }
        #expect(try Self.get(try Self.port(server)).hasSuffix("a 1\n"))
      }
    }
  }
}
