import HA
import SCSI
import Storage
import Wire

/// One command on its way to, in, or back from a disk.
final class DiskCommand {
  enum What {
    case readKeys
    case register(UInt64)
    case reserve(UInt64)
    case preempt(own: UInt64, victim: UInt64)
    case unregister(UInt64)
    case resetUnit
    /// Every slot of every area.
    case readRecords
    /// Into the slot that is not the newest valid one, as the writer knows it.
    case writeRecord(SimDisk.Area, slot: Int, [UInt8])
    case read(block: Int)
    case write(block: Int, value: UInt64)
  }

  enum Result {
    case done
    case keys([UInt64], holder: UInt64?, isOurType: Bool)
    case records([[[UInt8]]])
    case value(UInt64)
    case conflict
    case attention
    /// The driver gave it up: what became of it is not known, but it is over.
    case lost
  }

  let number: Int
  let node: Int
  let what: What
  /// The epoch in which the node sent it.
  let epoch: Epoch
  /// Which life of the machine sent it: it ends with that, until the disk has it.
  let machine: Int
  /// The disk took it, or never will.
  var isOver = false
  var isAccepted = false
  var reply: (Result) -> Void

  init(number: Int, node: Int, machine: Int, what: What, epoch: Epoch, reply: @escaping (Result) -> Void) {
    self.machine = machine
    self.number = number
    self.node = node
    self.what = what
    self.epoch = epoch
    self.reply = reply
  }

  var writes: Bool {
    switch what {
    case .writeRecord, .write: true
    case .readKeys, .register, .reserve, .preempt, .unregister, .readRecords, .read, .resetUnit: false
    }
  }
}

/// A dual-ported disk: blocks, the records of its label area, and a drive's reservation rules (those of the product's own
/// SCSI target, which has them for its LUNs; here they are the drive's).
final class SimDisk {
  /// What is kept in the label area. Owner and beat are not kinds of the area's own here; they use another's tag.
  enum Area: Int, CaseIterable {
    case label, reservations, owner, beat, lease, otherLease

    static let leases = [Area.lease, .otherLease]

    var kind: LabelArea.Kind {
      switch self {
      case .label: .label
      case .reservations: .reservations
      case .owner, .beat, .lease, .otherLease: .move
      }
    }
  }

  static let blockCount = 4

  let index: Int
  let shared: SharedDisk
  let survivesPowerLoss: Bool
  var table = PersistentReservations()
  var hasPower = true
  /// By node: a unit attention is pending; the path is there.
  var attention = [false, false, false]
  var path = [true, true, true]
  /// The node's discovery has it.
  var isSeen = [true, true, true]
  /// Times the usual service time.
  var slowness: UInt64 = 1
  var queue: [DiskCommand] = []
  var slots: [[[UInt8]]]
  var blocks = [UInt64](repeating: 0, count: blockCount)
  /// What initiators were told of the blocks, for the checks.
  var acknowledged = [UInt64](repeating: 0, count: blockCount)
  /// The highest epoch in which it was served, and by whom.
  var servedEpoch = Epoch.none
  var servedAt: UInt64 = 0
  /// The last time that a reservation could vanish without anybody's fault.
  var loosenedAt: UInt64 = 0
  /// What becomes of a command that the disk dropped: its driver finds out.
  var onDrop: (DiskCommand) -> Void = { _ in }

  static let nexuses = (0..<3).map {
    NexusIdentity(initiatorName: "node\($0)", isid: UInt64($0), relativeTargetPort: 1)
  }

  init(index: Int, shared: SharedDisk, survivesPowerLoss: Bool, label: Label) {
    self.index = index
    self.shared = shared
    self.survivesPowerLoss = survivesPowerLoss
    slots = Area.allCases.map { _ in [[], []] }
    slots[Area.label.rawValue][0] = encode(label.encode(), .label, sequence: 1)
    slots[Area.reservations.rawValue][0] = encode(PersistentReservations().encodeRecord(), .reservations, sequence: 1)
  }

  func encode(_ payload: [UInt8], _ area: Area, sequence: UInt64) -> [UInt8] {
    Record(kind: area.kind, sequence: sequence, disk: shared.id, payload: payload).encode()
  }

  var holder: UInt64? { table.reservation.map { _ in table.holderKey } }

  /// Whether a write of the node is taken now (Write Exclusive - Registrants Only).
  func takesWrites(of node: Int) -> Bool {
    guard let reservation = table.reservation else { return true }
    let nexus = Self.nexuses[node]
    return PersistentAccess.writing.isAllowed(
      with: reservation.kind, holder: table.isHolder(nexus), registered: table.isRegistered(nexus))
  }

  /// Power is cut: what is queued is gone, what was being written is torn.
  func losePower(tears: (Int) -> Bool) {
    hasPower = false
    for command in queue {
      if case .writeRecord(let area, let slot, let bytes) = command.what, tears(command.number) {
        slots[area.rawValue][slot] = Array(bytes[..<(bytes.count / 3)]) + [UInt8](repeating: 0xEE, count: 64)
      }
      drop(command)
    }
    queue = []
  }

  func regainPower(at now: UInt64) {
    hasPower = true
    attention = [true, true, true]
    loosenedAt = now
    if !(survivesPowerLoss && table.activatesThroughPowerLoss) { table = PersistentReservations() }
  }

  /// Everything that the disk still has is dropped.
  func reset() {
    for node in 0..<attention.count { abort(node: node) }
    attention = attention.map { _ in true }
  }

  /// The lease that a node has, by what is on the disk.
  func lease(of node: UUID) -> LeaseRecord? {
    for area in Area.leases {
      let newest = try? Record.newest(slots[area.rawValue], kind: area.kind, disk: shared.id)
      if let record = newest.flatMap({ LeaseRecord(decoding: $0.record.payload) }), record.node == node {
        return record
      }
    }
    return nil
  }

  /// The commands of a node that the disk still has are dropped, without a word to the node.
  func abort(node: Int) {
    for command in queue where command.node == node { drop(command) }
    queue.removeAll { $0.node == node }
  }

  private func drop(_ command: DiskCommand) {
    command.isOver = true
    onDrop(command)
  }

  /// A PERSISTENT RESERVE OUT of a node.
  func change(_ action: ReservationAction, node: Int, aborts: Bool, at now: UInt64) -> DiskCommand.Result {
    switch table.applying(action, from: Self.nexuses[node]) {
    case .conflict, .refused: return .conflict
    case .unchanged: return .done
    case .changed(let effects):
      table = effects.next
      if table.reservation == nil { loosenedAt = now }
      if aborts {
        for nexus in effects.aborts { if let victim = Self.nexuses.firstIndex(of: nexus) { abort(node: victim) } }
      }
      return .done
    }
  }
}
