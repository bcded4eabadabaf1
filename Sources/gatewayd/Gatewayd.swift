import ArgumentParser
import Gateway

/// The program: its commands. Everything that runs is in other files, because closures in a file with `@main` belong to
/// the main actor.
@main
struct Gatewayd: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "gatewayd",
    abstract: "A storage gateway: finds disks and exports them over iSCSI.",
    discussion: """
      Start it with 'gatewayd run', then look with 'gatewayd status'. If something does not work, 'gatewayd doctor' \
      says what and what to do.

      Exit codes: 0 done; 1 failed, or 'doctor' found problems; 64 the command line is wrong; 69 no gatewayd answers; \
      77 not permitted; 78 the settings file is wrong.
      """,
    version: "gatewayd \(GatewayVersion.current)",
    subcommands: [
      RunCommand.self, StatusCommand.self, DisksCommand.self, NICsCommand.self, SessionsCommand.self,
      PairCommand.self, SwitchoverCommand.self, MetricsCommand.self, DoctorCommand.self, AttachCommand.self,
      DetachCommand.self, ReportCommand.self,
      SettingsCommand.self, VersionCommand.self, PrivilegedCommand.self,
      BootDiskCommand.self, HealthyCommand.self, ConsoleCommand.self, SlotsCommand.self, UpdateCommand.self,
      RollbackCommand.self, FactoryResetCommand.self,
    ])
}
