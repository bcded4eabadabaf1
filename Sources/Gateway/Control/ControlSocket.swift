import Glibc

/// The calls of unix(7) that both ends of the control socket make, each with a deadline. The only file of this directory
/// with socket addresses in raw memory.
struct ControlSocket: Sendable {
  let descriptor: Int32

  static func make() throws(ControlError) -> ControlSocket {
    let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
    let descriptor = socket(AF_UNIX, type, 0)
    guard descriptor >= 0 else { throw ControlError(.failed, "no socket: \(SystemError.text(errno))") }
    return ControlSocket(descriptor: descriptor)
  }

  func close() { _ = Glibc.close(descriptor) }

  /// 0 or errno.
  func connect(to path: String) -> Int32 { withAddress(path) { Glibc.connect(descriptor, $0, $1) } }

  /// 0 or errno.
  func bind(to path: String) -> Int32 { withAddress(path) { Glibc.bind(descriptor, $0, $1) } }

  private func withAddress(_ path: String, _ call: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
    let bytes = [UInt8](path.utf8)
    guard (1...ControlPath.byteCountMax).contains(bytes.count), !bytes.contains(0) else { return ENAMETOOLONG }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    // `sun_path` has 108 bytes; `byteCountMax` leaves the last one zero.
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    let result = withUnsafePointer(to: &address) {
      // A `sockaddr_un` is read through `sockaddr` by every call that takes one.
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { call($0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
    return result == 0 ? 0 : errno
  }

  /// The user at the other end, as the kernel noted it at connect (SO_PEERCRED); nil: not known.
  func peerUser() -> uid_t? {
    // struct ucred: pid, uid, gid.
    var credentials: [UInt32] = [0, UInt32.max, UInt32.max]
    var length = socklen_t(12)
    guard getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0, length == 12 else { return nil }
    return credentials[1]
  }

  /// Everything up to the first newline.
  /// - Returns: The line without its newline; what came before the end if it ended without one.
  func readLine(bytesMax: Int, until deadline: Deadline) throws(ControlError) -> [UInt8] {
    var line: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 16 << 10)
    while true {
      let count = recv(descriptor, &chunk, chunk.count, 0)
      if count > 0 {
        let newline = chunk[..<count].firstIndex(of: 0x0A)
        line += chunk[..<(newline ?? count)]
        guard line.count <= bytesMax else {
          throw ControlError(.badRequest, "more than \(bytesMax) bytes without an end")
        }
        if newline != nil { return line }
      } else if count == 0 {
        return line
      } else if errno == EAGAIN {
        try wait(for: Int16(POLLIN), until: deadline)
      } else if errno != EINTR {
        throw ControlError(.failed, "read: \(SystemError.text(errno))")
      }
    }
  }

  func write(_ bytes: [UInt8], until deadline: Deadline) throws(ControlError) {
    var sent = 0
    while sent < bytes.count {
      let count = bytes.withUnsafeBytes {
        // In bounds: `sent` is below the count.
        send(descriptor, $0.baseAddress?.advanced(by: sent), $0.count - sent, Int32(MSG_NOSIGNAL))
      }
      if count >= 0 {
        sent += count
      } else if errno == EAGAIN {
        try wait(for: Int16(POLLOUT), until: deadline)
      } else if errno != EINTR {
        throw ControlError(.failed, "write: \(SystemError.text(errno))")
      }
    }
  }

  private func wait(for events: Int16, until deadline: Deadline) throws(ControlError) {
    var entry = pollfd(fd: descriptor, events: events, revents: 0)
    let left = deadline.milliseconds
    guard left > 0, poll(&entry, 1, left) != 0 else { throw ControlError(.timedOut, "no answer in time") }
  }
}

/// A moment of CLOCK_MONOTONIC.
struct Deadline: Sendable {
  private let nanoseconds: Int64

  init(seconds: Double) { nanoseconds = Self.now() + Int64(seconds * 1e9) }

  /// What is left, rounded up; 0: it is over.
  var milliseconds: Int32 { Int32(clamping: max(0, (nanoseconds - Self.now() + 999_999) / 1_000_000)) }

  static func now() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
  }
}

/// Words for errno.
public enum SystemError {
  public static func text(_ code: Int32) -> String {
    var buffer = [CChar](repeating: 0, count: 256)
    // The XSI and the GNU strerror_r differ; strerror would share one buffer among threads for unknown codes only.
    guard let known = strerror(code) else { return "error \(code)" }
    strncpy(&buffer, known, buffer.count - 1)
    return String(decoding: buffer.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
  }
}
