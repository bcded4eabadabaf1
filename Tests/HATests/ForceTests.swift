import Testing
import Wire

@testable import HA

/// Disks that decide are lost for good, and an operator says so.
struct ForceTests {
  private let disks = PairRig.disks
  private let second = PairRig.second

  @Test(
    "Of two disks the one that decides is lost: nobody starts until an operator forces it, and then everybody may",
    arguments: [true, false])
  func lostDecider(isSeen: Bool) {
    let inSight = isSeen ? [disks[0], disks[1]] : [disks[1]]
    var rig = PairRig(2, deciding: [disks[0]])
    rig.dead = [disks[0]]
    rig.see(inSight)
    rig.run(20 * second)
    #expect(rig.engine.role == .observing)
    rig.step(.operate(.force))
    rig.run(3 * second)
    #expect(rig.isServing)
    #expect(rig.served == [disks[1]])
    #expect(rig.found[disks[1]]?.owner?.arbiters == [disks[1]])
    rig.run(30 * second)
    #expect(rig.isServing)
    // The record names a disk that is there: a start needs no operator.
    rig.restart(inSight)
    rig.run(6 * second)
    #expect(rig.isServing)
    // What was lost comes back, and is one of the pair's again.
    rig.dead = []
    rig.see([disks[0], disks[1]])
    rig.run(10 * second)
    #expect(rig.served == [disks[0], disks[1]])
    #expect(rig.engine.status(at: rig.now).arbiters == [disks[0]])
  }

  @Test("Two of three deciding disks are lost, and the other node: what is left goes on to serve")
  func lostMajority() {
    var rig = PairRig(3, deciding: disks)
    rig.see([disks[2]])
    rig.run(20 * second)
    #expect(rig.engine.role == .observing)
    rig.step(.operate(.force))
    rig.run(3 * second)
    #expect(rig.isServing)
    rig.run(60 * second)
    #expect(rig.isServing)
    #expect(rig.engine.status(at: rig.now).arbiters == [disks[2]])
    rig.see(disks)
    rig.run(10 * second)
    #expect(rig.isServing)
    #expect(rig.engine.status(at: rig.now).arbiters == disks)
    #expect(rig.found.values.allSatisfy { $0.owner?.arbiters == disks })
  }

  @Test("An active that loses the deciding disks together with the other node waits, and goes on when it is forced")
  func lostWhileActive() {
    var rig = PairRig(3)
    rig.see(disks)
    rig.run(6 * second)
    #expect(rig.isServing)
    rig.dead = [disks[0], disks[1]]
    rig.run(20 * second)
    #expect(rig.engine.role == .active && rig.engine.isUnsure)
    rig.actions = []
    rig.step(.operate(.force))
    rig.run(3 * second)
    #expect(rig.isServing)
    #expect(rig.reasons.contains("forced: one disk decides"))
    #expect(rig.found[disks[2]]?.owner?.arbiters == [disks[2]])
    rig.run(20 * second)
    #expect(rig.isServing)
  }

  @Test("An active in no doubt is not changed by it")
  func nothingToForce() {
    var rig = PairRig(3)
    rig.see(disks)
    rig.run(6 * second)
    rig.actions = []
    rig.step(.operate(.force))
    #expect(rig.isServing)
    #expect(rig.reasons.isEmpty)
    #expect(rig.engine.status(at: rig.now).arbiters == disks)
  }

  @Test("A disk that others hold does not decide: it could not be taken")
  func foreign() {
    var rig = PairRig(3, deciding: [disks[0]])
    rig.found[disks[1]]?.keys = [0x1234]
    rig.found[disks[1]]?.holder = 0x1234
    rig.see([disks[1], disks[2]])
    rig.run(6 * second)
    rig.step(.operate(.force))
    rig.run(3 * second)
    #expect(rig.isServing)
    #expect(rig.served == [disks[2]])
  }
}
