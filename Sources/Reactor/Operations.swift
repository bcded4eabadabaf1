import CURing
import Glibc

/// The operations that the gateway submits. Descriptors are plain (`fd`) or indices of the fixed-file table (`fixed: true`).
extension Ring {
  /// Receives into a provided buffer of group `group`.
  /// - Parameter isDrained: the last receive left nothing: do not try before there is something.
  @inlinable
  public func receive(_ fd: Int32, group: UInt16, isDrained: Bool = false, token: Token) {
    let entry = entry(token)
    io_uring_prep_recv(entry, fd, nil, 0, 0)
    if isDrained { entry.pointee.ioprio |= 1 }  // IORING_RECVSEND_POLL_FIRST
    entry.pointee.flags |= 1 << 5  // IOSQE_BUFFER_SELECT
    entry.pointee.buf_group = group
  }

  /// Receives exactly `count` bytes into memory of ours (fewer only at the end of the stream or on an error).
  @inlinable
  public func receive(_ fd: Int32, into base: UnsafeMutableRawPointer, count: Int, token: Token) {
    io_uring_prep_recv(entry(token), fd, base, count, Int32(MSG_WAITALL))
  }

  /// Sends a whole message; `message` and what it points at must live until the completion.
  @inlinable
  public func send(_ fd: Int32, message: UnsafePointer<msghdr>, token: Token) {
    io_uring_prep_sendmsg(entry(token), fd, message, UInt32(MSG_WAITALL | MSG_NOSIGNAL))
  }

  /// Accepts connections until cancelled; each completion carries a descriptor.
  public func acceptAll(_ fd: Int32, token: Token) {
    io_uring_prep_multishot_accept(entry(token), fd, nil, nil, Int32(SOCK_CLOEXEC.rawValue))
  }

  /// Cancels the operation with the given token.
  public func cancel(_ target: Token, token: Token) {
    io_uring_prep_cancel64(entry(token), target.bits, 0)
  }

  /// Completes with 1 when `fd` is readable.
  public func pollReadable(_ fd: Int32, token: Token) {
    io_uring_prep_poll_add(entry(token), fd, UInt32(POLLIN))
  }

  /// Completes with -ETIME after `time`, which must live until then.
  public func timeout(_ time: UnsafeMutablePointer<__kernel_timespec>, token: Token) {
    io_uring_prep_timeout(entry(token), time, 0, 0)
  }

  @inlinable
  public func readFile(
    _ fd: Int32, fixed: Bool, into base: UnsafeMutableRawPointer, count: Int, offset: UInt64, buffer: UInt16?,
    token: Token
  ) {
    let entry = entry(token)
    if let buffer {
      io_uring_prep_read_fixed(entry, fd, base, UInt32(count), offset, Int32(buffer))
    } else {
      io_uring_prep_read(entry, fd, base, UInt32(count), offset)
    }
    if fixed { entry.pointee.flags |= 1 }  // IOSQE_FIXED_FILE
  }

  /// - Parameter writeFlags: RWF_ flags (RWF_DSYNC for FUA).
  @inlinable
  public func writeFile(
    _ fd: Int32, fixed: Bool, from base: UnsafeRawPointer, count: Int, offset: UInt64, buffer: UInt16?,
    writeFlags: UInt32, token: Token
  ) {
    let entry = entry(token)
    if let buffer {
      io_uring_prep_write_fixed(entry, fd, base, UInt32(count), offset, Int32(buffer))
    } else {
      io_uring_prep_write(entry, fd, base, UInt32(count), offset)
    }
    entry.pointee.rw_flags = Int32(bitPattern: writeFlags)
    if fixed { entry.pointee.flags |= 1 }
  }

  /// fdatasync(2).
  public func flushFile(_ fd: Int32, fixed: Bool, token: Token) {
    let entry = entry(token)
    io_uring_prep_fsync(entry, fd, UInt32(IORING_FSYNC_DATASYNC))
    if fixed { entry.pointee.flags |= 1 }
  }

  /// fallocate(2).
  public func allocateFile(_ fd: Int32, fixed: Bool, mode: Int32, offset: UInt64, count: UInt64, token: Token) {
    let entry = entry(token)
    io_uring_prep_fallocate(entry, fd, mode, off_t(offset), off_t(count))
    if fixed { entry.pointee.flags |= 1 }
  }
}
