import CSystem
import Glibc
import Synchronization

/// Watches the machine's RDMA NICs and tells each new inventory, on a thread of its own that sleeps until the kernel has
/// something to say.
///
/// It hears of devices and their nodes through udev, as `DiskMonitor` does, and of links and addresses through rtnetlink.
/// It listens first and then looks, so nothing falls between the two. No event is believed: each one, or each burst, has
/// everything read again, which costs a few dozen small files, and only where there are devices at all.
public final class NICMonitor: Sendable {
  private let reader: RDMAReader
  private let makeSources: @Sendable () throws(DiscoveryError) -> [any EventSource]
  private let onChange: @Sendable (RDMAInventory) -> Void
  private let latest = Shared<RDMAInventory?>(nil)
  private let thread = WatchThread()

  /// - Parameters:
  ///   - root: where /sys, /proc and /dev are; events are always this machine's.
  ///   - onChange: called on the monitor's thread with the first inventory, even an empty one, and with each that differs
  ///     from the one before. While it runs events wait.
  public convenience init(root: String = "", onChange: @escaping @Sendable (RDMAInventory) -> Void) {
    self.init(reader: RDMAReader(root: root), sources: kernelSources, onChange: onChange)
  }

  init(
    reader: RDMAReader, sources: @escaping @Sendable () throws(DiscoveryError) -> [any EventSource],
    onChange: @escaping @Sendable (RDMAInventory) -> Void
  ) {
    self.reader = reader
    makeSources = sources
    self.onChange = onChange
  }

  /// What was read last; empty before the first look.
  public var inventory: RDMAInventory { latest.value ?? RDMAInventory() }

  /// Begins to listen, then to look.
  public func start() throws(DiscoveryError) {
    try thread.start { (stop) throws(DiscoveryError) -> any WatchLoop in
      NICLoop(sources: try makeSources(), stop: stop, reader: reader, latest: latest, onChange: onChange)
    }
  }

  /// Ends the thread and waits for it: nothing is told after this returns. Harmless if it does not run. Called from
  /// `onChange` it does not wait.
  public func stop() { thread.stop() }
}

/// A value that several threads see.
final class Shared<Value: Sendable>: Sendable {
  private let content: Mutex<Value>

  init(_ value: Value) { content = Mutex(value) }

  var value: Value {
    get { content.withLock { $0 } }
    set { content.withLock { $0 = newValue } }
  }
}

/// Something that says that it is time to look again, and no more.
protocol EventSource: AnyObject {
  /// Readable when there is an event.
  var descriptor: Int32 { get }
  /// Takes what is there, without waiting.
  func drain()
}

extension UdevMonitor: EventSource {
  func drain() { _ = receive { _ in } }
}

/// The kernel's word on network interfaces and their addresses.
final class LinkMonitor: EventSource {
  let descriptor: Int32

  init() throws(DiscoveryError) {
    descriptor = system_listen_to_links()
    guard descriptor >= 0 else { throw DiscoveryError(.links, errno: -descriptor) }
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  func drain() { system_discard_messages(descriptor) }
}

/// "misc": the node rdma_cm is of that subsystem, and comes with its module.
private func kernelSources() throws(DiscoveryError) -> [any EventSource] {
  [try UdevMonitor(subsystems: ["infiniband", "infiniband_verbs", "misc", "net"]), try LinkMonitor()]
}

/// The thread of a NIC monitor.
final class NICLoop: WatchLoop {
  private let sources: [any EventSource]
  private let stop: Int32
  private let reader: RDMAReader
  private let latest: Shared<RDMAInventory?>
  private let onChange: @Sendable (RDMAInventory) -> Void
  private var coalescer = EventCoalescer()

  /// - Parameter stop: readable or hung up means the end; closed by this object.
  init(
    sources: [any EventSource], stop: Int32, reader: RDMAReader, latest: Shared<RDMAInventory?>,
    onChange: @escaping @Sendable (RDMAInventory) -> Void
  ) {
    self.sources = sources
    self.stop = stop
    self.reader = reader
    self.latest = latest
    self.onChange = onChange
    // A monitor that is started again tells its first inventory again.
    latest.value = nil
  }

  deinit { close(stop) }

  func run() {
    look()
    // What was under way at the start is seen by the second look.
    coalescer.noteEvent(at: system_monotonic_ns())
    while true {
      switch sleepUntilReadable(sources.map(\.descriptor), stop: stop, milliseconds: patience()) {
      case .stop: return
      case .event:
        for source in sources { source.drain() }
        coalescer.noteEvent(at: system_monotonic_ns())
      case .deadline: break
      }
      if coalescer.takeLook(at: system_monotonic_ns()) { look() }
    }
  }

  /// Until the next look, rounded up; negative: for ever.
  private func patience() -> Int32 {
    guard let deadline = coalescer.deadline else { return -1 }
    let now = system_monotonic_ns()
    return deadline <= now ? 0 : Int32(clamping: (deadline - now + 999_999) / 1_000_000)
  }

  private func look() {
    let fresh = reader.read()
    guard fresh != latest.value else { return }
    latest.value = fresh
    onChange(fresh)
  }
}
