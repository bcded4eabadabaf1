import HA

/// What `gatewayd doctor` says of the pair.
enum PairChecks {
  static func all(_ pair: PairReport) -> [DoctorCheck] {
    let unfenced = unfenced(pair)
    guard pair.isRunning else {
      return [
        DoctorCheck(
          "pair", .note, "none: \(pair.reason)",
          advice: "two gateways that see the same disks become a pair by themselves")
      ] + unfenced
    }
    return [node(pair)] + stranger(pair) + links(pair) + [arbiters(pair)] + disks(pair) + unfenced + hold(pair)
      + addresses(pair) + timers(pair) + [takeovers(pair)] + drops(pair)
  }

  // MARK: The nodes

  private static func node(_ pair: PairReport) -> DoctorCheck {
    let own = "this node is \(pair.role), epoch \(pair.epoch)"
    if pair.isRefused {
      return DoctorCheck(
        "pair", .problem, "\(own): the labels of the disks name two other nodes, so it takes no part",
        advice: "if one of them is gone for good, on the active node: gatewayd pair forget UUID")
    }
    guard let peer = pair.peer else {
      return DoctorCheck(
        "pair", .note, "\(own); no other node was heard since the start, so nobody would take over",
        advice: "start gatewayd on another machine that sees the same disks; "
          + "UDP port \(PairLinks.port) has to pass between them")
    }
    let name = "\(own); the other is \(peer.name), \(peer.role)"
    if peer.isSilent {
      return DoctorCheck(
        "pair", .problem, "\(name) when it was heard last, \(peer.heardMillisecondsAgo / 1000) s ago",
        advice: "on that machine: systemctl status gatewayd; gatewayd doctor")
    }
    let isAtRest = [[pair.role, peer.role], [peer.role, pair.role]].contains(["active", "passive"])
    return isAtRest
      ? DoctorCheck("pair", .fine, name)
      : DoctorCheck("pair", .note, "\(name): a change is under way", advice: "gatewayd pair")
  }

  private static func stranger(_ pair: PairReport) -> [DoctorCheck] {
    pair.stranger.map { stranger in
      DoctorCheck(
        "pair", .note, "a third node was heard and refused: \(stranger.name) (\(stranger.node))",
        advice:
          "a pair has two nodes: take the disks from one, or forget the one that is gone: gatewayd pair forget UUID")
    }.map { [$0] } ?? []
  }

  // MARK: Links

  /// IPv4 and IPv6 over one interface are two links, and one cable.
  private static func links(_ pair: PairReport) -> [DoctorCheck] {
    let links = pair.links?.links ?? []
    let names = links.filter(\.isUp).map(\.name)
    let networks = Set(names.map { $0.prefix { $0 != "/" } }).count
    var checks = (pair.links?.problems ?? []).map { DoctorCheck("pair links", .problem, $0) }
    if let problem = pair.links?.priorityProblem {
      checks.append(
        DoctorCheck(
          "pair links", .note, "their thread has no real-time priority (\(problem)): under load beats may come late",
          advice: "service: LimitRTPRIO=20, or CAP_SYS_NICE"))
    }
    guard pair.peer != nil else { return checks }
    switch networks {
    case 0:
      let states = links.map { "\($0.name) \($0.condition)" }.joined(separator: ", ")
      checks.append(
        DoctorCheck(
          "pair links", .problem, "none works both ways: \(states.isEmpty ? "there is no interface" : states)",
          advice: "let UDP port \(PairLinks.port) pass both ways, to the nodes and to 239.255.71.87 and ff12::8747:4757"
        ))
    case 1:
      checks.append(
        DoctorCheck(
          "pair links", .note,
          "one network only: \(names.joined(separator: ", ")); "
            + "with it the nodes lose sight of each other, and the disks alone decide",
          advice:
            "connect the nodes over a second network, a cable from one to the other is enough; it is used by itself"))
    default:
      checks.append(
        DoctorCheck("pair links", .fine, "up on \(networks) networks: \(names.joined(separator: ", "))"))
    }
    return checks
  }

  // MARK: Disks

  private static func arbiters(_ pair: PairReport) -> DoctorCheck {
    let deciding = pair.disks.filter(\.isArbiter)
    let paths = deciding.map(\.path).joined(separator: ", ")
    if deciding.count >= 3 {
      return DoctorCheck(
        "pair disks", .fine, "\(deciding.count) of \(pair.disks.count) decide: \(paths); one of them may fail")
    }
    if deciding.isEmpty {
      // A passive node knows the list only when it takes over.
      let isFew = pair.disks.count < 3
      return DoctorCheck(
        "pair disks", isFew ? .note : .fine,
        "\(pair.disks.count) shared; the active node has the list of those that decide",
        advice: isFew ? "with three shared disks or more one that decides may fail" : nil)
    }
    return DoctorCheck(
      "pair disks", .note,
      "one disk decides (\(paths)): if it fails, the active node goes on, but nobody takes over and "
        + "nobody starts, until 'gatewayd pair force'",
      advice: "share three disks or more: then two of three decide, by themselves")
  }

  private static func disks(_ pair: PairReport) -> [DoctorCheck] {
    pair.disks.compactMap { disk in
      let name = name(disk.lun, disk.path)
      if !disk.problem.isEmpty {
        return DoctorCheck("pair disks", .problem, "\(name) is not served: \(disk.problem)", advice: "gatewayd pair")
      }
      switch (disk.state, pair.role) {
      case ("foreign", _):
        return DoctorCheck(
          "pair disks", .problem, "\(name) is not served: somebody else has it registered or reserved",
          advice:
            "sg_persist --in --read-full-status \(disk.path)\nif those keys are nobody's: sg_persist --out --clear")
      case ("refused", _):
        return DoctorCheck(
          "pair disks", .problem, "\(name) is not served: its label names two other nodes",
          advice: "gatewayd pair forget UUID")
      case ("pending", "active"):
        return DoctorCheck(
          "pair disks", .problem, "\(name) is not served: it does not answer, or could not be taken yet",
          advice: "gatewayd pair; journalctl -u gatewayd -n 50")
      default: return nil
      }
    }
  }

