import Wire

/// UNMAP and GET LBA STATUS (SBC-4 §5.35, §5.6).
extension DeviceServer {
  /// The parameter list: UNMAP DATA LENGTH, UNMAP BLOCK DESCRIPTOR DATA LENGTH, reserved (4), descriptors of LBA (8),
  /// NUMBER OF LOGICAL BLOCKS (4), reserved (4). All or nothing: one bad descriptor and nothing is unmapped.
  func unmap(_ command: Command, _ parameters: [UInt8]) -> Disposition {
    guard parameters.count >= 8 else { return .checkCondition(.parameterListLengthError) }
    let span = parameters.span.bytes
    let declared = Int(span.be16(2))
    // Cut off is cut off: a descriptor that is not whole is ignored (SBC-4 §5.35.2).
    let count = min(declared, parameters.count - 8) / 16
    guard count <= Int(command.unit.limits.unmapDescriptors) else {
      return .checkCondition(.invalidFieldInParameterList(byte: 2))
    }
    var extents: [Extent] = []
    var total: UInt64 = 0
    for i in 0..<count {
      let offset = 8 + 16 * i
      let extent = Extent(lba: span.be64(offset), blocks: UInt64(span.be32(offset + 8)))
      let capacity = command.unit.blocks
      guard extent.lba <= capacity, extent.blocks <= capacity - extent.lba else {
        return .checkCondition(.logicalBlockAddressOutOfRange)
      }
      total += extent.blocks
      guard total <= UInt64(command.unit.limits.unmap) else {
        return .checkCondition(.invalidFieldInParameterList(byte: offset + 8))
      }
      if extent.blocks > 0 { extents.append(extent) }
    }
    return extents.isEmpty ? .status(.good) : .unmap(extents, command.unit)
  }

  /// GET LBA STATUS. Where the disk cannot tell, everything is mapped.
  func lbaStatus(_ command: Command) -> Disposition {
    let lba = command.cdb.be64(2)
    let length = command.cdb.be32(10)
    let capacity = command.unit.blocks
    guard lba < capacity else { return .checkCondition(.logicalBlockAddressOutOfRange) }
    guard command.unit.traits.isThin, command.unit.traits.tellsMapping else {
      return .dataIn(
        lbaStatus(of: [(Extent(lba: lba, blocks: capacity - lba), mapped: true)], allocationLength: length))
    }
    return .medium(
      MediumOperation(.lbaStatus, lba: lba, blocks: capacity - lba, allocationLength: length), command.unit)
  }

  /// The parameter data of GET LBA STATUS for consecutive extents, cut to the allocation length in whole.
  public func lbaStatus(of extents: [(Extent, mapped: Bool)], allocationLength: UInt32) -> [UInt8] {
    // NUMBER OF LOGICAL BLOCKS has 32 bits; more descriptors than fit are not built (SBC-4 §5.6.2).
    let room = max(1, (Int(min(allocationLength, 1 << 20)) - 8) / 16)
    var descriptors: [UInt8] = []
    outer: for (extent, mapped) in extents {
      var lba = extent.lba
      var left = extent.blocks
      while left > 0 {
        guard descriptors.count < 16 * room else { break outer }
        let blocks = UInt32(clamping: left)
        descriptors.append(be: lba)
        descriptors.append(be: blocks)
        descriptors += [mapped ? 0x00 : 0x01, 0, 0, 0]  // PROVISIONING STATUS
        lba += UInt64(blocks)
        left -= UInt64(blocks)
      }
    }
    var data: [UInt8] = []
    data.append(be: UInt32(descriptors.count + 4))
    data.append(be: UInt32(0))
    data += descriptors
    return Array(data.prefix(Int(allocationLength)))
  }
}
