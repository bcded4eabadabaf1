import Glibc
import PairWorld
import Testing

/// The main journeys of a pair, compared with what is written down in `transcripts`: a change of behaviour is a change of
/// those files, to be read as a diff. `GATEWAYD_WRITE_TRANSCRIPTS=1 swift test --filter TranscriptTests` writes them anew.
struct TranscriptTests {
  private static func path(_ journey: Journey) -> String {
    let directory = #filePath.split(separator: "/").dropLast().joined(separator: "/")
    return "/\(directory)/transcripts/\(journey.rawValue).txt"
  }

  @Test(arguments: Journey.allCases)
  func journey(_ journey: Journey) throws {
    let told = journey.transcript().joined(separator: "\n") + "\n"
    let path = Self.path(journey)
    if getenv("GATEWAYD_WRITE_TRANSCRIPTS") != nil { try #require(write(told, to: path)) }
    #expect(read(path) == told, "\(path) tells it otherwise")
  }

  private func read(_ path: String) -> String? {
    guard let file = fopen(path, "r") else { return nil }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 1 << 20)
    let count = fread(&bytes, 1, bytes.count, file)
    return String(decoding: bytes[..<count], as: UTF8.self)
  }

  private func write(_ text: String, to path: String) -> Bool {
    guard let file = fopen(path, "w") else { return false }
    defer { fclose(file) }
    return fputs(text, file) >= 0
  }
}
