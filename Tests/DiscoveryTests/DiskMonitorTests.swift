import Glibc
import Synchronization
import Testing

@testable import Discovery

/// Collects events of one device; waits for what is expected with a deadline.
private final class Recorder: Sendable {
  private let all = Mutex<[DiskEvent]>([])

  func record(_ event: DiskEvent) { all.withLock { $0.append(event) } }

  func events(of name: String) -> [DiskEvent] {
    all.withLock { events in
      events.filter {
        switch $0 {
        case .appeared(let disk), .changed(let disk): disk.name == name
        case .vanished(let vanished, _): vanished == name
        case .enumerated: false
        }
      }
    }
  }

  func hasVanished(_ name: String) -> Bool {
    events(of: name).contains { if case .vanished = $0 { true } else { false } }
  }

  func hasAppearedBeforeEnd(_ name: String) -> Bool {
    all.withLock { events in
      events.prefix { $0 != .enumerated }.contains {
        if case .appeared(let disk) = $0 { disk.name == name } else { false }
      }
    }
  }

  var isEnumerated: Bool { all.withLock { $0.contains(.enumerated) } }

  func wait(_ condition: (Recorder) -> Bool) -> Bool {
    for _ in 0..<500 {
      if condition(self) { return true }
      usleep(10000)
    }
    return false
  }
}

extension MachineTests {
  @Suite("The monitor")
  struct DiskMonitorTests {
    @Test("Attached, grown, detached: appeared, changed, vanished, in that order")
    func life() throws {
      let recorder = Recorder()
      let monitor = DiskMonitor(policy: DiscoveryPolicy()) { recorder.record($0) }
      try monitor.start()
      defer { monitor.stop() }
      #expect(recorder.wait { $0.isEnumerated })
      let loop = try #require(LoopDevice())
      let name = loop.name
      #expect(recorder.wait { !$0.events(of: name).isEmpty })
      loop.grow(to: 64 << 20)
      #expect(recorder.wait { $0.events(of: name).count >= 2 })
      loop.detach()
      #expect(recorder.wait { $0.hasVanished(name) })
      let events = recorder.events(of: name)
      guard case .appeared(let small) = events.first, case .changed = events[1],
        case .vanished(_, let last) = events.last
      else {
        Issue.record("\(events)")
        return
      }
      #expect(small.bytes == 32 << 20 && last.bytes == 64 << 20)
    }

    @Test("A disk that was there before is told before the enumeration's end")
    func enumeration() throws {
      let loop = try #require(LoopDevice())
      let recorder = Recorder()
      let monitor = DiskMonitor(policy: DiscoveryPolicy()) { recorder.record($0) }
      #expect(monitor.enumerate().contains { $0.name == loop.name })
      try monitor.start()
      #expect(recorder.wait { $0.isEnumerated })
      #expect(recorder.hasAppearedBeforeEnd(loop.name))
      monitor.stop()
      let count = recorder.events(of: loop.name).count
      loop.grow(to: 64 << 20)
      usleep(100_000)
      #expect(recorder.events(of: loop.name).count == count, "nothing is told after stop")
    }

    @Test("Events lost to a full socket are made good by a new enumeration")
    func overrun() throws {
      let loop = try #require(LoopDevice())
      let other = try #require(LoopDevice())
      let recorder = Recorder()
      let gate = Mutex<Bool>(false)
      var policy = DiscoveryPolicy()
      policy.receiveBufferBytes = 4096
      let monitor = DiskMonitor(policy: policy) { event in
        recorder.record(event)
        // Holds the thread at the enumeration's end, until the socket has run over.
        while event == .enumerated && !gate.withLock({ $0 }) { usleep(1000) }
      }
      try monitor.start()
      defer { monitor.stop() }
      #expect(recorder.wait { $0.isEnumerated })
      // A flood about another device; then the loop's detachment finds no room.
      let uevent = open("/sys/class/block/\(other.name)/uevent", O_WRONLY | O_CLOEXEC)
      for _ in 0..<200 { _ = "change".withCString { write(uevent, $0, 6) } }
      close(uevent)
      loop.detach()
      gate.withLock { $0 = true }
      #expect(recorder.wait { $0.hasVanished(loop.name) })
    }

    @Test("It stops at once, from its own handler too, and starts again")
    func stopping() throws {
      let recorder = Recorder()
      let own = Mutex<DiskMonitor?>(nil)
      let monitor = DiskMonitor(policy: DiscoveryPolicy()) { event in
        recorder.record(event)
        if event == .enumerated { own.withLock { $0 }?.stop() }
      }
      monitor.stop()
      own.withLock { $0 = monitor }
      try monitor.start()
      #expect(recorder.wait { $0.isEnumerated })
      own.withLock { $0 = nil }
      monitor.stop()
      for _ in 0..<20 {
        try monitor.start()
        #expect(throws: DiscoveryError(.alreadyStarted, errno: EALREADY)) { try monitor.start() }
        monitor.stop()
      }
    }

    @Test("Nothing happens: it does not wake")
    func idle() throws {
      let recorder = Recorder()
      let thread = Mutex<Int>(0)
      let monitor = DiskMonitor(policy: DiscoveryPolicy()) { event in
        recorder.record(event)
        thread.withLock { $0 = Int(threadNumber()) }
      }
      try monitor.start()
      defer { monitor.stop() }
      #expect(recorder.wait { $0.isEnumerated })
      usleep(100_000)
      func switches() -> String? {
        KernelText.text(of: "/proc/self/task/\(thread.withLock { $0 })/status", limit: 8192)?
          .split(separator: "\n").first { $0.hasPrefix("voluntary") }.map(String.init)
      }
      // Where udevd runs, it may still be telling what earlier tests did: one quiet while is enough.
      let isQuiet = (0..<20).contains { _ in
        let before = switches()
        usleep(150_000)
        return before != nil && switches() == before
      }
      #expect(isQuiet)
    }
  }

}

/// This thread's number in /proc/self/task.
private func threadNumber() -> Int {
  // "PID/task/TID"
  KernelText.link("/proc/thread-self").flatMap { $0.split(separator: "/").last.flatMap { Int($0) } } ?? 0
}
