/// Judges a disk: first by what is known of it without opening it, then by its label, last by its contents. Opens the
/// device read-only and exclusively, never writes, and may block for as long as the disk does: not for a shard's thread.
///
/// - Parameters:
///   - use: a snapshot not older than the event that led here.
///   - isInService: whether this process has the disk open exclusively itself; then O_EXCL is left out.
///   - isLabelled: whether the descriptor of a device of so many bytes carries our label.
public func examine(
  _ device: BlockDevice, use: SystemUse, policy: DiscoveryPolicy, isInService: Bool = false,
  isLabelled: (Int32, UInt64) -> Bool
) -> Verdict {
  .refused(Reason(.cannotOpen, "Not examined."))
}
