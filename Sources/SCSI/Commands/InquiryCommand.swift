import Wire

/// INQUIRY (SPC-5 §6.6).
extension DeviceServer {
  func inquiry(_ command: Command) -> Disposition {
    let cdb = command.cdb
    let length = UInt32(cdb.be16(3))
    if cdb[1] & 0x01 == 0 {
      guard cdb[2] == 0 else { return .checkCondition(.invalidFieldInCDB(byte: 2)) }
      return .dataIn(
        standardInquiry(command.unit.identity, command.unit.traits, peripheral: 0), allocationLength: length)
    }
    guard let page = vitalProductData(cdb[2], command.unit, command.nexus) else {
      return .checkCondition(.invalidFieldInCDB(byte: 2))
    }
    return .dataIn(page, allocationLength: length)
  }

  /// INQUIRY to a LUN without a logical unit: peripheral qualifier 011b and device type 1Fh; for LUN 0, which must
  /// answer so that the others can be found, 001b (SPC-5 table 141). With a disk's type Linux would keep what it found there,
  /// which is no disk, and not look again when there is one.
  func inquiryWithoutUnit(_ cdb: CDB, isLUN0: Bool) -> Disposition {
    let length = UInt32(cdb.be16(3))
    let peripheral: UInt8 = isLUN0 ? 0x3F : 0x7F
    if cdb[1] & 0x01 != 0 {
      guard cdb[2] == 0 else { return .checkCondition(.invalidFieldInCDB(byte: 2)) }
      return .dataIn([peripheral, 0, 0, 1, 0], allocationLength: length)
    }
    guard cdb[2] == 0 else { return .checkCondition(.invalidFieldInCDB(byte: 2)) }
    let nobody = LogicalUnitIdentity(uuid: [], serial: "", vendor: "GATEWAYD", product: "", revision: "")
    let data = standardInquiry(nobody, LogicalUnitTraits(blockBytes: 512), peripheral: peripheral)
    return .dataIn(data, allocationLength: length)
  }

  private func standardInquiry(
    _ identity: LogicalUnitIdentity, _ traits: LogicalUnitTraits, peripheral: UInt8
  ) -> [UInt8] {
    var data: [UInt8] = [
      peripheral,
      traits.isRemovable ? 0x80 : 0x00,  // RMB
      0x06,  // VERSION: SPC-4
      0x12,  // HISUP, RESPONSE DATA FORMAT 2
      0,
      (portGroups.isExplicit ? 0x30 : 0x10) | 0x08,  // TPGS: implicit, and explicit; 3PC
      portGroups.relativeTargetPorts.count > 1 ? 0x10 : 0x00,  // MULTIP
      0x02,  // CMDQUE
    ]
    data.append(text: identity.vendor, paddedTo: 8)
    data.append(text: identity.product, paddedTo: 16)
    data.append(text: identity.revision, paddedTo: 4)
    data += [UInt8](repeating: 0, count: 58 - data.count)
    // Version descriptors: SAM-5, SPC-4, SBC-3, iSCSI (SPC-5 table 143), each without a revision claimed.
    for standard: UInt16 in [0x00A0, 0x0460, 0x04C0, 0x0960] { data.append(be: standard) }
    data += [UInt8](repeating: 0, count: 96 - data.count)
    data[4] = UInt8(data.count - 5)
    return data
  }
}
