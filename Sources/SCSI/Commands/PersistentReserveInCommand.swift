import Wire

/// PERSISTENT RESERVE IN (SPC-5 §6.16).
extension DeviceServer {
  func persistentReserveIn(_ command: Command) -> Disposition {
    let reservations = command.unit.reservations
    let data: [UInt8]
    switch command.cdb.serviceAction {
    case 0x00: data = readKeys(reservations)
    case 0x01: data = readReservation(reservations)
    case 0x02: data = reportCapabilities(reservations, command.unit.traits)
    default: data = readFullStatus(reservations)
    }
    return .dataIn(data, allocationLength: UInt32(command.cdb.be16(7)))
  }

  private func header(_ reservations: PersistentReservations, _ body: [UInt8]) -> [UInt8] {
    var data: [UInt8] = []
    data.append(be: reservations.generation)
    data.append(be: UInt32(body.count))
    return data + body
  }

  private func readKeys(_ reservations: PersistentReservations) -> [UInt8] {
    var keys: [UInt8] = []
    for registrant in reservations.registrants { keys.append(be: registrant.key) }
    return header(reservations, keys)
  }

  private func readReservation(_ reservations: PersistentReservations) -> [UInt8] {
    guard let reservation = reservations.reservation else { return header(reservations, []) }
    var body: [UInt8] = []
    body.append(be: reservations.holderKey)
    body += [0, 0, 0, 0, 0, reservation.kind.rawValue, 0, 0]  // SCOPE 0: LU_SCOPE
    return header(reservations, body)
  }

  /// SPC-5 §6.16.4. CRH is 0: RESERVE and registrations exclude each other.
  private func reportCapabilities(_ reservations: PersistentReservations, _ traits: LogicalUnitTraits) -> [UInt8] {
    let flags: UInt8 = 0x08 | 0x04 | (traits.persistsReservations ? 0x01 : 0)  // SIP_C, ATP_C, PTPL_C
    // TMV, ALLOW COMMANDS 000b: nothing told; PTPL_A.
    let active: UInt8 = 0x80 | (reservations.activatesThroughPowerLoss ? 0x01 : 0)
    return [0, 8, flags, active, 0xEA, 0x01, 0, 0]  // all six types
  }

  /// SPC-5 §6.16.5. A registration is for one target port: ALL_TG_PT is 0 and the port is told.
  private func readFullStatus(_ reservations: PersistentReservations) -> [UInt8] {
    var body: [UInt8] = []
    for registrant in reservations.registrants {
      let holds = reservations.isHolder(registrant.nexus)
      body.append(be: registrant.key)
      body += [0, 0, 0, 0, holds ? 0x01 : 0x00, holds ? reservations.reservation?.kind.rawValue ?? 0 : 0, 0, 0, 0, 0]
      body.append(be: registrant.nexus.relativeTargetPort)
      let transportID = TransportID.encode(registrant.nexus)
      body.append(be: UInt32(transportID.count))
      body += transportID
    }
    return header(reservations, body)
  }
}
