import Glibc
import HA
import Reactor
import SCSI
import Storage

/// Persistent reservations on both nodes: the active has the table, and carries out what initiators ask of the node in
/// standby (SPC-5 §5.18.2.6 has PERSISTENT RESERVE IN and OUT work there). Cluster software registers every path of a disk,
/// and gives up if one refuses.
final class PeerReservations: Sendable {
  /// How long an initiator of the node in standby waits for the active.
  private static let boundNs: Instant = 3_000_000_000

  private let context: ShardContext
  private let exports: @Sendable () -> [Export]
  private let server: @Sendable () -> DeviceServer?
  private let ask: @Sendable ([UInt8], Instant, @escaping @Sendable ([UInt8]?) -> Void) -> Void

  /// - Parameters:
  ///   - exports: those of shared disks, as they are now.
  ///   - server: the device server with the port groups of now; nil: the gateway is ending.
  ///   - ask: the other node (`PeerCalls.ask`).
  init(
    context: ShardContext, exports: @escaping @Sendable () -> [Export],
    server: @escaping @Sendable () -> DeviceServer?,
    ask: @escaping @Sendable ([UInt8], Instant, @escaping @Sendable ([UInt8]?) -> Void) -> Void
  ) {
    self.context = context
    self.exports = exports
    self.server = server
    self.ask = ask
  }

  // MARK: On the node in standby

  /// Has the active carry out a command; `answer` is called once, with nil if it is not known what became of it.
  func forward(
    _ unit: LogicalUnit, _ nexus: NexusIdentity, _ cdb: CDB, _ parameters: [UInt8],
    answer: @escaping @Sendable (PeerOutcome?) -> Void
  ) {
    guard let disk = exports().first(where: { $0.unit === unit })?.label?.disk else { return answer(nil) }
    let question = PeerQuestion.command(disk: disk, nexus: nexus, cdb: cdb, parameters: parameters)
    ask(question.encode(), Self.boundNs) { answer($0.flatMap(PeerOutcome.init(decoding:))) }
  }

  /// Has the other node tell its sessions of a change of the table.
  func tell(_ notices: [ReservationEffects.Notice], lun: UInt16) {
    guard let disk = exports().first(where: { $0.unit.number == lun })?.label?.disk else { return }
    ask(PeerQuestion.attentions(disk: disk, notices).encode(), Self.boundNs) { _ in }
  }

  // MARK: What the other node asks

  /// Carries out a question; nil: this node cannot say.
  func serve(_ body: [UInt8]) -> [UInt8]? {
    guard let question = PeerQuestion(decoding: body) else { return nil }
    switch question {
    case .command(let disk, let nexus, let cdb, let parameters):
      guard let export = exports().of(disk), let server = server() else { return nil }
      return carryOut(cdb, parameters, of: nexus, export, server)?.encode()
    case .attentions(let disk, let notices):
      guard let export = exports().of(disk) else { return nil }
      for notice in notices {
        for nexus in context.registry.matching(notice.nexus) {
          nexus.raise(notice.attention, lun: export.unit.number)
        }
      }
      return []
    }
  }

  private func carryOut(
    _ cdb: CDB, _ parameters: [UInt8], of identity: NexusIdentity, _ export: Export, _ server: DeviceServer
  ) -> PeerOutcome? {
    // No session of this node has this number, nor this group.
    let nexus = Nexus(identity: identity, id: .max, targetPortGroup: 0)
    // Flat space addressing (SAM-5 §4.7.4).
    let request = Request(cdb: cdb, lun: UInt64(0x4000 | export.unit.number) << 48)
    let disposition = server.reserve(
      request, nexus: nexus, map: LogicalUnitMap([export.unit]), parameters: parameters)
    switch disposition {
    case .status(let status): return PeerOutcome(status: status)
    case .checkCondition(let sense): return PeerOutcome(status: .checkCondition, sense: sense)
    case .dataIn(let data): return PeerOutcome(status: .good, data: data)
    case .reservationChange(let change, let unit): return commit(change, unit, export)
    // Suspended, or no longer active: the other node asks again, or has the disks itself by then.
    case .wait, .forward, .dataOut, .medium, .unmap, .copy, .sanitize, .log, .switchover: return nil
    }
  }

  private func commit(_ change: ReservationChange, _ unit: LogicalUnit, _ export: Export) -> PeerOutcome? {
    switch change.record.map(export.beginReservationRecord) ?? .none {
    case .moving:
      unit.abandon(change)
      return PeerOutcome(status: .busy)
    case .none: break
    case .write(let bytes, let offset):
      let code = export.disk.descriptor.map { LabelStore.writeBytes(bytes, fd: $0, offset: offset) } ?? -ENODEV
      export.endReservationRecord(isWritten: code == 0)
      guard code == 0 else {
        unit.abandon(change)
        // Another node has the disk: what became of the record is for it to say.
        if code == -EBADE, let report = context.conflict.withLock({ $0 }) {
          report(export)
          return nil
        }
        return PeerOutcome(status: .checkCondition, sense: Sense(.hardwareError, 0x4400))
      }
    }
    let outcome = unit.commit(change)
    if !outcome.aborts.isEmpty {
      let ended = ReadyFlag()
      context.abortCommands(of: outcome.aborts, to: unit, origin: 0) { _ in ended.set() }
      _ = ended.wait(milliseconds: 2000)
    }
    return PeerOutcome(status: outcome.status)
  }
}
