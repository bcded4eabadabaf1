import ArgumentParser
import Gateway
import Glibc

struct MetricsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "metrics", abstract: "Print the daemon's counters in the Prometheus text format.",
    discussion: """
      The gateway (version, uptime, memory, sessions by transport), every LUN (commands, bytes, failures), and the pair \
      (role, epoch, links, takeovers and how long the last one took, dropped messages). docs/COMMANDS.md lists them.

      For node_exporter's textfile collector, from a timer: gatewayd metrics --output \
      /var/lib/prometheus/node-exporter/gatewayd.prom. The file is replaced as a whole, so none is ever read half. If no \
      daemon answers, the file says 'gatewayd_up 0' and nothing else, and the exit code is 69.
      """)

  @Option(help: ArgumentHelp("Write to this file instead, as a whole.", valueName: "file"))
  var output: String?
  @OptionGroup var control: ControlOptions

  func run() throws {
    do {
      try show(try control.ask(.init(.metrics), as: String.self))
    } catch {
      // What was there is not true any more.
      if output != nil { try show(Metrics.down) }
      throw error
    }
  }

  private func show(_ text: String) throws {
    guard let output else { return print(text, terminator: "") }
    // A name that the collector does not read.
    let temporary = "\(output).\(getpid())"
    let bytes = Array(text.utf8)
    let descriptor = open(temporary, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0o644)
    let isWritten = descriptor >= 0 && write(descriptor, bytes, bytes.count) == bytes.count
    var code = isWritten ? 0 : errno
    if descriptor >= 0, close(descriptor) != 0 { code = errno }
    if code == 0, rename(temporary, output) != 0 { code = errno }
    guard code != 0 else { return }
    unlink(temporary)
    Failure.say("gatewayd: \(output): \(SystemError.text(code))")
    throw Failure.general
  }
}
