import Wire

/// PERSISTENT RESERVE OUT (SPC-5 §6.17): from CDB and parameter list to a `ReservationAction`.
extension DeviceServer {
  /// PARAMETER LIST LENGTH of everything but SPEC_I_PT and REGISTER AND MOVE, in bytes (SPC-5 §6.17.3).
  private static let basicBytes: UInt32 = 24

  func startPersistentReserveOut(_ cdb: CDB) -> Disposition {
    let length = cdb.be32(5)
    if let refusal = checkScopeAndType(cdb) { return .checkCondition(refusal) }
    switch ReservationAction.Service(rawValue: cdb.serviceAction) {
    case .register, .registerAndIgnoreExistingKey, .registerAndMove:
      guard length >= Self.basicBytes else { return .checkCondition(.parameterListLengthError) }
    default:
      guard length == Self.basicBytes else { return .checkCondition(.parameterListLengthError) }
    }
    return collect(length, lengthAt: 5)
  }

  /// SCOPE must be LU_SCOPE and TYPE one of the six where they matter (SPC-5 table 231). PREEMPT ignores them where it
  /// only removes registrations (SPC-5 §5.14.11.4.4), REGISTER AND MOVE always (SPC-5 §5.14.8).
  private func checkScopeAndType(_ cdb: CDB) -> Sense? {
    switch ReservationAction.Service(rawValue: cdb.serviceAction) {
    case .reserve, .release: break
    default: return nil
    }
    if cdb[2] >> 4 != 0 { return .invalidFieldInCDB(byte: 2, bit: 7) }
    if PersistentReservations.Kind(rawValue: cdb[2] & 0x0F) == nil { return .invalidFieldInCDB(byte: 2, bit: 3) }
    return nil
  }

  func persistentReserveOut(_ command: Command, _ list: [UInt8]) -> Disposition {
    guard list.count >= Self.basicBytes, let service = ReservationAction.Service(rawValue: command.cdb.serviceAction)
    else {
      return .checkCondition(.parameterListLengthError)
    }
    let span = list.span.bytes
    var action = ReservationAction(service, key: span.be64(0), serviceKey: span.be64(8))
    // Another SCOPE than LU_SCOPE leaves no type.
    action.kind = PersistentReservations.Kind(rawValue: command.cdb[2])
    let refusal: Sense?
    switch service {
    case .registerAndMove: refusal = decodeMove(list, command, &action)
    case .register, .registerAndIgnoreExistingKey: refusal = decodeRegister(list, command, &action)
    case .reserve, .release, .clear, .preempt, .preemptAndAbort:
      // SPEC_I_PT is for registering alone (SPC-5 §6.17.3).
      refusal = list[20] & 0x08 == 0 ? nil : .invalidFieldInParameterList(byte: 20, bit: 3)
    }
    if let refusal { return .checkCondition(refusal) }
    return command.unit.open(action, from: command.nexus.identity)
  }

  /// Byte 20: SPEC_I_PT, ALL_TG_PT, APTPL; with SPEC_I_PT bytes 24 to 27 and the TransportIDs.
  private func decodeRegister(_ list: [UInt8], _ command: Command, _ action: inout ReservationAction) -> Sense? {
    action.activatesThroughPowerLoss = list[20] & 0x01 != 0
    if action.activatesThroughPowerLoss, !command.unit.traits.persistsReservations {
      return .invalidFieldInParameterList(byte: 20, bit: 0)
    }
    if list[20] & 0x04 != 0 { action.allTargetPorts = portGroups.relativeTargetPorts }
    guard list[20] & 0x08 != 0 else {
      return list.count == Self.basicBytes ? nil : .parameterListLengthError
    }
    action.specifiesInitiatorPorts = true
    guard list.count >= 28 else { return .parameterListLengthError }
    let end = 28 + Int(clamping: list.span.bytes.be32(24))
    guard end == list.count else { return .parameterListLengthError }
    var offset = 28
    while offset < end {
      guard let (id, byteCount) = TransportID.decode(list, at: offset, end: end) else {
        return .invalidFieldInParameterList(byte: offset)
      }
      let nexuses = resolve(id, port: command.nexus.identity.relativeTargetPort)
      // Neither the sender nor one of them twice (SPC-5 §6.17.3).
      for nexus in nexuses where nexus == command.nexus.identity || action.initiatorPorts.contains(nexus) {
        return .invalidFieldInParameterList(byte: offset)
      }
      action.initiatorPorts += nexuses
      guard action.initiatorPorts.count <= PersistentReservations.registrantsMax else {
        return .insufficientRegistrationResources
      }
      offset += byteCount
    }
    return nil
  }

  /// Byte 17: UNREG, APTPL; RELATIVE TARGET PORT IDENTIFIER in 18, TransportID length in 20, TransportID from 24
  /// (SPC-5 §6.17.4).
  private func decodeMove(_ list: [UInt8], _ command: Command, _ action: inout ReservationAction) -> Sense? {
    action.unregisters = list[17] & 0x02 != 0
    action.activatesThroughPowerLoss = list[17] & 0x01 != 0
    if action.activatesThroughPowerLoss, !command.unit.traits.persistsReservations {
      return .invalidFieldInParameterList(byte: 17, bit: 0)
    }
    let span = list.span.bytes
    let port = span.be16(18)
    guard Int(clamping: span.be32(20)) == list.count - 24 else { return .parameterListLengthError }
    guard portGroups.relativeTargetPorts.contains(port) else { return .invalidFieldInParameterList(byte: 18) }
    // One initiator port: a node name alone does not say which.
    guard let (id, byteCount) = TransportID.decode(list, at: 24, end: list.count), 24 + byteCount == list.count,
      case .port = id, let destination = resolve(id, port: port).first
    else { return .invalidFieldInParameterList(byte: 24) }
    action.destination = destination
    return nil
  }

  private func resolve(_ id: TransportID, port: UInt16) -> [NexusIdentity] {
    switch id {
    case .port(let name, let isid):
      return [NexusIdentity(initiatorName: name, isid: isid, relativeTargetPort: port)]
    case .node(let name):
      var identities: [NexusIdentity] = []
      for nexus in registry.matching(initiatorName: name) {
        let identity = NexusIdentity(initiatorName: name, isid: nexus.identity.isid, relativeTargetPort: port)
        if !identities.contains(identity) { identities.append(identity) }
      }
      return identities
    }
  }
}
