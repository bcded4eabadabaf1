import CSystem
import Glibc
import Storage

/// The steps of a qualification, in order; the first that fails is the last.
final class QualificationProof {
  /// What a step came to.
  private enum Outcome {
    case passed(String)
    case noted(String)
  }

  /// What was not as it must be.
  private struct Wrong: Error {
    var what: String
    init(_ what: String) { self.what = what }
  }

  /// Keys of a qualification: of no cluster, so that a gateway that meets one knows it for foreign.
  private let firstKey: UInt64 = 0x7175_616C_0000_0001
  private let secondKey: UInt64 = 0x7175_616C_0000_0002
  private let thirdKey: UInt64 = 0x7175_616C_0000_0003
  private let strangeKey: UInt64 = 0x7175_616C_0000_00FF

  private let one: Disk
  private let fence: Fence
  private let other: (disk: Disk, fence: Fence)?
  private let wwid: String
  private var steps: [QualificationReport.Step] = []

  /// Where is written: what would be the label area.
  private let place: UInt64

  init(_ qualification: DiskQualification) {
    one = qualification.first
    fence = qualification.firstFence
    wwid = qualification.wwid
    place = LabelArea.start(diskBytes: qualification.first.byteCount)
    if let disk = qualification.second, let fence = qualification.secondFence {
      other = (disk, fence)
    } else {
      other = nil
    }
  }

  func run() -> QualificationReport {
    var isWhole = tryAlone()
    if let other {
      isWhole = isWhole && tryBoth(other.disk, other.fence)
    } else {
      for name in ["an unregistered path cannot write", "PREEMPT AND ABORT ends accepted writes"] {
        steps.append(.init(name: name, result: .skipped, detail: "needs --second"))
      }
    }
    cleanUp()
    let failed = steps.first { $0.result == .failed }
    let verdict: QualificationReport.Verdict = failed != nil || !isWhole ? .unfit : other == nil ? .unproven : .fit
    let reason =
      switch verdict {
      case .fit: "a pair can share this disk"
      case .unproven:
        "nothing is wrong, but only a second path (--second PATH) shows that the fence holds"
      case .unfit: failed.map { "\($0.name): \($0.detail)" } ?? "not everything could be tried"
      }
    return QualificationReport(
      path: one.path, secondPath: other?.disk.path, wwid: wwid, route: fence.routeName, steps: steps,
      verdict: verdict, reason: reason)
  }

  // MARK: - Steps

  private func tryAlone() -> Bool {
    step("capabilities") { [self] in
      let can = try order(fence) { fence throws(FenceFailure) in try fence.readCapabilities() }
      return .passed("Write Exclusive - Registrants Only; \(can.canPersist ? "outlives power loss" : "")")
    }
      && step("REGISTER AND IGNORE EXISTING KEY") { [self] in
        try register(fence, firstKey)
        try expect([firstKey])
        return .passed("the key is there")
      }
      && step("registering again replaces the key") { [self] in
        try register(fence, thirdKey)
        try expect([thirdKey])
        try register(fence, firstKey)
        return .passed("one registration")
      }
      && step("RESERVE") { [self] in
        try reserve(fence, firstKey)
        try expect([firstKey], holder: firstKey)
        return .passed("Write Exclusive - Registrants Only")
      }
      && step("registrations are kept through power loss") { [self] in
        let can = try order(fence) { fence throws(FenceFailure) in try fence.readCapabilities() }
        guard can.persists else { throw Wrong("the disk does not say so (PTPL_A is 0)") }
        return .passed("the disk says so (PTPL_A); only pulling its plug proves it")
      }
      && step("the holder writes") { [self] in
        try write(one)
        return .passed("")
      }
      && step("PREEMPT of a key that is not there is refused") { [self] in
        try refused { [self] () throws(FenceFailure) in try fence.preempt(own: firstKey, victim: strangeKey) }
        try expect([firstKey], holder: firstKey)
        return .passed("RESERVATION CONFLICT")
      }
  }

