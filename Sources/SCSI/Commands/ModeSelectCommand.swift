import Wire

/// MODE SELECT (SPC-5 §6.12, §6.13). Pages with unchanged values and the changeable bits are taken; nothing is saved.
extension DeviceServer {
  func startModeSelect(_ cdb: CDB, _ byteCount: UInt32, lengthAt byte: Int) -> Disposition {
    if cdb[1] & 0x01 != 0 { return .checkCondition(.invalidFieldInCDB(byte: 1, bit: 0)) }  // SP
    if cdb[1] & 0x10 == 0 { return .checkCondition(.invalidFieldInCDB(byte: 1, bit: 4)) }  // PF
    return collect(byteCount, lengthAt: byte)
  }

  func modeSelect(_ command: Command, _ list: [UInt8], _ form: ModeForm) -> Disposition {
    guard list.count >= form.headerBytes else { return .checkCondition(.parameterListLengthError) }
    let span = list.span.bytes
    let isLong = form == .ten && list[4] & 0x01 != 0
    let descriptorBytes = form == .six ? Int(list[3]) : Int(span.be16(6))
    let start = form.headerBytes
    guard descriptorBytes == 0 || descriptorBytes == (isLong ? 16 : 8) else {
      return .checkCondition(.invalidFieldInParameterList(byte: form == .six ? 3 : 6))
    }
    guard list.count >= start + descriptorBytes else { return .checkCondition(.parameterListLengthError) }
    if descriptorBytes > 0, let refusal = checkDescriptor(span, at: start, isLong: isLong, command.unit) {
      return .checkCondition(refusal)
    }
    switch adopt(list, from: start + descriptorBytes, command.unit) {
    case .failure(let sense): return .checkCondition(sense)
    case .success(let mode):
      command.unit.setModeParameters(mode, by: command.nexus)
      return .status(.good)
    }
  }

  /// Capacity and block length cannot be changed: all ones, zero or the value itself for the former (SBC-4 §6.5.2).
  private func checkDescriptor(_ span: RawSpan, at start: Int, isLong: Bool, _ unit: LogicalUnit) -> Sense? {
    let blocks = isLong ? span.be64(start) : UInt64(span.be32(start))
    let lengthAt = isLong ? start + 12 : start + 4
    let blockBytes = isLong ? span.be32(lengthAt) : span.be32(lengthAt) & 0xFF_FFFF
    let most = isLong ? UInt64.max : UInt64(UInt32.max)
    guard blocks == 0 || blocks == most || blocks == unit.blocks else {
      return .invalidFieldInParameterList(byte: start)
    }
    guard blockBytes == unit.traits.blockBytes else { return .invalidFieldInParameterList(byte: lengthAt) }
    return nil
  }

  /// All pages are checked before one is taken.
  private func adopt(_ list: [UInt8], from start: Int, _ unit: LogicalUnit) -> Result<ModeParameters, Sense> {
    var mode = unit.modeParameters
    let pages = ModePage.all(unit.traits, mode)
    var offset = start
    while offset < list.count {
      guard list.count - offset >= 2 else { return .failure(.parameterListLengthError) }
      guard list[offset] & 0x40 == 0, let page = pages.first(where: { $0.code == list[offset] & 0x3F }) else {
        return .failure(.invalidFieldInParameterList(byte: offset))
      }
      guard Int(list[offset + 1]) == page.bytes.count - 2 else {
        return .failure(.invalidFieldInParameterList(byte: offset + 1))
      }
      guard list.count - offset >= page.bytes.count else { return .failure(.parameterListLengthError) }
      for i in 2..<page.bytes.count where (list[offset + i] ^ page.bytes[i]) & ~page.mask[i] != 0 {
        return .failure(.invalidFieldInParameterList(byte: offset + i))
      }
      mode.adopt(Array(list[offset..<offset + page.bytes.count]))
      offset += page.bytes.count
    }
    return .success(mode)
  }
}
