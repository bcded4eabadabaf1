import Wire

/// EXTENDED COPY(LID1) (SPC-4 §6.4): between logical units of this gateway that the nexus sees, named by their NAA
/// identifiers. Parameters are checked as a whole before anything is copied; a segment is checked before its turn.
extension DeviceServer {
  /// CSCD descriptor and segment descriptor types.
  static let identificationDescriptor: UInt8 = 0xE4
  static let blockToBlock: UInt8 = 0x02

  private static let headerBytes = 16

  func extendedCopy(_ command: Command, _ list: [UInt8]) -> Disposition {
    guard list.count >= Self.headerBytes else { return .checkCondition(.parameterListLengthError) }
    let span = list.span.bytes
    // LIST ID USAGE: 00b keeps the results, 10b does not, 11b has no identifier.
    let usage = (list[1] >> 3) & 0b11
    guard usage != 0b01 else { return .checkCondition(.invalidFieldInParameterList(byte: 1, bit: 4)) }
    guard usage != 0b11 || list[0] == 0 else { return .checkCondition(.invalidFieldInParameterList(byte: 0)) }
    let targetsEnd = Self.headerBytes + Int(span.be16(2))
    let segmentBytes = Int(span.be32(8))
    let segmentsEnd = targetsEnd + segmentBytes
    guard segmentsEnd - Self.headerBytes <= CopyOrder.descriptorBytesMax, segmentsEnd <= list.count else {
      return .checkCondition(.parameterListLengthError)
    }
    guard span.be32(12) == 0 else { return .checkCondition(.inlineDataLengthExceeded) }
    do throws(Sense) {
      let targets = try copyTargets(list, Self.headerBytes..<targetsEnd, command.map)
      let segments = try copySegments(list, targetsEnd..<segmentsEnd, targets)
      guard !segments.isEmpty else { return .status(.good) }
      var result: Result<UInt64, Sense> = .success(0)
      command.nexus.updateCopies { copies in
        do throws(Sense) {
          result = .success(try copies.begin(list: usage == 0b11 ? nil : list[0], isKept: usage == 0b00))
        } catch { result = .failure(error) }
      }
      return .copy(CopyOrder(segments: segments, token: try result.get()), command.unit)
    } catch {
      return .checkCondition(error)
    }
  }

  /// What the CSCD descriptors name; nil for one that cannot be reached, which matters only to a segment that needs it.
  private func copyTargets(_ list: [UInt8], _ range: Range<Int>, _ map: LogicalUnitMap) throws(Sense) -> [LogicalUnit?]
  {
    guard range.count <= CopyOrder.targetsMax * CopyOrder.targetBytes else { throw .tooManyTargetDescriptors }
    var targets: [LogicalUnit?] = []
    for start in stride(from: range.lowerBound, to: range.upperBound, by: CopyOrder.targetBytes) {
      guard list[start] == Self.identificationDescriptor else {
        throw .unsupportedTargetDescriptorType(byte: start)
      }
      guard range.upperBound - start >= CopyOrder.targetBytes else { throw .invalidFieldInParameterList(byte: 2) }
      // LU ID TYPE is not looked at where a designator names the logical unit, and NUL is obsolete (SPC-4 §6.4.5.1).
      guard list[start + 7] <= 20 else { throw .invalidFieldInParameterList(byte: start + 7) }
      let isDisk = list[start + 1] & 0x1F == 0
      let found = isDisk ? unit(named: Array(list[start + 4..<start + 28]), map) : nil
      if let found {
        let blockBytes = list.span.bytes.be32(start + 28) & 0xFF_FFFF
        guard blockBytes == found.traits.blockBytes else { throw .invalidFieldInParameterList(byte: start + 29) }
      }
      targets.append(found)
    }
    return targets
  }

  /// The logical unit with this NAA designator: CODE SET binary, ASSOCIATION logical unit, 16 bytes.
  private func unit(named designator: [UInt8], _ map: LogicalUnitMap) -> LogicalUnit? {
    guard designator[0] & 0x0F == 1, designator[1] & 0x3F == 3, designator[3] == 16 else { return nil }
    let name = designator[4..<20]
    for number in map.numbers {
      guard let unit = map[number], unit.identity.uuid.suffix(8).elementsEqual(name.suffix(8)) else { continue }
      if Designator.naa(unit.identity.uuid).suffix(16).elementsEqual(name) { return unit }
    }
    return nil
  }

