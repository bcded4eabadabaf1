/// A command as the transport hands it to the device server (SAM-5 §5.4.2, Send SCSI Command).
public struct Request: Sendable {
  public var cdb: CDB
  /// The eight-byte LUN field, byte 0 in the most significant octet (SAM-5 §4.7).
  public var lun: UInt64
  /// The bytes that the initiator says it sends, where the transport knows (SAM-5 §5.4.2, Data-Out Buffer Size; for
  /// iSCSI the Expected Data Transfer Length of a command with the W bit). Residuals are the transport's business;
  /// but commands that cannot be done by halves (COMPARE AND WRITE, WRITE SAME) are refused when it does not fit the
  /// CDB.
  public var dataOutBytes: UInt32?

  @inlinable
  public init(cdb: CDB, lun: UInt64, dataOutBytes: UInt32? = nil) {
    self.cdb = cdb
    self.lun = lun
    self.dataOutBytes = dataOutBytes
  }
}

/// What becomes of a command: the device server's whole answer. It never moves data itself.
public enum Disposition: Sendable {
  /// Complete with this status and neither data nor sense.
  case status(Status)
  /// CHECK CONDITION with this sense.
  case checkCondition(Sense)
  /// GOOD with these bytes, already cut to the CDB's allocation length.
  case dataIn([UInt8])
  /// A parameter list of `byteCount` bytes is wanted (at most `DeviceServer.parameterBytesMax`); collect it from the
  /// initiator, then call `DeviceServer.resume(_:nexus:map:parameters:)`.
  case dataOut(byteCount: Int)
  /// The medium has work to do; then GOOD, or the sense of the failure.
  case medium(MediumOperation, LogicalUnit)
  /// Copy segment after segment, then GOOD, or CHECK CONDITION with the failure's sense; `Nexus.updateCopies` is told of the
  /// progress and of the end.
  case copy(CopyOrder, LogicalUnit)
  /// Sanitize the medium: whatever becomes of the command and its nexus. Call `LogicalUnit.endSanitize` at the end.
  case sanitize(SanitizeOrder, LogicalUnit)
  /// LOG SENSE: gather what the executor knows of the logical unit, and answer with `DeviceServer.logPage`.
  case log(LogQuery, LogicalUnit)
  /// Deallocate these extents, in order; then GOOD.
  case unmap([Extent], LogicalUnit)
  /// Write the record to the LUN's label area, wait for stable storage, then call `LogicalUnit.commit(_:)`, abort
  /// what it says, and answer with its status. Nothing has changed yet.
  case reservationChange(ReservationChange, LogicalUnit)
  /// Another target port group is wanted (SET TARGET PORT GROUPS): have the pair switch over, then answer GOOD, or CHECK
  /// CONDITION with `Sense.setTargetPortGroupsCommandFailed`.
  case switchover
  /// PERSISTENT RESERVE IN or OUT at a port in standby, with its parameter list: have the node that is active carry it out
  /// (`DeviceServer.reserve(_:nexus:map:parameters:)` there), and answer with what it says.
  case forward(LogicalUnit, parameters: [UInt8])
  /// Nobody knows yet who has the logical unit's disk: ask again, with the same parameter list if there was one, when the
  /// unit is no longer suspended. Nothing has changed, no unit attention is taken.
  case wait(LogicalUnit)
}
