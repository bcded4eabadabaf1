/// What `gatewayd disks qualify` found out.
public struct QualificationReport: Codable, Sendable, Equatable {
  public enum Verdict: String, Codable, Sendable {
    /// Everything that a pair needs was seen.
    case fit
    /// Nothing is wrong, but not all could be tried with one path.
    case unproven
    case unfit
  }

  /// One thing that was tried.
  public struct Step: Codable, Sendable, Equatable {
    public enum Result: String, Codable, Sendable {
      case passed, failed
      /// Worth knowing, and nothing depends on it.
      case noted
      case skipped
    }

    public var name: String
    public var result: Result
    public var detail: String
    /// nil: nothing was timed.
    public var milliseconds: Double?

    public init(name: String, result: Result, detail: String, milliseconds: Double? = nil) {
      self.name = name
      self.result = result
      self.detail = detail
      self.milliseconds = milliseconds
    }
  }

  public var path: String
  public var secondPath: String?
  /// World-wide name, by which the arbiters of a pair are ordered; empty: the disk has none.
  public var wwid: String
  /// How it takes reservation commands: "SCSI", "NVMe", "multipath over SCSI".
  public var route: String
  public var steps: [Step]
  public var verdict: Verdict
  public var reason: String

  public var text: String {
    var table = TextTable(["STEP", "RESULT", "MS", "DETAIL"], numbers: [2])
    for step in steps {
      table.add([step.name, step.result.rawValue, step.milliseconds.map(Self.milliseconds) ?? "-", step.detail])
    }
    let paths = secondPath.map { "\(path) and \($0)" } ?? path
    return Printable.text("\(paths): \(wwid.isEmpty ? "no world-wide name" : wwid), \(route)") + "\n" + table.text
      + Printable.text("\(verdict.rawValue.uppercased()): \(reason)") + "\n"
  }

  /// With two decimals.
  private static func milliseconds(_ value: Double) -> String {
    let hundredths = Int((value * 100).rounded())
    let rest = hundredths % 100
    return "\(hundredths / 100).\(rest < 10 ? "0" : "")\(rest)"
  }
}

/// Why a disk is not tried; for a person.
public struct QualificationRefusal: Error, Sendable, Equatable {
  public var reason: String
  public init(_ reason: String) { self.reason = reason }
}
