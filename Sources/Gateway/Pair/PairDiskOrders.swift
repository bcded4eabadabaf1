import Glibc
import HA
import SCSI
import Storage
import Synchronization
import Wire

/// The engine's orders in terms of a disk: reservations by the fence, records by cells of the label area. Called for one
/// disk by one thread at a time.
final class PairDiskOrders: Sendable {
  private struct Cells: Sendable {
    var export: ObjectIdentifier
    var owner: RecordCell
    var beat: RecordCell
  }

  private let exports: @Sendable () -> [Export]
  /// Whether requests of this node may still be on their way to the disk.
  private let isBusy: @Sendable (Export) -> Bool
  private let cells = Mutex<[DiskID: Cells]>([:])

  init(exports: @escaping @Sendable () -> [Export], isBusy: @escaping @Sendable (Export) -> Bool) {
    self.exports = exports
    self.isBusy = isBusy
  }

  func perform(_ disk: DiskID, _ order: DiskOrder) -> DiskAnswer {
    guard let export = exports().first(where: { $0.label?.disk == disk }), let label = export.label,
      let fence = Fence(export.disk, timeoutMilliseconds: 1000)
    else { return .failed(ENODEV) }
    do throws(FenceFailure) {
      return try perform(order, export, label, fence)
    } catch {
      switch error {
      case .conflict: return .conflict
      case .disturbed: return .disturbed
      case .failed(let code): return .failed(code)
      case .timedOut: return .timedOut
      }
    }
  }

  private func perform(
    _ order: DiskOrder, _ export: Export, _ label: Label, _ fence: Fence
  ) throws(FenceFailure) -> DiskAnswer {
    switch order {
    case .survey: return .surveyed(try survey(export, fence))
    case .register(let key):
      // With a new key an old write would land that the fence has kept out.
      guard !isBusy(export) else { return .failed(EBUSY) }
      try fence.register(key.rawValue)
      forget(label.disk)
    case .reserve(let key): try fence.reserve(key.rawValue)
    case .preempt(let own, let victim): try fence.preempt(own: own.rawValue, victim: victim)
    case .unregister(let key): try fence.unregister(key.rawValue)
    case .writeOwner(let record): try write(record.encode(), .owner, export, label)
    case .writeBeat(let beat): try write(beat.encode(), .beat, export, label)
    case .enroll(let node, let name):
      export.replace(try LabelStore.enroll(Label.Node(id: node, name: name), on: export.disk, as: label.disk))
    case .expel(let node): export.replace(try LabelStore.forget(node, on: export.disk, as: label.disk))
    }
    return .done
  }

  private func survey(_ export: Export, _ fence: Fence) throws(FenceFailure) -> Survey {
    let state = try fence.readState()
    let records = try SharedDiskRecords.read(export.disk, withReservations: false)
    // The other node enters this one: so it learns which slot it has.
    export.replace(records.label)
    return Survey(
      keys: state.keys, holder: state.holder, isOurType: state.isOurType,
      owner: records.owner.flatMap(OwnerRecord.init(decoding:)), beat: records.beat.flatMap(DiskBeat.init(decoding:)),
      nodes: records.label.nodes.map(\.id))
  }

  private func write(
    _ payload: [UInt8], _ kind: LabelArea.Kind, _ export: Export, _ label: Label
  ) throws(FenceFailure) {
    let name = ObjectIdentifier(export)
    var own = cells.withLock { cells -> Cells in
      if let known = cells[label.disk], known.export == name { return known }
      return Cells(
        export: name, owner: RecordCell(.owner, on: export.disk, label: label),
        beat: RecordCell(.beat, on: export.disk, label: label))
    }
    defer { cells.withLock { $0[label.disk] = own } }
    if kind == .owner { try own.owner.write(payload) } else { try own.beat.write(payload) }
  }

  /// Another node may have written since.
  private func forget(_ disk: DiskID) {
    cells.withLock { cells in
      cells[disk]?.owner.forget()
      cells[disk]?.beat.forget()
    }
  }
}
