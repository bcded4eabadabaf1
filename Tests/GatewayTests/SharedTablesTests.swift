import Discovery
import Glibc
import Reactor
import Synchronization
import TestSupport
import SCSI
import Testing

@testable import Gateway

/// Runs `body` on so many threads and waits for all of them.
func onThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
  let done = Countdown(count)
  let flag = ReadyFlag()
  for thread in 0..<count {
    startThread(name: "test \(thread)") {
      body(thread)
      if done.isLast() { flag.set() }
    }
  }
  #expect(flag.wait(milliseconds: 60_000))
}

@Suite("The table of sessions (RFC 7143 §6.3)")
struct SessionTableTests {
  private static func key(_ number: Int) -> SessionTable.Key {
    SessionTable.Key(
      initiatorName: InitiatorName("iqn.2026-01.example:\(number)"), isid: UInt64(number), portalGroupTag: 1)
  }

  private static func claim(_ table: SessionTable, _ key: SessionTable.Key?, most: Int = 1 << 20) -> UInt16? {
    guard case .granted(let tsih) = table.claim(key, shard: 0, connection: 1, generation: 2, sessionsMax: most) else {
      return nil
    }
    return tsih
  }

  @Test("A TSIH is never 0 and never that of a living session, over more logins than there are TSIHs")
  func handles() throws {
    let table = SessionTable()
    let kept = (0..<40).map { _ in Self.claim(table, nil) }
    #expect(Set(kept).count == 40 && !kept.contains(0) && !kept.contains(nil))
    for _ in 0..<70000 {
      let tsih = try #require(Self.claim(table, nil))
      if tsih == 0 || kept.contains(tsih) { Issue.record("TSIH \(tsih) again") }
      table.release(tsih: tsih)
    }
    #expect(table.count == 40)
  }

