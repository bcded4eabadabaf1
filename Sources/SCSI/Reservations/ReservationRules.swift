extension PersistentReservations {
  /// What the action comes to when it arrives on `nexus` (SPC-5 §5.14, §6.17).
  public func applying(_ action: ReservationAction, from nexus: NexusIdentity) -> ReservationOutcome {
    switch action.service {
    case .register, .registerAndIgnoreExistingKey: return register(action, from: nexus)
    case .reserve, .release, .clear, .preempt, .preemptAndAbort, .registerAndMove: break
    }
    // Everything but registering is for registrants with the right key (SPC-5 table 61, §5.14.4).
    guard let key = key(of: nexus), key == action.key else { return .conflict }
    switch action.service {
    case .reserve: return reserve(action, from: nexus)
    case .release: return release(action, from: nexus)
    case .clear: return clear(from: nexus)
    case .preempt, .preemptAndAbort: return preempt(action, from: nexus)
    case .registerAndMove: return move(action, from: nexus)
    case .register, .registerAndIgnoreExistingKey: return .conflict
    }
  }

  // MARK: - REGISTER, REGISTER AND IGNORE EXISTING KEY (SPC-5 §5.14.7)

  private func register(_ action: ReservationAction, from nexus: NexusIdentity) -> ReservationOutcome {
    let existing = key(of: nexus)
    // REGISTER wants the registered key, or 0 on a nexus that has none; the other takes any (SPC-5 tables 55 and 56).
    if action.service == .register, action.key != existing ?? 0 { return .conflict }
    // ALL_TG_PT is the same request through each target port (SPC-5 §6.17.3): a registration there needs its key too.
    var own = Self.across(ports: action.allTargetPorts, [nexus])
    if action.service == .register, own.contains(where: { key(of: $0) ?? action.key != action.key }) {
      return .conflict
    }
    // A target port may be gone since, as RDMA's come and go: nobody comes by it to unregister. What was registered through it
    // under this key goes with the rest; another key there is in nobody's way.
    if !action.allTargetPorts.isEmpty {
      for registrant in registrants where registrant.nexus.isSameInitiatorPort(as: nexus) {
        let isMeant = action.service != .register || registrant.key == action.key
        if isMeant, !own.contains(registrant.nexus) { own.append(registrant.nexus) }
      }
    }
    if action.specifiesInitiatorPorts, existing != nil || action.service == .registerAndIgnoreExistingKey {
      return .refused(.invalidFieldInParameterList(byte: 20, bit: 3))
    }
    // With key 0 nothing is done for those named: nobody is unregistered by another (SPC-5 table 55).
    if action.serviceKey == 0 { return unregister(own, from: nexus, action) }
    let named = Self.across(ports: action.allTargetPorts, action.initiatorPorts)
    // One that is registered already fails, and then none is registered (SPC-5 §6.17.3).
    if named.contains(where: isRegistered) { return .refused(.invalidFieldInParameterList(byte: 28)) }

    var effects = ReservationEffects(next: self)
    for nexus in own + named {
      if let i = effects.next.registrants.firstIndex(where: { $0.nexus == nexus }) {
        effects.next.registrants[i].key = action.serviceKey
      } else {
        effects.next.registrants.append(Registrant(nexus: nexus, key: action.serviceKey))
      }
    }
    guard effects.next.registrants.count <= Self.registrantsMax else {
      return .refused(.insufficientRegistrationResources)
    }
    effects.next.activatesThroughPowerLoss = action.activatesThroughPowerLoss
    effects.next.generation &+= 1
    return .changed(effects)
  }

  private func unregister(
    _ nexuses: [NexusIdentity], from nexus: NexusIdentity, _ action: ReservationAction
  ) -> ReservationOutcome {
    let leaving = nexuses.filter(isRegistered)
    if leaving.isEmpty { return .unchanged }
    var effects = ReservationEffects(next: self)
    effects.next.registrants.removeAll { leaving.contains($0.nexus) }
    effects.releaseIfHolderLeft(was: reservation, noticeExcept: nexus)
    effects.next.activatesThroughPowerLoss = action.activatesThroughPowerLoss
    effects.next.generation &+= 1
    return .changed(effects)
  }

  /// Each nexus through each target port, first those of the given ports (ALL_TG_PT, SPC-5 §6.17.3).
  private static func across(ports: [UInt16], _ nexuses: [NexusIdentity]) -> [NexusIdentity] {
    var result = nexuses
    for nexus in nexuses {
      for port in ports {
        var other = nexus
        other.relativeTargetPort = port
        if !result.contains(other) { result.append(other) }
      }
    }
    return result
  }

  // MARK: - RESERVE and RELEASE (SPC-5 §5.14.9, §5.14.11.2)

  private func reserve(_ action: ReservationAction, from nexus: NexusIdentity) -> ReservationOutcome {
    guard let kind = action.kind else { return .refused(.invalidFieldInCDB(byte: 2, bit: 3)) }
    if let reservation {
      return isHolder(nexus) && reservation.kind == kind ? .unchanged : .conflict
    }
    var effects = ReservationEffects(next: self)
    effects.next.reservation = Reservation(kind: kind, holder: kind.isAllRegistrants ? nil : nexus)
    return .changed(effects)
  }

  private func release(_ action: ReservationAction, from nexus: NexusIdentity) -> ReservationOutcome {
    guard let reservation, isHolder(nexus) else { return .unchanged }
    guard reservation.kind == action.kind else { return .refused(.invalidReleaseOfPersistentReservation) }
    var effects = ReservationEffects(next: self)
    effects.next.reservation = nil
    if reservation.kind.admitsRegistrants { effects.notice(.reservationsReleased, except: nexus) }
    return .changed(effects)
  }

  // MARK: - CLEAR (SPC-5 §5.14.11.6)

  private func clear(from nexus: NexusIdentity) -> ReservationOutcome {
    var effects = ReservationEffects(next: self)
    effects.notice(.reservationsPreempted, except: nexus)
    effects.next.registrants = []
    effects.next.reservation = nil
    effects.next.generation &+= 1
    return .changed(effects)
  }

  // MARK: - PREEMPT and PREEMPT AND ABORT (SPC-5 §5.14.11.4, §5.14.11.5)

  private func preempt(_ action: ReservationAction, from nexus: NexusIdentity) -> ReservationOutcome {
    if let reservation {
      let allRegistrants = reservation.kind.isAllRegistrants
      if action.serviceKey == 0 {
        guard allRegistrants else { return .refused(.invalidFieldInParameterList(byte: 8)) }
        return takeOver(action, from: nexus, removing: registrants.map(\.nexus))
      }
      if !allRegistrants, holderKey == action.serviceKey {
        return takeOver(action, from: nexus, removing: nexuses(with: action.serviceKey))
      }
    } else if action.serviceKey == 0 {
      return .refused(.invalidFieldInParameterList(byte: 8))
    }
    return removeRegistrations(action, from: nexus)
  }

  /// Preempting the reservation: the registrations go but for the one of `nexus`, which then holds.
  private func takeOver(
    _ action: ReservationAction, from nexus: NexusIdentity, removing: [NexusIdentity]
  ) -> ReservationOutcome {
    guard let kind = action.kind else { return .refused(.invalidFieldInCDB(byte: 2)) }
    let leaving = removing.filter { $0 != nexus }
    var effects = ReservationEffects(next: self)
    effects.next.registrants.removeAll { leaving.contains($0.nexus) }
    effects.next.reservation = Reservation(kind: kind, holder: kind.isAllRegistrants ? nil : nexus)
    effects.next.generation &+= 1
    effects.attentions = leaving.map { .init(nexus: $0, attention: .registrationsPreempted) }
    // Those who stay learn of another type (SPC-5 §5.14.11.4.3).
    if reservation?.kind != kind { effects.notice(.reservationsReleased, except: nexus) }
    if action.service == .preemptAndAbort { effects.aborts = leaving }
    return .changed(effects)
  }

  /// Preempting registrations alone, whatever SCOPE and TYPE say; with its own key a registrant removes itself too (SPC-5
  /// §5.14.11.4.4).
  private func removeRegistrations(_ action: ReservationAction, from nexus: NexusIdentity) -> ReservationOutcome {
    let leaving = nexuses(with: action.serviceKey)
    if leaving.isEmpty { return .conflict }
    var effects = ReservationEffects(next: self)
    effects.next.registrants.removeAll { leaving.contains($0.nexus) }
    effects.next.generation &+= 1
    let others = leaving.filter { $0 != nexus }
    effects.attentions = others.map { .init(nexus: $0, attention: .registrationsPreempted) }
    if action.service == .preemptAndAbort { effects.aborts = others }
    effects.releaseIfHolderLeft(was: reservation, noticeExcept: nexus)
    return .changed(effects)
  }

  private func nexuses(with key: UInt64) -> [NexusIdentity] {
    registrants.filter { $0.key == key }.map(\.nexus)
  }

  // MARK: - REGISTER AND MOVE (SPC-5 §5.14.8)

  /// SCOPE and TYPE are those of the reservation that is moved, whatever the CDB says.
  private func move(_ action: ReservationAction, from nexus: NexusIdentity) -> ReservationOutcome {
    guard let reservation else { return .refused(.invalidFieldInCDB(byte: 1, bit: 4)) }
    guard !reservation.kind.isAllRegistrants, isHolder(nexus) else { return .conflict }
    // Another initiator port, not the same by another target port.
    guard let destination = action.destination,
      !destination.isSameInitiatorPort(as: nexus)
    else {
      return .refused(.invalidFieldInParameterList(byte: 24))
    }
    guard action.serviceKey != 0 else { return .refused(.invalidFieldInParameterList(byte: 8)) }

    var effects = ReservationEffects(next: self)
    if let i = effects.next.registrants.firstIndex(where: { $0.nexus == destination }) {
      effects.next.registrants[i].key = action.serviceKey
    } else {
      effects.next.registrants.append(Registrant(nexus: destination, key: action.serviceKey))
    }
    effects.next.reservation?.holder = destination
    if action.unregisters { effects.next.registrants.removeAll { $0.nexus == nexus } }
    guard effects.next.registrants.count <= Self.registrantsMax else {
      return .refused(.insufficientRegistrationResources)
    }
    effects.next.activatesThroughPowerLoss = action.activatesThroughPowerLoss
    effects.next.generation &+= 1
    return .changed(effects)
  }
}

extension ReservationEffects {
  /// Establishes a condition for every registrant of the next state but `nexus`.
  fileprivate mutating func notice(_ attention: UnitAttention, except nexus: NexusIdentity) {
    for registrant in next.registrants where registrant.nexus != nexus {
      attentions.append(Notice(nexus: registrant.nexus, attention: attention))
    }
  }

  /// Releases the reservation when its holder, or with an all-registrants type the last registrant, is gone.
  /// Registrants that had their access by it are told (SPC-5 §5.14.11.3).
  fileprivate mutating func releaseIfHolderLeft(
    was reservation: PersistentReservations.Reservation?, noticeExcept nexus: NexusIdentity
  ) {
    guard let reservation else { return }
    if let holder = reservation.holder, next.isRegistered(holder) { return }
    if reservation.holder == nil, !next.registrants.isEmpty { return }
    next.reservation = nil
    if reservation.kind.admitsRegistrants { notice(.reservationsReleased, except: nexus) }
  }
}