  private func copySegments(
    _ list: [UInt8], _ range: Range<Int>, _ targets: [LogicalUnit?]
  ) throws(Sense) -> [Result<CopySegment, CopyFailure>] {
    var segments: [Result<CopySegment, CopyFailure>] = []
    let span = list.span.bytes
    var start = range.lowerBound
    while start < range.upperBound {
      guard segments.count < CopyOrder.segmentsMax else { throw .tooManySegmentDescriptors }
      guard list[start] == Self.blockToBlock else { throw .unsupportedSegmentDescriptorType(byte: start) }
      guard range.upperBound - start >= CopyOrder.segmentBytes, Int(span.be16(start + 2)) == CopyOrder.segmentBytes - 4
      else { throw .invalidFieldInParameterList(byte: start + 2) }
      segments.append(copySegment(list, start, targets, number: UInt16(segments.count)))
      start += CopyOrder.segmentBytes
    }
    return segments
  }

  private func copySegment(
    _ list: [UInt8], _ start: Int, _ targets: [LogicalUnit?], number: UInt16
  ) -> Result<CopySegment, CopyFailure> {
    let span = list.span.bytes
    func target(_ byte: Int) -> LogicalUnit? {
      let i = Int(span.be16(start + byte))
      return i < targets.count ? targets[i] : nil
    }
    guard let source = target(4) else {
      return .failure(CopyFailure(CopyFailure.unreachableTarget, segment: number, byte: 4))
    }
    guard let destination = target(6) else {
      return .failure(CopyFailure(CopyFailure.unreachableTarget, segment: number, byte: 6))
    }
    // DC: whose blocks are counted.
    let counts = list[start + 1] & 0x02 != 0 ? destination : source
    let segment = CopySegment(
      source: source, sourceLBA: span.be64(start + 12), destination: destination,
      destinationLBA: span.be64(start + 20),
      byteCount: UInt64(span.be16(start + 10)) * UInt64(counts.traits.blockBytes), number: number)
    // Without a rest that would have to be padded, or kept for the next segment (CAT).
    guard segment.byteCount % UInt64(source.traits.blockBytes) == 0,
      segment.byteCount % UInt64(destination.traits.blockBytes) == 0
    else { return .failure(CopyFailure(CopyFailure.inexactSegment, segment: number, byte: 10)) }
    return .success(segment)
  }

  /// Why the next piece of a segment may not be copied: asked before each, because reservations, capacity and the states of
  /// ports may have changed since the last.
  public func refusal(of segment: CopySegment, nexus: Nexus) -> CopyFailure? {
    refusal(of: segment, segment.source, segment.sourceLBA, .reading, nexus)
      ?? refusal(of: segment, segment.destination, segment.destinationLBA, .writing, nexus)
  }

  private func refusal(
    of segment: CopySegment, _ unit: LogicalUnit, _ lba: UInt64, _ access: PersistentAccess, _ nexus: Nexus
  ) -> CopyFailure? {
    let gate = unit.gate
    if gate.contains(.gone) || gate.contains(.suspended) || !portGroups.isAllActive, isCutOff(unit, nexus) {
      return CopyFailure(CopyFailure.unreachableTarget, segment: segment.number)
    }
    if gate.contains(.reserved), !unit.admits(.conflict, access, from: nexus, portGroups) {
      return CopyFailure(CopyFailure.deviceFailure, segment: segment.number, status: .reservationConflict)
    }
    if let sense = unit.sanitizeSense ?? mediumRefusal(gate, unit, isWriting: access == .writing) {
      return .device(segment: segment.number, cause: sense)
    }
    let blocks = segment.byteCount / UInt64(unit.traits.blockBytes)
    guard unit.contains(lba, UInt32(blocks)) else {
      return CopyFailure(
        Sense.noAdditionalSenseInformation.code, segment: segment.number, byte: access == .reading ? 12 : 20,
        status: .checkCondition, cause: .logicalBlockAddressOutOfRange)
    }
    return nil
  }

  private func isCutOff(_ unit: LogicalUnit, _ nexus: Nexus) -> Bool {
    if !unit.gate.isDisjoint(with: [.gone, .suspended]) { return true }
    switch portGroups.state(of: nexus.targetPortGroup) {
    case .activeOptimized, .activeNonOptimized: return false
    case .standby, .unavailable, .transitioning: return true
    }
  }

  private func mediumRefusal(_ gate: LogicalUnitGate, _ unit: LogicalUnit, isWriting: Bool) -> Sense? {
    if gate.contains(.ejected) { return .mediumNotPresent }
    guard isWriting, gate.contains(.writeProtected) else { return nil }
    return unit.traits.isReadOnly ? .writeProtected : .logicalUnitSoftwareWriteProtected
  }
}
