import ArgumentParser
import Gateway

struct StatusCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "status", abstract: "Show the target, its portals, its LUNs and what is wrong.")

  @OptionGroup var control: ControlOptions
  @OptionGroup var output: OutputOptions

  func run() throws {
    try output.show(try control.ask(.init(.status), as: StatusReport.self), text: \.text)
  }
}

struct NICsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "nics", abstract: "Show every RDMA NIC: usable for iSER or not, and why.")

  @OptionGroup var control: ControlOptions
  @OptionGroup var output: OutputOptions

  func run() throws {
    try output.show(try control.ask(.init(.nics), as: [NICReport].self), text: NICReport.text)
  }
}

struct SessionsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "sessions", abstract: "Show who is logged in.",
    discussion: "With --json also the negotiated parameters of each session.")

  @OptionGroup var control: ControlOptions
  @OptionGroup var output: OutputOptions

  func run() throws {
    try output.show(try control.ask(.init(.sessions), as: [SessionReport].self), text: SessionReport.text)
  }
}

struct VersionCommand: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "version", abstract: "Print the version.")

  func run() { print("gatewayd \(GatewayVersion.current)") }
}

struct SettingsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "settings", abstract: "Check a settings file without running anything.",
    discussion: "Tells every problem with its line and what is allowed. Exit code 78 if there are any.")

  @Argument(help: "The file; default: the one that 'gatewayd run' would read.")
  var file: String?

  func run() throws {
    guard let path = SettingsFile.path(given: file) else {
      return print("There is no settings file: the defaults are in force.")
    }
    do throws(SettingsFileProblems) {
      _ = try SettingsFile.load(path)
      print("\(path): good.")
    } catch { throw Failure.because(error) }
  }
}
