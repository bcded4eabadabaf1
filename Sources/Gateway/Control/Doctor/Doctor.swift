import Discovery
import Glibc

/// Looks at the machine and the daemon and says what is wrong and what to do about it.
public struct Doctor: Sendable {
  var controlPath: String
  var files = MachineFiles()
  /// Sets up a ring and takes it down; 0 or errno.
  var ringProbe: @Sendable () -> Int32 = RingProbe.run
  /// The RDMA devices as this process sees them.
  var ownInventory: @Sendable () -> RDMAInventory = { RDMAReader().read() }
  /// IPv4 first; without link-local ones of IPv6, which need a scope that differs at each peer.
  var ownAddresses: @Sendable () -> [String] = {
    let addresses = (try? NetworkInterfaces.read())?.portalAddresses ?? []
    return addresses.filter { !$0.isLoopback && !($0.isIPv6 && $0.isLinkLocal) }.sorted { !$0.isIPv6 && $1.isIPv6 }
      .map(\.description)
  }

  public init(controlPath: String) { self.controlPath = controlPath }

  public func examine() -> DoctorReport {
    var status: StatusReport?
    let daemon: DoctorCheck
    do throws(ControlError) {
      let report: StatusReport = try ControlClient.request(.init(.status), at: controlPath, timeoutSeconds: 10)
      status = report
      daemon = DoctorCheck("daemon", .fine, "gatewayd \(report.version) answers, process \(report.processID)")
    } catch { daemon = Self.silence(error, controlPath) }
    var checks = [SystemChecks.kernel(files), SystemChecks.ring(files, probe: ringProbe)]
    checks += SystemChecks.limits(files, daemon: status?.processID)
    checks += [SystemChecks.udev(files), daemon]
    for port in ports(status) { checks.append(SystemChecks.port(port, files, daemon: status?.processID)) }
    checks += disks(status)
    let nics = nics(status)
    checks += RDMAChecks.all(nics, listener: status?.rdma?.listener, files)
    guard let status else { return DoctorReport(checks: checks, initiators: []) }
    checks += status.problems.map { DoctorCheck("daemon", .problem, $0) }
    checks += status.portals.map(Self.reach)
    let portals = status.portals.compactMap { try? ListenAddress(parsing: $0.address) }
    if !portals.isEmpty, portals.allSatisfy(\.isLoopback) {
      checks.append(
        DoctorCheck(
          "portal", .note, "only this machine can log in: no portal has another address than loopback",
          advice: "'listen' in [target] of the settings, or --listen; then: systemctl restart gatewayd"))
    }
    let pair: PairReport?
    do throws(ControlError) {
      pair = try ControlClient.request(.init(.pair), at: controlPath, timeoutSeconds: 10)
    } catch {
      pair = nil
      checks.append(DoctorCheck("pair", .note, "not known: \(error.message)"))
    }
    if let pair { checks += PairChecks.all(pair) }
    let target = target(status, pair)
    return DoctorReport(
      checks: checks,
      initiators: target.map { target in InitiatorKind.allCases.map { InitiatorGuide($0, target) } } ?? [])
  }

  /// What to paste on an initiator of that kind.
  public func guide(_ kind: InitiatorKind) throws(ControlError) -> InitiatorGuide {
    let status: StatusReport = try ControlClient.request(.init(.status), at: controlPath, timeoutSeconds: 10)
    let pair: PairReport = try ControlClient.request(.init(.pair), at: controlPath, timeoutSeconds: 10)
    guard let target = target(status, pair) else { throw ControlError(.refused, "the gateway listens nowhere") }
    return InitiatorGuide(kind, target)
  }

  private static func silence(_ error: ControlError, _ path: String) -> DoctorCheck {
    switch error.code {
    case .noDaemon:
      DoctorCheck(
        "daemon", .problem, "none answers at \(path)",
        advice: "systemctl start gatewayd (or: gatewayd run)\nanother socket: --control PATH")
    case .notPermitted: DoctorCheck("daemon", .problem, "you may not ask it at \(path)", advice: "sudo gatewayd doctor")
    default: DoctorCheck("daemon", .problem, error.message, advice: "journalctl -u gatewayd -n 50")
    }
  }

  /// The ports that the daemon says it has; without one, the standard port.
  private func ports(_ status: StatusReport?) -> [UInt16] {
    guard let status else { return [ListenAddress.standardPort] }
    let ports = status.portals.filter { $0.transport == "tcp" }
      .compactMap { portal in (try? ListenAddress(parsing: portal.address))?.port }
    return Array(Set(ports)).sorted()
  }

