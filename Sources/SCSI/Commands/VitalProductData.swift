import Wire

/// The vital product data pages (SPC-5 §7.7, SBC-4 §6.6).
extension DeviceServer {
  /// The page, with its header; nil if there is none.
  func vitalProductData(_ page: UInt8, _ unit: LogicalUnit, _ nexus: Nexus) -> [UInt8]? {
    guard supportedPages(unit).contains(page) else { return nil }
    var data: [UInt8] = [0, page, 0, 0]
    switch page {
    case 0x00: data += supportedPages(unit)
    case 0x80: data += Array(unit.identity.serial.utf8.prefix(252))
    case 0x83: data += identification(unit, nexus)
    case 0x86: data += extendedInquiry(unit.traits)
    case 0x8F: data += thirdPartyCopy()
    case 0xB0: data += blockLimits(unit)
    case 0xB1: data += characteristics(unit.traits)
    case 0xB2: data += provisioning(unit)
    default: return nil
    }
    data.store(be: UInt16(data.count - 4), at: 2)
    return data
  }

  /// Ascending, as page 00h wants it.
  private func supportedPages(_ unit: LogicalUnit) -> [UInt8] {
    [0x00, 0x80, 0x83, 0x86, 0x8F, 0xB0, 0xB1] + (unit.traits.isThin ? [0xB2] : [])
  }

  /// Extended INQUIRY Data (SPC-5 §7.7.7), 60 bytes after the header.
  private func extendedInquiry(_ traits: LogicalUnitTraits) -> [UInt8] {
    var data = [UInt8](repeating: 0, count: 60)
    data[1] = 0x07  // HEADSUP, ORDSUP, SIMPSUP
    data[2] = traits.hasWriteCache ? 0x01 : 0x00  // V_SUP
    data[3] = 0x01  // LUICLR: unit attentions of the LUN inventory are cleared for all logical units at once
    return data
  }

  /// Block Limits (SBC-4 §6.6.4), 60 bytes after the header; offsets below count from byte 4.
  private func blockLimits(_ unit: LogicalUnit) -> [UInt8] {
    let limits = unit.limits
    var data = [UInt8](repeating: 0, count: 60)
    data[0] = 0x01  // WSNZ
    data[1] = limits.compareAndWrite
    data.store(be: limits.granularity, at: 2)
    data.store(be: limits.transfer, at: 4)
    data.store(be: limits.optimalTransfer, at: 8)
    data.store(be: limits.transfer, at: 12)  // MAXIMUM PREFETCH LENGTH
    data.store(be: limits.unmap, at: 16)
    data.store(be: limits.unmapDescriptors, at: 20)
    data.store(be: unit.traits.isThin ? unit.traits.unmapGranularity : 0, at: 24)
    if unit.traits.isThin, unit.traits.unmapGranularity > 0 { data.store(be: UInt32(0x8000_0000), at: 28) }  // UGAVALID
    data.store(be: limits.writeSame, at: 32)
    data.store(be: limits.atomic, at: 40)  // without an atomic boundary, which bytes 52 to 59 would be about
    data.store(be: limits.atomicUnit, at: 44)
    data.store(be: limits.atomicUnit, at: 48)
    return data
  }

  /// Block Device Characteristics (SBC-4 §6.6.3).
  private func characteristics(_ traits: LogicalUnitTraits) -> [UInt8] {
    var data = [UInt8](repeating: 0, count: 60)
    data.store(be: UInt16(traits.isRotational ? 0 : 1), at: 0)  // 0: not reported, 1: does not rotate
    data[3] = traits.isThin ? 0x40 : 0x00  // WABEREQ 01b: after BLOCK ERASE reads are answered
    return data
  }

  /// Logical Block Provisioning (SBC-4 §6.6.5).
  private func provisioning(_ unit: LogicalUnit) -> [UInt8] {
    // THRESHOLD EXPONENT: what the log page counts in; LBPU, LBPWS, LBPWS10, LBPRZ 001b; PROVISIONING TYPE 2: thin. By WRITE
    // SAME nothing is deallocated that would not read as the zeroes that were to be written.
    let ways: UInt8 = unit.traits.readsZeroes ? 0x80 | 0x40 | 0x20 | 0x04 : 0x80
    return [unit.traits.countsSpace ? UInt8(unit.thresholdExponent) : 0x00, ways, 0x02, 0x00]
  }
}
