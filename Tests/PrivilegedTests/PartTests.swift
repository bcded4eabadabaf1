import CSystem
import Glibc
import Synchronization
import Testing

@testable import Privileged

/// A socket of a test, as a unit's socket would be; it goes with the test.
private final class Socket: Sendable {
  let path: String
  let listener: Int32
  private let directory: String

  init() throws {
    var template = Array("/tmp/gatewayd-part-XXXXXX".utf8CString)
    directory = try #require(mkdtemp(&template).map { String(cString: $0) })
    path = directory + "/part.sock"
    listener = Glibc.socket(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
    let code = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(listener, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    try #require(code == 0 && listen(listener, 8) == 0)
  }

  deinit {
    close(listener)
    unlink(path)
    rmdir(directory)
  }
}

/// Answers with the request backwards, and with a byte that says whether a descriptor came: 0 for none, else its first byte.
/// The request "?" is none.
private func reversed(_ request: [UInt8], _ descriptor: Int32) -> [UInt8]? {
  guard request != [UInt8(ascii: "?")] else { return nil }
  var byte: UInt8 = 0
  if descriptor >= 0 { _ = pread(descriptor, &byte, 1, 0) }
  return [byte] + request.reversed()
}

private func makeServer(admits: @escaping @Sendable (UInt32) -> Bool = { _ in true }) -> PartServer {
  PartServer(.fence, admits: admits, log: { _ in }, handler: reversed)
}

@Suite("Parts with privileges", .timeLimit(.minutes(5)))
struct PartTests {
  /// The two ends of a connection, the one already served.
  private func connection(_ server: PartServer) throws -> Int32 {
    var ends: [Int32] = [-1, -1]
    try #require(socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0, &ends) == 0)
    let served = ends[1]
    start { server.serve(served) }
    return ends[0]
  }

  private func start(_ body: @escaping @Sendable () -> Void) {
    final class Box: Sendable {
      let body: @Sendable () -> Void
      init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
    var thread = pthread_t()
    let argument = Unmanaged.passRetained(Box(body)).toOpaque()
    pthread_create(
      &thread, nil,
      {
        Unmanaged<Box>.fromOpaque($0!).takeRetainedValue().body()
        return nil
      }, argument)
    pthread_detach(thread)
  }

  /// A message; empty: the end.
  private func receive(_ end: Int32) -> [UInt8] {
    var buffer = [UInt8](repeating: 0, count: 256)
    let count = recv(end, &buffer, buffer.count, 0)
    return count > 0 ? Array(buffer[..<count]) : []
  }

  @Test("It says which part it is and what it speaks, then answers one request after the other")
  func answers() throws {
    let end = try connection(makeServer())
    defer { close(end) }
    #expect(receive(end) == [UInt8]("gatewayd".utf8) + [1, 1])
    for request in [[1, 2, 3], [9], [UInt8](repeating: 7, count: PartMessage.requestBytesMax)] as [[UInt8]] {
      #expect(system_packet_send(end, request, UInt64(request.count), -1) == 0)
      #expect(receive(end) == [0] + request.reversed())
    }
  }

  @Test("A descriptor comes with its request, and is closed when that is answered")
  func descriptors() throws {
    let end = try connection(makeServer())
    defer { close(end) }
    _ = receive(end)
    let file = try #require(tmpfile())
    defer { fclose(file) }
    var byte: UInt8 = 42
    #expect(pwrite(fileno(file), &byte, 1, 0) == 1)
    let before = try openDescriptors()
    for _ in 0..<10 {
      #expect(system_packet_send(end, [1], 1, fileno(file)) == 0)
      #expect(receive(end) == [42, 1])
    }
    // Other tests of this process open and close some at the same time.
    #expect(abs(try openDescriptors() - before) < 8)
  }

  private func openDescriptors() throws -> Int {
    let directory = try #require(opendir("/proc/self/fd"))
    defer { closedir(directory) }
    var count = 0
    while readdir(directory) != nil { count += 1 }
    return count
  }

  @Test("What is no request ends the connection: too long, empty, not understood, two descriptors")
  func strangers() throws {
    let long = [UInt8](repeating: 1, count: PartMessage.requestBytesMax + 1)
    for request in [long, [UInt8(ascii: "?")], []] as [[UInt8]] {
      let end = try connection(makeServer())
      _ = receive(end)
      #expect(system_packet_send(end, request, UInt64(request.count), -1) == 0)
      #expect(receive(end) == [])
      close(end)
    }
    let end = try connection(makeServer())
    defer { close(end) }
    _ = receive(end)
    // struct cmsghdr: length, level, type, then two descriptors.
    var control = [UInt8](repeating: 0, count: 24)
    control.withUnsafeMutableBytes {
      $0.storeBytes(of: 24, as: UInt64.self)
      $0.storeBytes(of: SOL_SOCKET, toByteOffset: 8, as: Int32.self)
      $0.storeBytes(of: 1, toByteOffset: 12, as: Int32.self)
      $0.storeBytes(of: STDERR_FILENO, toByteOffset: 16, as: Int32.self)
      $0.storeBytes(of: STDERR_FILENO, toByteOffset: 20, as: Int32.self)
    }
    var byte: UInt8 = 1
    let sent = withUnsafeMutablePointer(to: &byte) { byte in
      control.withUnsafeMutableBytes { control in
        var part = iovec(iov_base: byte, iov_len: 1)
        return withUnsafeMutablePointer(to: &part) { part in
          var message = msghdr()
          message.msg_iov = part
          message.msg_iovlen = 1
          message.msg_control = control.baseAddress
          message.msg_controllen = control.count
          return sendmsg(end, &message, 0)
        }
      }
    }
    #expect(sent == 1)
    #expect(receive(end) == [])
  }

  @Test("A client asks over connections that stay, several at a time")
  func client() throws {
    let socket = try Socket()
    let server = makeServer()
    start { _ = server.run(socket.listener) }
    let client = PartClient(.fence) { socket.path }
    for number in 0..<100 as Range<UInt8> { #expect(try client.ask([number, 1]) == [0, 1, number]) }
    let good = Counter()
    let ended = Counter()
    for number in 0..<4 as Range<UInt8> {
      start {
        for _ in 0..<50 where (try? client.ask([number])) == [0, number] { _ = good.next() }
        _ = ended.next()
      }
    }
    while ended.count < 4 { usleep(1000) }
    #expect(good.count == 200)
  }

  @Test("Without a part nothing is done, and it is told why")
  func absent() throws {
    let client = PartClient(.fence) { "/nonexistent/part.sock" }
    #expect(throws: PartFailure.absent(ENOENT)) { try client.ask([1]) }
    let endless = PartClient(.fence) { String(repeating: "x", count: 200) }
    #expect(throws: PartFailure.absent(ENAMETOOLONG)) { try endless.ask([1]) }
  }

  @Test("Who may not ask, or asks another part, is told so")
  func notAdmitted() throws {
    let socket = try Socket()
    let server = makeServer(admits: { $0 != getuid() })
    start { _ = server.run(socket.listener) }
    #expect(throws: PartFailure.absent(EACCES)) { try PartClient(.fence) { socket.path }.ask([1]) }
    let other = try Socket()
    let fence = makeServer()
    start { _ = fence.run(other.listener) }
    #expect(throws: PartFailure.absent(EPROTO)) { try PartClient(.addresses) { other.path }.ask([1]) }
  }

  /// Accepts, greets, and does with each connection as told.
  private func serve(_ listener: Int32, _ body: @escaping @Sendable (Int32) -> Void) {
    start {
      while true {
        let connection = accept(listener, nil, nil)
        guard connection >= 0 else { return }
        let greeting = Part.fence.greeting
        _ = system_packet_send(connection, greeting, UInt64(greeting.count), -1)
        body(connection)
        close(connection)
      }
    }
  }

  @Test("A part that dies with a request leaves nobody knowing; the next request finds the next part")
  func lost() throws {
    let socket = try Socket()
    let count = Counter()
    serve(socket.listener) { connection in
      var buffer = [UInt8](repeating: 0, count: 64)
      // The first three die with the request, the others answer once and close.
      guard recv(connection, &buffer, 64, 0) > 0, count.next() > 3 else { return }
      _ = system_packet_send(connection, [7], 1, -1)
    }
    let client = PartClient(.fence) { socket.path }
    for _ in 0..<3 { #expect(throws: PartFailure.lost) { try client.ask([1]) } }
    for _ in 0..<3 {
      #expect(try client.ask([1]) == [7])
      // Its end arrives while the connection is idle.
      usleep(50_000)
    }
  }

  @Test("Whoever bounds the wait gets no answer when it is over")
  func late() throws {
    let socket = try Socket()
    serve(socket.listener) { connection in
      var byte: UInt8 = 0
      while recv(connection, &byte, 1, 0) > 0 {}
    }
    let client = PartClient(.fence) { socket.path }
    #expect(throws: PartFailure.lost) { try client.ask([1], milliseconds: 50) }
  }

  @Test("Sockets are told apart from everything else")
  func sockets() throws {
    let socket = try Socket()
    #expect(system_is_packet_listener(socket.listener) == 1)
    #expect(system_is_tcp_listener(socket.listener) == 0)
    #expect(system_is_packet_listener(STDERR_FILENO) == 0)
    let connection = system_packet_connect(socket.path)
    #expect(connection >= 0 && system_is_packet_listener(connection) == 0)
    close(connection)
    let listener = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    #expect(system_is_tcp_listener(listener) == 0)
    #expect(listen(listener, 1) == 0 && system_is_tcp_listener(listener) == 1)
    close(listener)
  }
}

private final class Counter: Sendable {
  private let value = Atomic<Int>(0)
  var count: Int { value.load(ordering: .acquiring) }
  func next() -> Int { value.add(1, ordering: .acquiringAndReleasing).newValue }
}