  private func tryBoth(_ disk: Disk, _ second: Fence) -> Bool {
    step("both paths are one disk") { [self] in
      try expect([firstKey], holder: firstKey, by: second)
      return .passed("the other path shows the same keys")
    }
      && step("an unregistered path cannot write") { [self] in
        try expectConflict(disk)
        return .passed("RESERVATION CONFLICT (EBADE)")
      }
      && step("an unregistered path cannot preempt") { [self] in
        try refused { [self] () throws(FenceFailure) in try second.preempt(own: secondKey, victim: firstKey) }
        return .passed("RESERVATION CONFLICT")
      }
      && step("the other registers, and writes") { [self] in
        try register(second, secondKey)
        try expect([firstKey, secondKey], holder: firstKey, by: second)
        try write(disk)
        return .passed("registrants only")
      }
      && preemptUnderLoad(disk, second)
      && step("the preempted path cannot write") { [self] in
        try expectConflict(one)
        return .passed("RESERVATION CONFLICT (EBADE)")
      }
      && step("the preempted path cannot preempt back") { [self] in
        try refused { [self] () throws(FenceFailure) in try fence.preempt(own: firstKey, victim: secondKey) }
        try expect([secondKey], holder: secondKey, by: second)
        return .passed("RESERVATION CONFLICT")
      }
      && attention(second)
  }

  /// Writers on the first path keep the disk's queue full; once PREEMPT AND ABORT has been answered nothing of theirs may
  /// change the disk, and what was acknowledged to them must be there.
  private func preemptUnderLoad(_ disk: Disk, _ second: Fence) -> Bool {
    let writes = StampedWrites(one, at: place)
    let isWriting = step("writes under way") {
      guard writes.start() else { throw Wrong("no threads to write with") }
      guard writes.wait(untilAcknowledged: 4, Deadline(seconds: 30)) else { throw Wrong("the disk is too slow") }
      return .passed("\(StampedWrites.writers) at a time, of \(StampedWrites.bytesEach >> 10) KiB")
    }
    guard isWriting else {
      _ = writes.finish(Deadline(seconds: 30))
      return false
    }
    let isPreempted = step("PREEMPT AND ABORT") { [self] in
      try order(second) { [self] fence throws(FenceFailure) in try fence.preempt(own: secondKey, victim: firstKey) }
      return .passed("in the midst of writes")
    }
    let before = StampedWrites.read(disk, at: place)
    let ended = writes.finish(Deadline(seconds: 60), stops: !isPreempted)
    return isPreempted
      && step("PREEMPT AND ABORT ends accepted writes", isTimed: false) { [self] in
        guard let ended else { throw Wrong("the writers did not end within 60 s") }
        usleep(1_000_000)
        guard let before, let after = StampedWrites.read(disk, at: place) else { throw Wrong("cannot be read") }
        guard before == after else { throw Wrong("a write took effect after it") }
        guard zip(ended, after).allSatisfy({ outcome, found in found.allSatisfy { $0 >= outcome.acknowledged } })
        else { throw Wrong("an acknowledged write is not there") }
        guard ended.allSatisfy({ $0.code == EBADE }) else {
          let code = ended.first { $0.code != EBADE }!.code
          throw Wrong("a writer was ended by: \(SystemError.text(code))")
        }
        try expect([secondKey], holder: secondKey, by: second)
        return .passed("none took effect after it, none that was acknowledged is lost")
      }
  }

  /// Whether the victim is told by a unit attention. Nothing depends on it: the kernel's own commands may take it first.
  private func attention(_ second: Fence) -> Bool {
    step("a preempted path is told") { [self] in
      try register(fence, thirdKey)
      try order(second) { [self] fence throws(FenceFailure) in try fence.preempt(own: secondKey, victim: thirdKey) }
      do throws(FenceFailure) {
        _ = try fence.readKeys()
      } catch {
        guard error == .disturbed else { throw Wrong(Self.words(error)) }
        return .noted("by a unit attention")
      }
      return .noted("not by a unit attention, or the kernel took it")
    }
  }

