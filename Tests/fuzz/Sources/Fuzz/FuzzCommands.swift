import SCSI
import Wire

private func identity(_ number: UInt16) -> LogicalUnitIdentity {
  LogicalUnitIdentity(
    uuid: [UInt8](0..<15) + [UInt8(number)], serial: "0123456789", vendor: "EXAMPLE", product: "DISK", revision: "1")
}

private func unit(
  _ number: UInt16, _ registry: NexusRegistry, _ change: (inout LogicalUnitTraits) -> Void
) -> LogicalUnit {
  var traits = LogicalUnitTraits(blockBytes: number == 1 ? 4096 : 512)
  traits.persistsReservations = true
  change(&traits)
  do throws(ReservationRecordError) {
    return try LogicalUnit(
      number: number, identity: identity(number), traits: traits, blocks: 1 << 16, registry: registry)
  } catch {
    preconditionFailure("a unit without a record")
  }
}

/// A target with a plain, a thin and a read-only unit, and two nexuses that log in to it.
private struct Target {
  let server: DeviceServer
  let map: LogicalUnitMap
  let nexuses: [Nexus]

  init() {
    let registry = NexusRegistry()
    let ports = TargetPortGroups([
      TargetPortGroups.Group(id: 1, state: .activeOptimized, isPreferred: true, relativeTargetPorts: [1])
    ])
    server = DeviceServer(deviceName: "iqn.2026-01.example:gateway", registry: registry, portGroups: ports)
    map = LogicalUnitMap([
      unit(0, registry) { _ in },
      unit(1, registry) {
        $0.isThin = true
        $0.tellsMapping = true
        $0.unmapGranularity = 8
        $0.atomicBytesMax = 32 << 10
        $0.atomicUnitBytes = 4096
      },
      unit(2, registry) {
        $0.isReadOnly = true
        $0.isRemovable = true
      },
    ])
    nexuses = (0..<2).map {
      let name = "iqn.2026-01.example:\($0)"
      let identity = NexusIdentity(initiatorName: name, isid: UInt64($0), relativeTargetPort: 1)
      return Nexus(identity: identity, id: UInt64($0), targetPortGroup: 1)
    }
    for nexus in nexuses { registry.attach(nexus) }
  }
}

/// A run of commands: each is one byte (nexus, form of the LUN), two bytes of LUN, a CDB, and a parameter list of a length
/// given in one byte times four. What the device server asks of the medium has to lie on the medium.
@Sendable func fuzzCommands(_ data: UnsafeRawBufferPointer) {
  let target = Target()
  var input = Input(data)
  for _ in 0..<64 where !input.isAtEnd {
    let choice = input.byte()
    let nexus = target.nexuses[Int(choice & 1)]
    var lun = UInt64(input.integer(UInt16.self)) << 48
    if choice & 0xE0 != 0xE0 { lun &= 0x0003_0000_0000_0000 }
    let request = Request(cdb: CDB(input.bytes(16)), lun: lun)
    let parameters = input.bytes(Int(input.byte()) * 4)
    let answer = target.server.execute(request, nexus: nexus, map: target.map)
    check(answer, target)
    if case .dataOut(let count) = answer {
      precondition(count > 0 && count <= DeviceServer.parameterBytesMax)
      let list = [UInt8](parameters.prefix(count))
      check(target.server.resume(request, nexus: nexus, map: target.map, parameters: list), target)
    }
  }
}

private func check(_ disposition: Disposition, _ target: Target) {
  switch disposition {
  case .status, .dataOut, .wait, .switchover, .forward: return
  case .checkCondition(let sense):
    precondition(sense.encode(descriptorFormat: false).count <= 252)
    precondition(sense.encode(descriptorFormat: true).count <= 252)
  case .dataIn(let bytes): precondition(bytes.count <= 1 << 20)
  case .log(let query, let unit):
    precondition(target.server.logPage(query, unit, LogFacts()).count <= Int(query.allocationLength))
  case .sanitize(_, let unit): unit.endSanitize(.completed)
  case .copy(let order, _):
    for case .success(let segment) in order.segments {
      precondition(segment.byteCount <= 65535 * 4096)
      guard target.server.refusal(of: segment, nexus: target.nexuses[0]) == nil else { continue }
      let (source, destination) = (segment.source, segment.destination)
      let ends = [
        segment.sourceLBA + segment.byteCount / UInt64(source.traits.blockBytes) <= source.blocks,
        segment.destinationLBA + segment.byteCount / UInt64(destination.traits.blockBytes) <= destination.blocks,
      ]
      precondition(ends.allSatisfy { $0 })
    }
    // Whose copy it is only the ledger knows.
    for nexus in target.nexuses { nexus.updateCopies { $0.end(order.token) } }
  case .medium(let operation, let unit):
    precondition(operation.lba <= unit.blocks && operation.blocks <= unit.blocks - operation.lba)
  case .unmap(let extents, let unit):
    for extent in extents { precondition(extent.lba <= unit.blocks && extent.blocks <= unit.blocks - extent.lba) }
  case .reservationChange(let change, let unit):
    // The record must come back as what it was written from, as after a restart.
    if let record = change.record { precondition((try? PersistentReservations(record: record)) != nil) }
    _ = unit.commit(change)
  }
}

/// A persisted reservation record: any bytes, as they are and with the checksum that they should have. What is accepted is
/// written again as something that is accepted and equal.
@Sendable func fuzzRecord(_ data: UnsafeRawBufferPointer) {
  let bytes = [UInt8](data)
  let checksum = CRC32C.of(bytes)
  let sealed = bytes + (0..<4).map { UInt8(truncatingIfNeeded: checksum >> (24 - 8 * $0)) }
  for record in [bytes, sealed] {
    guard let reservations = try? PersistentReservations(record: record) else { continue }
    guard let again = try? PersistentReservations(record: reservations.encodeRecord()) else {
      preconditionFailure("a written record is refused")
    }
    precondition(again == reservations)
  }
}
