import CSystem
import Glibc
import HA
import Reactor
import Synchronization

/// The machine's watchdog, as the engine commands it: armed while this node has a disk that another could take over by time
/// alone. Its time runs in the kernel or in hardware, whatever becomes of this process.
///
/// Called on the pair's thread; none of its calls waits for anything but the kernel's driver.
final class Watchdog: Sendable {
  private struct State {
    var descriptor: Int32 = -1
    var path = ""
    /// Why there is none.
    var problem: String?
    /// Nothing is held, but it cannot be stopped (nowayout).
    var isIdle = false
    var note: WatchdogNote
    /// The file says the same.
    var isKept = true
  }

  private let choice: WatchdogChoice
  private let file: WatchdogNoteFile
  private let state: Mutex<State>

  /// - Parameter note: what the file says of an earlier life.
  init(_ choice: WatchdogChoice, file: WatchdogNoteFile, note: WatchdogNote) {
    self.choice = choice
    self.file = file
    state = Mutex(State(note: note))
  }

  /// For people; "armed: /dev/watchdog0" or why it is not.
  var report: String {
    state.withLock { state in
      if let problem = state.problem { return problem }
      if state.descriptor >= 0 { return state.isIdle ? "kept alive: \(state.path)" : "armed: \(state.path)" }
      return choice == .off ? "off" : "not needed"
    }
  }

  /// Carries an order out. Returns whether it is armed: for `arm`, and when it is found not to be any more.
  func perform(_ order: WatchdogOrder) -> Bool? {
    switch order {
    case .arm: return arm()
    case .keepAlive(let until): return keepAlive(until: until) ? nil : false
    case .disarm: disarm()
    }
    return nil
  }

  /// Before a record says that the watchdog stands for a disk: the next life is to know of it.
  func keepGuarded(_ disks: Set<DiskID>) {
    state.withLock { state in
      state.note.disks = disks
      keep(&state)
    }
  }

  private func keep(_ state: inout State) { state.isKept = file.keep(state.note, isTold: state.isKept) }

  /// What an earlier life has armed runs on. Where it stands for nothing it is stopped, or kept alive (nowayout).
  func resume() {
    let note = state.withLock { $0.note }
    guard note.disks.isEmpty, let path = note.device, WatchdogDevice(path: path)?.isActive == true else { return }
    do throws(WatchdogProblem) {
      try open(path)
      disarm()
    } catch { Log.warning("pair: \(error.text)") }
  }

  private func arm() -> Bool {
    do throws(WatchdogProblem) {
      let path = try path()
      let (descriptor, isOurs) = state.withLock { state in
        let isOurs = state.isIdle && state.problem == nil && state.path == path
        if isOurs { state.isIdle = false }
        return (state.descriptor, isOurs)
      }
      if isOurs { return true }
      // Of the settings before, or it cannot be set to the time that is needed.
      guard descriptor < 0 else { throw WatchdogProblem(text: "another runs that cannot be stopped (nowayout)") }
      guard remember(path) else {
        throw WatchdogProblem(text: "\(file.path) cannot be written, and a start after a crash would not know of it")
      }
      try open(path)
      Log.notice("pair: the watchdog \(path) is armed: the machine is reset if it hangs for 3 s")
      if WatchdogDevice(path: path)?.isSoftware == true {
        Log.warning("pair: \(path) is the kernel's own (softdog): it does not help when the kernel hangs")
      }
      return true
    } catch {
      state.withLock { $0.problem = error.text }
      Log.warning("pair: no watchdog: \(error.text); disks that cannot fence are not taken over by themselves")
      return false
    }
  }

  /// The clock is read last: what stood still since the engine decided must not count.
  /// - Returns: false: it has not taken the sign, and is none.
  private func keepAlive(until: Instant) -> Bool {
    let descriptor = state.withLock { $0.descriptor }
    guard descriptor >= 0, BootClock.now < until else { return true }
    let code = system_watchdog_keep_alive(descriptor)
    state.withLock { state in
      if !state.isKept { keep(&state) }
      if code < 0 { state.problem = "\(state.path) takes no sign any more: \(SystemError.text(-code))" }
    }
    return code >= 0
  }

  private func disarm() {
    let (descriptor, path) = state.withLock { ($0.descriptor, $0.path) }
    guard descriptor >= 0 else { return }
    guard WatchdogDevice(path: path)?.isStoppable != false, system_watchdog_can_stop(descriptor) != 0 else {
      return keepIdle(descriptor, path)
    }
    state.withLock { $0.descriptor = -1 }
    let code = system_watchdog_stop(descriptor)
    if code == 0 {
      Log.info("pair: the watchdog \(path) is stopped")
    } else {
      Log.error("pair: the watchdog \(path) cannot be stopped: \(SystemError.text(-code))")
    }
  }

