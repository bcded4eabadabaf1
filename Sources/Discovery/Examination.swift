import Glibc

/// Judges a disk: first by what is known of it without opening it, then by its label, last by its contents. Never
/// writes, and may block for as long as the disk does: not for a shard's thread.
///
/// Whether the disk is free is asked with O_EXCL for a moment only, and its contents are read without: an administrator's
/// mkfs or mdadm must not fail because we look. So the verdict is a snapshot. **Before anything is written, open the disk
/// exclusively and ask `examine(_:fd:use:policy:isLabelled:)` with that descriptor.**
///
/// A labelled disk's contents belong to its initiators. They may well be partitions and file systems, even an image of
/// this gateway, so nothing in them is held against it.
///
/// - Parameters:
///   - use: a snapshot not older than the event that led here.
///   - isInService: whether this process has the disk open exclusively itself; then O_EXCL is left out.
///   - isLabelled: whether the descriptor of a device of so many bytes carries our label.
public func examine(
  _ device: BlockDevice, use: SystemUse, policy: DiscoveryPolicy, isInService: Bool = false,
  isLabelled: (_ fd: Int32, _ bytes: UInt64) -> Bool
) -> Verdict {
  if let reason = policy.refusal(of: device, use: use) { return .refused(reason) }
  if !isInService {
    switch open(device, flags: O_EXCL, policy) {
    case .failure(let reason): return .refused(reason)
    case .success(let fd): close(fd)
    }
  }
  switch open(device, flags: 0, policy) {
  case .failure(let reason): return .refused(reason)
  case .success(let fd):
    defer { close(fd) }
    return examine(device, fd: fd, use: use, policy: policy, isLabelled: isLabelled)
  }
}

/// The same by a descriptor of the caller's, which must be readable and without O_DIRECT: conclusive as long as it was
/// opened with O_EXCL and stays open.
public func examine(
  _ device: BlockDevice, fd: Int32, use: SystemUse, policy: DiscoveryPolicy,
  isLabelled: (_ fd: Int32, _ bytes: UInt64) -> Bool
) -> Verdict {
  if let reason = policy.refusal(of: device, use: use) ?? mismatch(fd, device) { return .refused(reason) }
  if isLabelled(fd, device.bytes) { return .labelled }
  let content = inspect(fd: fd, bytes: device.bytes, sampleCount: policy.sampleCount)
  if let reason = policy.ownImage(content, device, use) { return .refused(reason) }
  return verdict(on: content, of: device)
}

/// What the contents of an unlabelled disk make of it. Pure.
func verdict(on content: ContentFinding, of device: BlockDevice) -> Verdict {
  if var reason = content.holdReason {
    reason.remedy = adoption(of: device)
    return .held(reason)
  }
  if let error = content.readError {
    return .refused(Reason(.cannotRead, "It cannot be read: \(KernelText.message(of: error))."))
  }
  if let volume = device.assembledVolume {
    // Whoever assembled it has plans for it, even while it is blank.
    let sentence = "It is \(volume), put together on this machine for some purpose."
    return .held(Reason(.assembledVolume, sentence, remedy: adoption(of: device)))
  }
  return .blank
}

private func adoption(of device: BlockDevice) -> String { "gatewayd disks adopt \(device.path)" }

extension BlockDevice {
  /// Volumes that an administrator built from disks; multipath maps are disks.
  fileprivate var assembledVolume: String? {
    switch kind {
    case .md: "an md array"
    case .deviceMapper where !isMultipath: "a device-mapper volume (\(KernelText.printable(mapName ?? name)))"
    case .bcache: "a bcache volume"
    case .zvol: "a ZFS volume"
    default: nil
    }
  }
}

private enum Opening {
  case success(Int32)
  case failure(Reason)
}

/// Opens the device read-only and makes sure that it is the one that was described.
private func open(_ device: BlockDevice, flags: Int32, _ policy: DiscoveryPolicy) -> Opening {
  // The event may be ahead of devtmpfs, or of udev's rules for the node; and others look at new disks as we do.
  let passing: Set<Int32> = [ENOENT, ENXIO, EINTR, EBUSY]
  var attempt = 1
  while true {
    // O_NONBLOCK: an empty drive must not keep us waiting for its medium.
    let fd = Glibc.open(device.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | flags)
    if fd >= 0 {
      guard let reason = mismatch(fd, device) else { return .success(fd) }
      close(fd)
      return .failure(reason)
    }
    let code = errno
    guard passing.contains(code), attempt < policy.openAttempts else { return .failure(openRefusal(code)) }
    attempt += 1
    usleep(policy.openRetryMilliseconds * 1000)
  }
}

private func openRefusal(_ code: Int32) -> Reason {
  switch code {
  case EBUSY: Reason(.claimed, "Something else on this machine has it open exclusively.")
  case ENOMEDIUM: Reason(.noMedium, "It has no medium.")
  default: Reason(.cannotOpen, "It cannot be opened: \(KernelText.message(of: code)).")
  }
}

extension BlockDevice {
  /// Whether the disk that has this number now is the one that was looked at. For good while it is open.
  public var isStillPresent: Bool {
    (KernelText.number("/sys/dev/block/\(number)/diskseq") ?? 0) == diskSequence
  }
}

/// While the device is open its number cannot pass to another, so what holds here holds until it is closed.
private func mismatch(_ fd: Int32, _ device: BlockDevice) -> Reason? {
  var status = stat()
  guard fstat(fd, &status) == 0, status.st_mode & S_IFMT == S_IFBLK, DeviceNumber(status.st_rdev) == device.number
  else {
    return Reason(.identityChanged, "Its node is not the device \(device.number).")
  }
  let offset = lseek(fd, 0, SEEK_CUR)
  let end = lseek(fd, 0, SEEK_END)
  lseek(fd, offset, SEEK_SET)
  guard device.isStillPresent, end >= 0, UInt64(end) == device.bytes else {
    return Reason(.identityChanged, "It changed while it was being examined.")
  }
  return nil
}
