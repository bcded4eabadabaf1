/// What an operator can ask of the pair. In JSON `"switchover"`, `"hold"`, `"resume"`, `"force"` or `"forget UUID"`.
public enum PairOperation: Codable, Sendable, Equatable {
  /// The other node takes over now, in good order.
  case switchover
  /// No takeovers by themselves, until `resume`.
  case hold
  case resume
  /// A node is gone for good: it is taken out of the labels, so that another may take its place.
  case forget(node: String)
  /// This node takes over with the arbiters that it can reach, though they are no majority.
  case force

  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    let words = try container.decode(String.self).split(separator: " ")
    switch (words.first, words.count) {
    case ("switchover", 1): self = .switchover
    case ("hold", 1): self = .hold
    case ("resume", 1): self = .resume
    case ("force", 1): self = .force
    case ("forget", 2): self = .forget(node: String(words[1]))
    default: throw DecodingError.dataCorruptedError(in: container, debugDescription: "no operation of the pair")
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    switch self {
    case .switchover: try container.encode("switchover")
    case .hold: try container.encode("hold")
    case .resume: try container.encode("resume")
    case .force: try container.encode("force")
    case .forget(let node): try container.encode("forget \(node)")
    }
  }
}
