import Glibc

@testable import Discovery

/// A loop device on a file of its own, detached at the end of its life.
final class LoopDevice {
  static let isAvailable: Bool = {
    guard geteuid() == 0 else { return false }
    let control = open("/dev/loop-control", O_RDWR | O_CLOEXEC)
    guard control >= 0 else { return false }
    close(control)
    return true
  }()

  // linux/loop.h
  private static let setDescriptor: UInt = 0x4c00
  private static let clearDescriptor: UInt = 0x4c01
  private static let setCapacity: UInt = 0x4c07
  private static let getFree: UInt = 0x4c82

  let file: ContentFile
  let name: String
  var path: String { "/dev/\(name)" }
  private var fd: Int32

  init?(_ pieces: [Int: [UInt8]] = [:], bytes: Int = 32 << 20, isReadOnly: Bool = false) {
    file = ContentFile(pieces, bytes: bytes)
    let control = open("/dev/loop-control", O_RDWR | O_CLOEXEC)
    guard control >= 0 else { return nil }
    defer { close(control) }
    // Between the answer and the attachment somebody else may take the device.
    for _ in 0..<50 {
      let index = ioctl(control, Self.getFree, 0)
      guard index >= 0 else { return nil }
      let loop = open("/dev/loop\(index)", (isReadOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC)
      if loop >= 0, ioctl(loop, Self.setDescriptor, file.fd) == 0 {
        fd = loop
        name = "loop\(index)"
        return
      }
      if loop >= 0 { close(loop) }
      usleep(10000)
    }
    return nil
  }

  func detach() {
    guard fd >= 0 else { return }
    _ = ioctl(fd, Self.clearDescriptor, 0)
    // A device that is open is detached when it is closed.
    close(fd)
    fd = -1
  }

  func grow(to bytes: Int) {
    ftruncate(file.fd, off_t(bytes))
    _ = ioctl(fd, Self.setCapacity, 0)
  }

  deinit { detach() }

  func facts() -> BlockDevice? { BlockDeviceReader().read(name) }

  /// As it is now; without a label unless said otherwise.
  func verdict(
    policy: DiscoveryPolicy = DiscoveryPolicy(), isInService: Bool = false, isLabelled: Bool = false
  ) -> Verdict? {
    let all = BlockDeviceReader().enumerate()
    return all.first { $0.name == name }.map {
      examine($0, use: SystemUse.read(devices: all), policy: policy, isInService: isInService) { _, _ in isLabelled }
    }
  }

  func code(policy: DiscoveryPolicy = DiscoveryPolicy()) -> Reason.Code? {
    switch verdict(policy: policy) {
    case .held(let reason), .refused(let reason): reason.code
    default: nil
    }
  }
}

/// Runs a program and waits for it; its exit status, or nil if it could not be started.
func run(_ arguments: String...) -> Int32? {
  var process = pid_t()
  var pointers: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
  defer { for pointer in pointers { free(pointer) } }
  guard posix_spawn(&process, arguments[0], nil, nil, &pointers, environ) == 0 else { return nil }
  var status: Int32 = 0
  waitpid(process, &status, 0)
  return status & 0x7f == 0 ? status >> 8 & 0xff : -1
}
