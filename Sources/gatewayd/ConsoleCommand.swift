import Appliance
import ArgumentParser
import Discovery
import Gateway
import Glibc

struct ConsoleCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "console", abstract: "Show what the gateway is and does, again whenever it has changed.",
    discussion: "For the screen and the serial port of a machine that nobody logs in to.")

  @Flag(help: "Show it once.")
  var once = false
  @OptionGroup var control: ControlOptions

  func run() {
    var shown = ""
    while true {
      let text = page().text
      if once { return print(text, terminator: "") }
      if text != shown {
        // Clears the screen; on a serial line that is kept in a file it only separates. CR: the line may be raw.
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        print("\u{1B}[H\u{1B}[2J" + lines.joined(separator: "\r\n"), terminator: "")
        fflush(nil)
        shown = text
      }
      sleep(2)
    }
  }

  /// What keeps a daemon from starting. Its unit has the system's credentials.
  private func settingsProblems() -> [String] {
    guard let path = SettingsFile.path(given: nil, credentials: "/run/credentials/@system") else { return [] }
    do throws(SettingsFileProblems) { _ = try SettingsFile.load(path) } catch { return error.lines }
    return []
  }

  private func page() -> ConsolePage {
    var page = ConsolePage(
      version: SystemFiles.imageVersion ?? GatewayVersion.current, hostName: Identity.hostName)
    page.slots = SystemFiles.slots()
    page.bootDisk = SystemFiles.lines("\(SystemFiles.bootDirectory)/disk").first
    page.notes = SystemFiles.lines("\(SystemFiles.bootDirectory)/notes")
    let interfaces = (try? NetworkInterfaces.read())?.addresses ?? []
    page.addresses = interfaces.filter { !$0.isLoopback }.map { "\($0.interface) \($0.address)/\($0.prefixLength)" }
    do throws(ControlError) {
      page.status = try ControlClient.request(.init(.status), at: control.path)
      page.disks = try ControlClient.request(.init(.disks), at: control.path)
      page.pair = try ControlClient.request(.init(.pair), at: control.path)
    } catch {
      page.silence = error.message.split(separator: "\n").first.map(String.init) ?? ""
      page.settingsProblems = settingsProblems()
    }
    // The system's own root is one, and none of the others is a disk of this machine.
    page.disks.removeAll { $0.path.hasPrefix("/dev/loop") }
    return page
  }
}
