import HA
import Testing
import Wire

struct ReservationKeyTests {
  private let cluster = UUID(bytes: Array(1...16))
  private let node = UUID(bytes: Array(17...32))

  @Test func partsComeBack() throws {
    let key = ReservationKey(cluster: cluster, slot: .second, node: node, epoch: Epoch(0xDEAD_BEEF))
    let read = try #require(ReservationKey(rawValue: key.rawValue))
    #expect(read == key)
    #expect(read.slot == .second)
    #expect(read.epoch == Epoch(0xDEAD_BEEF))
    #expect(read.belongs(to: cluster))
    #expect(read.belongs(toNode: node))
    #expect(!read.belongs(toNode: cluster))
  }

  @Test func aForeignKeyIsNone() {
    #expect(ReservationKey(rawValue: 0) == nil)
    #expect(ReservationKey(rawValue: 0x0123_4567_89AB_CDEF) == nil)
  }

  @Test func epochsEnd() {
    #expect(Epoch(.max).next == nil)
    #expect(Epoch.none.next == Epoch(1))
  }
}
