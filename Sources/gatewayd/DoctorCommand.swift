import ArgumentParser
import Gateway
import Glibc

struct DoctorCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "doctor",
    abstract: "Check the machine, the daemon and the pair; say what to do, here and on initiators.",
    discussion: """
      Without options it checks. With --initiator it prints one block for that kind of initiator, ready to paste there: it \
      logs in and sets the timers, and says how long applications wait at which fault. Every line of it that is no \
      command is a comment. docs/INITIATORS.md has the same as a table.

      Exit code 0 if all is fine, 1 if there are problems. As root it sees more.
      """)

  @Option(
    help: ArgumentHelp(
      "Print what to paste on an initiator: \(InitiatorKind.allCases.map(\.rawValue).joined(separator: ", ")).",
      valueName: "kind"))
  var initiator: InitiatorKind?

  @Option(
    help: ArgumentHelp(
      "The settings file to check; default: the one that 'gatewayd run' would read.", valueName: "file"))
  var settings: String?
  @OptionGroup var control: ControlOptions
  @OptionGroup var output: OutputOptions

  func run() throws {
    if let initiator { return try show(initiator) }
    var report = Doctor(controlPath: control.path).examine()
    report.checks += settingsChecks()
    let isTerminal = isatty(STDOUT_FILENO) == 1 && getenv("NO_COLOR") == nil
    try output.show(report) { $0.text(isColoured: isTerminal) }
    if report.hasProblems { throw Failure.general }
  }

  private func show(_ kind: InitiatorKind) throws {
    let guide: InitiatorGuide
    do throws(ControlError) { guide = try Doctor(controlPath: control.path).guide(kind) } catch {
      throw Failure.because(error)
    }
    try output.show(guide, text: \.text)
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

extension InitiatorKind: ExpressibleByArgument {}
