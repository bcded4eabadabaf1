/// Watches the machine's block devices and tells what comes and goes.
public final class DiskMonitor: Sendable {
  let policy: DiscoveryPolicy
  let handler: @Sendable (DiskEvent) -> Void

  public init(policy: DiscoveryPolicy, handler: @escaping @Sendable (DiskEvent) -> Void) {
    self.policy = policy
    self.handler = handler
  }

  public func start() throws(DiscoveryError) {}
  public func stop() {}
  public func enumerate() -> [BlockDevice] { [] }
}
