import Discovery
import Glibc
import Storage

/// Disks that are exported as they are, content and all (`disks adopt --whole`). There is no room for a label on them, so
/// who they are is kept in the state directory, by the identity that the disk itself tells.
extension Provisioner {
  /// What names the disk wherever it is plugged in: its WWID, of a loop device the file behind it.
  private func wholeKey(_ device: BlockDevice) -> String? {
    device.wwid ?? device.backingFile.map { "file \($0)" }
  }

  func adopted(_ device: BlockDevice) -> Adopted? {
    wholeKey(device).flatMap { key in state.withLock { $0.adopted[key] } }
  }

  /// The disk is wiped: from now on it has a label.
  func forgetWhole(_ device: BlockDevice) {
    guard let key = wholeKey(device) else { return }
    state.withLock { $0.adopted[key] = nil }
  }

  /// Exports a disk that was adopted whole. Under `work`.
  func exportWhole(_ device: BlockDevice, _ adopted: Adopted) {
    do throws(DiskOpening.Refusal) {
      try openWhole(device, adopted)
    } catch {
      hold(path: device.path, device: device, error)
    }
  }

  private func openWhole(_ device: BlockDevice, _ adopted: Adopted) throws(DiskOpening.Refusal) {
    let opening = try DiskOpening(path: device.path, device: device)
    let isTaken = state.withLock { state in
      state.entries.values.contains { $0.key != device.name && $0.export?.unit.number == adopted.lun }
    }
    guard !isTaken else {
      throw DiskOpening.Refusal(isHeld: true, reason: "another disk is LUN \(adopted.lun) already")
    }
    let export = try opening.export(lun: adopted.lun, uuid: adopted.uuid, registry: registry)
    add(
      export,
      Entry(
        key: device.name, path: device.path, model: device.model ?? "", serial: device.serial ?? "",
        byteCount: device.bytes, device: device, verdict: .exported))
  }

  func adoptWhole(_ entry: Entry) throws(ControlError) -> AdoptReport {
    guard options.stateDirectory != nil else {
      throw ControlError(
        .refused,
        "--whole needs a place to keep the disk's identity: start gatewayd with --state DIRECTORY, or use --wipe")
    }
    guard let device = entry.device, let key = wholeKey(device) else {
      throw ControlError(.refused, "\(entry.path) tells no identity that would stay with it; use --wipe")
    }
    let outcome = work.withLock { _ -> Result<AdoptReport, ControlError> in
      guard let lun = takeNumber() else {
        return .failure(ControlError(.refused, "\(entry.path): \(DiskOpening.Refusal.numbersTaken.reason)"))
      }
      let adopted = Adopted(uuid: Identity.randomUUID(), lun: lun)
      do throws(DiskOpening.Refusal) {
        try openWhole(device, adopted)
      } catch {
        return .failure(ControlError(.refused, "\(entry.path): \(error.reason)"))
      }
      state.withLock { $0.adopted[key] = adopted }
      guard saveState() else {
        // Without it the next start would take the disk for another, or label it once it looks blank.
        state.withLock { $0.adopted[key] = nil }
        _ = withdraw(entry.key, reason: "cannot be kept in the state directory")
        return .failure(ControlError(.failed, "the state directory cannot be written; the log says why"))
      }
      publish(changed: true)
      guard let export = state.withLock({ $0.entries[entry.key]?.export }) else {
        return .failure(ControlError(.failed, "\(entry.path) went while it was adopted"))
      }
      return .success(
        AdoptReport(path: entry.path, lun: export.unit.number, naa: export.unit.identity.naa))
    }
    return try outcome.get()
  }
}
