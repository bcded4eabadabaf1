/// The commands that name a run of blocks (SBC-4 §5).
extension CDB {
  /// LOGICAL BLOCK ADDRESS and TRANSFER LENGTH (or what stands in its place), and the byte where the latter begins.
  @inline(__always)
  func extent(_ fields: BlockFields) -> (lba: UInt64, blocks: UInt32, lengthAt: Int) {
    switch fields {
    case .ten: (UInt64(UInt32(truncatingIfNeeded: high >> 16)), UInt32(be16(7)), 7)
    case .sixteen: ((high << 16) | (low >> 48), UInt32(truncatingIfNeeded: low >> 16), 10)
    case .twelve: (UInt64(UInt32(truncatingIfNeeded: high >> 16)), be32(6), 6)
    // A length of 0 is 256 blocks (SBC-4 §5.16).
    case .six: (UInt64(be24(1) & 0x1F_FFFF), self[4] == 0 ? 256 : UInt32(self[4]), 4)
    case .none: (0, 0, 0)
    }
  }

  var forcesUnitAccess: Bool { self[1] & 0x08 != 0 }
  /// BYTCHK of the verifying commands.
  var byteCheck: UInt8 { (self[1] >> 1) & 0b11 }
}

extension CommandRow {
  /// The medium operation of a READ or WRITE.
  @inline(__always)
  func transfer(_ extent: (lba: UInt64, blocks: UInt32, lengthAt: Int), _ cdb: CDB) -> MediumOperation {
    MediumOperation(
      handler == .read ? .read : .write, lba: extent.lba, blocks: UInt64(extent.blocks),
      forceUnitAccess: fields != .six && cdb.forcesUnitAccess)
  }
}

extension DeviceServer {
  /// Checks the run against the capacity, then its length against `most`.
  private func check(
    _ extent: (lba: UInt64, blocks: UInt32, lengthAt: Int), _ unit: LogicalUnit, most: UInt32
  ) -> Disposition? {
    guard unit.contains(extent.lba, extent.blocks) else {
      return .checkCondition(.logicalBlockAddressOutOfRange)
    }
    if extent.blocks > most { return .checkCondition(.invalidFieldInCDB(byte: extent.lengthAt)) }
    return extent.blocks == 0 ? .status(.good) : nil
  }

  /// READ and WRITE (SBC-4 §5.16, §5.43) that the warm path did not let through, or not yet.
  func transfer(_ row: CommandRow, _ command: Command) -> Disposition {
    let extent = command.cdb.extent(row.fields)
    if let answer = check(extent, command.unit, most: command.unit.limits.transfer) { return answer }
    return .medium(row.transfer(extent, command.cdb), command.unit)
  }

  /// VERIFY (SBC-4 §5.37): BYTCHK 10b is reserved.
  func verify(_ fields: BlockFields, _ command: Command) -> Disposition {
    let kind: MediumOperation.Kind
    switch command.cdb.byteCheck {
    case 0b00: kind = .verify
    case 0b01: kind = .compare
    case 0b11: kind = .compareRepeated
    default: return .checkCondition(.invalidFieldInCDB(byte: 1, bit: 2))
    }
    let extent = command.cdb.extent(fields)
    if let answer = check(extent, command.unit, most: command.unit.limits.transfer) { return answer }
    return .medium(MediumOperation(kind, lba: extent.lba, blocks: UInt64(extent.blocks)), command.unit)
  }

  /// WRITE AND VERIFY (SBC-4 §5.50): BYTCHK 00b or 01b; the others are reserved.
  func writeAndVerify(_ fields: BlockFields, _ command: Command) -> Disposition {
    let check = command.cdb.byteCheck
    if check > 0b01 { return .checkCondition(.invalidFieldInCDB(byte: 1, bit: 2)) }
    let extent = command.cdb.extent(fields)
    if let answer = self.check(extent, command.unit, most: command.unit.limits.transfer) { return answer }
    let operation = MediumOperation(
      .writeAndVerify, lba: extent.lba, blocks: UInt64(extent.blocks), forceUnitAccess: true, bytewise: check == 0b01)
    return .medium(operation, command.unit)
  }

  /// WRITE SAME (SBC-4 §5.52). WSNZ is 1: a NUMBER OF LOGICAL BLOCKS of 0 is refused.
  func writeSame(_ fields: BlockFields, _ command: Command) -> Disposition {
    let extent = command.cdb.extent(fields)
    let unit = command.unit
    let mayUnmap = command.cdb[1] & 0x08 != 0
    if mayUnmap, !unit.traits.isThin { return .checkCondition(.invalidFieldInCDB(byte: 1, bit: 3)) }
    guard unit.contains(extent.lba, extent.blocks) else {
      return .checkCondition(.logicalBlockAddressOutOfRange)
    }
    guard extent.blocks > 0, UInt64(extent.blocks) <= unit.limits.writeSame else {
      return .checkCondition(.invalidFieldInCDB(byte: extent.lengthAt))
    }
    let hasNoData = fields == .sixteen && command.cdb[1] & 0x01 != 0  // NDOB
    guard hasNoData || command.sends(blocks: 1) else {
      return .checkCondition(.invalidFieldInCDB(byte: extent.lengthAt))
    }
    let operation = MediumOperation(
      hasNoData ? .writeZeroes : .writeSame, lba: extent.lba, blocks: UInt64(extent.blocks), mayUnmap: mayUnmap)
    return .medium(operation, unit)
  }

