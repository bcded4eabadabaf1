/// What the monitor tells, in order, on its own thread.
public enum DiskEvent: Equatable, Sendable {
  /// A disk with a medium is there.
  case appeared(BlockDevice)
  /// Its facts are others, or something was written to it that udev noticed: examine it again.
  case changed(BlockDevice)
  /// It went, or its medium did (a detached loop device stays with size 0). `last` is what was known of it.
  case vanished(name: String, last: BlockDevice)
  /// The enumeration at the start is complete; what follows happened since.
  case enumerated
}
