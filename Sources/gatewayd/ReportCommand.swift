import Appliance
import ArgumentParser
import Gateway
import Glibc

struct ReportCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "report", abstract: "Print everything that helps to find out what is wrong, as one text.",
    discussion: """
      Versions, what every client command says, disks and networks as the system sees them, and the end of the log. \
      No settings: they may hold secrets, and the daemon logs none. As root it sees more.
      """)

  @Option(help: ArgumentHelp("Write to this file instead.", valueName: "file"))
  var output: String?

  func run() throws {
    if let output {
      let descriptor = open(output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
      guard descriptor >= 0, dup2(descriptor, STDOUT_FILENO) >= 0 else {
        Failure.say("gatewayd: \(output): \(SystemError.text(errno))")
        throw Failure.general
      }
      close(descriptor)
    }
    for section in SupportReport.sections(program: CommandLine.arguments[0]) {
      print("==== \(section.joined(separator: " "))")
      guard let result = SystemFiles.run(section, bytesMax: SupportReport.bytesMax) else {
        print("(not there)\n")
        continue
      }
      print(SupportReport.redacted(result.output) + (result.status == 0 ? "" : "(exit code \(result.status))\n"))
    }
  }
}
