import ArgumentParser
import Gateway
import Glibc

struct DoctorCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "doctor",
    abstract: "Check the machine and the daemon, say what to do, and print commands for initiators.",
    discussion: "Exit code 0 if all is fine, 1 if there are problems. As root it sees more.")

  @Option(
    help: ArgumentHelp(
      "The settings file to check; default: the one that 'gatewayd run' would read.", valueName: "file"))
  var settings: String?
  @OptionGroup var control: ControlOptions
  @OptionGroup var output: OutputOptions

  func run() throws {
    var report = Doctor(controlPath: control.path).examine()
    report.checks += settingsChecks()
    let isTerminal = isatty(STDOUT_FILENO) == 1 && getenv("NO_COLOR") == nil
    try output.show(report) { $0.text(isColoured: isTerminal) }
    if report.hasProblems { throw Failure.general }
  }

  private func settingsChecks() -> [DoctorCheck] {
    guard let path = SettingsFile.path(given: settings) else {
      return [DoctorCheck("settings", .fine, "no file: the defaults are in force")]
    }
    do throws(SettingsFileProblems) {
      _ = try SettingsFile.load(path)
      return [DoctorCheck("settings", .fine, "\(path) is good")]
    } catch { return error.lines.map { DoctorCheck("settings", .problem, $0) } }
  }
}
