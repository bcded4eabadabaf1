import Wire

extension DeviceServer {
  /// READ CAPACITY(10) (SBC-4 §5.20): FFFFFFFFh where the last LBA needs more than 32 bits.
  func readCapacity10(_ command: Command) -> Disposition {
    var data: [UInt8] = []
    data.append(be: UInt32(clamping: lastBlock(command.unit)))
    data.append(be: command.unit.traits.blockBytes)
    return .dataIn(data)
  }

  /// READ CAPACITY(16) (SBC-4 §5.21).
  func readCapacity16(_ command: Command) -> Disposition {
    let traits = command.unit.traits
    var data: [UInt8] = []
    data.append(be: lastBlock(command.unit))
    data.append(be: traits.blockBytes)
    data.append(0)  // no protection information
    data.append(traits.physicalExponent & 0x0F)
    var aligned = traits.lowestAlignedBlock & 0x3FFF
    if traits.isThin { aligned |= traits.readsZeroes ? 0xC000 : 0x8000 }  // LBPME, LBPRZ
    data.append(be: aligned)
    data += [UInt8](repeating: 0, count: 32 - data.count)
    return .dataIn(data, allocationLength: command.cdb.be32(10))
  }

  private func lastBlock(_ unit: LogicalUnit) -> UInt64 {
    let blocks = unit.blocks
    return blocks == 0 ? 0 : blocks - 1
  }

  /// READ DEFECT DATA(10) (SBC-4 §5.22): the lists are empty. The format asked for comes back.
  func readDefectData10(_ cdb: CDB) -> Disposition {
    .dataIn([0, cdb[2] & 0x1F, 0, 0], allocationLength: UInt32(cdb.be16(7)))
  }

  /// READ DEFECT DATA(12) (SBC-4 §5.23).
  func readDefectData12(_ cdb: CDB) -> Disposition {
    .dataIn([0, cdb[1] & 0x1F, 0, 0, 0, 0, 0, 0], allocationLength: cdb.be32(6))
  }
}
