import ArgumentParser
import Gateway
import Glibc

struct AttachCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "attach", abstract: "On an initiator: log in to a gateway, over iSER and TCP at once.",
    discussion: """
      Discovers the gateway, logs in over iSER (if an RDMA device leads there) and over TCP, and makes one device of the \
      two paths with dm-multipath: RDMA is used while it works, TCP takes over when it does not. What cannot be had is \
      left out, and why is told.

      Needs root, open-iscsi and multipath-tools. Again it finds the disks that were added since. For a host without \
      gatewayd: --print, and run there what it prints.
      """)

  @OptionGroup var gateway: GatewayAddress
  @Flag(help: "Print the shell script instead of running it.")
  var print = false
  @Flag(help: "One path to each disk: iSER if it can be had, else TCP.")
  var noMultipath = false
  @Flag(help: "Do not use iSER.")
  var tcpOnly = false

  func run() throws {
    var script = try gateway.script(.attach)
    script.usesRDMA = !tcpOnly
    script.usesMultipath = !noMultipath
    try script.perform(printing: print)
  }
}

struct DetachCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "detach", abstract: "On an initiator: undo what 'attach' did.",
    discussion: """
      Ends the sessions with this address and forgets them, with their multipath devices and, with the last gateway, the \
      multipath settings. Changes nothing while something uses the disks.
      """)

  @OptionGroup var gateway: GatewayAddress
  @Flag(help: "Print the shell script instead of running it.")
  var print = false

  func run() throws { try gateway.script(.detach).perform(printing: print) }
}

/// Which gateway.
struct GatewayAddress: ParsableArguments {
  @Argument(
    help: ArgumentHelp("Where the gateway is: 10.0.0.1, 10.0.0.1:3260, fd00::1, [fd00::1]:3260.", valueName: "address"),
    transform: Self.parse)
  var address: ListenAddress

  /// A numeric address that can be connected to; the port is 3260 unless told.
  static func parse(_ text: String) throws -> ListenAddress {
    let bad = ValidationError("it is not the address of a gateway. Allowed are numeric ones, with or without a port.")
    let isPortAlone = text.allSatisfy { $0.isASCII && $0.isNumber }
    guard !isPortAlone, let address = try? ListenAddress(parsing: text), address.port != 0,
      !["::", "0.0.0.0"].contains(address.host)
    else { throw bad }
    // As the kernel shows it.
    let host = IPNetwork.bytes(ofAddress: address.host).map { IPNetwork.text(of: $0) }
    return ListenAddress(host: host ?? address.host, port: address.port)
  }

  func script(_ action: AttachScript.Action) throws -> AttachScript {
    AttachScript(action: action, host: address.host, portal: address.description)
  }
}

extension AttachScript {
  /// Prints the script, or becomes the shell that runs it.
  func perform(printing: Bool) throws {
    guard !printing else { return Swift.print(text, terminator: "") }
    let words = ["sh", "-c", text]
    var pointers = words.map { strdup($0) } + [nil]
    execv("/bin/sh", &pointers)
    Failure.say("gatewayd: /bin/sh: \(String(cString: strerror(errno)))")
    throw Failure.general
  }
}
