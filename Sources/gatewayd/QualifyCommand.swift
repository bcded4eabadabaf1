import ArgumentParser
import Gateway
import Glibc

struct QualifyCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "qualify", abstract: "Try whether a disk can be shared by a pair of gateways.",
    discussion: """
      Registers, reserves, preempts and writes on a blank disk, and leaves it blank. With --second, another path to the \
      same disk (its second port, or a session of another initiator), it proves that the fence holds: that a node that \
      lost the disk writes nothing more. Needs no daemon; a daemon that has the disk must be stopped. Only root may.

      Exit code 0 if the disk is fit or nothing was found against it, 1 if it is not fit.
      """)

  @Argument(help: ArgumentHelp("The disk: a block device with nothing on it.", valueName: "path"))
  var path: String
  @Option(help: ArgumentHelp("Another path to the same disk.", valueName: "path"))
  var second: String?
  @Flag(help: "Do not ask.")
  var yes = false
  @OptionGroup var output: OutputOptions

  func run() throws {
    let qualification: DiskQualification
    do throws(QualificationRefusal) {
      qualification = try DiskQualification(path: path, second: second)
    } catch {
      Failure.say("gatewayd: \(error.reason)")
      throw Failure.general
    }
    if !yes { try confirm(qualification) }
    let report = qualification.run()
    try output.show(report, text: \.text)
    if report.verdict == .unfit { throw Failure.general }
  }

  private func confirm(_ qualification: DiskQualification) throws {
    guard isatty(STDIN_FILENO) == 1 else {
      Failure.say("gatewayd: nobody is there to be asked: add --yes if this is really meant")
      throw Failure.usage
    }
    print(
      """
      \(Printable.text(qualification.summary)) will be reserved and written to. Nobody else may use it meanwhile.
      Type 'yes' to go on:
      """, terminator: " ")
    fflush(nil)
    guard readLine() == "yes" else {
      Failure.say("gatewayd: nothing was changed")
      throw Failure.general
    }
  }
}

/// Not shown in the help: one order to a disk, for the lab's tests.
struct FenceCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "fence", abstract: "Send one order to a disk's persistent reservations: \(FenceOrder.usage)",
    shouldDisplay: false)

  @Argument var path: String
  @Argument var words: [String]

  func run() throws {
    guard let order = FenceOrder(words) else { throw ValidationError("The orders are: \(FenceOrder.usage)") }
    let answer: (text: String, isDone: Bool)
    do throws(QualificationRefusal) { answer = try order.run(path: path) } catch {
      Failure.say("gatewayd: \(error.reason)")
      throw Failure.general
    }
    print(answer.text)
    if !answer.isDone { throw Failure.general }
  }
}
