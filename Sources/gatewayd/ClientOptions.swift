import ArgumentParser
import FoundationEssentials
import Gateway
import Glibc

/// How a client command finds the daemon.
struct ControlOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "The daemon's control socket.",
      discussion:
        "Default: GATEWAYD_CONTROL; else /run/gatewayd/control.sock, or for users the one in XDG_RUNTIME_DIR.",
      valueName: "path"))
  var control: String?

  /// What was told; else the standard place; for a user without a daemon of their own, the system's.
  var path: String {
    if let control { return control }
    let standard = ControlPath.standard()
    let isTold = getenv("GATEWAYD_CONTROL") != nil
    return !isTold && access(standard, F_OK) != 0 && access(ControlPath.system, F_OK) == 0
      ? ControlPath.system : standard
  }

  /// Asks the daemon.
  /// - Throws: The exit code, after the reason was told.
  func ask<Result: Codable & Sendable>(
    _ request: ControlRequest, as type: Result.Type = Result.self, timeoutSeconds: Double = 15
  ) throws -> Result {
    do throws(ControlError) {
      return try ControlClient.request(request, at: path, timeoutSeconds: timeoutSeconds)
    } catch { throw Failure.because(error) }
  }
}

/// Output for scripts or for people.
struct OutputOptions: ParsableArguments {
  @Flag(help: "Print JSON, for scripts.")
  var json = false

  func show<Report: Encodable>(_ report: Report, text: (Report) -> String) throws {
    guard json else { return print(text(report), terminator: "") }
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
    print(String(decoding: try encoder.encode(report), as: UTF8.self))
  }
}
