import CSystem
import Discovery
import Glibc
import HA
import Reactor
import SCSI
import Storage
import Synchronization
import Wire

/// The pair as a whole: the engine with everything that carries out what it decides. It is there from the first shared disk
/// on; a gateway that never has one runs nothing of it.
final class PairService: Sendable {
  /// What the service needs of the gateway.
  struct Gateway: Sendable {
    var setPortGroups: @Sendable (@escaping (inout PortGroupState) -> Void) -> Void
    /// It is known which ports are this node's.
    var setTakesLogins: @Sendable () -> Void
    var hasRDMA: @Sendable () -> Bool
    /// Initiators of other machines can come; else there is no other node to speak to either.
    var isReachable: Bool
    /// With the port groups of now; nil: the gateway is ending.
    var deviceServer: @Sendable () -> DeviceServer?
  }

  let links: PairLinks
  private let coordinator: PairCoordinator
  private let target: PairTarget
  private let addresses: ServiceAddresses
  private let provisioner: Provisioner
  private let context: ShardContext
  private let gateway: Gateway
  private let health: PairHealth
  private let log: PairLog
  private let watchdog: Watchdog
  private let orders: PairDiskOrders
  private let isStopped = Atomic<Bool>(false)

  /// What was made earlier and what was made later know each other only through this.
  private final class Hub: Sendable {
    private struct Places: Sendable {
      var coordinator: PairCoordinator?
      var changed: (@Sendable (PairStatus) -> Void)?
      var linksChanged: (@Sendable ([LinkID]) -> Void)?
      var calls: PeerCalls?
    }

    private let places = Mutex(Places())

    func set(
      _ coordinator: PairCoordinator, changed: @escaping @Sendable (PairStatus) -> Void,
      linksChanged: @escaping @Sendable ([LinkID]) -> Void
    ) {
      places.withLock { ($0.coordinator, $0.changed, $0.linksChanged) = (coordinator, changed, linksChanged) }
    }

    func set(_ calls: PeerCalls) { places.withLock { $0.calls = calls } }
    var calls: PeerCalls? { places.withLock { $0.calls } }
    var peer: PairStatus.Peer? { places.withLock { $0.coordinator }?.status.peer }
    func post(_ event: Event) { places.withLock { $0.coordinator }?.post(event) }
    func changed(_ status: PairStatus) { places.withLock { $0.changed }?(status) }
    func linksChanged(_ up: [LinkID]) { places.withLock { $0.linksChanged }?(up) }
  }

