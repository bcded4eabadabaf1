import Glibc
import Synchronization
import Testing

@testable import Discovery

private let millisecond: UInt64 = 1_000_000

@Suite("Bursts of events")
struct EventCoalescerTests {
  /// The instants, in ms, at which looks are taken when events come at the given ones.
  func looks(_ events: [UInt64], until end: UInt64 = 5000) -> [UInt64] {
    var coalescer = EventCoalescer()
    var looks: [UInt64] = []
    for now in 0...end {
      if events.contains(now) { coalescer.noteEvent(at: now * millisecond) }
      if coalescer.takeLook(at: now * millisecond) { looks.append(now) }
    }
    #expect(coalescer.deadline == nil, "nothing is due any more")
    return looks
  }

  @Test("Without an event nothing is ever due")
  func idle() { #expect(looks([]).isEmpty) }

  @Test("One event: a look after 50 ms of quiet, another one a second later, then none")
  func one() { #expect(looks([10]) == [60, 1060]) }

  @Test("A burst is one event")
  func burst() { #expect(looks([10, 20, 59, 100]) == [150, 1150]) }

  @Test("Events without end are looked at every 500 ms all the same")
  func flood() {
    let looks = looks(Array(stride(from: 0, through: 2000, by: 10)))
    #expect(looks.prefix(3) == [500, 1010, 1520])
  }

  @Test("Events before the second look move it, they do not add to it")
  func moved() { #expect(looks([0, 500]) == [50, 550, 1550]) }
}

/// A pipe in the place of the kernel.
private final class PipeSource: EventSource {
  let descriptor: Int32
  let drained: Shared<Int>

  init(_ descriptor: Int32, drained: Shared<Int>) {
    self.descriptor = descriptor
    self.drained = drained
  }

  func drain() {
    var bytes = [UInt8](repeating: 0, count: 4096)
    if read(descriptor, &bytes, bytes.count) > 0 { drained.value += 1 }
  }
}

/// A monitor over a made machine, whose events the test makes.
private final class Scene {
  let machine: RDMATree
  let told = Shared<[RDMAInventory]>([])
  let drained = Shared(0)
  let threadNumber = Shared("")
  let monitor: NICMonitor
  private let writer: Int32
  private let reading: Int32

  init(_ machine: RDMATree) {
    self.machine = machine
    var ends: [Int32] = [-1, -1]
    pipe(&ends)
    for end in ends { _ = fcntl(end, F_SETFL, O_NONBLOCK) }
    (reading, writer) = (ends[0], ends[1])
    let (told, drained, thread, end) = (told, drained, threadNumber, ends[0])
    monitor = NICMonitor(
      reader: machine.reader, sources: { [PipeSource(end, drained: drained)] },
      onChange: { inventory in
        thread.value = KernelText.link("/proc/thread-self") ?? ""
        told.value += [inventory]
      })
  }

  deinit {
    monitor.stop()
    close(reading)
    close(writer)
  }

  func event() { _ = "x".withCString { write(writer, $0, 1) } }

  func wait(_ count: Int) -> Bool {
    for _ in 0..<500 {
      if told.value.count >= count { return true }
      usleep(10000)
    }
    return false
  }
}

@Suite("The NIC monitor")
struct NICMonitorTests {
  @Test("The first inventory is told even if it is empty, then each that differs")
  func changes() throws {
    let scene = Scene(RDMATree())
    #expect(scene.monitor.inventory == RDMAInventory())
    try scene.monitor.start()
    #expect(scene.wait(1) && scene.told.value == [RDMAInventory()])
    let rxe = scene.machine
    rxe.addDevice("rxe0")
    scene.event()
    #expect(scene.wait(2))
    #expect(scene.monitor.inventory.devices.map(\.name) == ["rxe0"])
    // An event that changes nothing is nobody's news.
    scene.event()
    usleep(200_000)
    #expect(scene.told.value.count == 2)
    rxe.tree.write("sys/class/infiniband/rxe0/fw_ver", "2\n")
    scene.event()
    #expect(scene.wait(3) && scene.monitor.inventory.devices[0].firmware == "2")
  }

  @Test("A burst of a hundred events is told once, when it is over")
  func burst() throws {
    let scene = Scene(RDMATree.rxe())
    try scene.monitor.start()
    #expect(scene.wait(1))
    for number in 0..<100 {
      scene.machine.tree.write("sys/class/infiniband/rxe0/fw_ver", "\(number)\n")
      scene.event()
      usleep(1000)
    }
    #expect(scene.wait(2))
    usleep(100_000)
    #expect(scene.told.value.count <= 3 && scene.monitor.inventory.devices[0].firmware == "99")
  }

  @Test("What the kernel finishes without an event is seen by the second look")
  func secondLook() throws {
    let scene = Scene(RDMATree.rxe())
    try scene.monitor.start()
    #expect(scene.wait(1))
    scene.event()
    usleep(150_000)
    scene.machine.tree.write("sys/class/infiniband/rxe0/fw_ver", "late\n")
    #expect(scene.wait(2) && scene.monitor.inventory.devices[0].firmware == "late")
  }

  @Test("Nothing is told after it was stopped; started again it tells what there is")
  func stopping() throws {
    let scene = Scene(RDMATree.rxe())
    try scene.monitor.start()
    #expect(scene.wait(1))
    #expect(throws: DiscoveryError(.alreadyStarted, errno: EALREADY)) { try scene.monitor.start() }
    scene.monitor.stop()
    scene.machine.tree.write("sys/class/infiniband/rxe0/fw_ver", "unseen\n")
    scene.event()
    usleep(150_000)
    #expect(scene.told.value.count == 1)
    try scene.monitor.start()
    #expect(scene.wait(2) && scene.monitor.inventory.devices[0].firmware == "unseen")
    scene.monitor.stop()
    scene.monitor.stop()
  }

  @Test("Nothing happens: it does not wake")
  func idle() throws {
    let scene = Scene(RDMATree.rxe())
    try scene.monitor.start()
    #expect(scene.wait(1))
    // The two looks that follow the start.
    usleep(1_300_000)
    let thread = scene.threadNumber.value.split(separator: "/").last ?? ""
    func switches() -> String? {
      KernelText.text(of: "/proc/self/task/\(thread)/status", limit: 8192)?
        .split(separator: "\n").first { $0.hasPrefix("voluntary") }.map(String.init)
    }
    let before = switches()
    usleep(1_500_000)
    #expect(before != nil && switches() == before)
  }

  @Test("This machine's own sockets can be had, and its devices are read")
  func thisMachine() throws {
    let told = Shared(0)
    let monitor = NICMonitor { _ in told.value += 1 }
    try monitor.start()
    for _ in 0..<500 where told.value == 0 { usleep(10000) }
    #expect(told.value >= 1)
    monitor.stop()
    #expect(monitor.inventory == RDMAReader().read())
  }
}