  /// COMPARE AND WRITE (SBC-4 §5.2): NUMBER OF LOGICAL BLOCKS is one byte.
  func compareAndWrite(_ command: Command) -> Disposition {
    let cdb = command.cdb
    let extent = (lba: cdb.be64(2), blocks: UInt32(cdb[13]), lengthAt: 13)
    guard command.sends(blocks: 2 * UInt64(extent.blocks)) else { return .checkCondition(.invalidFieldInCDB(byte: 13)) }
    if let answer = check(extent, command.unit, most: UInt32(command.unit.limits.compareAndWrite)) { return answer }
    let operation = MediumOperation(
      .compareAndWrite, lba: extent.lba, blocks: UInt64(extent.blocks), forceUnitAccess: cdb.forcesUnitAccess)
    return .medium(operation, command.unit)
  }

  /// ORWRITE (SBC-4 §5.8).
  func orWrite(_ fields: BlockFields, _ command: Command) -> Disposition {
    let extent = command.cdb.extent(fields)
    if let answer = check(extent, command.unit, most: command.unit.limits.transfer) { return answer }
    let operation = MediumOperation(
      .orWrite, lba: extent.lba, blocks: UInt64(extent.blocks), forceUnitAccess: command.cdb.forcesUnitAccess)
    return .medium(operation, command.unit)
  }

  /// WRITE ATOMIC(16) (SBC-4 §5.47): TRANSFER LENGTH has 16 bits. There is none where nothing is known of the disk's
  /// atomicity.
  func writeAtomic(_ command: Command) -> Disposition {
    let limits = command.unit.limits
    guard limits.atomic > 0 else { return .checkCondition(.invalidCommandOperationCode) }
    let cdb = command.cdb
    let extent = (lba: cdb.be64(2), blocks: UInt32(cdb.be16(12)), lengthAt: 12)
    if let answer = check(extent, command.unit, most: limits.atomic) { return answer }
    if limits.atomicUnit > 0 {
      guard extent.lba % UInt64(limits.atomicUnit) == 0 else { return .checkCondition(.invalidFieldInCDB(byte: 2)) }
      guard extent.blocks % limits.atomicUnit == 0 else { return .checkCondition(.invalidFieldInCDB(byte: 12)) }
    }
    guard command.sends(blocks: UInt64(extent.blocks)) else { return .checkCondition(.invalidFieldInCDB(byte: 12)) }
    let operation = MediumOperation(
      .writeAtomic, lba: extent.lba, blocks: UInt64(extent.blocks), forceUnitAccess: cdb.forcesUnitAccess)
    return .medium(operation, command.unit)
  }

  /// PRE-FETCH (SBC-4 §5.10): a length of 0 is up to the end. Best effort, so only as much as one transfer is
  /// fetched.
  func prefetch(_ fields: BlockFields, _ command: Command) -> Disposition {
    let extent = command.cdb.extent(fields)
    let unit = command.unit
    guard unit.contains(extent.lba, extent.blocks) else {
      return .checkCondition(.logicalBlockAddressOutOfRange)
    }
    let wanted = extent.blocks == 0 ? unit.blocks - extent.lba : UInt64(extent.blocks)
    if wanted == 0 { return .status(.good) }
    let operation = MediumOperation(
      .prefetch, lba: extent.lba, blocks: min(wanted, UInt64(unit.limits.transfer)),
      immediate: command.cdb[1] & 0x02 != 0)
    return .medium(operation, unit)
  }

  /// SYNCHRONIZE CACHE (SBC-4 §5.34): the disk flushes all of its cache, whatever the range.
  func synchronizeCache(_ fields: BlockFields, _ command: Command) -> Disposition {
    let extent = command.cdb.extent(fields)
    let unit = command.unit
    guard unit.contains(extent.lba, extent.blocks) else {
      return .checkCondition(.logicalBlockAddressOutOfRange)
    }
    let blocks = extent.blocks == 0 ? unit.blocks - extent.lba : UInt64(extent.blocks)
    let operation = MediumOperation(.flush, lba: extent.lba, blocks: blocks, immediate: command.cdb[1] & 0x02 != 0)
    return .medium(operation, unit)
  }
}