  @Test("Discovery has places of its own; when they are taken its oldest gives way, and no session with the target")
  func discovery() throws {
    let table = SessionTable()
    let session = Self.claim(table, Self.key(1))
    let kept = try (0..<64).map { _ in try #require(Self.claim(table, nil)) }
    // Each of several that come at once has one of its own to wait for.
    for oldest in kept[..<2] {
      guard case .occupied(let entry) = table.claim(nil, shard: 0, connection: 1, generation: 2, sessionsMax: 9) else {
        return #expect(Bool(false), "not occupied")
      }
      #expect(entry.tsih == oldest && entry.key == nil)
    }
    table.release(tsih: kept[0])
    #expect(Self.claim(table, nil) != nil && session != nil)
    guard case .occupied(let entry) = table.claim(nil, shard: 0, connection: 1, generation: 2, sessionsMax: 9) else {
      return #expect(Bool(false), "not occupied")
    }
    #expect(entry.tsih == kept[2])
  }

  @Test("A second login with the same name, ISID and portal group meets the session that is there (§6.3.5)")
  func reinstatement() throws {
    let table = SessionTable()
    let first = try #require(Self.claim(table, Self.key(1)))
    guard case .occupied(let entry) = table.claim(Self.key(1), shard: 5, connection: 6, generation: 7, sessionsMax: 9)
    else { return #expect(Bool(false), "not occupied") }
    #expect(entry.tsih == first && entry.shard == 0 && entry.connection == 1 && entry.generation == 2)
    #expect(table.entry(tsih: first)?.key == Self.key(1))
    var other = Self.key(1)
    other.isid = 99
    #expect(Self.claim(table, other) != nil)
    table.release(tsih: first)
    #expect(table.entry(tsih: first) == nil && Self.claim(table, Self.key(1)) != nil)
  }

  @Test("Names that Unicode calls equal are two initiators, to sessions and to reservations")
  func canonicalNames() {
    let names = ["iqn.2026-01.example:b\u{FC}cher", "iqn.2026-01.example:bu\u{308}cher"]
    #expect(names[0] == names[1], "as texts")
    let keys = names.map { SessionTable.Key(initiatorName: InitiatorName($0), isid: 1, portalGroupTag: 1) }
    let table = SessionTable()
    #expect(Self.claim(table, keys[0]) != nil && Self.claim(table, keys[1]) != nil)
    let nexus = names.map { NexusIdentity(initiatorName: $0, isid: 1, relativeTargetPort: 1) }
    #expect(nexus[0] != nexus[1] && Set(nexus).count == 2)
  }

  @Test("Releasing twice releases once")
  func releaseTwice() throws {
    let table = SessionTable()
    let first = try #require(Self.claim(table, Self.key(1)))
    table.release(tsih: first)
    table.release(tsih: first)
    let second = try #require(Self.claim(table, Self.key(1)))
    #expect(second != first && table.count == 1)
    table.release(tsih: first)
    #expect(table.count == 1 && table.entry(tsih: second) != nil)
  }

  @Test("No more sessions than allowed; discovery sessions have no key, and places of their own")
  func full() {
    let table = SessionTable()
    #expect((0..<100).count { _ in Self.claim(table, nil, most: 2) != nil } == 64)
    #expect(Self.claim(table, Self.key(1), most: 2) != nil && Self.claim(table, Self.key(2), most: 2) != nil)
    #expect(Self.claim(table, Self.key(3), most: 2) == nil)
    // Who is there already is told so, full or not.
    guard case .occupied = table.claim(Self.key(1), shard: 0, connection: 0, generation: 0, sessionsMax: 2) else {
      return #expect(Bool(false), "not occupied")
    }
  }

  @Test("Threads that claim the same key at once: one gets it")
  func threads() {
    let table = SessionTable()
    let counter = Shared(Atomic(0))
    onThreads(4) { _ in
      for number in 0..<2000 {
        if Self.claim(table, Self.key(number)) != nil { counter.value.add(1, ordering: .relaxed) }
        if let tsih = Self.claim(table, nil) { table.release(tsih: tsih) }
      }
    }
    #expect(counter.value.load(ordering: .relaxed) == 2000 && table.count == 2000)
  }
}

/// A count that threads share.
final class Shared: Sendable {
  let value: Atomic<Int>

  init(_ value: consuming Atomic<Int>) { self.value = value }
}

@Suite("Ranges that only one command may touch")
struct RangeHoldsTests {
  @Test("A range conflicts with those it overlaps and not with its neighbours, nor with itself")
  func overlaps() {
    let holds = RangeHolds()
    #expect(holds.isEmpty && !holds.conflicts(0..<100))
    let id = holds.addExclusive(100..<200)
    #expect(id != 0 && !holds.isEmpty)
    for range in [0..<101, 199..<300, 150..<160, 0..<1000] as [Range<UInt64>] {
      #expect(holds.conflicts(range) && holds.addExclusive(range) == 0, "\(range)")
      #expect(!holds.conflicts(range, except: id))
    }
    for range in [0..<100, 200..<300] as [Range<UInt64>] { #expect(!holds.conflicts(range)) }
    let second = holds.add(150..<160)
    #expect(holds.conflicts(150..<151, except: id) && second != id)
    holds.remove(id)
    holds.remove(id)
    #expect(!holds.conflicts(100..<150) && holds.conflicts(159..<170) && !holds.isEmpty)
    holds.remove(second)
    #expect(holds.isEmpty)
  }

  @Test("Of threads that want a range for themselves one at a time has it")
  func threads() {
    let holds = RangeHolds()
    let inside = Shared(Atomic(0))
    let worst = Shared(Atomic(0))
    let got = Shared(Atomic(0))
    onThreads(4) { thread in
      var random = SplitMix(seed: UInt64(thread))
      for _ in 0..<20_000 {
        let start = random.next() % 8
        let id = holds.addExclusive(start..<start + 8)
        guard id != 0 else { continue }
        // All ranges hold byte 7.
        if inside.value.add(1, ordering: .acquiringAndReleasing).newValue > 1 { worst.value.add(1, ordering: .relaxed) }
        got.value.add(1, ordering: .relaxed)
        inside.value.subtract(1, ordering: .acquiringAndReleasing)
        holds.remove(id)
      }
    }
    #expect(worst.value.load(ordering: .relaxed) == 0 && got.value.load(ordering: .relaxed) > 100 && holds.isEmpty)
  }
}

@Suite("The count of connections of each address")
struct ConnectionLedgerTests {
  private static let here = NetworkAddress([127, 0, 0, 1])!
  private static let there = NetworkAddress([10, 0, 0, 1])!

  /// A connection that has its session.
  private static func settled(_ ledger: ConnectionLedger, _ address: NetworkAddress, limit: Int) -> ConnectionTicket? {
    guard let admission = ledger.admit(address, limit: limit, isFull: false) else { return nil }
    admission.ticket.settle()
    return admission.ticket
  }

  @Test("An address has as many sessions as its limit, and a place again when one of them has gone")
  func limit() {
    let ledger = ConnectionLedger()
    var tickets = (0..<3).map { _ in Self.settled(ledger, Self.here, limit: 3) }
    #expect(tickets.allSatisfy { $0 != nil } && ledger.admit(Self.here, limit: 3, isFull: false) == nil)
    #expect(ledger.admit(Self.there, limit: 3, isFull: false) != nil)
    let mapped = NetworkAddress([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 127, 0, 0, 1])!
    #expect(ledger.admit(mapped, limit: 3, isFull: false) == nil, "the same address, by way of IPv6")
    tickets.removeLast()
    let again = Self.settled(ledger, Self.here, limit: 3)
    #expect(again != nil && ledger.admit(Self.here, limit: 3, isFull: false) == nil)
    #expect(ledger.admit(Self.here, limit: 0, isFull: false) == nil)
    withExtendedLifetime((tickets, again)) {}
  }

  @Test("Where no place is left, the oldest connection without a session gives way: of the same address, or of any")
  func displacement() throws {
    let ledger = ConnectionLedger()
    let session = Self.settled(ledger, Self.here, limit: 9)
    let first = try #require(ledger.admit(Self.there, limit: 9, isFull: false))
    let second = try #require(ledger.admit(Self.here, limit: 9, isFull: false))
    #expect(first.displaced == nil && second.displaced == nil)
    let third = try #require(ledger.admit(Self.here, limit: 2, isFull: false))
    #expect(third.displaced == second.ticket.number, "older ones of another address stay")
    let fourth = try #require(ledger.admit(Self.here, limit: 9, isFull: true))
    #expect(fourth.displaced == first.ticket.number)
    third.ticket.settle()
    let fifth = try #require(ledger.admit(Self.there, limit: 9, isFull: true))
    #expect(fifth.displaced == fourth.ticket.number, "a session does not give way")
    fifth.ticket.settle()
    #expect(ledger.admit(Self.there, limit: 9, isFull: true) == nil)
    withExtendedLifetime((session, first, second, third, fourth, fifth)) {}
  }

  @Test("Where no place is left for anybody, who has half of them gives way, and an IPv6 network of 64 bits is one")
  func crowd() throws {
    let ledger = ConnectionLedger()
    let first = try #require(ledger.admit(Self.here, limit: 9, isFull: false))
    let crowd = try (0..<3).map { host in
      let address = NetworkAddress([0x20, 1, 0xD, 0xB8] + [UInt8](repeating: 0, count: 11) + [UInt8(host)])!
      return try #require(ledger.admit(address, limit: 9, isFull: false))
    }
    let second = try #require(ledger.admit(Self.there, limit: 9, isFull: true))
    #expect(second.displaced == crowd[0].ticket.number, "one was there before, but alone")
    #expect(crowd[0].ticket.isDisplaced && !first.ticket.isDisplaced)
    let third = try #require(ledger.admit(Self.there, limit: 9, isFull: true))
    #expect(third.displaced == crowd[1].ticket.number)
    let fourth = try #require(ledger.admit(NetworkAddress([10, 0, 0, 2])!, limit: 9, isFull: true))
    #expect(fourth.displaced == second.ticket.number, "two of four")
    let fifth = try #require(ledger.admit(NetworkAddress([10, 0, 0, 3])!, limit: 9, isFull: true))
    #expect(fifth.displaced == first.ticket.number, "nobody has half of four")
    withExtendedLifetime((first, crowd, second, third, fourth, fifth)) {}
  }

  @Test("Threads that come and go leave no count behind and never exceed the limit")
  func threads() {
    let ledger = ConnectionLedger()
    let inside = Shared(Atomic(0))
    let worst = Shared(Atomic(0))
    onThreads(4) { _ in
      for _ in 0..<10_000 {
        // Beside one that has to give way its successor is there for a while.
        guard let (ticket, displaced) = ledger.admit(Self.here, limit: 2, isFull: false), displaced == nil else {
          continue
        }
        if inside.value.add(1, ordering: .relaxed).newValue > 2 { worst.value.add(1, ordering: .relaxed) }
        inside.value.subtract(1, ordering: .relaxed)
        withExtendedLifetime(ticket) {}
      }
    }
    #expect(worst.value.load(ordering: .relaxed) == 0)
    let all = (0..<2).map { _ in Self.settled(ledger, Self.here, limit: 2) }
    #expect(all.allSatisfy { $0 != nil })
    withExtendedLifetime(all) {}
  }
}

@Suite("Lines that peers bring about")
struct LogAllowanceTests {
  @Test("So many in a minute, then one that says so, and afterwards how many were left out")
  func allowance() {
    var allowance = LogAllowance()
    let begin: UInt64 = 5
    for _ in 0..<LogAllowance.lines { #expect(allowance.ask(now: begin) == .write(leftOut: 0)) }
    #expect(allowance.ask(now: begin + 1) == .leaveOut(isFirst: true))
    #expect(allowance.ask(now: begin + LogAllowance.periodNs - 1) == .leaveOut(isFirst: false))
    #expect(allowance.ask(now: begin + LogAllowance.periodNs) == .write(leftOut: 2))
    #expect(allowance.ask(now: begin + LogAllowance.periodNs) == .write(leftOut: 0))
  }
}

@Suite("Tables of entries")
struct SlabTests {
  @Test("Entries are taken once each until all are, begin as told, keep their places, and are taken again after")
  func entries() {
    var slab = Slab<UInt64>(capacity: 100, initial: 7)
    var places: [UnsafeMutablePointer<UInt64>] = []
    for expected in 0..<100 {
      let index = slab.take()
      let value = index.map { slab[$0].pointee }
      #expect(index == expected && value == 7)
      slab[expected].pointee = UInt64(expected) + 1000
      places.append(slab[expected])
    }
    let (none, count, used) = (slab.take(), slab.count, slab.used)
    #expect(none == nil && count == 100 && used == 100)
    for index in stride(from: 0, to: 100, by: 3) { slab.give(index) }
    let left = slab.count
    #expect(left == 66)
    var again: Set<Int> = []
    while let index = slab.take() { again.insert(index) }
    #expect(again == Set(stride(from: 0, to: 100, by: 3)))
    for index in 0..<100 {
      let place = slab[index]
      #expect(place == places[index] && (again.contains(index) || place.pointee == UInt64(index) + 1000))
    }
  }

  @Test("An index from a peer is held only if its entry was ever used")
  func holds() {
    var slab = Slab<UInt64>(capacity: 10, initial: 0)
    _ = slab.take()
    _ = slab.take()
    let held = [-1, 0, 1, 2, 9, 10, .max, .min].map { slab.holds($0) }
    #expect(held == [false, true, true, false, false, false, false, false])
  }
}
