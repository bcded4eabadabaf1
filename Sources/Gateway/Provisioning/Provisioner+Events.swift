import CSystem
import Discovery
import Glibc
import Reactor
import SCSI
import Storage

/// What discovery sees, and what the operator adopts.
extension Provisioner {
  /// Called on the monitor's thread, in order.
  func handle(_ event: DiskEvent) {
    switch event {
    case .appeared(let device), .changed(let device):
      let isPending = state.withLock { state in
        guard state.pending != nil else { return false }
        state.pending?.append(device)
        return true
      }
      if !isPending { consider(device) }
    case .vanished(let name, _):
      vanished(name: name)
    case .enumerated:
      considerFirst()
    }
  }

  func vanished(name: String) {
    work.withLock { _ in
      _ = withdraw(name, reason: "was removed")
      state.withLock { state in
        // A loop device that is being detached stays visible until the last user lets go.
        state.entries[name] = nil
      }
    }
  }

  /// The disks that were there at the start: examined side by side, then the labelled ones get their numbers before any
  /// blank one is given a new one.
  private func considerFirst() {
    let devices = state.withLock { state in
      let devices = state.pending ?? []
      state.pending = nil
      return devices
    }
    let use = SystemUse.read(devices: BlockDeviceReader().enumerate())
    let verdicts = devices.filter { !isNamed($0) }.map { ($0, ruled($0, use)) }
    work.withLock { _ in
      for (device, verdict) in verdicts where verdict == .labelled { apply(verdict, to: device) }
      for (device, verdict) in verdicts where verdict != .labelled { apply(verdict, to: device) }
      // The start may have gone on without them.
      publish(changed: true)
    }
  }

  /// A disk came or changed after the start. The examination may take as long as the disk does, so it has a thread of its
  /// own; its outcome counts only if nothing newer is known of the disk by then.
  private func consider(_ device: BlockDevice) {
    if isNamed(device) || resized(device) { return }
    let serial = state.withLock { state in
      let serial = (state.entries[device.name]?.serialNumber ?? 0) + 1
      if state.entries[device.name] == nil {
        state.entries[device.name] = Entry(
          key: device.name, path: device.path, byteCount: device.bytes, device: device, verdict: .held,
          reason: "it is being examined")
      }
      state.entries[device.name]?.serialNumber = serial
      return serial
    }
    startThread(name: "examine") { [self] in
      let use = SystemUse.read(devices: BlockDeviceReader().enumerate())
      let verdict = ruled(device, use)
      work.withLock { _ in
        let isCurrent = state.withLock { $0.entries[device.name]?.serialNumber == serial && !$0.isStopped }
        guard isCurrent else { return }
        let before = state.withLock { $0.map.exports.count }
        apply(verdict, to: device)
        if state.withLock({ $0.entries.values.compactMap(\.export).count }) != before { publish(changed: true) }
      }
    }
  }

  /// The examination with the site's own rules in front.
  private func ruled(_ device: BlockDevice, _ use: SystemUse) -> Verdict {
    let settings = state.withLock { $0.settings }
    if settings.ignores([device.path]) {
      return .refused(Reason(.kind, "The settings say to ignore it ([discovery] ignore)."))
    }
    if !options.only.isEmpty, !options.only.contains(where: { Self.key($0) == device.name }) {
      let verdict = judged(device, use)
      // Only the named disks are touched; of the others it is told what would become of them.
      switch verdict {
      case .blank:
        return .held(Reason(.kind, "It is blank and would be exported, but only the disks of --only are touched."))
      case .labelled:
        return .held(Reason(.kind, "It has a label and would be exported, but only the disks of --only are touched."))
      case .held, .refused: return verdict
      }
    }
    if LoopWatch.isBeingDetached(device.name) { return .refused(Reason(.claimed, "It is being detached.")) }
    let verdict = judged(device, use)
    if verdict == .blank, !settings.exportsBlank {
      return .held(
        Reason(
          .kind, "It is blank, and the settings say not to export blank disks by themselves.",
          remedy: "gatewayd disks adopt \(device.path) --wipe"))
    }
    return verdict
  }

  private func judged(_ device: BlockDevice, _ use: SystemUse) -> Verdict {
    examine(device, use: use, policy: policy) { fd, bytes in LabelStore.isOurs(fd: fd, diskBytes: bytes) }
  }

  private func isNamed(_ device: BlockDevice) -> Bool {
    options.disks.contains { specification in
      if case .path(let path) = specification { Self.key(path) == device.name } else { false }
    }
  }

