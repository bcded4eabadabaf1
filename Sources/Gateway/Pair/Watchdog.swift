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
      if state.descriptor >= 0 { return state.isIdle ? "kept alive: \(state.path)" : "armed: \(state.path)" }
      return state.problem ?? (choice == .off ? "off" : "not needed")
    }
  }

  /// Carries an order out. Returns for `arm` whether it is armed.
  func perform(_ order: WatchdogOrder) -> Bool? {
    switch order {
    case .arm: return arm()
    case .keepAlive(let until): keepAlive(until: until)
    case .disarm: disarm()
    }
    return nil
  }

  /// Before a record says that the watchdog stands for a disk: the next life is to know of it.
  func keepGuarded(_ disks: Set<DiskID>) {
    state.withLock { state in
      state.note.disks = disks
      state.isKept = file.keep(state.note)
    }
  }

  /// A watchdog that cannot be stopped runs on when the program ends: the next life goes on with it, as long as it stands for
  /// nothing.
  func resume() {
    let note = state.withLock { $0.note }
    guard note.disks.isEmpty, let path = note.device, let device = WatchdogDevice(path: path), device.isActive,
      !device.isStoppable
    else { return }
    do throws(WatchdogProblem) {
      let descriptor = try Self.open(path)
      state.withLock { ($0.descriptor, $0.path) = (descriptor, path) }
      keepIdle(descriptor, path)
    } catch { Log.warning("pair: \(error.text)") }
  }

  private func arm() -> Bool {
    let wasIdle = state.withLock { state in
      defer { state.isIdle = false }
      return state.isIdle
    }
    if wasIdle { return true }
    do throws(WatchdogProblem) {
      let path = try path()
      guard remember(path) else {
        throw WatchdogProblem(text: "\(file.path) cannot be written, and a start after a crash would stop it")
      }
      let descriptor = try Self.open(path)
      state.withLock { ($0.descriptor, $0.path, $0.problem) = (descriptor, path, nil) }
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
  private func keepAlive(until: Instant) {
    let descriptor = state.withLock { $0.descriptor }
    guard descriptor >= 0, BootClock.now < until else { return }
    _ = system_watchdog_keep_alive(descriptor)
    state.withLock { state in if !state.isKept { state.isKept = file.keep(state.note) } }
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
    state.withLock { $0.isIdle = true }
    Log.info("pair: the watchdog \(path) cannot be stopped (nowayout), and is kept alive")
    startThread(name: "watchdog") { [self] in
      while state.withLock({ state in
        if state.isIdle { _ = system_watchdog_keep_alive(descriptor) }
        return state.isIdle
      }) { usleep(500_000) }
    }
  }

  // MARK: Finding it

  private func remember(_ path: String) -> Bool {
    state.withLock { state in
      state.note.device = path
      state.isKept = file.keep(state.note)
      return state.isKept
    }
  }

  private func path() throws(WatchdogProblem) -> String {
    switch choice {
    case .off: throw WatchdogProblem(text: "the settings turn it off")
    case .device(let path): return path
    case .automatic:
      // After a crash it is still active, and is ours.
      if let known = state.withLock({ $0.note.device }), WatchdogDevice(path: known)?.isSoftware == false {
        return known
      }
      guard let device = WatchdogDevice.all.first(where: { !$0.isSoftware && !$0.isActive }) else {
        throw WatchdogProblem(text: "there is no hardware watchdog that nobody else uses")
      }
      return device.path
    }
  }

  private static func open(_ path: String) throws(WatchdogProblem) -> Int32 {
    let descriptor = system_watchdog_open(path)
    guard descriptor >= 0 else {
      throw WatchdogProblem(text: "\(path): \(SystemError.text(-descriptor))")
    }
    // Without either the kernel stops it when the program ends, however it does.
    guard system_watchdog_can_stop(descriptor) != 0 || WatchdogDevice(path: path)?.isStoppable == false else {
      _ = system_watchdog_stop(descriptor)
      throw WatchdogProblem(text: "\(path) does not run on when the program ends")
    }
    let limit = Int32(PairTimers.watchdog / 1_000_000_000)
    let seconds = system_watchdog_set(descriptor, limit)
    guard seconds > 0, seconds <= limit else {
      _ = system_watchdog_stop(descriptor)
      throw WatchdogProblem(text: "\(path) cannot be set to \(limit) s")
    }
    return descriptor
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
