import ArgumentParser
import Gateway
import Glibc

struct RunCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run", abstract: "Run the gateway in the foreground, until it is told to stop.",
    discussion: """
      Without options it listens on every address, port 3260, finds disks by itself and exports the blank ones.

      SIGTERM and SIGINT stop it in good order (a second one at once); SIGHUP reads the settings again. What the \
      command line says stays in force over the settings.

      SIZE is a number of bytes, or one with K, M, G, T (512M, 4GiB). Disks for benchmarks and tests: memory:SIZE, \
      null:SIZE, slow:SIZE:MILLISECONDS, faulty:SIZE:RULES.
      """)

  @Option(
    help: ArgumentHelp(
      "The settings file (docs/SETTINGS.md).", discussion: "Default: \(SettingsFile.standardPath), if it is there.",
      valueName: "file"))
  var settings: String?
  @Option(
    help: ArgumentHelp(
      "Where identity is kept between starts.", discussion: "Default: STATE_DIRECTORY of the service; else nowhere.",
      valueName: "dir"))
  var state: String?
  @Option(
    help: ArgumentHelp("An address to listen on; may be repeated.", valueName: "addr:port"), transform: parseListen)
  var listen: [ListenAddress] = []
  @Option(
    help: ArgumentHelp("A disk to export as the next LUN; may be repeated.", valueName: "path|memory:SIZE|null:SIZE"),
    transform: parseDisk)
  var disk: [DiskSpecification] = []
  @Flag(help: "Do not look for disks: export only those of --disk.")
  var noDiscovery = false
  @Flag(help: "Do not serve iSER: TCP only, whatever NICs there are.")
  var noIser = false
  @Option(
    help: ArgumentHelp(
      "Let discovery touch this disk only; may be repeated. The others are listed.", valueName: "path"))
  var only: [String] = []
  @Option(help: ArgumentHelp("The target's iSCSI name.", valueName: "name"), transform: parseName)
  var target: String?
  @Option(help: ArgumentHelp("Reactor threads; default: one per processor.", valueName: "n"))
  var threads: Int?
  @Option(help: ArgumentHelp("Where to make the control socket.", valueName: "path"))
  var control: String?
  @Option(
    help: ArgumentHelp("error, warning, notice, info or debug; default: the settings'.", valueName: "level"),
    transform: parseLevel)
  var logLevel: LogLevel?

  func validate() throws {
    if let threads, !(1...256).contains(threads) { throw ValidationError("--threads is 1 to 256.") }
  }

  func run() throws {
    SettingsFile.keepMemorySecret()
    let path = SettingsFile.path(given: settings)
    let options: RunOptions
    do throws(SettingsFileProblems) {
      let settings = try path.map { path throws(SettingsFileProblems) in try SettingsFile.load(path) } ?? Settings()
      options = runOptions(settings)
    } catch { throw Failure.because(error) }
    Log.level = logLevel ?? options.settings.logLevel
    Log.notice("settings: \(path ?? "no file, the defaults")")
    let process = GatewayProcess(options: options, settingsPath: path, fixedLogLevel: logLevel)
    throw ExitCode(runGateway(process))
  }

  private func runOptions(_ settings: Settings) -> RunOptions {
    let service = getenv("STATE_DIRECTORY").map { String(cString: $0) }.flatMap { $0.isEmpty ? nil : $0 }
    var options = RunOptions(
      settings: settings, stateDirectory: state ?? service, listen: listen, disks: disk, discovery: !noDiscovery,
      iser: !noIser, only: only, targetName: target, threads: threads, controlPath: control ?? ControlPath.standard())
    options.sockets = PassedSockets.take()
    return options
  }
}

// ArgumentParser shows the description of what a transform throws.
private func parseListen(_ text: String) throws -> ListenAddress { try ListenAddress(parsing: text) }
private func parseDisk(_ text: String) throws -> DiskSpecification { try DiskSpecification(parsing: text) }
private func parseName(_ text: String) throws -> String { try NameSyntax.check(text) }
private func parseLevel(_ text: String) throws -> LogLevel { try LogLevel(parsing: text) }
