import CFuzzer
import Glibc

/// One parser under the fuzzer: takes any bytes and must neither trap nor grow.
typealias FuzzTarget = @Sendable (UnsafeRawBufferPointer) -> Void

/// By the names of `./dev fuzz`. A row here, a directory in corpus/, and it is run.
let targets: [(name: String, run: FuzzTarget)] = [
  ("text", fuzzText),
  ("login", fuzzLogin),
  ("commands", fuzzCommands),
  ("record", fuzzRecord),
  ("settings", fuzzSettings),
  ("toml", fuzzTOML),
  ("control", fuzzControl),
  ("messages", fuzzMessages),
  ("http", fuzzHTTP),
  ("label", fuzzLabel),
  ("reservations", fuzzReservations),
  ("stream", fuzzStream),
  ("iser", fuzzISER),
  ("mover", fuzzMover),
  ("heartbeat", fuzzHeartbeat),
]

/// `Fuzz TARGET [libFuzzer's options and corpus directories]`, or `Fuzz --list`.
@main
enum Fuzz {
  /// Set once before the driver starts; libFuzzer's callback is a C function and carries nothing.
  nonisolated(unsafe) static var target: FuzzTarget = { _ in }

  static func main() {
    let name = CommandLine.arguments.dropFirst().first ?? ""
    if name == "--list" {
      for target in targets { print(target.name) }
      return
    }
    guard let found = targets.first(where: { $0.name == name }) else {
      print("targets: \(targets.map(\.name).joined(separator: " "))")
      exit(2)
    }
    target = found.run
    // The driver must not see the target's name: it takes bare words for corpus directories.
    let words = [CommandLine.arguments[0]] + CommandLine.arguments.dropFirst(2)
    var pointers: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
    var count = Int32(words.count)
    let status = pointers.withUnsafeMutableBufferPointer { buffer in
      var argv = buffer.baseAddress
      return LLVMFuzzerRunDriver(&count, &argv) { data, size in
        Fuzz.target(UnsafeRawBufferPointer(start: data, count: size))
        return 0
      }
    }
    exit(status)
  }
}
