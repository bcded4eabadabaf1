import Gateway
import Glibc
import Synchronization

/// What `gatewayd run` keeps for the life of the process.
struct GatewayProcess: Sendable {
  var options: RunOptions
  /// Read again at SIGHUP; nil: there is none.
  var settingsPath: String?
  /// `--log-level`; nil: the settings'.
  var fixedLogLevel: LogLevel?
  /// What a graceful stop may take.
  var stopSeconds = 5.0
}

/// What the concurrency pool tells the main thread.
private enum ProcessEvent: Sendable {
  case started
  case startFailed(String)
  case reloaded(Settings)
  case reloadFailed(String)
  case stopped
}

/// Events for the main thread, which waits for signals: each one raises SIGUSR1 to wake it.
private final class ProcessMailbox: Sendable {
  private let events = Mutex<[ProcessEvent]>([])

  func post(_ event: ProcessEvent) {
    events.withLock { $0.append(event) }
    kill(getpid(), SIGUSR1)
  }

  func take() -> [ProcessEvent] {
    events.withLock { events in
      defer { events = [] }
      return events
    }
  }
}

/// Runs the gateway until it is told to stop.
/// - Returns: The exit code of the process.
func runGateway(_ process: GatewayProcess) -> Int32 {
  signal(SIGPIPE, SIG_IGN)
  var loop = SignalLoop(process: process)
  return loop.run()
}

/// The main thread: waits for signals, and does nothing else. Every other thread of the process has them blocked, because
/// they are blocked before the first one starts.
private struct SignalLoop {
  var process: GatewayProcess
  let gateway: Gateway
  let server: ControlServer
  let manager = ServiceManager()
  let mailbox = ProcessMailbox()
  let signals: sigset_t
  var isStarted = false
  var isStopping = false
  var isReloading = false
  /// A SIGHUP came when it could not be served.
  var reloadIsDue = false
  var stoppingSince: ContinuousClock.Instant?
  var stopDeadline: ContinuousClock.Instant?
  var nextBeat: ContinuousClock.Instant?

  init(process: GatewayProcess) {
    self.process = process
    var signals = sigset_t()
    sigemptyset(&signals)
    for number in [SIGTERM, SIGINT, SIGHUP, SIGUSR1] { sigaddset(&signals, number) }
    pthread_sigmask(SIG_BLOCK, &signals, nil)
    self.signals = signals
    gateway = Gateway(process.options)
    server = ControlServer(path: process.options.controlPath, control: gateway)
  }

  mutating func run() -> Int32 {
    start()
    if manager.watchdogSeconds != nil { nextBeat = .now }
    while true {
      beat()
      let number = wait()
      if number == SIGTERM || number == SIGINT {
        if isStopping {
          // A terminal and a wrapper script each send theirs for one ^C.
          if let stoppingSince, .now - stoppingSince < .milliseconds(500) { continue }
          Log.warning("stopped at once, by a second signal")
          // Not exit(3): its handlers would wait for or race with threads that are still at work.
          _exit(1)
        }
        stop()
      } else if number == SIGHUP {
        reloadIsDue = true
      }
      for event in mailbox.take() {
        if let code = handle(event) { return code }
      }
      if reloadIsDue, isStarted, !isReloading, !isStopping { reload() }
      if let stopDeadline, .now >= stopDeadline {
        Log.error("the gateway did not stop within \(Int(process.stopSeconds)) s: leaving anyway")
        server.stop()
        _exit(1)
      }
    }
  }

  /// The next signal; 0 when a deadline came first. Without deadlines it waits for ever.
  private func wait() -> Int32 {
    var signals = signals
    guard let deadline = [stopDeadline, nextBeat].compactMap({ $0 }).min() else {
      return max(0, sigwaitinfo(&signals, nil))
    }
    let left = max(.zero, deadline - .now).components
    var timeout = timespec(tv_sec: Int(left.seconds), tv_nsec: Int(left.attoseconds / 1_000_000_000))
    return max(0, sigtimedwait(&signals, nil, &timeout))
  }