  private static func name(_ lun: UInt16, _ path: String) -> String { "LUN \(lun) (\(path))" }

  private static func unfenced(_ pair: PairReport) -> [DoctorCheck] {
    var checks: [DoctorCheck] = []
    if !pair.unfencedDisks.isEmpty {
      let names = pair.unfencedDisks.map { name($0.lun, $0.path) }.joined(separator: ", ")
      checks.append(
        DoctorCheck(
          "fence", .note, "this machine's alone, so not taken over: \(names)",
          advice: "a pair takes over disks that both nodes see, with a label: gatewayd disks"))
    }
    let unguarded = pair.disks.filter(\.isUnguarded).map { name($0.lun, $0.path) }
    if !unguarded.isEmpty {
      checks.append(
        DoctorCheck(
          "fence", .problem,
          "not taken over by itself, for it cannot fence and its node has no watchdog: "
            + unguarded.joined(separator: ", "),
          advice:
            "on both nodes: a watchdog card's driver, or modprobe softdog and its path as 'watchdog' in [pair]; then "
            + "restart gatewayd\n"
            + "or disks with persistent reservations that outlive a loss of power: SAS, NVMe, a SAN; what one has: "
            + "sg_persist --in --report-capabilities PATH"))
    }
    return checks
  }

  // MARK: The rest

  private static func hold(_ pair: PairReport) -> [DoctorCheck] {
    pair.hold.isEmpty
      ? [] : [DoctorCheck("takeovers", .note, "held: \(pair.hold)", advice: "gatewayd pair resume")]
  }

  private static func addresses(_ pair: PairReport) -> [DoctorCheck] {
    let isActive = pair.role == "active"
    var checks: [DoctorCheck] = []
    for address in pair.serviceAddresses {
      if let problem = address.problem {
        checks.append(DoctorCheck("service address", .problem, problem))
      } else if let interface = address.interface, !isActive {
        checks.append(
          DoctorCheck(
            "service address", .problem, "\(address.address) is on \(interface), though this node is \(pair.role)",
            advice: "gatewayd pair; journalctl -u gatewayd -n 50"))
      } else if address.interface == nil, isActive {
        checks.append(
          DoctorCheck(
            "service address", .problem, "\(address.address) is not here, though this node is active",
            advice: "journalctl -u gatewayd -n 50"))
      }
    }
    guard checks.isEmpty else { return checks }
    let list = pair.serviceAddresses.map(\.text).joined(separator: ", ")
    return [
      DoctorCheck(
        "service address", .fine,
        list.isEmpty
          ? "none: initiators need a path to each node, and multipath" : isActive ? list : "\(list): elsewhere")
    ]
  }

  /// Nothing of the pair reads the wall clock, so there is nothing to say of it.
  private static func timers(_ pair: PairReport) -> [DoctorCheck] {
    var checks: [DoctorCheck] = []
    if pair.waitsForSign {
      checks.append(
        DoctorCheck(
          "timers", .problem, "this node has no sign that it is still the active one: all commands wait",
          advice: "neither the other node hears it nor do the deciding disks take its beats in time: gatewayd pair"))
    }
    let usual = PairTimers.silence / 1_000_000
    guard let limit = pair.peer?.silenceLimitMilliseconds else { return checks }
    checks.append(
      limit > usual
        ? DoctorCheck(
          "timers", .note, "beats come late: the other node may be silent for \(limit) ms instead of \(usual) ms",
          advice: "gatewayd pair shows JITTER and LOST of each link; a machine that is short of processors is late, too"
        )
        : DoctorCheck("timers", .fine, "the other node may be silent for \(limit) ms; no clock needs to be set"))
    return checks
  }

  private static func takeovers(_ pair: PairReport) -> DoctorCheck {
    let counts = TakeoverCause.allCases.compactMap { cause in
      pair.takeovers.counts[cause.rawValue].map { "\(cause.words): \($0)" }
    }
    guard let last = pair.takeovers.last else {
      return DoctorCheck("takeovers", .fine, "none by this node since its start")
    }
    let ago = Duration.text(seconds: UInt64(max(0, last.secondsAgo)))
    return DoctorCheck(
      "takeovers", .fine,
      "\(counts.joined(separator: ", ")); the last one \(ago) ago took "
        + PairHistory.text(UInt64(max(0, last.seconds) * 1e9)))
  }

  private static func drops(_ pair: PairReport) -> [DoctorCheck] {
    guard let drops = pair.links?.drops else { return [] }
    var checks: [DoctorCheck] = []
    if drops.sameNode > 0 {
      checks.append(
        DoctorCheck(
          "pair messages", .problem, "another gatewayd has this node's identity: a copied machine",
          advice: "on the copy: stop gatewayd, remove its state directory, and give it a machine-id of its own"))
    }
    if drops.notAuthentic + drops.otherCluster > 0 {
      checks.append(
        DoctorCheck(
          "pair messages", .note, "\(drops.notAuthentic + drops.otherCluster) were of another pair, or forged: dropped")
      )
    }
    return checks
  }
}

extension TakeoverCause {
  /// For a person.
  var words: String {
    switch self {
    case .alone, .nobody: "nobody was active"
    case .silent: "the active was silent"
    case .offered: "handed over"
    case .alive: "the active was impaired"
    case .forced: "forced"
    }
  }
}
