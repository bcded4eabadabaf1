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

  /// Exports a disk that was adopted whole, in its lane.
  func exportWhole(_ device: BlockDevice, _ adopted: Adopted, _ serial: UInt64) {
    do throws(DiskOpening.Refusal) {
      try openWhole(device, adopted, serial)
      publish(changed: true)
    } catch {
      hold(device.name, path: device.path, device: device, error, serial: serial)
    }
  }

  private func openWhole(
    _ device: BlockDevice, _ adopted: Adopted, _ serial: UInt64
  ) throws(DiskOpening.Refusal) {
    try claim(adopted.lun, disk: nil, key: device.name, path: device.path)
    defer { release(device.name) }
    // Without a label there is no place for what a pair keeps on a disk: it is this node's by an operator's word. One that is
    // found in its content is its initiator's, and says nothing of this disk.
    var opening = try DiskOpening(unlabelled: device.path, device: device)
    opening.rule = rule(device.path, device)
    let export = try opening.export(lun: adopted.lun, uuid: adopted.uuid, registry: registry)
    try add(
      export,
      Entry(
        key: device.name, path: device.path, model: device.model ?? "", serial: device.serial ?? "",
        byteCount: device.bytes, device: device, verdict: .exported, serialNumber: serial))
  }

  func adoptWhole(_ entry: Entry, _ serial: UInt64) throws(DiskOpening.Refusal) {
    guard options.stateDirectory != nil else {
      throw DiskOpening.Refusal(
        isHeld: true,
        reason:
          "--whole needs a place to keep the disk's identity: start gatewayd with --state DIRECTORY, or use --wipe")
    }
    // A reader tells the same of every medium, and another one would be taken for this.
    guard entry.device?.isRemovable != true else {
      throw DiskOpening.Refusal(isHeld: true, reason: "its medium may be changed for another one; use --wipe")
    }
    guard let device = entry.device, let key = wholeKey(device) else {
      throw DiskOpening.Refusal(isHeld: true, reason: "it tells no identity that would stay with it; use --wipe")
    }
    let lun = try takeNumber(for: entry.key)
    defer { release(entry.key) }
    let adopted = Adopted(uuid: Identity.randomUUID(), lun: lun)
    try openWhole(device, adopted, serial)
    // It is kept with the cluster, which a gateway without labelled disks has not had a use for yet.
    _ = cluster
    state.withLock { $0.adopted[key] = adopted }
    guard saveState() else {
      // Without it the next start would take the disk for another, or label it once it looks blank.
      state.withLock { $0.adopted[key] = nil }
      withdraw(entry.key, reason: "cannot be kept in the state directory")
      throw DiskOpening.Refusal(isHeld: true, reason: "the state directory cannot be written; the log says why")
    }
  }
}
