import Discovery

/// Which disks a person allows to be touched: by `--only`, else by `only` in [discovery]; and which they forbid.
struct DiskChoice {
  /// `--only`; empty: the settings decide.
  var named: [String]
  var settings: Settings.Discovery

  init(_ named: [String], _ settings: Settings.Discovery) {
    self.named = named
    self.settings = settings
  }

  func ignores(_ device: BlockDevice) -> Bool { !settings.ignore.isEmpty && settings.ignores(names(device)) }

  func allows(_ device: BlockDevice) -> Bool {
    guard named.isEmpty else { return named.contains { Provisioner.key($0) == device.name } }
    guard let only = settings.only else { return true }
    // A link that udev's database does not have (udevd does not run) is followed.
    return settings.allows(names(device)) || only.contains { Provisioner.key($0) == device.name }
  }

  private func names(_ device: BlockDevice) -> [String] { Self.names(device) }

  /// What a disk may be called in the settings.
  static func names(_ device: BlockDevice) -> [String] { [device.path] + BlockDeviceReader().links(of: device.name) }

  /// The verdict on a disk that is not chosen: what is on it, and how it is chosen. What nobody could choose stays refused.
  func untouched(_ device: BlockDevice, _ verdict: Verdict) -> Verdict {
    let found =
      switch verdict {
      case .refused: ""
      case .blank: "It is blank."
      case .labelled: "It has a gateway's label."
      case .held(let reason): reason.sentence
      }
    if case .refused = verdict { return verdict }
    guard named.isEmpty else {
      return .held(Reason(.notChosen, "\(found) It is not touched: only the disks of --only are."))
    }
    return .held(
      Reason(
        .notChosen, "\(found) It is not touched: the settings do not name it ([discovery] only).",
        remedy: "add \"\(lasting(device))\" to 'only' in [discovery] of the settings, then: systemctl reload gatewayd"))
  }

  /// The name that stays with the disk wherever it is plugged in, if it has one.
  private func lasting(_ device: BlockDevice) -> String {
    let links = BlockDeviceReader().links(of: device.name)
    let link = ["/dev/disk/by-id/", "/dev/mapper/"].lazy.compactMap { place in links.first { $0.hasPrefix(place) } }
    return link.first ?? device.path
  }
}

extension Provisioner {
  /// New settings: disks that may be touched now are looked at again. What is exported stays so, for its initiators.
  func set(_ settings: Settings.Discovery) {
    let (hasChanged, entries) = state.withLock { state in
      defer { state.settings = settings }
      return (state.settings != settings && state.pending == nil, Array(state.entries.values))
    }
    guard hasChanged, options.discoversDisks else { return }
    let choice = DiskChoice(options.only, settings)
    var unused: [BlockDevice] = []
    for entry in entries {
      guard let device = entry.device, !isNamed(device) else { continue }
      if let export = entry.export {
        guard choice.ignores(device) || !choice.allows(device) else { continue }
        Log.warning(
          "LUN \(export.unit.number): \(entry.path) stays until the next start, though the settings exclude it")
      } else {
        unused.append(device)
      }
    }
    considerTogether(unused.sorted { $0.path < $1.path })
  }
}
