import Synchronization

/// An iSCSI initiator name, normalised. Compared by its bytes: two names that Unicode calls equal are two initiators to the rules
/// of access, and must not be one to sessions and reservations.
public struct InitiatorName: Hashable, Sendable {
  public let text: String

  public init(_ text: String) { self.text = text }

  public static func == (left: Self, right: Self) -> Bool { left.text.utf8.elementsEqual(right.text.utf8) }

  public func hash(into hasher: inout Hasher) {
    for byte in text.utf8 { hasher.combine(byte) }
  }
}

/// An initiator port and a target port: what SAM calls an I_T nexus, identified across sessions (SAM-5 §4.5.3). For
/// iSCSI the initiator port is the iSCSI name and the ISID (RFC 7143 §4.4.1 with SPC-5 §7.6.4.6).
public struct NexusIdentity: Hashable, Sendable {
  public var initiatorName: InitiatorName
  /// The 48-bit ISID.
  public var isid: UInt64
  /// RELATIVE TARGET PORT IDENTIFIER of the port it logged in through.
  public var relativeTargetPort: UInt16

  public init(initiatorName: String, isid: UInt64, relativeTargetPort: UInt16) {
    self.initiatorName = InitiatorName(initiatorName)
    self.isid = isid
    self.relativeTargetPort = relativeTargetPort
  }

  /// Whether the other is of the same initiator port, by whatever target port.
  func isSameInitiatorPort(as other: NexusIdentity) -> Bool {
    initiatorName == other.initiatorName && isid == other.isid
  }

  /// The initiator port name, "NAME,i,0xISID" (SPC-5 §7.6.4.6).
  public var initiatorPort: String {
    let hex = String(isid, radix: 16)
    return initiatorName.text + ",i,0x" + String(repeating: "0", count: 12 - hex.count) + hex
  }
}

/// A live I_T nexus: one iSCSI session. It owns the unit attentions pending for it, by LUN. Shared by the shards:
/// another shard may raise an attention while this one's connection runs, hence the lock; the warm path only loads
/// `hasAttention`.
public final class Nexus: Sendable {
  public let identity: NexusIdentity
  /// Unique among all nexuses since start.
  public let id: UInt64
  /// ALUA target port group of the port it logged in through.
  public let targetPortGroup: UInt16

  private let pending = Mutex(PendingAttentions())
  private let written = Mutex(NexusBuffer())
  private let copyLedger = Mutex(CopyLedger())
  private let summary = Atomic<UInt64>(0)

  public init(identity: NexusIdentity, id: UInt64, targetPortGroup: UInt16) {
    self.identity = identity
    self.id = id
    self.targetPortGroup = targetPortGroup
  }

  /// Whether any logical unit has a unit attention condition pending for this nexus.
  public var hasAttention: Bool { summary.load(ordering: .acquiring) != 0 }

  /// Whether this logical unit may have one: exact for LUNs below 63.
  @inline(__always)
  func hasAttention(lun: UInt16) -> Bool {
    summary.load(ordering: .acquiring) & PendingAttentions.bit(of: lun) != 0
  }

  /// Establishes a unit attention condition for one logical unit, or with nil for every one. Equal ones coalesce.
  public func raise(_ attention: UnitAttention, lun: UInt16?) {
    change { $0.raise(attention, lun: lun) }
  }

  /// Establishes one for each of these logical units.
  public func raise(_ attention: UnitAttention, luns: some Sequence<UInt16>) {
    change { pending in for lun in luns { pending.raise(attention, lun: lun) } }
  }

  /// The condition to report next for this logical unit, which is cleared by this call (SAM-5 §5.14.5).
  public func take(lun: UInt16) -> UnitAttention? {
    pending.withLock { pending in
      // LUNs from 63 on share a bit: most of them have nothing.
      guard !pending.pending(lun: lun).isEmpty else { return nil }
      defer { summary.store(pending.summary, ordering: .releasing) }
      return pending.take(lun: lun)
    }
  }

  /// Clears a condition for every logical unit: REPORT LUNS has told what it announced (SPC-5 §6.33).
  public func clear(_ attention: UnitAttention) {
    change { $0.clearEverywhere(attention) }
  }

  /// The EXTENDED COPY commands of this nexus.
  var copies: CopyLedger { copyLedger.withLock { $0 } }

  public func updateCopies(_ body: (inout CopyLedger) -> Void) { copyLedger.withLock { body(&$0) } }

  /// The buffer of WRITE BUFFER and READ BUFFER.
  var buffer: NexusBuffer { written.withLock { $0 } }

  func writeBuffer(_ data: [UInt8], at offset: Int, isEcho: Bool, lun: UInt16) {
    written.withLock { $0.write(data, at: offset, isEcho: isEcho, lun: lun) }
  }

  /// The summary is stored under the lock, so that it never lags behind a later change.
  private func change<R>(_ body: (inout PendingAttentions) -> R) -> R {
    pending.withLock { pending in
      let result = body(&pending)
      summary.store(pending.summary, ordering: .releasing)
      return result
    }
  }
}
