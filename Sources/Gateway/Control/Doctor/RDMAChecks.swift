/// The checks that look at RDMA. A machine without it is in order: TCP serves everybody.
enum RDMAChecks {
  static func all(_ nics: [NICReport], listener: ISERListenerReport?, _ files: MachineFiles) -> [DoctorCheck] {
    guard !nics.isEmpty else { return [none(files)] }
    var checks = nics.map(nic)
    checks += nics.filter { $0.verdict == .usable }.flatMap { nic in
      nic.ports.filter { $0.reasons.isEmpty }.flatMap { port in
        [gids(nic, port)] + [mtu(nic, port), flowControl(nic, port, files)].compactMap { $0 }
      }
    }
    checks.append(modules(files))
    if let listener { checks.append(iser(listener)) }
    return checks
  }

  // MARK: Is there any

  /// Network drivers whose RDMA half is a module of its own.
  private static let modules = [
    "mlx5_core": "mlx5_ib", "mlx4_core": "mlx4_ib", "mlx4_en": "mlx4_ib", "bnxt_en": "bnxt_re", "ice": "irdma",
    "i40e": "irdma", "cxgb4": "iw_cxgb4", "qede": "qedr", "hns3": "hns_roce_hw_v2", "mana": "mana_ib",
  ]

  private static func none(_ files: MachineFiles) -> DoctorCheck {
    for name in files.names(in: "/sys/class/net") {
      let driver = files.link("/sys/class/net/\(name)/device/driver")?.split(separator: "/").last
      if let driver, let module = modules[String(driver)] {
        return DoctorCheck(
          "RDMA", .note, "no device: TCP only; \(name) (\(driver)) may be able to", advice: "modprobe \(module)")
      }
    }
    return DoctorCheck(
      "RDMA", .note, "no device: TCP only",
      advice: "without hardware, to try it: modprobe rdma_rxe; rdma link add rxe0 type rxe netdev IF")
  }

  // MARK: A device and its ports

  private static func nic(_ nic: NICReport) -> DoctorCheck {
    let facts = [nic.driver, nic.firmware.map { "firmware \($0)" }].compactMap { $0 }.joined(separator: ", ")
    let name = "NIC \(nic.name)"
    guard nic.verdict == .usable else {
      // A cable that is not plugged in may be meant so; a module that is missing is not.
      let isProblem = nic.reasons.contains(where: \.isOfSetup)
      return DoctorCheck(
        name, isProblem ? .problem : .note,
        "not usable: \(nic.reasons.map(\.reason).joined(separator: "; ")) (\(facts))",
        advice: nic.reasons.map(\.advice).joined(separator: "\n"))
    }
    let ports = nic.ports.filter { $0.reasons.isEmpty }.map { port in
      let addresses = port.interfaces.flatMap(\.addresses).joined(separator: " ")
      return "port \(port.number) \(port.linkLayer) \(port.rate ?? "") on \(addresses)"
    }
    return DoctorCheck(
      name, nic.warnings.isEmpty ? .fine : .note,
      (["usable (\(facts))"] + ports + nic.warnings.map(\.reason)).joined(separator: "; "),
      advice: nic.warnings.isEmpty ? nil : nic.warnings.map(\.advice).joined(separator: "\n"))
  }

  private static func gids(_ nic: NICReport, _ port: NICPortReport) -> DoctorCheck {
    let name = "GIDs \(nic.name)/\(port.number)"
    let types = port.gidTypes.joined(separator: ", ")
    guard port.linkLayer == "Ethernet", !port.gidTypes.contains(where: { $0 == "RoCE v2" }) else {
      return DoctorCheck(name, .fine, types.isEmpty ? "none" : types)
    }
    return DoctorCheck(
      name, .note, "no RoCE v2, only: \(types.isEmpty ? "none" : types)",
      advice: "what newer initiators speak is v2: look for it in the settings of the NIC or its driver")
  }

  /// RoCE only: InfiniBand has an MTU of its own, and iWARP's TCP finds its way with any.
  private static func mtu(_ nic: NICReport, _ port: NICPortReport) -> DoctorCheck? {
    guard let payload = port.roceMTU else { return nil }
    let name = "MTU \(nic.name)/\(port.number)"
    let interfaces = port.interfaces.filter { !$0.addresses.isEmpty }.map(\.name)
    let finding = "\(payload) bytes of data in a RoCE packet, at most"
    let commands = interfaces.map { "ip link set \($0) mtu 4200" }.joined(separator: "\n")
    let advice = "\(commands)\nthe switches and the initiators need it, too: 4200 or more, or 9000 (jumbo frames)"
    if payload < 1024 { return DoctorCheck(name, .problem, finding, advice: advice) }
    return payload < 4096 ? DoctorCheck(name, .note, finding, advice: advice) : DoctorCheck(name, .fine, finding)
  }

  /// RoCE of hardware wants a network without loss. Only some drivers tell what is set.
  private static func flowControl(_ nic: NICReport, _ port: NICPortReport, _ files: MachineFiles) -> DoctorCheck? {
    guard port.linkLayer == "Ethernet", nic.driver != "rxe", let interface = port.interfaces.first?.name else {
      return nil
    }
    let name = "PFC/ECN \(nic.name)/\(port.number)"
    let ask = "dcb pfc show dev \(interface)\ndcb ets show dev \(interface)"
    // Of NVIDIA's own driver package: a file for each priority, at the receiver (np) and at the sender (rp).
    let directory = "/sys/class/net/\(interface)/ecn/roce_np/enable"
    let priorities = files.names(in: directory).filter { files.text("\(directory)/\($0)") == "1" }
    if !files.exists(directory) {
      return DoctorCheck(
        name, .note, "not readable here: whether the network is free of loss is not known", advice: ask)
    }
    return priorities.isEmpty
      ? DoctorCheck(name, .note, "ECN is off for every priority; PFC is not readable here", advice: ask)
      : DoctorCheck(
        name, .fine, "ECN is on for priorities \(priorities.joined(separator: ", ")); PFC is not readable here")
  }

  // MARK: What all need

  private static func modules(_ files: MachineFiles) -> DoctorCheck {
    let missing = ["ib_uverbs", "rdma_ucm"].filter { !files.exists("/sys/module/\($0)") }
    return missing.isEmpty
      ? DoctorCheck("RDMA modules", .fine, "ib_uverbs and rdma_ucm are loaded")
      : DoctorCheck(
        "RDMA modules", .problem, "not loaded: \(missing.joined(separator: ", "))",
        advice: "modprobe -a \(missing.joined(separator: " "))")
  }

  private static func iser(_ listener: ISERListenerReport) -> DoctorCheck {
    let outcome: DoctorCheck.Outcome =
      switch listener.state {
      case .listening: .fine
      case .off: .note
      case .failed: .problem
      }
    return DoctorCheck("iSER", outcome, listener.text)
  }
}
