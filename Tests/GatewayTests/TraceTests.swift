import ISCSI
import TestSupport
import Testing

@testable import Gateway

@Suite("Traces of connections")
struct TraceTests {
  private func names(_ trace: ConnectionTrace) -> [String] { trace.entries.map { $0.event.words(nil).0 } }

  @Test("The first sixteen events stay, then the last forty-eight, and how many are between is known")
  func bounds() {
    var trace = ConnectionTrace()
    trace.add(.accepted, at: 1)
    for number in 0..<200 as Range<UInt32> {
      trace.add(.taskManagementAnswered(.functionComplete, tag: number), at: UInt64(number) + 2)
    }
    let tags = trace.entries.compactMap { entry -> UInt32? in
      if case .taskManagementAnswered(_, let tag) = entry.event { tag } else { nil }
    }
    #expect(tags == Array(0..<15) + Array(152..<200) && trace.forgotten == 201 - 64)
    #expect(names(trace).first == "accepted")
  }

  @Test("Keep-alives that follow each other are one event, wherever the trace is")
  func keepAlives() {
    for before in [0, 1, 15, 16, 17, 64, 100] {
      var trace = ConnectionTrace()
      for _ in 0..<before { trace.add(.rejected(.snackReject), at: 1) }
      for at in 2...1000 as ClosedRange<UInt64> { trace.add(.keepAlive(count: 1), at: at) }
      trace.add(.keepAliveMissed, at: 2000)
      let last = trace.entries.suffix(2)
      #expect(last.map { $0.event.words(nil).0 } == ["keep-alive", "keep-alive-missed"])
      #expect(last.first?.at == 1000 && last.first?.event.words(nil).1 == "999 in a row, the last one at this time")
      #expect(trace.entries.count + trace.forgotten == before + 2)
    }
  }

  @Test("Who knocks at the door, or asks for discovery, pushes out no session")
  func ended() {
    var traces = EndedTraces()
    func subject(_ tsih: UInt16, isDiscovery: Bool = false) -> TraceSubject {
      TraceSubject(
        tsih: tsih, isDiscovery: isDiscovery, initiator: nil, peer: "p", portal: "q", transport: "tcp", parameters: nil)
    }
    traces.add(subject(7), ConnectionTrace())
    for _ in 0..<1000 { traces.add(subject(0), ConnectionTrace()) }
    for tsih in 300..<400 as Range<UInt16> { traces.add(subject(tsih, isDiscovery: true), ConnectionTrace()) }
    #expect(traces.sessions.map(\.subject.tsih) == [7] && traces.others.count == EndedTraces.countMax)
    for tsih in 100..<200 as Range<UInt16> { traces.add(subject(tsih), ConnectionTrace()) }
    #expect(traces.sessions.map(\.subject.tsih) == Array(168..<200))
  }

  @Test("What comes from a peer is made printable")
  func printable() {
    var trace = ConnectionTrace()
    trace.add(.ended(.reset, "\u{1b}[2J\n"), at: 1)
    let subject = TraceSubject(
      tsih: 0, isDiscovery: false, initiator: "iqn.\u{1b}x", peer: "p", portal: "q", transport: "tcp", parameters: nil)
    let text = TraceReport.text([TraceReport(subject, trace, isOpen: false, TraceClock())])
    #expect(!text.contains("\u{1b}") && text.contains("reset: \\u{1b}[2J\\n") && text.split(separator: "\n").count == 2)
    #expect(TraceReport.text([]) == "Nothing is known of it.\n")
  }

  @Test("Every event has a family, known ones one each, and sense codes are bounded")
  func families() {
    let events: [CountedEvent] = [
      .connectionRefused(.network), .connectionEnded(.logout), .loginRefused(.notFound), .protocolError(.opcode),
      .headerDigestError, .dataDigestError, .rejected(.protocolError), .outsideWindow,
      .checkCondition(.illegalRequest, 0x2000), .status(.busy), .taskManagement(nil, .functionRejected),
      .commandAborted,
      .noBuffer(.waited), .keepAliveSent, .keepAliveMissed, .diskDeadline, .dataDeadline, .http(200),
    ]
    for event in events + EventFamily.all.flatMap(\.known) {
      #expect(EventFamily.all.count { $0.labels(event) != nil } == 1, "\(event)")
    }
    var counts = EventCounts()
    for code in 0..<1000 as Range<UInt16> { counts.add(.checkCondition(.illegalRequest, code)) }
    #expect(counts.counts.count == 65 && counts[.checkCondition(.illegalRequest, 0xFFFF)] == 936)
    #expect(
      TaskManagementFunction.clearACA.name == "clear_aca" && TaskManagementFunction.abortTask.name == "abort_task")
  }
}
