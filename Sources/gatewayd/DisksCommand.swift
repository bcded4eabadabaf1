import ArgumentParser
import Gateway
import Glibc

struct DisksCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "disks", abstract: "Show every disk: exported, held or refused, and why.",
    subcommands: [ListDisksCommand.self, AdoptCommand.self, QualifyCommand.self, FenceCommand.self],
    defaultSubcommand: ListDisksCommand.self)
}

struct ListDisksCommand: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "list", abstract: "Show every disk (the default).")

  @OptionGroup var control: ControlOptions
  @OptionGroup var output: OutputOptions

  func run() throws {
    try output.show(try control.ask(.init(.disks), as: [DiskReport].self), text: DiskReport.text)
  }
}

struct AdoptCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "adopt", abstract: "Export a disk that is held because something is on it.",
    discussion: """
      Say what becomes of its content: --wipe discards it, --whole keeps it and exports the whole disk as it is \
      (its label is then kept elsewhere than on the disk), --grow keeps it and the LUN number of a disk that grew while \
      the gateway was off.

      Asks before it does anything, unless --yes is given. Only root and the daemon's own user may adopt.
      """)

  @Argument(help: ArgumentHelp("The disk, as 'gatewayd disks' shows it, or a link to it.", valueName: "path"))
  var path: String
  @Flag(help: "DISCARD what is on the disk.")
  var wipe = false
  @Flag(help: "Keep what is on the disk and export all of it.")
  var whole = false
  @Flag(help: "The disk has grown: keep what is on it and its LUN number.")
  var grow = false
  @Flag(help: "Do not ask.")
  var yes = false
  @OptionGroup var control: ControlOptions
  @OptionGroup var output: OutputOptions

  func validate() throws {
    guard [wipe, whole, grow].count(where: { $0 }) == 1 else {
      throw ValidationError(
        "Say what becomes of the disk's content: --wipe (discard it), --whole or --grow (keep it), one of them.")
    }
  }

  func run() throws {
    let mode: AdoptMode = wipe ? .wipe : whole ? .whole : .grow
    let absolute = AbsolutePath.of(path)
    if !yes { try confirm(absolute, mode) }
    // A disk that is wiped may take its time; the daemon's own bound is 120 s.
    let request = ControlRequest(.adopt, path: absolute, mode: mode)
    let report = try control.ask(request, as: AdoptReport.self, timeoutSeconds: 130)
    try output.show(report) { "\(Printable.text($0.path)) is LUN \($0.lun) (naa.\(Printable.text($0.naa))).\n" }
  }

  private func confirm(_ path: String, _ mode: AdoptMode) throws {
    guard isatty(STDIN_FILENO) == 1 else {
      Failure.say("gatewayd: nobody is there to be asked: add --yes if this is really meant")
      throw Failure.usage
    }
    let disks = try control.ask(.init(.disks), as: [DiskReport].self)
    if let disk = disks.first(where: { $0.path == path || AbsolutePath.resolved(path) == $0.path }) {
      print(DiskReport.text([disk]))
    }
    let shown = Printable.text(path)
    let question =
      switch mode {
      case .wipe: "EVERYTHING on \(shown) will be lost, and it will be exported as a blank disk."
      case .whole: "\(shown) will be exported with all that is on it: initiators can read and write it."
      case .grow:
        "\(shown) keeps its content and LUN number; its last 8 MiB become the gateway's."
      }
    print("\(question)\nType 'yes' to go on: ", terminator: "")
    fflush(nil)
    guard readLine() == "yes" else {
      Failure.say("gatewayd: nothing was changed")
      throw Failure.general
    }
  }
}

/// The daemon has another working directory than its client.
enum AbsolutePath {
  static func of(_ path: String) -> String {
    guard !path.hasPrefix("/"), let directory = getcwd(nil, 0) else { return path }
    defer { free(directory) }
    return String(cString: directory) + "/" + path
  }

  /// With all links followed; nil: there is no such thing.
  static func resolved(_ path: String) -> String? {
    guard let resolved = realpath(path, nil) else { return nil }
    defer { free(resolved) }
    return String(cString: resolved)
  }
}