  init(
    provisioner: Provisioner, context: ShardContext, addresses: [ServiceAddress], watchdog choice: WatchdogChoice,
    gateway: Gateway
  ) {
    self.provisioner = provisioner
    self.context = context
    self.gateway = gateway
    let hub = Hub()
    let log = PairLog()
    let exports: @Sendable () -> [Export] = { [weak provisioner] in provisioner?.sharedExports ?? [] }
    let target = PairTarget(context: context, exports: exports) { [weak provisioner] isActive in
      gateway.setPortGroups { state in
        state.isActive = isActive
        provisioner?.tellSlot(&state)
      }
      gateway.setTakesLogins()
    } admitted: { [weak provisioner] export in
      provisioner?.admitted(export)
    }
    let orders = PairDiskOrders(exports: exports, log: log) { export in
      // Who does not answer may have some.
      let count = context.sum(within: 500_000_000) { shard in
        // Where nothing fences, what is still to come counts as well.
        export.fence == .lease ? shard.commandsBegun(at: export.unit) : shard.requestsUnderWay(of: export)
      }
      return count != 0 || export.isWritingRecord || export.isReloading
    }
    self.orders = orders
    let disks = PairDisks(perform: { orders.perform($0, $1) }) { disk, number, answer in
      hub.post(.answer(disk, order: number, answer))
    }
    let links = PairLinks(identity: provisioner.node) { beat, link in
      hub.post(.received(beat, link: link))
    } receiveCall: {
      hub.calls?.take($0)
    } linksChanged: { up in
      hub.post(.links(up))
      hub.linksChanged(up)
    }
    let reservations = PeerReservations(
      context: context, exports: exports, server: gateway.deviceServer,
      ask: { hub.calls?.ask($0, within: $1, answer: $2) ?? $2(nil) })
    hub.set(
      PeerCalls(
        bootID: provisioner.node.bootID, send: links.send, peerBoot: { hub.peer?.bootID }, handler: reservations.serve))
    let service = ServiceAddresses(addresses)
    let noteFile = WatchdogNoteFile(besides: provisioner.options.controlPath)
    let note = noteFile.load()
    let watchdog = Watchdog(choice, file: noteFile, note: note)
    self.watchdog = watchdog
    self.target = target
    self.links = links
    self.log = log
    self.addresses = service
    health = PairHealth(context) { hub.post($0) }
    coordinator = PairCoordinator(
      engine: Engine(identity: provisioner.node, seed: Identity.randomNumber(), guarded: note.disks),
      parts: PairCoordinator.Parts(
        send: { beat in
          var beat = beat
          if gateway.hasRDMA() { beat.flags.insert(.hasRDMA) }
          links.send(beat)
        }, disk: { disks.run($0, order: $1, $2, at: $3) },
        target: { order, followsPeer in target.perform(order, afterTakeover: followsPeer) { hub.post($0) } },
        addresses: { order in
          switch order {
          case .take: service.take()
          case .drop: Self.leave(service, context)
          }
        },
        watchdog: { order in
          if let isArmed = watchdog.perform(order) { hub.post(.watchdog(isArmed: isArmed)) }
        },
        keepGuarded: watchdog.keepGuarded,
        stepped: { now, status in
          // What nobody else can take is served without a look at the clock.
          context.pulse.store(status.mayLoseDisks ? now : 0, ordering: .releasing)
        }, changed: { hub.changed($0) }, noted: { log.tell($0, $1) })
    ) { disks.expire(at: $0) }
    hub.set(coordinator) { [weak self] in
      self?.statusChanged($0)
    } linksChanged: { [weak self] up in
      self?.linksChanged(up)
    }
    context.forward.withLock { forward in
      forward = { reservations.forward($0, $1, $2, $3, answer: $4) }
    }
    context.registry.elsewhere.withLock { elsewhere in
      elsewhere = { notices, lun in if hub.peer?.role == .passive { reservations.tell(notices, lun: lun) } }
    }
    context.conflict.withLock { conflict in
      conflict = { export in
        if let disk = export.label?.disk { hub.post(.conflict(disk)) }
      }
    }
  }

  // MARK: Life

  func start() {
    // Left over from a crash: they are the peer's until this node has the disks.
    for problem in addresses.dropLeftovers() { Log.error("service address: \(problem)") }
    watchdog.resume()
    disksChanged()
    if gateway.isReachable { links.start() }
    health.start()
    coordinator.start()
  }

  /// Hands the disks over, if there is somebody to take them; returns when that is said, or after `seconds`.
  func stop(within seconds: Double) {
    guard !isStopped.exchange(true, ordering: .acquiringAndReleasing) else { return }
    let deadline = BootClock.now + UInt64(seconds * 1e9)
    coordinator.post(.shutdown)
    let busy: [Role] = [.fencing, .recovering, .active, .draining]
    while case let status = coordinator.status, busy.contains(status.role) || status.hasLeases,
      BootClock.now < deadline
    { usleep(2000) }
    // The last beats say that the disks are free.
    usleep(120_000)
    addresses.drop()
    health.stop()
    coordinator.stop()
    context.pulse.store(0, ordering: .releasing)
    context.forward.withLock { $0 = nil }
    context.registry.elsewhere.withLock { $0 = nil }
    links.stop()
  }

  /// The shared disks are others, or their labels say something else.
  func disksChanged() {
    links.set(cluster: provisioner.cluster, key: provisioner.pairKey)
    orders.exportsChanged()
    coordinator.post(.disks(provisioner.sharedDisks))
    target.exportsChanged()
  }

