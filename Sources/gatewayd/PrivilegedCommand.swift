import ArgumentParser
import Gateway

/// Not shown in the help: systemd's units start it, and nobody else has a use for it.
struct PrivilegedCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "privileged", abstract: "One of the small parts that have what the daemon has not: capabilities.",
    discussion: """
      'fence' carries out persistent reservations, 'addresses' adds, removes and announces service addresses, for a daemon \
      that may not. It answers at the socket that systemd passes to it (gatewayd-fence.socket, gatewayd-addresses.socket).
      """,
    shouldDisplay: false)

  @Argument(help: ArgumentHelp("fence or addresses.", valueName: "part"))
  var part: String
  @Option(help: ArgumentHelp("Who may ask besides root; a name or a number.", valueName: "user"))
  var user = "gatewayd"

  func run() throws {
    do throws(PartError) { try PrivilegedPart.run(named: part, user: user) } catch {
      Failure.say("gatewayd privileged \(part): \(error)")
      throw Failure.general
    }
  }

  func validate() throws {
    guard PrivilegedPart.names.contains(part) else { throw ValidationError("The parts are: fence, addresses.") }
  }
}