  private func cleanUp() {
    _ = step("back to nothing") { [self] in
      var cleaner = (disk: one, fence: fence)
      if let other {
        cleaner = other
        // Whoever is registered can take every other key of ours.
        try register(other.fence, secondKey)
        for key in [firstKey, thirdKey] where try state(other.fence).keys.contains(key) {
          try order(other.fence) { [self] fence throws(FenceFailure) in try fence.preempt(own: secondKey, victim: key) }
        }
      } else {
        try register(fence, firstKey)
      }
      let code = LabelStore.zero(fd: cleaner.disk.descriptor!, offset: place, count: StampedWrites.byteCount)
      guard code == 0 else { throw Wrong("cannot be cleared: \(SystemError.text(-code))") }
      let key = other == nil ? firstKey : secondKey
      try order(cleaner.fence) { fence throws(FenceFailure) in try fence.unregister(key) }
      try expect([], by: cleaner.fence)
      return .passed("no registrations, and zeroes where was written")
    }
  }

  // MARK: - Words and checks

  private func step(_ name: String, isTimed: Bool = true, _ body: () throws -> Outcome) -> Bool {
    let begin = system_monotonic_ns()
    var result = QualificationReport.Step(name: name, result: .failed, detail: "")
    do {
      switch try body() {
      case .passed(let detail): (result.result, result.detail) = (.passed, detail)
      case .noted(let detail): (result.result, result.detail) = (.noted, detail)
      }
    } catch let wrong as Wrong {
      result.detail = wrong.what
    } catch {
      result.detail = "\(error)"
    }
    if isTimed { result.milliseconds = Double(system_monotonic_ns() - begin) / 1e6 }
    steps.append(result)
    return result.result != .failed
  }

  private func order<Value>(_ fence: Fence, _ body: (Fence) throws(FenceFailure) -> Value) throws(Wrong) -> Value {
    do throws(FenceFailure) {
      return try Fence.patiently { () throws(FenceFailure) in try body(fence) }
    } catch { throw Wrong(Self.words(error)) }
  }

  private func register(_ fence: Fence, _ key: UInt64) throws(Wrong) {
    try order(fence) { fence throws(FenceFailure) in try fence.register(key) }
  }

  private func reserve(_ fence: Fence, _ key: UInt64) throws(Wrong) {
    try order(fence) { fence throws(FenceFailure) in try fence.reserve(key) }
  }

  private func state(_ fence: Fence) throws(Wrong) -> FenceState {
    try order(fence) { fence throws(FenceFailure) in try fence.readState() }
  }

  private func refused(_ body: () throws(FenceFailure) -> Void) throws(Wrong) {
    do throws(FenceFailure) {
      try Fence.patiently(body)
    } catch {
      guard error == .conflict else { throw Wrong(Self.words(error)) }
      return
    }
    throw Wrong("it was done")
  }

  private func expect(_ keys: [UInt64], holder: UInt64? = nil, by fence: Fence? = nil) throws(Wrong) {
    let found = try state(fence ?? self.fence)
    guard Set(found.keys) == Set(keys), found.holder == holder, holder == nil || found.isOurType else {
      let text = found.keys.map { String($0, radix: 16) }.joined(separator: " ")
      throw Wrong("keys are [\(text)], the holder \(found.holder.map { String($0, radix: 16) } ?? "nobody")")
    }
  }

  private func write(_ disk: Disk) throws(Wrong) {
    let code = StampedIO.write(disk, byte: 1, at: place)
    guard code == 0 else { throw Wrong("its write ended with: \(SystemError.text(code))") }
  }

  private func expectConflict(_ disk: Disk) throws(Wrong) {
    let code = StampedIO.write(disk, byte: 2, at: place)
    guard code == EBADE else { throw Wrong("its write ended with: \(code == 0 ? "success" : SystemError.text(code))") }
  }

  private static func words(_ failure: FenceFailure) -> String {
    switch failure {
    case .conflict: "RESERVATION CONFLICT"
    case .disturbed: "unit attentions without end"
    case .timedOut: "no answer in time"
    case .failed(let code): SystemError.text(code)
    }
  }
}
