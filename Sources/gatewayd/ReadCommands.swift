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
    commandName: "sessions", abstract: "Show who is logged in, or end a session.",
    discussion: """
      With --json also the negotiated parameters of each session.

      --trace ID tells what became of one: login, task management, what was refused, silence, why it ended. ID is its TSIH, as \
      the list shows it; 0: connections that came to no session. The last 32 on each thread are kept after their end.

      --end ID ends one (root only). Its initiator logs in again unless the settings do not let it in any more: to keep it out, \
      change [access] first; a reload ends the sessions that it does not let in by itself.
      """)

  @Option(help: ArgumentHelp("Tell what became of this session.", valueName: "id"))
  var trace: UInt16?
  @Option(help: ArgumentHelp("End this session.", valueName: "id"))
  var end: UInt16?
  @OptionGroup var control: ControlOptions
  @OptionGroup var output: OutputOptions

  func validate() throws {
    if trace != nil, end != nil { throw ValidationError("--trace and --end do not go together.") }
  }

  func run() throws {
    if let end {
      return try output.show(try control.ask(.init(.end, session: end), as: EndReport.self)) {
        "Session \($0.session) has ended.\n"
      }
    }
    if let trace {
      return try output.show(
        try control.ask(.init(.trace, session: trace), as: [TraceReport].self), text: TraceReport.text)
    }
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