  private func disks(_ status: StatusReport?) -> [DoctorCheck] {
    guard status != nil else { return [SystemChecks.blockDevices(files)] }
    let disks: [DiskReport]
    do throws(ControlError) {
      disks = try ControlClient.request(.init(.disks), at: controlPath, timeoutSeconds: 10)
    } catch { return [DoctorCheck("disks", .problem, error.message)] }
    return [Self.summary(disks)]
      + disks.filter { $0.verdict != .exported }.map {
        DoctorCheck("disk", .note, "\($0.path) is \($0.verdict.rawValue): \($0.reason)", advice: $0.advice)
      }
  }

  static func summary(_ disks: [DiskReport]) -> DoctorCheck {
    let exported = disks.filter { $0.verdict == .exported }.count
    let summary = "\(disks.count) seen, \(exported) exported"
    guard exported == 0 else { return DoctorCheck("disks", .fine, summary) }
    // Somebody's will, not a fault.
    if disks.contains(where: { $0.code == Reason.Code.notChosen.rawValue }) {
      return DoctorCheck(
        "disks", .note, "\(summary): the settings, or --only, name no disk that is here ([discovery] only)",
        advice: "the settings: /etc/gatewayd/gatewayd.toml; after a change: systemctl reload gatewayd")
    }
    return DoctorCheck(
      "disks", .problem, summary, advice: "connect a blank disk, adopt one below, or: gatewayd run --disk PATH")
  }

  /// The daemon's word on the NICs, for its permissions and limits count; without one, this process's own.
  private func nics(_ status: StatusReport?) -> [NICReport] {
    status?.rdma?.nics ?? NICReport.all(ownInventory())
  }

  /// Connects as an initiator would.
  private static func reach(_ portal: PortalReport) -> DoctorCheck {
    let name = "portal"
    guard portal.transport == "tcp" else {
      return DoctorCheck(name, .note, "\(portal.address) \(portal.transport): \(portal.state)")
    }
    guard let address = try? ListenAddress(parsing: portal.address) else {
      return DoctorCheck(name, .note, "\(portal.address): \(portal.state)")
    }
    let host = address.host == "::" ? "::1" : address.host == "0.0.0.0" ? "127.0.0.1" : address.host
    let code = Reachability.connect(host: host, port: address.port, deadline: Deadline(seconds: 2))
    return code == 0
      ? DoctorCheck(name, .fine, "\(portal.address) can be reached")
      : DoctorCheck(
        name, .problem, "\(portal.address) cannot be reached: \(SystemError.text(code))",
        advice: "the daemon says of it: \(portal.state)\njournalctl -u gatewayd -n 50")
  }

  /// What initiators have to know; nil: nobody can log in.
  private func target(_ status: StatusReport, _ pair: PairReport?) -> InitiatorGuide.Target? {
    let listening = status.portals.filter { $0.transport == "tcp" }
      .compactMap { try? ListenAddress(parsing: $0.address) }
    guard let portal = listening.first else { return nil }
    let service = (pair?.serviceAddresses ?? []).map { String($0.address.prefix { $0 != "/" }) }
    func text(_ host: String) -> String { ListenAddress(host: host, port: portal.port).description }
    let isWildcard = portal.host == "::" || portal.host == "0.0.0.0"
    // One that moves is not this node's.
    let own = ownAddresses().first { (portal.isIPv6 || !$0.contains(":")) && !service.contains($0) }
    let isPair = pair?.isRunning ?? false
    return InitiatorGuide.Target(
      name: status.targetName,
      portals: [text(isWildcard ? own ?? "127.0.0.1" : portal.host)] + (isPair ? [InitiatorGuide.otherNode] : []),
      rdmaPortals: Array((status.rdma?.listener.addresses ?? []).prefix(1)), servicePortals: service.map(text),
      lun: status.logicalUnits.first?.number ?? 0, isPair: isPair)
  }
}

/// Whether a TCP connection comes about.
enum Reachability {
  /// - Returns: 0 or errno.
  static func connect(host: String, port: UInt16, deadline: Deadline) -> Int32 {
    var hints = addrinfo()
    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var found: UnsafeMutablePointer<addrinfo>?
    guard getaddrinfo(host, String(port), &hints, &found) == 0, let entry = found?.pointee else { return EINVAL }
    defer { freeaddrinfo(found) }
    let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    let descriptor = socket(entry.ai_family, type, 0)
    guard descriptor >= 0 else { return errno }
    defer { close(descriptor) }
    if Glibc.connect(descriptor, entry.ai_addr, entry.ai_addrlen) == 0 { return 0 }
    guard errno == EINPROGRESS else { return errno }
    var wait = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
    guard poll(&wait, 1, deadline.milliseconds) > 0 else { return ETIMEDOUT }
    var code: Int32 = 0
    var length = socklen_t(MemoryLayout<Int32>.size)
    return getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &code, &length) == 0 ? code : errno
  }
}