  func set(_ list: [ServiceAddress]) { addresses.set(list) }
  var node: NodeIdentity { provisioner.node }
  var watchdogReport: String { watchdog.report }
  var addressReport: [ServiceAddressReport] { addresses.report }
  func operate(_ command: OperatorCommand) { coordinator.post(.operate(command)) }
  var status: PairStatus { coordinator.status }
  var history: PairHistory { coordinator.history }
  var problems: [DiskID: String] { target.problems.merging(orders.problems) { _, other in other } }

  /// Ends what came through the service addresses, while they are still there to tell it, then drops them.
  private static func leave(_ service: ServiceAddresses, _ context: ShardContext) {
    let held = service.held
    if !held.isEmpty {
      // A thread that hangs must not keep the address here.
      _ = context.collect(within: 10_000_000) { $0.endConnections(to: held) }
    }
    service.drop()
  }

  // MARK: What follows

  private func linksChanged(_ up: [LinkID]) {
    let report = links.report
    log.links(up) { link in report.links.first { $0.name == link.name }?.condition }
  }

  private func statusChanged(_ status: PairStatus) {
    log.status(status) { [provisioner] disk in
      guard let export = provisioner.sharedExports.of(disk) else { return "disk \(disk)" }
      return "LUN \(export.unit.number) (\(export.disk.path))"
    }
    let peerHasRDMA = status.peer?.flags.contains(.hasRDMA) ?? false
    gateway.setPortGroups { [provisioner] state in
      state.peerHasRDMA = peerHasRDMA
      provisioner.tellSlot(&state)
    }
    switch status.role {
    case .active: provisioner.set(.active(status.epoch, provisioner.slot ?? .first))
    case .passive: provisioner.set(.passive)
    case .observing, .suspecting, .fencing, .recovering, .draining, .fenced: provisioner.set(.undecided)
    }
  }
}

/// How the target is doing, told to the engine at each beat: by messages that go through every thread's loop, so that one
/// that hangs is seen.
final class PairHealth: Sendable {
  static let periodMicroseconds: UInt32 = 50_000

  private let context: ShardContext
  private let report: @Sendable (Event) -> Void
  private let isStopped = Atomic<Bool>(false)
  /// Per shard: when it last answered, and the age of its oldest command then.
  private let answers: Mutex<[(at: Instant, age: UInt64)]>

  init(_ context: ShardContext, report: @escaping @Sendable (Event) -> Void) {
    self.context = context
    self.report = report
    answers = Mutex(Array(repeating: (BootClock.now, 0), count: context.handles.count))
  }

  func start() {
    startThread(name: "pair health") { [self] in
      var round = 0
      var isReachable = true
      while !isStopped.load(ordering: .relaxed) {
        ask()
        if round % 20 == 0 { isReachable = Self.isReachable }
        round += 1
        report(.health(oldestIO: oldestIO, reachable: isReachable))
        usleep(Self.periodMicroseconds)
      }
    }
  }

  func stop() { isStopped.store(true, ordering: .relaxed) }

  private func ask() {
    for handle in context.handles {
      handle.post(
        .perform { [weak self] shard in
          let age = shard.oldestSharedRequest
          self?.answers.withLock { $0[shard.handle.index] = (BootClock.now, age) }
        })
    }
  }

  private var oldestIO: UInt64 {
    let now = BootClock.now
    return answers.withLock { answers in
      // A thread that answers within two rounds is as good as one that answers at once.
      answers.map { answer in
        let silence = now - min(answer.at, now)
        return max(answer.age, silence > 2_000 * UInt64(Self.periodMicroseconds) ? silence : 0)
      }.max() ?? 0
    }
  }

  /// Whether any interface with an address has a link; one that tells of none counts as having one.
  private static var isReachable: Bool {
    guard let interfaces = try? NetworkInterfaces.read() else { return true }
    return interfaces.addresses.contains { address in
      !address.isLoopback && Identity.readLine(of: "/sys/class/net/\(address.interface)/carrier") != "0"
    }
  }
}
