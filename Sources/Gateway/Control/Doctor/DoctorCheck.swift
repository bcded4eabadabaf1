/// One thing that `gatewayd doctor` looked at.
public struct DoctorCheck: Codable, Sendable, Equatable {
  public enum Outcome: String, Codable, Sendable {
    case fine
    /// Worth knowing; nothing is broken.
    case note
    /// Something that keeps the gateway from working, or from working well.
    case problem
  }

  public var name: String
  public var outcome: Outcome
  /// What was found, for a person.
  public var finding: String
  /// What to do or to type; nil: nothing.
  public var advice: String?

  public init(_ name: String, _ outcome: Outcome, _ finding: String, advice: String? = nil) {
    self.name = name
    self.outcome = outcome
    self.finding = finding
    self.advice = advice
  }
}

/// What `gatewayd doctor` tells.
public struct DoctorReport: Codable, Sendable, Equatable {
  public var checks: [DoctorCheck]
  /// One for each kind of initiator; empty: no daemon answers, so there is no name to log in to.
  public var initiators: [InitiatorGuide]

  public init(checks: [DoctorCheck], initiators: [InitiatorGuide]) {
    self.checks = checks
    self.initiators = initiators
  }

  public var hasProblems: Bool { checks.contains { $0.outcome == .problem } }

  /// - Parameter isColoured: Whether the marks are coloured, for a terminal.
  public func text(isColoured: Bool) -> String {
    let width = checks.map(\.name.count).max() ?? 0
    var text = ""
    for check in checks {
      let name = check.name + String(repeating: " ", count: width - check.name.count)
      text += "\(check.outcome.mark(isColoured: isColoured)) \(name)  \(Printable.text(check.finding))\n"
      for line in (check.advice ?? "").split(separator: "\n") {
        text += String(repeating: " ", count: 10 + width) + "-> \(Printable.text(String(line)))\n"
      }
    }
    if !initiators.isEmpty {
      let kinds = initiators.map(\.kind.rawValue).joined(separator: "|")
      text +=
        "\nSettings for initiators, ready to paste, and how long they wait: gatewayd doctor --initiator \(kinds)\n"
    }
    let problems = checks.filter { $0.outcome == .problem }.count
    return text + (problems == 0 ? "\nNo problems.\n" : "\n\(problems) problem\(problems == 1 ? "" : "s").\n")
  }
}

extension DoctorCheck.Outcome {
  func mark(isColoured: Bool) -> String {
    let (word, colour) =
      switch self {
      case .fine: ("fine   ", 32)
      case .note: ("note   ", 33)
      case .problem: ("PROBLEM", 31)
      }
    return isColoured ? "\u{1B}[\(colour)m\(word)\u{1B}[0m" : word
  }
}
