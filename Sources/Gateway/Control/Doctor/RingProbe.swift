import Glibc

/// Whether io_uring can be had at all.
public enum RingProbe {
  /// io_uring_setup(2): the same number on every architecture.
  private static let setupNumber = 425

  /// Makes a ring of one entry and closes it.
  /// - Returns: 0 or errno.
  public static func run() -> Int32 {
    // Swift cannot call a C function of variable arguments. syscall(2) takes its arguments in the same registers
    // as a plain function of longs on every ABI that Swift has on Linux, so it is called as one.
    typealias Call = @convention(c) (Int, Int, UnsafeMutableRawPointer) -> Int
    guard let symbol = dlsym(nil, "syscall") else { return ENOSYS }
    let call = unsafeBitCast(symbol, to: Call.self)
    // struct io_uring_params: 120 bytes, zero on the way in.
    var parameters = [UInt64](repeating: 0, count: 16)
    let descriptor = parameters.withUnsafeMutableBytes { bytes -> Int in
      guard let base = bytes.baseAddress else { return -1 }
      return call(setupNumber, 1, base)
    }
    guard descriptor >= 0 else { return errno }
    close(Int32(descriptor))
    return 0
  }
}
