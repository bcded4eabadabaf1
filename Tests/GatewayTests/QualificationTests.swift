import Glibc
import Storage
import Testing

@testable import Gateway

@Suite("Whether a disk can be shared")
struct QualificationTests {
  @Test("What is no whole block device is not tried, and it is said why")
  func refusals() throws {
    let disks = TemporaryDisks()
    let path = disks.disk("file")
    #expect(throws: QualificationRefusal("\(path) is not a whole block device")) { try DiskQualification(path: path) }
    #expect(throws: QualificationRefusal("/dev/null is not a whole block device")) {
      try DiskQualification(path: "/dev/null")
    }
    #expect(throws: QualificationRefusal("/no/such/disk: No such file or directory")) {
      try DiskQualification(path: "/no/such/disk")
    }
  }

  @Test("Writers number what they write, and what was acknowledged is there")
  func writers() throws {
    let disks = TemporaryDisks()
    let disk = try Disk.open(path: disks.disk("file"))
    let writes = StampedWrites(disk, at: 8 << 20)
    #expect(writes.start())
    #expect(writes.wait(untilAcknowledged: 3, Deadline(seconds: 20)))
    let outcomes = try #require(writes.finish(Deadline(seconds: 20)))
    let found = try #require(StampedWrites.read(disk, at: 8 << 20))
    #expect(outcomes.count == StampedWrites.writers && found.count == StampedWrites.writers)
    for (outcome, numbers) in zip(outcomes, found) {
      #expect(outcome.code == 0 && outcome.acknowledged >= 3)
      #expect(numbers == [outcome.acknowledged, outcome.acknowledged])
    }
  }

  @Test("A writer ends with the error that it meets")
  func error() throws {
    let disks = TemporaryDisks()
    let writes = StampedWrites(try Disk.open(path: disks.disk("file"), writable: false), at: 0)
    #expect(writes.start())
    let outcomes = try #require(writes.finish(Deadline(seconds: 20), stops: false))
    #expect(outcomes.allSatisfy { $0 == StampedWrites.Outcome(acknowledged: 0, code: EBADF, hasEnded: true) })
  }

  @Test("The report is a table with the time of each step, and the verdict below")
  func text() {
    let steps: [QualificationReport.Step] = [
      .init(name: "RESERVE", result: .passed, detail: "done", milliseconds: 1.005),
      .init(name: "proof", result: .skipped, detail: "needs --second"),
    ]
    let report = QualificationReport(
      path: "/dev/sdx", secondPath: nil, wwid: "naa.5", route: "SCSI", steps: steps, verdict: .unproven, reason: "half"
    )
    #expect(
      report.text == """
        /dev/sdx: naa.5, SCSI
        STEP     RESULT     MS  DETAIL
        RESERVE  passed   1.00  done
        proof    skipped     -  needs --second
        UNPROVEN: half

        """)
  }

  @Test("An order is a word and its keys; anything else is none")
  func orders() {
    for words in [["keys"], ["register", "0x67"], ["preempt", "1", "0xffffffffffffffff"], ["write", "0"]] {
      #expect(FenceOrder(words) != nil, "\(words)")
    }
    for words in [
      [], ["keys", "1"], ["register"], ["register", "0xg"], ["preempt", "1"], ["clear"], ["write", "-1"],
    ] {
      #expect(FenceOrder(words) == nil, "\(words)")
    }
  }
}