  /// Acts on a verdict. Under `work`.
  private func apply(_ verdict: Verdict, to device: BlockDevice) {
    switch verdict {
    case .refused(let reason): setAside(device, .refused, reason)
    // Whatever its initiators have made of it since: a disk that was adopted whole never gets a label.
    case .blank, .labelled, .held:
      if let adopted = adopted(device) { return exportWhole(device, adopted) }
    }
    switch verdict {
    case .refused: break
    case .held(let reason): setAside(device, .held, reason)
    case .blank, .labelled:
      do throws(DiskOpening.Refusal) {
        let opening = try DiskOpening(path: device.path, device: device)
        if opening.label != nil {
          try admit(opening, key: device.name)
        } else {
          // The disk is looked at again on the descriptor that is written to: it may have changed hands meanwhile.
          try opening.checkBlank()
          try label(opening, key: device.name)
        }
      } catch {
        hold(path: device.path, device: device, error)
      }
    }
  }

  private func setAside(_ device: BlockDevice, _ verdict: DiskVerdict, _ reason: Reason) {
    Log.info("\(device.path) is \(verdict.rawValue): \(reason.sentence)")
    state.withLock { state in
      let serial = state.entries[device.name]?.serialNumber ?? 0
      state.entries[device.name] = Entry(
        key: device.name, path: device.path, model: device.model ?? "", serial: device.serial ?? "",
        byteCount: device.bytes, device: device, verdict: verdict, reason: reason.sentence, advice: reason.remedy,
        serialNumber: serial)
    }
  }

  // MARK: Resize

  /// Whether the device is exported; a new size is then taken over.
  private func resized(_ device: BlockDevice) -> Bool {
    guard let entry = state.withLock({ $0.entries[device.name] }), let export = entry.export else { return false }
    if LoopWatch.isBeingDetached(device.name) {
      vanished(name: device.name)
      return true
    }
    guard device.bytes != entry.byteCount else { return true }
    work.withLock { _ in
      guard device.bytes > entry.byteCount else {
        _ = withdraw(device.name, reason: "has shrunk to \(ByteCount.describe(device.bytes))")
        setAside(
          device, .held,
          Reason(
            .kind, "It has shrunk: its label, and perhaps data, is cut off.",
            remedy: "gatewayd disks adopt \(device.path) --wipe"))
        return
      }
      grow(device, entry, export)
    }
    return true
  }

  /// The label moves to the new end, then the LUN grows over the place where it was.
  private func grow(_ device: BlockDevice, _ entry: Entry, _ export: Export) {
    guard var label = export.label, let fd = export.disk.descriptor else { return }
    label.diskBytes = device.bytes
    var code = export.moveLabel(to: label, fd: fd)
    // A reservation record is being written: that takes a moment, or the disk does not answer.
    for _ in 0..<100 where code == -EBUSY {
      usleep(20_000)
      code = export.moveLabel(to: label, fd: fd)
    }
    guard code == 0 else {
      return note("\(device.path) has grown, but its label could not be moved: \(String(cString: strerror(-code)))")
    }
    export.unit.resize(toBlocks: label.exportedBytes / UInt64(label.blockBytes))
    state.withLock { state in
      state.entries[device.name]?.byteCount = device.bytes
      state.entries[device.name]?.device = device
    }
    Log.notice("LUN \(label.lun): \(device.path) has grown to \(ByteCount.describe(device.bytes))")
    announceCapacity()
  }

  // MARK: Adoption

  /// Takes a held disk, as the operator asked.
  func adopt(path: String, mode: AdoptMode) throws(ControlError) -> AdoptReport {
    let key = Self.key(path)
    guard let entry = state.withLock({ $0.entries[key] }) else {
      throw ControlError(.noSuchDisk, "\(path) is not a disk that the gateway sees; `gatewayd disks` lists them")
    }
    if let export = entry.export {
      throw ControlError(.refused, "\(path) is LUN \(export.unit.number) already")
    }
    guard entry.verdict == .held else {
      throw ControlError(.refused, "\(path) is refused, not held: \(entry.reason)")
    }
    if mode == .whole { return try adoptWhole(entry) }
    let outcome = work.withLock { _ -> Result<AdoptReport, ControlError> in
      do throws(DiskOpening.Refusal) {
        return .success(try wipeAndExport(path: entry.path, device: entry.device, key: key))
      } catch {
        return .failure(ControlError(.refused, "\(path): \(error.reason)"))
      }
    }
    switch outcome {
    case .success(let report): return report
    case .failure(let error): throw error
    }
  }

  private func wipeAndExport(
    path: String, device: BlockDevice?, key: String
  ) throws(DiskOpening.Refusal) -> AdoptReport {
    try DiskOpening.wipe(path: path)
    if let device { forgetWhole(device) }
    try label(try DiskOpening(path: path, device: device), key: key)
    publish(changed: true)
    guard let export = state.withLock({ $0.entries[key]?.export }) else {
      throw DiskOpening.Refusal(isHeld: true, reason: "it could not be exported")
    }
    return AdoptReport(path: path, lun: export.unit.number, naa: export.unit.identity.naa)
  }
}
