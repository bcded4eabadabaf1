import Appliance
import ArgumentParser
import Discovery
import Gateway
import Glibc

// What the image's own units call, and what its operator types. docs/IMAGE.md.

struct BootDiskCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "boot-disk", abstract: "On the image: print the disk that this system was started from.",
    discussion: "Exit code 1 if there is none, or if it is not clear which one it is.")

  @Option(help: ArgumentHelp("How long to wait for the disk to appear.", valueName: "seconds"))
  var wait = 0

  func run() throws {
    let deadline = ContinuousClock.now + .seconds(wait)
    while true {
      switch BootDisk.find() {
      case .disk(let name):
        return print("/dev/\(name)")
      case .none:
        throw fail("the system was not started from a disk of this machine")
      case .several(let names):
        throw fail("several disks carry what it was started from: \(names.joined(separator: ", "))")
      case .missing(let partition):
        guard ContinuousClock.now < deadline else { throw fail("there is no disk with the partition \(partition)") }
        usleep(200_000)
      }
    }
  }

  private func fail(_ reason: String) -> any Error {
    Failure.say(reason)
    return Failure.general
  }
}

struct HealthyCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "healthy", abstract: "On the image: whether this version serves; else the one before is taken.",
    discussion: """
      It serves if the daemon answers and listens at a portal, or would if an interface had the address. Disks and networks \
      do not count: another version would find the same ones.
      """)

  @Option(help: ArgumentHelp("How long it may take until it does.", valueName: "seconds"))
  var wait = 0
  @OptionGroup var control: ControlOptions

  func run() throws {
    let deadline = ContinuousClock.now + .seconds(wait)
    while true {
      let reason: String
      do throws(ControlError) {
        let status: StatusReport = try ControlClient.request(.init(.status), at: control.path)
        let states: Set = [PortalReport.listening, PortalReport.absent]
        if status.portals.contains(where: { states.contains($0.state) }) { return print("healthy") }
        reason = "it listens at no portal"
      } catch { reason = error.message }
      guard ContinuousClock.now < deadline else {
        Failure.say("gatewayd: not healthy: \(reason)")
        throw Failure.general
      }
      sleep(1)
    }
  }
}

struct SlotsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "slots",
    abstract: "On the image: the versions that are there, and whether they have proven themselves.")

  @Flag(help: "Only say by the exit code whether to start the other version may help.")
  var mayFallBack = false

  func run() throws {
    let slots = SystemFiles.slots()
    if mayFallBack {
      guard slots.mayFallBack else { throw Failure.general }
      return
    }
    guard let current = slots.current else { return print("The version that runs is not on a disk of this machine.") }
    print("\(current.version) (runs; \(current.state))")
    for other in slots.others { print("\(other.version) (\(other.state))") }
  }
}

struct UpdateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "update", abstract: "On the image: bring another version onto the disk, for the next start.",
    discussion: """
      SOURCE is a file or an http(s) URL of an image (.efi); its signature lies beside it, with .sig added. Nothing is \
      touched before the signature has been found good. The version that runs stays, and is taken again if the new one does \
      not serve in three starts.
      """)

  @Argument(help: "A file or an URL.")
  var source: String
  @Flag(help: "Start the new version at once.")
  var reboot = false

  func run() throws {
    do throws(Update.Problem) {
      // From before the download: its place is one for all.
      let update = try Update()
      let version: String
      if source.hasPrefix("http://") || source.hasPrefix("https://") {
        version = try download { path throws(Update.Problem) in try update.install(path, signature: path + ".sig") }
      } else {
        version = try update.install(source, signature: source + ".sig")
      }
      print("Version \(version) is tried at the next start.")
    } catch {
      Failure.say("gatewayd: not updated: \(error)")
      throw Failure.general
    }
    if reboot { Reboot.now() }
  }

  /// To the state partition or to memory, wherever there is more room; removed in any case.
  private func download(_ body: (String) throws(Update.Problem) -> String) throws(Update.Problem) -> String {
    let (state, memory) = ("/state", "/run")
    let isRoomier = SystemFiles.freeBytes(state) > SystemFiles.freeBytes(memory)
    let path = (MountTable.isMounted(at: state) && isRoomier ? state : memory) + "/update.efi"
    defer { for file in [path, path + ".sig"] { unlink(file) } }
    for (address, file) in [(source + ".sig", path + ".sig"), (source, path)] {
      let words = [
        "curl", "--fail", "--silent", "--show-error", "--location", "--proto", "=http,https", "--max-time", "3600",
        "--max-filesize", "\(Update.bytesMax)", "--output", file, "--", address,
      ]
      guard let result = SystemFiles.run(words) else { throw Update.Problem("curl cannot be started") }
      guard result.status == 0 else {
        throw Update.Problem(result.output.split(separator: "\n").joined(separator: " "))
      }
    }
    return try body(path)
  }
}

struct RollbackCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rollback", abstract: "On the image: have the other version taken at the next start.")

  @Flag(help: "Start it at once.")
  var reboot = false

  func run() throws {
    do throws(Update.Problem) { try Update.goBack(SystemFiles.slots()) } catch {
      Failure.say("gatewayd: \(error)")
      throw Failure.general
    }
    print("The other version is taken at the next start.")
    if reboot { Reboot.now() }
  }
}

struct FactoryResetCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "factory-reset", abstract: "On the image: forget everything that was kept, at the next start.",
    discussion: """
      Settings, keys for logins, the log and the state are gone then: who may log in, the addresses and the secrets too, so \
      that every initiator of the machine's networks gets at its disks. The data disks stay as they are, with their names \
      and numbers. With --keep-settings only the log and the state are forgotten, which mends a damaged state partition.
      """)

  @Flag(help: "Forget the log and the state alone; settings, networks and keys for logins stay.")
  var keepSettings = false

  @Flag(help: "Do not ask; needed.")
  var yes = false
  @Flag(help: "Start again at once.")
  var reboot = false

  func run() throws {
    guard yes else {
      Failure.say("gatewayd: nothing was changed: add --yes if this is really meant")
      throw Failure.usage
    }
    do throws(Update.Problem) { try FactoryReset.request(keepsSettings: keepSettings) } catch {
      Failure.say("gatewayd: \(error)")
      throw Failure.general
    }
    print("\(keepSettings ? "Log and state are" : "Everything is") forgotten at the next start.")
    if reboot { Reboot.now() }
  }
}

private enum Reboot {
  static func now() { _ = SystemFiles.run(["systemctl", "--no-block", "reboot"]) }
}
