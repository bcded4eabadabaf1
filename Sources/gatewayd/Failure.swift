import ArgumentParser
import Gateway
import Glibc

/// How a command ends when it fails: words on standard error, a code for scripts (sysexits.h).
enum Failure {
  static let general = ExitCode(1)
  static let usage = ExitCode(EX_USAGE)
  static let noDaemon = ExitCode(EX_UNAVAILABLE)
  static let notPermitted = ExitCode(EX_NOPERM)
  static let settings = ExitCode(EX_CONFIG)

  /// Says what is wrong and gives the code to throw.
  static func because(_ error: ControlError) -> ExitCode {
    say("gatewayd: \(error.message)")
    return switch error.code {
    case .noDaemon: noDaemon
    case .notPermitted: notPermitted
    case .badRequest, .noSuchDisk, .refused, .busy, .timedOut, .failed: general
    }
  }

  static func because(_ problems: SettingsFileProblems) -> ExitCode {
    for line in problems.lines { say(line) }
    return settings
  }

  /// One or more lines on standard error.
  static func say(_ text: String) {
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map { Printable.text(String($0)) }
    let bytes = Array((lines.joined(separator: "\n") + "\n").utf8)
    _ = bytes.withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress, $0.count) }
  }
}
