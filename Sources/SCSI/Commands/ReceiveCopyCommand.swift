import Wire

/// RECEIVE COPY RESULTS (SPC-4 §6.25): of the copies of this nexus, by their LIST IDENTIFIER.
extension DeviceServer {
  func receiveCopyResults(_ command: Command) -> Disposition {
    let cdb = command.cdb
    let length = cdb.be32(10)
    if cdb.serviceAction == CopyResults.operatingParameters {
      guard cdb[2] == 0 else { return .checkCondition(.invalidFieldInCDB(byte: 2)) }
      return .dataIn(operatingParameters(), allocationLength: length)
    }
    guard let entry = command.nexus.copies.entry(list: cdb[2]) else {
      return .checkCondition(.invalidFieldInCDB(byte: 2))
    }
    switch cdb.serviceAction {
    case CopyResults.copyStatus: return .dataIn(copyStatus(entry), allocationLength: length)
    // Segments of type 02h hold no data for the initiator.
    case CopyResults.receiveData: return .dataIn([0, 0, 0, 0], allocationLength: length)
    default: return .dataIn(failedSegmentDetails(entry), allocationLength: length)
    }
  }

  private enum CopyResults {
    static let copyStatus: UInt8 = 0x00
    static let receiveData: UInt8 = 0x01
    static let operatingParameters: UInt8 = 0x03
  }

  private func copyStatus(_ entry: CopyLedger.Entry) -> [UInt8] {
    let status: UInt8 =
      switch entry.state {
      case .running: 0x00
      case .done: 0x01
      case .failed: 0x02
      }
    var data: [UInt8] = [0, 0, 0, 8, status]
    data.append(be: entry.segments)
    // TRANSFER COUNT UNITS: bytes, or MiB where those do not fit.
    let fits = entry.byteCount <= UInt64(UInt32.max)
    data.append(fits ? 0x00 : 0x02)
    data.append(be: UInt32(clamping: fits ? entry.byteCount : entry.byteCount >> 20))
    return data
  }

  /// Nothing, unless a logical unit ended what the copy asked of it.
  private func failedSegmentDetails(_ entry: CopyLedger.Entry) -> [UInt8] {
    guard case .failed(let failure) = entry.state, let status = failure.status else { return [0, 0, 0, 0] }
    let sense = failure.cause?.encode(descriptorFormat: false) ?? []
    var data = [UInt8](repeating: 0, count: 60)
    data[56] = status.rawValue
    data.store(be: UInt16(sense.count), at: 58)
    data += sense
    data.store(be: UInt32(data.count - 4), at: 0)
    return data
  }

  private func operatingParameters() -> [UInt8] {
    var data: [UInt8] = [0, 0, 0, 0, 0x01, 0, 0, 0]  // SNLID: a copy need not have an identifier
    data.append(be: UInt16(CopyOrder.targetsMax))
    data.append(be: UInt16(CopyOrder.segmentsMax))
    data.append(be: UInt32(CopyOrder.descriptorBytesMax))
    data.append(be: CopyOrder.segmentLengthMax)
    data += [UInt8](repeating: 0, count: 14)  // no inline data, no held data, no streams
    data.append(be: UInt16(CopyLedger.concurrentMax))
    data += [UInt8(CopyLedger.concurrentMax), 9, 0, 0, 0, 0, 0]  // DATA SEGMENT GRANULARITY: 512 bytes
    data += [2, Self.blockToBlock, Self.identificationDescriptor]
    data.store(be: UInt32(data.count - 4), at: 0)
    return data
  }

  /// Third-party Copy, VPD page 8Fh (SPC-4 §7.8.17), behind its header.
  func thirdPartyCopy() -> [UInt8] {
    func descriptor(_ type: UInt16, _ value: [UInt8]) -> [UInt8] {
      let padded = value + [UInt8](repeating: 0, count: (4 - value.count % 4) % 4)
      var data: [UInt8] = []
      data.append(be: type)
      data.append(be: UInt16(padded.count))
      return data + padded
    }
    // Supported Commands: EXTENDED COPY(LID1), and the service actions of RECEIVE COPY RESULTS.
    let commands: [UInt8] = [0x83, 1, 0x00, 0x84, 4, 0x00, 0x01, 0x03, 0x04]
    var parameters: [UInt8] = [0, 0, 0, 0]
    parameters.append(be: UInt16(CopyOrder.targetsMax))
    parameters.append(be: UInt16(CopyOrder.segmentsMax))
    parameters.append(be: UInt32(CopyOrder.descriptorBytesMax))
    parameters += [UInt8](repeating: 0, count: 16)
    var general: [UInt8] = []
    general.append(be: UInt32(CopyLedger.concurrentMax))
    general.append(be: UInt32(CopyLedger.concurrentMax))
    general.append(be: CopyOrder.segmentLengthMax)
    general += [9] + [UInt8](repeating: 0, count: 19)
    return descriptor(0x0001, [UInt8(commands.count)] + commands) + descriptor(0x0004, parameters)
      + descriptor(0x0008, [2, Self.blockToBlock, Self.identificationDescriptor]) + descriptor(0x8001, general)
  }
}