  private mutating func handle(_ event: ProcessEvent) -> Int32? {
    switch event {
    case .started: started()
    case .startFailed(let reason):
      guard !isStopping else { return nil }
      Log.error("cannot start: \(reason)")
      manager.status("Cannot start: \(reason)")
      return 1
    case .reloaded(let settings): reloaded(settings)
    case .reloadFailed(let reason):
      isReloading = false
      Log.error("the settings were not taken, the old ones stay: \(reason)")
      gateway.note(settingsProblems: ["the settings were not taken: \(reason)"])
      manager.ready("The new settings were not taken: \(reason)")
    case .stopped:
      server.stop()
      Log.notice("stopped")
      return 0
    }
    return nil
  }

  private func start() {
    Log.notice("gatewayd \(GatewayVersion.current) starts")
    let (gateway, mailbox) = (gateway, mailbox)
    ControlThread.start {
      do {
        try gateway.start()
        mailbox.post(.started)
      } catch { mailbox.post(.startFailed("\(error)")) }
    }
  }

  private mutating func started() {
    isStarted = true
    guard !isStopping else { return }
    do throws(ControlError) {
      try server.start()
      Log.info("control socket: \(process.options.controlPath)")
    } catch {
      // Serving disks matters more than being asked about it.
      Log.error("\(error.message); the client commands will not work")
    }
    manager.ready("Serving")
    tellStatus()
  }

  private func tellStatus() {
    let (gateway, manager) = (gateway, manager)
    ControlThread.start {
      let report = gateway.status()
      let portals = report.portals.map(\.address).joined(separator: " ")
      Log.notice("serving \(report.targetName) at \(portals), \(report.logicalUnits.count) LUNs")
      manager.status("\(report.targetName) at \(portals), \(report.logicalUnits.count) LUNs")
    }
  }

  private mutating func stop() {
    isStopping = true
    stoppingSince = .now
    // The gateway has `stopSeconds`; a little more is for the way back.
    stopDeadline = .now + .seconds(process.stopSeconds + 1)
    Log.notice("stopping")
    manager.stopping()
    let (gateway, mailbox, seconds) = (gateway, mailbox, process.stopSeconds)
    ControlThread.start {
      gateway.stop(within: seconds)
      mailbox.post(.stopped)
    }
  }

  private mutating func reload() {
    reloadIsDue = false
    manager.reloading()
    guard let path = process.settingsPath ?? SettingsFile.path(given: nil) else {
      Log.notice("SIGHUP: there is no settings file to read")
      return manager.ready("There is no settings file to read")
    }
    let settings: Settings
    do throws(SettingsFileProblems) { settings = try SettingsFile.load(path) } catch {
      for line in error.lines { Log.error(line) }
      Log.error("the settings were not taken, the old ones stay")
      gateway.note(settingsProblems: error.lines.map { "the settings were not taken: \($0)" })
      return manager.ready("The new settings are wrong, the old ones stay: \(error.lines.first ?? "")")
    }
    isReloading = true
    let (gateway, mailbox) = (gateway, mailbox)
    ControlThread.start {
      do throws(ControlError) {
        try gateway.reload(settings)
        mailbox.post(.reloaded(settings))
      } catch { mailbox.post(.reloadFailed(error.message)) }
    }
  }

  private mutating func reloaded(_ settings: Settings) {
    isReloading = false
    // Against the settings of the start, so that each reload says again what still waits for the next one.
    let late = Settings.keysNeedingRestart(from: process.options.settings, to: settings)
    let notice = "at the next start only: \(late.joined(separator: ", "))"
    if !late.isEmpty { Log.warning(notice) }
    gateway.note(settingsProblems: late.isEmpty ? [] : ["changed settings that are in force \(notice)"])
    Log.level = process.fixedLogLevel ?? settings.logLevel
    Log.notice("the settings were read again")
    manager.ready("The settings were read again")
    tellStatus()
  }

  /// `WATCHDOG=1` when it is due, and only when the gateway answers: one that hangs is to be restarted.
  private mutating func beat() {
    guard let seconds = manager.watchdogSeconds, let due = nextBeat, .now >= due else { return }
    nextBeat = .now + .seconds(seconds)
    guard isStarted, !isStopping else { return manager.watchdog() }
    let (gateway, manager) = (gateway, manager)
    ControlThread.start {
      _ = gateway.status()
      manager.watchdog()
    }
  }
}
