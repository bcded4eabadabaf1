import CSystem
import Discovery
import Glibc
import ISCSI
import Reactor
import SCSI
import Storage
import Synchronization

/// Why the gateway cannot start: one line that says what to do.
public struct StartError: Error, Sendable, CustomStringConvertible {
  public let description: String
  /// A positive errno; 0: none.
  public let code: Int32

  public init(_ description: String, code: Int32 = 0) {
    self.description = description
    self.code = code
  }
}

/// The gateway: composition only. It makes the shards, the provisioner and the acceptor, and gives the control side its
/// answers. Everything that changes while it runs does so in one of these.
public final class Gateway: GatewayControl {
  private let options: RunOptions
  private let startedAt = system_monotonic_ns()
  private struct Parts: Sendable {
    var settings: Settings
    /// What the last reading of the settings left to be done.
    var settingsProblems: [String] = []
    var context: ShardContext?
    var acceptor: Acceptor?
    var iser: ISERAcceptor?
    var provisioner: Provisioner?
    var configuration: ShardConfiguration?
    var portGroups = PortGroupState()
    var pair: PairService?
    var isStopping = false
  }
  private let parts: Mutex<Parts>
  private let nicWatch: NICWatch
  private let metricsServer: MetricsServer

  public init(_ options: RunOptions) {
    self.options = options
    parts = Mutex(Parts(settings: options.settings))
    nicWatch = NICWatch(isEnabled: options.servesISER)
    let this = WeakGateway()
    metricsServer = MetricsServer { this.gateway?.metrics() ?? Metrics.down }
    this.set(self)
  }

  /// The shards, once it has started.
  var shards: [ShardHandle] { context?.handles ?? [] }
  var context: ShardContext? { parts.withLock { $0.context } }

  /// What is exported now.
  var exports: [Export] { parts.withLock { $0.provisioner }?.map.exports ?? [] }

  var pairService: PairService? { parts.withLock { $0.pair } }
  /// What a pair is made of, once the gateway runs.
  var partsOfPair: (Provisioner, ShardContext, Settings)? {
    parts.withLock { parts in
      guard let provisioner = parts.provisioner, let context = parts.context, parts.settings.pair.isEnabled,
        !parts.isStopping
      else { return nil }
      return (provisioner, context, parts.settings)
    }
  }
  var requestedTargetName: String? { options.requestedTargetName }
  /// Whether it listens where other machines can come to.
  var isReachable: Bool { !options.listenAddresses.allSatisfy(\.isLoopback) }
  var isPairEnabled: Bool { settings.pair.isEnabled }
  var hasRDMA: Bool { parts.withLock { $0.portGroups.hasRDMA } }
  var deviceServer: DeviceServer? { parts.withLock { $0.configuration?.deviceServer } }

  /// Keeps the pair; false: there is one already.
  func keep(_ pair: PairService) -> Bool {
    parts.withLock { parts in
      guard parts.pair == nil, !parts.isStopping else { return false }
      parts.pair = pair
      return true
    }
  }

  /// Changes what the shards are told.
  func change(_ body: (inout ShardConfiguration) -> Void) {
    let (context, configuration) = parts.withLock { parts in
      if var configuration = parts.configuration {
        body(&configuration)
        parts.configuration = configuration
      }
      return (parts.context, parts.configuration)
    }
    guard let context, let configuration else { return }
    for handle in context.handles { handle.post(.configure(configuration)) }
  }

  private var settings: Settings { parts.withLock { $0.settings } }

  // MARK: Start and stop