  /// The administrator wants it never to stop (nowayout): as long as nothing is held, the process keeps it alive.
  private func keepIdle(_ descriptor: Int32, _ path: String) {
    guard
      state.withLock({ state in
        defer { state.isIdle = true }
        return !state.isIdle
      })
    else { return }
    Log.info("pair: the watchdog \(path) cannot be stopped (nowayout), and is kept alive")
    startThread(name: "watchdog") { [self] in
      while state.withLock({ state in
        if state.isIdle { _ = system_watchdog_keep_alive(descriptor) }
        return state.isIdle
      }) { usleep(500_000) }
    }
  }

  // MARK: Finding it

  /// Before it is armed: a next life is to know the device for its own.
  private func remember(_ path: String) -> Bool {
    state.withLock { state in
      state.note.device = path
      keep(&state)
      return state.isKept
    }
  }

  private func path() throws(WatchdogProblem) -> String {
    switch choice {
    case .off: throw WatchdogProblem(text: "the settings turn it off")
    case .device(let path): return path
    case .automatic:
      // After a crash it is still active, and is ours.
      let known = state.withLock { $0.note.device }.flatMap { WatchdogDevice(path: $0) }
      if let known, known.isActive, !known.isSoftware { return known.path }
      guard let device = WatchdogDevice.all.first(where: { !$0.isSoftware && !$0.isActive }) else {
        throw WatchdogProblem(text: "there is no hardware watchdog that nobody else uses")
      }
      return device.path
    }
  }

  /// Opens it, which starts it. One that is not fit for this is stopped, or kept alive where it cannot be.
  private func open(_ path: String) throws(WatchdogProblem) {
    let descriptor = system_watchdog_open(path)
    guard descriptor >= 0 else { throw WatchdogProblem(text: "\(path): \(SystemError.text(-descriptor))") }
    state.withLock { ($0.descriptor, $0.path, $0.problem) = (descriptor, path, nil) }
    guard let problem = Self.unfitness(descriptor, path) else { return }
    state.withLock { $0.problem = problem }
    disarm()
    throw WatchdogProblem(text: problem)
  }

  private static func unfitness(_ descriptor: Int32, _ path: String) -> String? {
    // Without either the kernel stops it when the program ends, however it does. (Drivers that sysfs does not know, such as
    // IPMI's, have their own ways, and that one runs on.)
    if WatchdogDevice(path: path)?.isStoppable == true, system_watchdog_can_stop(descriptor) == 0,
      !path.hasSuffix("/watchdog")
    {
      return "\(path) does not run on when the program ends"
    }
    let limit = Int32(PairTimers.watchdog / 1_000_000_000)
    let seconds = system_watchdog_set(descriptor, limit)
    if seconds <= 0 || seconds > limit { return "\(path) cannot be set to \(limit) s" }
    let code = system_watchdog_keep_alive(descriptor)
    return code < 0 ? "\(path) takes no sign: \(SystemError.text(-code))" : nil
  }
}

private struct WatchdogProblem: Error {
  var text: String
}

/// A watchdog as sysfs tells of it.
struct WatchdogDevice: Equatable, Sendable {
  var path: String
  var identity: String
  /// Somebody has started it.
  var isActive: Bool
  /// It was not loaded with nowayout.
  var isStoppable: Bool

  var isSoftware: Bool { identity == "Software Watchdog" }

  static let directory = "/sys/class/watchdog"

  /// By number, ascending.
  static var all: [WatchdogDevice] {
    (0..<16).compactMap { WatchdogDevice(name: "watchdog\($0)") }
  }

  /// - Parameter path: /dev/watchdog is the first one.
  init?(path: String) {
    let name = path.split(separator: "/").last.map(String.init) ?? ""
    self.init(name: name == "watchdog" ? "watchdog0" : name)
    self.path = path
  }

  init?(name: String, in directory: String = directory) {
    guard let identity = Identity.readLine(of: "\(directory)/\(name)/identity") else { return nil }
    path = "/dev/\(name)"
    self.identity = identity
    isActive = Identity.readLine(of: "\(directory)/\(name)/state") == "active"
    isStoppable = Identity.readLine(of: "\(directory)/\(name)/nowayout") != "1"
  }
}
