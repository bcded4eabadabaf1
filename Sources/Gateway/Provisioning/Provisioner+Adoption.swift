import Discovery
import SCSI
import Storage

/// What the operator adopts: held disks, one of three ways.
extension Provisioner {
  /// A disk that is being examined, or hangs, keeps its lane.
  private static let laneMilliseconds = 20_000

  /// Takes a held disk, as the operator asked.
  func adopt(path: String, mode: AdoptMode) throws(ControlError) -> AdoptReport {
    let key = Self.key(path)
    let outcome = lanes.perform(key, within: Self.laneMilliseconds) { () -> Result<AdoptReport, ControlError> in
      do throws(ControlError) { return .success(try adopt(key, path, mode)) } catch { return .failure(error) }
    }
    guard let outcome else {
      throw ControlError(.busy, "\(path) is being examined, or does not answer; try again later")
    }
    return try outcome.get()
  }

  private func adopt(_ key: String, _ path: String, _ mode: AdoptMode) throws(ControlError) -> AdoptReport {
    // It may have waited for its lane, and a link lead elsewhere by now.
    guard Self.key(path) == key else { throw ControlError(.busy, "\(path) is another disk by now; look again") }
    guard let entry = state.withLock({ $0.entries[key] }) else {
      throw ControlError(.noSuchDisk, "\(path) is not a disk that the gateway sees; `gatewayd disks` lists them")
    }
    if let export = entry.export {
      throw ControlError(.refused, "\(path) is LUN \(export.unit.number) already")
    }
    guard entry.verdict == .held else {
      throw ControlError(.refused, "\(path) is refused, not held: \(entry.reason)")
    }
    // The next start would not touch it, and initiators would miss it.
    guard entry.code != .notChosen else {
      throw ControlError(.refused, "\(path): \(entry.reason)\(entry.advice.map { " First \($0)" } ?? "")")
    }
    state.withLock { _ = $0.adopting.insert(key) }
    defer { state.withLock { _ = $0.adopting.remove(key) } }
    let serial = begin(key, path: entry.path, device: entry.device)
    do throws(DiskOpening.Refusal) {
      switch mode {
      case .whole: try adoptWhole(entry, serial)
      case .wipe: try adoptWiped(entry, serial)
      case .grow: try adoptGrown(entry, serial)
      }
    } catch {
      throw ControlError(.refused, "\(path): \(error.reason)")
    }
    publish(changed: true)
    return try report(key, path)
  }

  func report(_ key: String, _ path: String) throws(ControlError) -> AdoptReport {
    guard let export = state.withLock({ $0.entries[key]?.export }) else {
      throw ControlError(.failed, "\(path) went while it was adopted")
    }
    return AdoptReport(path: path, lun: export.unit.number, naa: export.unit.identity.naa)
  }

  private func adoptWiped(_ entry: Entry, _ serial: UInt64) throws(DiskOpening.Refusal) {
    try DiskOpening.wipe(path: entry.path, device: entry.device, former: entry.former)
    if let device = entry.device { forgetWhole(device) }
    try labelBlank(try open(entry.path, entry.device), key: entry.key, serial: serial, content: .unwanted)
  }

  /// A disk that grew while the gateway was off: its label area moves to its end.
  private func adoptGrown(_ entry: Entry, _ serial: UInt64) throws(DiskOpening.Refusal) {
    guard let formerBytes = entry.former?.diskBytes else {
      throw DiskOpening.Refusal(isHeld: true, reason: "no label was found on it that belongs to a smaller size")
    }
    let device = entry.device.flatMap { Self.blockDevice($0.path) } ?? entry.device
    var opening: DiskOpening
    do throws(DiskOpening.Refusal) { opening = try open(entry.path, device) } catch {
      // Where the new end happens to lie in the old area, something is at the place of the label that is not it.
      guard error.former?.diskBytes == formerBytes else { throw error }
      opening = try DiskOpening(unlabelled: entry.path, device: device)
      opening.rule = rule(entry.path, device)
      try judgeSharing(&opening)
    }
    let label = try opening.formerLabel(diskBytes: formerBytes)
    try claim(label, key: entry.key, path: entry.path)
    defer { release(entry.key) }
    guard isCurrent(entry.key, serial) else { throw .stale }
    try opening.moveLabel(from: label)
    Log.notice("\(entry.path): grown, its label moved to the new end as LUN \(label.lun)")
    try admit(opening, key: entry.key, serial: serial)
  }
}