  public func start() throws(StartError) {
    let registry = NexusRegistry()
    let threads = options.requestedThreads ?? max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
    let context = ShardContext(
      shards: threads, registry: registry, arenaBytes: Self.arenaBytes(settings) / threads)
    // The cluster, and with it the target's name, comes from the disks' labels: so the disks come first.
    let provisioner = try Provisioner(options: options, registry: registry) { map in
      for handle in context.handles { handle.post(.adopt(map)) }
    } announce: { attention, lun in
      for handle in context.handles { handle.post(.perform { $0.announceUnitAttention(attention, lun: lun) }) }
    }
    try provisioner.start()
    guard let name = ISCSIName(options.requestedTargetName ?? provisioner.targetName) else {
      throw StartError("the target name '\(options.requestedTargetName ?? "")' is not an iSCSI name (RFC 7143 §4.2.7)")
    }
    let acceptor = try Acceptor(
      addresses: options.listenAddresses, passed: options.sockets, context: context, rules: Self.rules(settings))
    var configuration = Self.configuration(
      settings: settings, name: name, registry: registry, listeners: acceptor.listeners)
    // Which of a pair's ports are this node's is known when it is known what the labels say now.
    configuration.takesLogins = provisioner.sharedDisks.isEmpty
    try startShards(context, configuration, provisioner.map)
    provisioner.publishFrom(context)
    acceptor.start()
    let iser = ISERAcceptor(acceptor: acceptor, context: context)
    parts.withLock { parts in
      parts.context = context
      parts.acceptor = acceptor
      parts.iser = iser
      parts.provisioner = provisioner
      parts.configuration = configuration
    }
    watchSharedDisks(provisioner)
    for listener in acceptor.listeners { Log.info("target \(name) listens on \(listener.address)") }
    metricsServer.listen(on: settings.metrics.listen)
    // The first inventory, too, is a change: an iSER listener is started by it.
    nicWatch.start { [weak self] inventory in self?.startISER(inventory) }
  }

  /// Listens over RDMA if there is anything to listen with. Never fatal; tried again when a device comes or changes.
  private func startISER(_ inventory: RDMAInventory) {
    guard nicWatch.isEnabled, let iser = parts.withLock({ $0.iser }) else { return }
    let before = iser.listener.state
    if inventory.isUsable || before == .listening { iser.listener.start() }
    let state = iser.listener.state
    if state != before {
      switch state {
      case .listening: Log.info("listens over RDMA on the same addresses")
      case .off(let reason): Log.info("no iSER: \(reason); TCP only")
      case .failed(let reason): Log.warning("no iSER: \(reason); TCP only")
      }
    }
    setPortGroups { $0.hasRDMA = state == .listening && inventory.isUsable }
  }

  /// Prefers RDMA where it is there, and the active node of a pair (ALUA), and tells the initiators when that changes.
  func setPortGroups(_ body: (inout PortGroupState) -> Void) {
    let change = parts.withLock { parts -> (ShardContext, ShardConfiguration)? in
      body(&parts.portGroups)
      let groups = parts.portGroups.groups
      guard let context = parts.context, var configuration = parts.configuration,
        configuration.deviceServer.portGroups != groups || configuration.slot != parts.portGroups.slot
      else { return nil }
      configuration.deviceServer = configuration.deviceServer.with(groups)
      configuration.slot = parts.portGroups.slot
      parts.configuration = configuration
      return (context, configuration)
    }
    guard let (context, configuration) = change else { return }
    for handle in context.handles { handle.post(.configure(configuration)) }
    context.registry.raiseForAll(.asymmetricAccessStateChanged)
  }

  private func startShards(
    _ context: ShardContext, _ configuration: ShardConfiguration, _ map: ExportMap
  ) throws(StartError) {
    let gate = StartGate()
    // Each shard takes the first snapshot out of its box: a reference that the thread kept for its lifetime would keep
    // removed disks open.
    for handle in context.handles {
      let box = FirstMap(map)
      startThread(name: "shard \(handle.index)") {
        do throws(RingError) {
          let shard = try Shard(handle: handle, context: context, configuration: configuration, map: box.take())
          gate.count(nil)
          shard.run()
          context.shardEnded()
        } catch {
          gate.count(error)
        }
      }
    }
    if let error = gate.wait(for: context.handles.count) { throw StartError(error.description, code: error.code) }
  }

  /// Ends in good order: no new connections, initiators are asked to log out, what is under way is finished, then all is
  /// closed. Returns after `seconds` at the latest.
  public func stop(within seconds: Double) {
    let (context, acceptor, provisioner, pair) = parts.withLock { parts in
      parts.isStopping = true
      return (parts.context, parts.acceptor, parts.provisioner, parts.pair)
    }
    // The peer takes over while this node still knows how to let go.
    pair?.stop(within: seconds * 0.3)
    acceptor?.stop()
    nicWatch.stop()
    metricsServer.stop()
    parts.withLock { $0.iser }?.listener.stop()
    provisioner?.stop()
    guard let context else { return }
    // A part of the bound is left for what comes after this.
    let deadline = system_monotonic_ns() + UInt64(seconds * 0.8e9)
    for handle in context.handles { handle.post(.perform { $0.beginStop() }) }
    // Initiators get a moment to log out by themselves, and commands to finish. Less than the second that they are told, the
    // least that can be said, because the portals are gone meanwhile: a restart should take less than a second, and what is cut
    // off is repeated after it.
    let patience = min(deadline, system_monotonic_ns() + 500_000_000)
    while context.runningShards > 0, system_monotonic_ns() < patience { Self.pause() }
    for handle in context.handles { handle.post(.perform { $0.closeAll("shutting down") }) }
    while context.runningShards > 0, system_monotonic_ns() < deadline { Self.pause() }
  }

