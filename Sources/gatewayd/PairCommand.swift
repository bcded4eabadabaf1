import ArgumentParser
import Gateway

struct PairCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pair", abstract: "Show the pair: roles, links, disks, and what has happened.",
    discussion: """
      Two gateways that see the same disks become a pair by themselves. One is active and serves; the other is passive and \
      takes over: at once where the disks know persistent reservations, else after ten seconds, and only if the machine \
      has a watchdog. See docs/HA.md.
      """,
    subcommands: [
      ShowPairCommand.self, HoldCommand.self, ResumeCommand.self, ForgetCommand.self, ForceCommand.self,
    ], defaultSubcommand: ShowPairCommand.self)
}

struct ShowPairCommand: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "show", abstract: "Show the pair (the default).")

  @OptionGroup var control: ControlOptions
  @OptionGroup var output: OutputOptions

  func run() throws { try output.show(try control.ask(.init(.pair), as: PairReport.self), text: \.text) }
}

struct HoldCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "hold", abstract: "No takeovers by themselves, on both nodes, until 'pair resume'.",
    discussion: "For work on the other node, or on cables. 'gatewayd switchover' still works.")

  @OptionGroup var control: ControlOptions
  @OptionGroup var output: OutputOptions

  func run() throws { try control.operate(.hold, output) }
}

struct ResumeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "resume", abstract: "Takeovers by themselves again.")

  @OptionGroup var control: ControlOptions
  @OptionGroup var output: OutputOptions

  func run() throws { try control.operate(.resume, output) }
}

struct ForgetCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "forget", abstract: "Take a node out of the pair that is gone for good.",
    discussion: "Its place in the labels becomes free for another node. 'gatewayd pair' shows the node's UUID.")

  @Argument(help: "The node's UUID.")
  var node: String
  @OptionGroup var control: ControlOptions
  @OptionGroup var output: OutputOptions

  func run() throws { try control.operate(.forget(node: node), output) }
}

struct ForceCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "force", abstract: "Take over, or go on, although most arbiter disks cannot be reached.",
    discussion: """
      From then on the disks decide that can be reached. \
      Only when the other node is switched off, or when the disks that are missing are gone for good: nothing keeps the \
      other node from writing to disks that this one does not see.
      """)

  @Flag(help: "The other node is off, or the missing disks are gone for good.")
  var yes = false
  @OptionGroup var control: ControlOptions
  @OptionGroup var output: OutputOptions

  func validate() throws {
    guard yes else { throw ValidationError("Read 'gatewayd help pair force', then add --yes.") }
  }

  func run() throws { try control.operate(.force, output) }
}

struct SwitchoverCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "switchover", abstract: "The other node takes over, in good order.",
    discussion: """
      To be given on either node. What is under way is finished first; initiators see a pause and no error. Returns when \
      the other node serves, or says why it does not.
      """)

  @OptionGroup var control: ControlOptions
  @OptionGroup var output: OutputOptions

  func run() throws { try control.operate(.switchover, output) }
}

extension ControlOptions {
  fileprivate func operate(_ operation: PairOperation, _ output: OutputOptions) throws {
    let request = ControlRequest(.operate, operation: operation)
    try output.show(try ask(request, as: PairReport.self, timeoutSeconds: 60), text: \.text)
  }
}
