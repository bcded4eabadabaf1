/// The Prometheus text exposition format, version 0.0.4: what node_exporter's textfile collector reads, and an HTTP endpoint
/// would send as `text/plain; version=0.0.4`. Names are those that OpenMetrics wants: base units, `_total` for counters.
struct MetricsText: Sendable {
  enum Kind: String, Sendable {
    case counter
    case gauge
    case histogram
  }

  /// One value of a family, with the labels that tell it from the others.
  struct Sample: Sendable {
    var labels: KeyValuePairs<String, String>
    var value: String

    init(_ value: UInt64, _ labels: KeyValuePairs<String, String> = [:]) {
      self.labels = labels
      self.value = "\(value)"
    }

    init(_ value: Int, _ labels: KeyValuePairs<String, String> = [:]) {
      self.labels = labels
      self.value = "\(value)"
    }

    init(seconds: Double, _ labels: KeyValuePairs<String, String> = [:]) {
      self.labels = labels
      value = "\(seconds)"
    }

    /// By its labels.
    var order: String { labels.map(\.value).joined(separator: " ") }

    init(_ isTrue: Bool, _ labels: KeyValuePairs<String, String> = [:]) {
      self.labels = labels
      value = isTrue ? "1" : "0"
    }
  }

  private(set) var text = ""

  /// A family and its values; one without values is left out.
  mutating func add(_ name: String, _ kind: Kind, _ help: String, _ samples: [Sample]) {
    guard !samples.isEmpty else { return }
    text += "# HELP \(name) \(Self.escape(help, quotes: false))\n# TYPE \(name) \(kind.rawValue)\n"
    for sample in samples {
      let labels = sample.labels.map { "\($0.key)=\"\(Self.escape($0.value, quotes: true))\"" }
      text += name + (labels.isEmpty ? "" : "{\(labels.joined(separator: ","))}") + " \(sample.value)\n"
    }
  }

  /// Histograms of one family, in seconds. Each bucket has all of those before it in it, and is twice as wide.
  mutating func add(_ name: String, _ help: String, _ histograms: [(labels: [(String, String)], LatencyHistogram)]) {
    guard !histograms.isEmpty else { return }
    text += "# HELP \(name) \(Self.escape(help, quotes: false))\n# TYPE \(name) \(Kind.histogram.rawValue)\n"
    for (labels, histogram) in histograms {
      let labels = labels.map { "\($0.0)=\"\(Self.escape($0.1, quotes: true))\"" }.joined(separator: ",")
      for exponent in Self.histogramExponents {
        let end = Double(UInt64(1) << UInt64(exponent)) / 1e9
        text += "\(name)_bucket{\(labels),le=\"\(end)\"} \(histogram.count(within: exponent))\n"
      }
      text += "\(name)_bucket{\(labels),le=\"+Inf\"} \(histogram.count)\n"
      text += "\(name)_sum{\(labels)} \(Double(histogram.sumNs) / 1e9)\n"
      text += "\(name)_count{\(labels)} \(histogram.count)\n"
    }
  }

  /// Buckets end at 2^13 ns (8 us) to 2^34 ns (17 s).
  static let histogramExponents = 13...34

  /// One of several states: a value for each, and 1 for the one that is.
  mutating func add(_ name: String, states: [String], label: String, now: String?, _ help: String) {
    add(name, .gauge, help, states.map { Sample($0 == now, [label: $0]) })
  }

  static func escape(_ text: String, quotes: Bool) -> String {
    var escaped = ""
    for character in text.unicodeScalars {
      switch character {
      case "\\": escaped += "\\\\"
      case "\n": escaped += "\\n"
      case "\"" where quotes: escaped += "\\\""
      default: escaped.unicodeScalars.append(character)
      }
    }
    return escaped
  }
}