  private static func pause() { usleep(5000) }

  // MARK: Settings

  /// A quarter of the machine's memory, at most 1 GiB, unless the settings say otherwise; taken only as load asks for it.
  private static func arenaBytes(_ settings: Settings) -> Int {
    if let bytes = settings.limits.memoryBytes { return Int(bytes) }
    let physical = sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE))
    return min(physical / 4, 1 << 30)
  }

  private static func rules(_ settings: Settings) -> Acceptor.Rules {
    Acceptor.Rules(
      access: settings.access, connectionsPerAddress: settings.limits.connectionsPerAddress,
      connectionsMax: settings.limits.sessions + 64)
  }

  private static func configuration(
    settings: Settings, name: ISCSIName, registry: NexusRegistry, listeners: [Acceptor.Listener]
  ) -> ShardConfiguration {
    let second: UInt64 = 1_000_000_000
    return ShardConfiguration(
      target: TargetConfiguration(
        targetName: name, targetAlias: settings.target.alias, portals: portals(listeners, settings.pair.addresses),
        access: AccessRules(settings)),
      deviceServer: DeviceServer(
        deviceName: name.text, registry: registry,
        portGroups: PortGroupState().groups, clock: { WallClock.milliseconds }),
      sessionsMax: settings.limits.sessions, queueDepth: UInt32(settings.limits.queueDepth),
      loginTimeoutNs: UInt64(settings.limits.loginTimeoutSeconds) * second,
      nopIntervalNs: UInt64(settings.timeouts.nopIntervalSeconds) * second,
      ioDeadlineNs: UInt64(settings.timeouts.ioDeadlineSeconds) * second, pollNs: settings.target.pollNs)
  }

  /// What SendTargets tells: a socket on every address stands for each address that the machine has of its own.
  private static func portals(_ listeners: [Acceptor.Listener], _ service: [ServiceAddress]) -> [Portal] {
    let own = ((try? NetworkInterfaces.read())?.portalAddresses ?? []).filter { address in
      !service.contains { $0.address == address }
    }
    var portals: [Portal] = []
    for listener in listeners {
      let isAny = listener.address.host == "::" || listener.address.host == "0.0.0.0"
      let addresses =
        isAny
        ? own.filter { $0.isIPv6 == listener.address.isIPv6 }.map { "\($0.targetAddressText):\(listener.address.port)" }
        : [listener.address.description]
      for address in addresses where !portals.contains(where: { $0.address == address }) {
        portals.append(Portal(address: address, portalGroupTag: 1))
      }
    }
    return portals
  }

  public func note(settingsProblems: [String]) { parts.withLock { $0.settingsProblems = settingsProblems } }

  public func reload(_ settings: Settings) throws(ControlError) {
    let state = parts.withLock { $0 }
    guard let context = state.context, let acceptor = state.acceptor, let old = state.configuration else {
      throw ControlError(.refused, "the gateway is not running yet")
    }
    var kept = settings
    kept.target.name = state.settings.target.name
    kept.target.listen = state.settings.target.listen
    kept.target.threads = state.settings.target.threads
    kept.discovery.isEnabled = state.settings.discovery.isEnabled
    kept.iser.isEnabled = state.settings.iser.isEnabled
    kept.limits.memoryBytes = state.settings.limits.memoryBytes
    kept.pair.isEnabled = state.settings.pair.isEnabled
    kept.pair.hasExplicitALUA = state.settings.pair.hasExplicitALUA
    kept.pair.watchdog = state.settings.pair.watchdog
    state.pair?.set(kept.pair.addresses)
    var configuration = Self.configuration(
      settings: kept, name: old.target.targetName, registry: context.registry, listeners: acceptor.listeners)
    acceptor.set(Self.rules(kept))
    state.provisioner?.set(kept.discovery)
    parts.withLock { $0.settings = kept }
    metricsServer.listen(on: kept.metrics.listen)
    change { current in
      // What the pair and the NICs have changed meanwhile stays.
      configuration.target.targetName = current.target.targetName
      configuration.deviceServer = current.deviceServer
      configuration.slot = current.slot
      configuration.takesLogins = current.takesLogins
      current = configuration
    }
    let (former, access, rules) = (old.target.access, configuration.target.access, kept.access)
    // Once for all of them, and not on the threads that serve. Where it cannot be told nobody is ended for it.
    let interfaces = try? NetworkInterfaces.read()
    let admits: @Sendable (NetworkAddress) -> Bool = { address in
      rules.admits(address: address.bytes, isOnLink: interfaces?.isOnLink(address) ?? true)
    }
    for handle in context.handles {
      handle.post(.perform { $0.endSessions(former: former, access: access, admits: admits) })
    }
  }

  public func endSession(_ session: UInt16) throws(ControlError) -> EndReport {
    let context = parts.withLock { $0.context }
    // Connections without a session have 0.
    let count = session == 0 ? 0 : context?.sum(within: 1_000_000_000) { $0.endSession(tsih: session) } ?? 0
    guard count > 0 else {
      throw ControlError(.refused, "there is no session \(session); 'gatewayd sessions' lists them")
    }
    return EndReport(session: session)
  }

  // MARK: Reports

  public func status() -> StatusReport { look().0 }

  public func look() -> (StatusReport, [SessionReport], Observations) {
    let state = parts.withLock { $0 }
    let shards = state.context?.reports() ?? []
    var observed = Observations()
    for shard in shards {
      for (key, histogram) in shard.latencies { observed.latencies[key, default: LatencyHistogram()].add(histogram) }
      observed.events.add(shard.events)
    }
    if let acceptor = state.acceptor { observed.events.add(acceptor.events) }
    observed.events.add(metricsServer.events)
    let sessions = shards.flatMap(\.sessions).sorted { $0.id < $1.id }
    return (status(state, shards, observed), sessions, observed)
  }

  private func status(_ state: Parts, _ shards: [ShardReport], _ observed: Observations) -> StatusReport {
    var counters: [UInt16: IOCounters] = [:]
    for shard in shards {
      for (lun, count) in shard.units { counters[lun, default: IOCounters()].add(count) }
    }
    var units = state.provisioner?.logicalUnits(counters) ?? []
    let latencies = Dictionary(grouping: observed.latencies.filter { $0.value.count > 0 }) { $0.key.lun }
    for index in units.indices {
      units[index].latencies = (latencies[units[index].number] ?? []).sorted { $0.key < $1.key }.map(LatencyReport.init)
    }
    let iser = iserState(state.iser, state.acceptor)
    var problems = (state.provisioner?.problems ?? []) + nicWatch.problems(iser)
    problems += state.settingsProblems
    let absent = state.acceptor?.absent ?? []
    problems += absent.sorted().map { "listens on \($0), an address that no interface has" }
    let refused = state.acceptor?.refusedCount ?? 0
    if refused > 0 { problems.append("\(refused) connection(s) were refused; the log says why") }
    let metrics = metricsServer.reports
    problems += metrics.filter { $0.state != "listening" }.map { "no metrics at \($0.address): \($0.state)" }
    return StatusReport(
      uptimeSeconds: (system_monotonic_ns() - startedAt) / 1_000_000_000,
      targetName: state.configuration?.target.targetName.text ?? "", alias: state.settings.target.alias,
      portals: (state.acceptor?.listeners ?? []).map {
        let address = $0.address.description
        return PortalReport(
          address: address, transport: "tcp",
          state: absent.contains(address) ? PortalReport.absent : PortalReport.listening)
      }, threads: state.context?.handles.count ?? 0, sessions: shards.reduce(0) { $0 + $1.sessions.count },
      memory: MemoryReport(
        arenaBytes: UInt64(shards.reduce(0) { $0 + $1.arenaBytes }),
        arenaUsedBytes: UInt64(shards.reduce(0) { $0 + $1.arenaUsedBytes }), residentBytes: Self.residentBytes(),
        descriptors: Self.descriptorCount()),
      iser: shards.reduce(into: ISERReport()) { $0.add($1.iser) },
      rdma: RDMAReport(listener: ISERListenerReport(iser), nics: nicWatch.reports), logicalUnits: units,
      problems: problems, metrics: metrics)
  }

  /// What the iSER listener says, seen together with the NICs.
  private func iserState(_ iser: ISERAcceptor?, _ acceptor: Acceptor?) -> ISERState {
    let inventory = nicWatch.inventory
    let listener: ISERState =
      switch iser?.listener.state {
      case .listening:
        .listening(ISERState.reachable(acceptor?.listeners.map(\.address) ?? [], inventory?.endpoints ?? []))
      case .off(let reason): .off(reason)
      case .failed(let reason): .failed(reason)
      case nil: .off("not started")
      }
    return ISERState.of(isEnabled: nicWatch.isEnabled, inventory: inventory, listener: listener)
  }

  /// Open file descriptors; this look itself not counted.
  private static func descriptorCount() -> Int {
    guard let directory = opendir("/proc/self/fd") else { return 0 }
    defer { closedir(directory) }
    var count = 0
    while readdir(directory) != nil { count += 1 }
    return max(count - 3, 0)  // ".", ".." and the directory's own
  }

  private static func residentBytes() -> UInt64 {
    guard let file = fopen("/proc/self/statm", "r") else { return 0 }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 128)
    guard fgets(&line, 128, file) != nil else { return 0 }
    let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    let fields = text.split(separator: " ")
    return fields.count > 1 ? (UInt64(fields[1]) ?? 0) * UInt64(sysconf(Int32(_SC_PAGESIZE))) : 0
  }

  public func disks() -> [DiskReport] { parts.withLock { $0.provisioner }?.reports() ?? [] }

  public func nics() -> [NICReport] { nicWatch.reports }

  public func sessions() -> [SessionReport] {
    let context = parts.withLock { $0.context }
    return (context?.reports() ?? []).flatMap(\.sessions).sorted { $0.id < $1.id }
  }

  public func traces(session: UInt16) -> [TraceReport] {
    let context = parts.withLock { $0.context }
    let clock = TraceClock()
    let found = context?.collect(within: 1_000_000_000) { $0.traces(tsih: session, time: clock) } ?? []
    return found.flatMap { $0 }.sorted { ($0.events.first?.time ?? "") < ($1.events.first?.time ?? "") }
  }

  public func adopt(path: String, mode: AdoptMode) throws(ControlError) -> AdoptReport {
    guard let provisioner = parts.withLock({ $0.provisioner }) else {
      throw ControlError(.refused, "the gateway is not running yet")
    }
    return try provisioner.adopt(path: path, mode: mode)
  }
}

