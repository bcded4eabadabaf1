import Testing
import Wire

@testable import HA

/// An active that has no sign that it still is: nothing makes it serve but such a sign.
struct DoubtTests {
  private let disks = PairRig.disks
  private let second = PairRig.second
  private let ms = PairRig.ms

  /// Active with two disks, the first of which decides; the other node is passive and heard.
  private func active() -> PairRig {
    var rig = PairRig(2)
    rig.see(Array(disks[..<2]))
    rig.run(6 * second)
    rig.hear(naming: rig.engine.sequence)
    #expect(rig.isServing)
    rig.actions = []
    return rig
  }

  /// The deciding disk hangs and nobody is heard, for so long that it is in doubt.
  private func inDoubt() -> PairRig {
    var rig = active()
    rig.dead = [disks[0]]
    rig.run(550 * ms)
    #expect(rig.engine.isUnsure)
    #expect(rig.targets == [.hold])
    rig.actions = []
    return rig
  }

  @Test("It does not begin a handover that could only be called off")
  func handover() {
    var rig = inDoubt()
    rig.hear(naming: rig.engine.sequence)
    #expect(rig.engine.isUnsure, "the disks have to say so too")
    rig.step(.operate(.switchover))
    #expect(rig.engine.role == .active)
    #expect(rig.targets.isEmpty)
    #expect(rig.reasons == ["no handover: this node waits for a sign that it is still the active"])
  }

  @Test("A handover that the other node asks for meanwhile begins when the doubt is over")
  func asked() {
    var rig = inDoubt()
    let asks = { (rig: inout PairRig) in
      rig.hear(naming: rig.engine.sequence, flags: [.reachable, .asksForHandover])
    }
    asks(&rig)
    #expect(rig.engine.role == .active)
    rig.dead = []
    rig.run(1500 * ms)
    #expect(rig.isServing)
    asks(&rig)
    #expect(rig.engine.role == .draining)
  }

  @Test("One that began to doubt while it drained waits when the handover is called off")
  func calledOff() {
    var rig = active()
    let sequence = rig.engine.sequence
    rig.dead = [disks[0]]
    rig.run(300 * ms)
    rig.hear(naming: sequence)
    rig.run(150 * ms)
    rig.step(.operate(.switchover))
    #expect(rig.engine.role == .draining)
    rig.run(70 * ms)
    #expect(rig.engine.role == .draining && rig.engine.isUnsure)
    rig.actions = []
    rig.step(.drained(false))
    #expect(rig.engine.role == .active)
    #expect(rig.targets == [.hold])
    rig.dead = []
    rig.run(2 * second)
    #expect(rig.isServing)
    #expect(rig.targets.contains(.serve(Epoch(1), disks: Array(disks[..<2]))))
  }

  @Test("A disk that is taken again meanwhile is admitted when the doubt is over")
  func takenAgain() {
    var rig = inDoubt()
    rig.step(.disturbed(disks[1]))
    rig.run(100 * ms)
    #expect(rig.engine.disks[1].state == .secured)
    #expect(rig.targets == [.suspend(disks[1])])
    rig.dead = []
    rig.run(2 * second)
    #expect(rig.isServing)
    #expect(
      rig.targets == [.suspend(disks[1]), .serve(Epoch(1), disks: [disks[0]]), .admit(Epoch(1), disk: disks[1])])
  }
}
