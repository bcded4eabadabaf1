import Glibc

/// Addresses that have memory behind them once they are touched.
public enum AddressSpace {
  /// Zeroed pages. They are asked for at the start, and nothing can go on without them: where the system refuses, the process
  /// ends with a line and status 71 (EX_OSERR).
  /// - Parameters:
  ///   - bytes: any number above 0.
  ///   - purpose: what they are for, as the line says it.
  public static func reserve(_ bytes: Int, for purpose: String) -> UnsafeMutableRawPointer {
    let memory = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if let memory, memory != MAP_FAILED { return memory }
    let line =
      "gatewayd: the system does not give \((bytes + 1_048_575) >> 20) MiB of address space for \(purpose); raise the limit "
      + "(ulimit -v, LimitAS=), or lower 'memory' in [limits]\n"
    _ = Array(line.utf8).withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress, $0.count) }
    _exit(71)
  }
}