/// The gateway, for those that it owns.
private final class WeakGateway: Sendable {
  private struct Reference: Sendable {
    weak var gateway: Gateway?
  }
  private let reference = Mutex(Reference())

  var gateway: Gateway? { reference.withLock { $0.gateway } }
  func set(_ gateway: Gateway) { reference.withLock { $0.gateway = gateway } }
}

/// The snapshot that a shard begins with, given out once.
private final class FirstMap: Sendable {
  private let map: Mutex<ExportMap?>

  init(_ map: ExportMap) { self.map = Mutex(map) }

  func take() -> ExportMap {
    map.withLock { map in
      defer { map = nil }
      return map ?? ExportMap([], generation: 0)
    }
  }
}

/// Waits, with a bound on nothing but the threads themselves, for every shard to have made its ring.
final class StartGate: Sendable {
  private let state = Mutex<(count: Int, error: RingError?)>((0, nil))

  func count(_ error: RingError?) {
    state.withLock { state in
      state.count += 1
      if let error { state.error = error }
    }
  }

  func wait(for count: Int) -> RingError? {
    while true {
      let now = state.withLock { $0 }
      if now.count == count { return now.error }
      usleep(200)
    }
  }
}

extension AccessRules {
  /// The rules of `[access]` and `[discovery-auth]`: the first `[[access.initiator]]` that names an initiator decides, else
  /// `initiators` and `[access.chap]`.
  init(_ settings: Settings) {
    func requirement(_ chap: CHAPCredentials?) -> CHAPRequirement? {
      chap.map { chap in
        CHAPRequirement(
          initiators: [CHAPCredential(name: chap.initiator.user, secret: chap.initiator.secret.bytes)],
          target: chap.target.map { CHAPCredential(name: $0.user, secret: $0.secret.bytes) })
      }
    }
    let access = settings.access
    let named = access.rules.map { rule in
      Rule(
        initiator: rule.name, decision: .allowed(chap: requirement(rule.chap ?? access.chap), luns: rule.luns))
    }
    let general = access.initiators.map {
      Rule(initiator: $0, decision: .allowed(chap: requirement(access.chap), luns: nil))
    }
    self.init(rules: named + general, otherwise: .denied, discovery: requirement(settings.discoveryAuthentication))
  }
}
