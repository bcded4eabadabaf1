import Synchronization

/// The live nexuses, for those who must reach all of them: unit attentions, PREEMPT AND ABORT, SPEC_I_PT. Its size is
/// bounded by the limit on sessions, which the transport keeps.
public final class NexusRegistry: Sendable {
  private let nexuses = Mutex<[UInt64: Nexus]>([:])
  /// Told of attentions for nexuses that are not here: they may be another node's.
  public let elsewhere = Mutex<(@Sendable ([ReservationEffects.Notice], _ lun: UInt16) -> Void)?>(nil)

  public init() {}

  public func attach(_ nexus: Nexus) {
    nexuses.withLock { $0[nexus.id] = nexus }
  }

  public func detach(_ nexus: Nexus) {
    _ = nexuses.withLock { $0.removeValue(forKey: nexus.id) }
  }

  /// Every live nexus, in the order of their ids.
  public var all: [Nexus] {
    nexuses.withLock { Array($0.values) }.sorted { $0.id < $1.id }
  }

  /// The live nexuses between this initiator port and target port: one, or two while a session is being reinstated.
  public func matching(_ identity: NexusIdentity) -> [Nexus] {
    all.filter { $0.identity == identity }
  }

  /// The live nexuses of this iSCSI initiator node.
  public func matching(initiatorName: String) -> [Nexus] {
    all.filter { $0.identity.initiatorName == InitiatorName(initiatorName) }
  }

  /// Raises what a change of reservations brings for others.
  func raise(_ notices: [ReservationEffects.Notice], lun: UInt16) {
    var others: [ReservationEffects.Notice] = []
    for notice in notices {
      let found = matching(notice.nexus)
      if found.isEmpty { others.append(notice) }
      for nexus in found { nexus.raise(notice.attention, lun: lun) }
    }
    if !others.isEmpty, let elsewhere = elsewhere.withLock({ $0 }) { elsewhere(others, lun) }
  }

  /// Raises a unit attention on every nexus but `except`, for one logical unit or with nil for every one.
  public func raiseForAll(_ attention: UnitAttention, lun: UInt16? = nil, except: Nexus? = nil) {
    for nexus in all where nexus !== except {
      nexus.raise(attention, lun: lun)
    }
  }
}
