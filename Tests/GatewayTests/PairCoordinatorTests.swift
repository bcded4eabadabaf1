import Glibc
import HA
import Synchronization
import Testing
import Wire

@testable import Gateway

@Suite("The pair's engine and who carries out what it decides")
struct PairCoordinatorTests {
  /// One disk that obeys, and another node that a test plays.
  private final class Bench: Sendable {
    static let cluster = UUID(bytes: Array(1...16))
    static let own = UUID(bytes: [UInt8](repeating: 0xA0, count: 16))
    static let other = UUID(bytes: [UInt8](repeating: 0xA1, count: 16))
    static let disk = UUID(bytes: [UInt8](repeating: 0xD0, count: 16))

    private let found = Mutex(
      Survey(keys: [], holder: nil, isOurType: false, owner: nil, beat: nil, nodes: [own, other]))
    private let made = Mutex<PairCoordinator?>(nil)
    /// Of each order to recover: whether a node had served.
    let recoveries = Mutex<[Bool]>([])
    var coordinator: PairCoordinator { made.withLock { $0! } }

    init() {
      let engine = Engine(identity: NodeIdentity(node: Self.own, bootID: 7, name: "own"), seed: 1)
      let parts = PairCoordinator.Parts(
        send: { _ in },
        disk: { [weak self] disk, number, order, _ in
          guard let self else { return }
          coordinator.post(.answer(disk, order: number, answer(order)))
        },
        target: { [weak self] order, followsPeer in
          if case .recover = order { self?.recoveries.withLock { $0.append(followsPeer) } }
        }, addresses: { _ in }, watchdog: { _ in }, keepGuarded: { _ in }, stepped: { _, _ in }, changed: { _ in },
        noted: { _, _ in })
      made.withLock { $0 = PairCoordinator(engine: engine, parts: parts) { _ in nil } }
    }

    private func answer(_ order: DiskOrder) -> DiskAnswer {
      found.withLock { found in
        switch order {
        case .survey: return .surveyed(found)
        case .register(let key): found.keys.append(key.rawValue)
        case .reserve(let key): (found.holder, found.isOurType) = (key.rawValue, true)
        case .preempt(let own, let victim):
          found.keys.removeAll { $0 == victim }
          found.holder = own.rawValue
        case .writeOwner(let record): found.owner = record
        case .writeBeat(let beat): found.beat = beat
        case .unregister, .enroll, .expel, .settle, .writeLease, .resetUnit: break
        }
        return .done
      }
    }

    func hear(_ role: Role, _ flags: Heartbeat.Flags = []) {
      let beat = Heartbeat(
        cluster: Self.cluster, node: Self.other, bootID: 9, sequence: 1, role: role,
        epoch: role == .active ? Epoch(4) : .none, name: "other", heardBoot: 7, flags: flags, disks: [Self.disk])
      coordinator.post(.received(beat, link: LinkID("eth0/4")))
    }

    /// Whether a takeover that an operator forces follows upon service.
    func takeOver() -> Bool? {
      coordinator.post(.operate(.force))
      for _ in 0..<5000 where recoveries.withLock({ $0.isEmpty }) { usleep(1000) }
      coordinator.stop()
      return recoveries.withLock { $0.first }
    }
  }

  @Test(
    "A takeover follows upon service if the other node served, or saw service; not if it only took the disks",
    arguments: [
      (.fencing, [], false), (.recovering, [], false), (.passive, [], false), (.active, [], true),
      (.passive, [.hasSeenService], true), (.fencing, [.hasSeenService], true),
    ] as [(Role, Heartbeat.Flags, Bool)])
  func follows(role: Role, flags: Heartbeat.Flags, isAfterService: Bool) {
    let bench = Bench()
    bench.coordinator.start()
    bench.coordinator.post(
      .disks([SharedDisk(id: Bench.disk, wwid: "naa.1", cluster: Bench.cluster, nodes: [Bench.own, Bench.other])]))
    bench.hear(role, flags)
    #expect(bench.takeOver() == isAfterService)
  }
}
