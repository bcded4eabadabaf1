import Wire

/// Which form of the mode parameter header (SPC-5 §7.5.5).
enum ModeForm {
  case six, ten

  var headerBytes: Int { self == .six ? 4 : 8 }
}

/// MODE SENSE (SPC-5 §6.14, §6.15).
extension DeviceServer {
  func modeSense(_ command: Command, _ form: ModeForm) -> Disposition {
    let cdb = command.cdb
    let control = cdb[2] >> 6
    guard let values = ModePage.Values(rawValue: control) else {
      return .checkCondition(.savingParametersNotSupported)  // PC 11b
    }
    guard let pages = selectPages(cdb, command.unit, values) else {
      return .checkCondition(.invalidFieldInCDB(byte: cdb[3] == 0 || cdb[3] == 0xFF ? 2 : 3, bit: nil))
    }
    let isLong = form == .ten && cdb[1] & 0x10 != 0  // LLBAA
    let descriptor = cdb[1] & 0x08 != 0 ? [] : blockDescriptor(command.unit, isLong: isLong)
    let data = modeHeader(command.unit, form, descriptor, isLong: isLong, bodyBytes: pages.count) + descriptor + pages
    return .dataIn(data, allocationLength: form == .six ? UInt32(cdb[4]) : UInt32(cdb.be16(7)))
  }

  /// PAGE CODE 3Fh is all; SUBPAGE CODE 00h the page itself, FFh the page with its subpages, of which there are none.
  private func selectPages(_ cdb: CDB, _ unit: LogicalUnit, _ values: ModePage.Values) -> [UInt8]? {
    guard cdb[3] == 0x00 || cdb[3] == 0xFF else { return nil }
    let mode = values == .defaults ? ModeParameters() : unit.modeParameters
    let pages = ModePage.all(unit.traits, mode)
    let code = cdb[2] & 0x3F
    if code == 0x3F { return pages.flatMap { $0.values(values) } }
    return pages.first { $0.code == code }?.values(values)
  }

  private func modeHeader(
    _ unit: LogicalUnit, _ form: ModeForm, _ descriptor: [UInt8], isLong: Bool, bodyBytes: Int
  ) -> [UInt8] {
    var parameter: UInt8 = 0x10  // DPOFUA
    if unit.gate.contains(.writeProtected) { parameter |= 0x80 }  // WP
    let total = form.headerBytes + descriptor.count + bodyBytes
    switch form {
    case .six: return [UInt8(total - 1), 0, parameter, UInt8(descriptor.count)]
    case .ten:
      var header: [UInt8] = []
      header.append(be: UInt16(total - 2))
      header += [0, parameter, isLong ? 0x01 : 0x00, 0]
      header.append(be: UInt16(descriptor.count))
      return header
    }
  }

  /// The short or long LBA mode parameter block descriptor (SBC-4 §6.5.2).
  private func blockDescriptor(_ unit: LogicalUnit, isLong: Bool) -> [UInt8] {
    var descriptor: [UInt8] = []
    if isLong {
      descriptor.append(be: unit.blocks)
      descriptor.append(be: UInt32(0))
    } else {
      descriptor.append(be: UInt32(clamping: unit.blocks))
    }
    descriptor.append(be: unit.traits.blockBytes)  // short: the upper byte is reserved and 0
    return descriptor
  }
}
