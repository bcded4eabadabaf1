import CSystem
import Discovery
import Glibc
import Reactor
import SCSI
import Storage
import Synchronization

/// What discovery sees: disks that are there at the start, come, change, go.
extension Provisioner {
  /// Called on the monitor's thread, in order.
  func handle(_ event: DiskEvent) {
    switch event {
    case .appeared(let device), .changed(let device):
      let isPending = state.withLock { state in
        guard state.pending != nil else { return false }
        state.pending?.removeAll { $0.name == device.name }
        state.pending?.append(device)
        return true
      }
      if !isPending { consider(device) }
    case .vanished(let name, _):
      vanished(name)
    case .enumerated:
      considerFirst()
    }
  }

  /// Never waits for the disk: what its lane still does counts for nothing any more. A loop device that is being detached
  /// stays visible until the last user lets go.
  /// - Parameter sequence: only if the disk is still the one of this sequence. Several may notice that it goes, and once
  ///   the first has let go of it, the next disk may have its name already.
  func vanished(_ name: String, sequence: UInt64? = nil) {
    let entry = state.withLock { state -> Entry? in
      if let sequence, state.entries[name]?.device?.diskSequence != sequence { return nil }
      return state.entries.removeValue(forKey: name)
    }
    end(entry, reason: "was removed")
  }

  // MARK: The first round

  /// How long the disks that were there at the start are waited for before blank ones are given numbers: a label that comes
  /// later may find its number taken, and its disk is held.
  private static let firstRoundMilliseconds = 10_000
  /// Blank disks get their numbers in order as long as each takes no longer.
  private static let labellingMilliseconds = 2000

  /// The disks that were there at the start: examined side by side, then the labelled ones get their numbers before any
  /// blank one is given a new one.
  private func considerFirst() {
    let devices = state.withLock { state in
      let devices = state.pending ?? []
      state.pending = nil
      return devices.filter { !isNamed($0) }
    }
    considerTogether(devices) { [self] in firstRound.set() }
  }

  /// Disks that are looked at at once: labelled ones keep their numbers, so blank ones get theirs when all have been seen.
  func considerTogether(_ devices: [BlockDevice], then: @escaping @Sendable () -> Void = {}) {
    let round = Round(devices.count)
    for device in devices {
      guard let serial = beginUnlessAdopting(device) else {
        round.oneIsDone()
        lanes.run(device.name) { [self] in consider(device) }
        continue
      }
      lanes.run(device.name) { [self] in
        defer { round.oneIsDone() }
        guard isCurrent(device.name, serial) else { return }
        let verdict = ruled(device)
        if verdict == .blank, round.defers(device, serial) { return }
        apply(verdict, to: device, serial)
      }
    }
    // The monitor's thread has the next events to tell.
    startThread(name: "first round") { [self] in
      for (device, serial) in round.finish(within: Self.firstRoundMilliseconds, in: devices) {
        let done = ReadyFlag()
        let isQueued = lanes.runUnlessMoreWaits(device.name) { [self] in
          defer { done.set() }
          if isCurrent(device.name, serial) { apply(.blank, to: device, serial) }
        }
        if !isQueued { continue }
        _ = done.wait(milliseconds: Self.labellingMilliseconds)
      }
      then()
    }
  }

  /// A disk came or changed after the start. What it takes happens in the disk's lane.
  /// - Parameter isSecondLook: what is found now is what there is.
  func consider(_ device: BlockDevice, isSecondLook: Bool = false) {
    if isNamed(device) { return }
    guard let serial = beginUnlessAdopting(device) else {
      return lanes.run(device.name) { [self] in consider(device, isSecondLook: isSecondLook) }
    }
    lanes.run(device.name) { [self] in
      guard isCurrent(device.name, serial), !resized(device) else { return }
      let verdict = ruled(device)
      if verdict == .blank { _ = firstRound.wait(milliseconds: Self.firstRoundMilliseconds) }
      guard isCurrent(device.name, serial) else { return }
      apply(verdict, to: device, serial, isSecondLook: isSecondLook)
    }
  }

  /// A label that another node is writing shows first as data that nobody knows.
  private func lookAgain(_ device: BlockDevice, _ serial: UInt64) {
    guard options.settings.pair.isEnabled else { return }
    startThread(name: "second look") { [self] in
      usleep(Self.secondLookMicroseconds)
      if isCurrent(device.name, serial) { consider(device, isSecondLook: true) }
    }
  }

  private static let secondLookMicroseconds: UInt32 = 2_000_000

  /// The examination with the site's own rules in front.
  private func ruled(_ device: BlockDevice) -> Verdict {
    let use = SystemUse.read(devices: BlockDeviceReader().enumerate())
    let choice = DiskChoice(options.only, state.withLock { $0.settings })
    if choice.ignores(device) {
      return .refused(Reason(.kind, "The settings say to ignore it ([discovery] ignore)."))
    }
    let isChosen = choice.allows(device)
    if isChosen, LoopWatch.isBeingDetached(device.name) { return .refused(Reason(.claimed, "It is being detached.")) }
    let verdict = access.judge(device, use, policy)
    guard isChosen else { return choice.untouched(device, verdict) }
    if verdict == .blank, !choice.settings.exportsBlank {
      return .held(
        Reason(
          .kind, "It is blank, and the settings say not to export blank disks by themselves.",
          remedy: "gatewayd disks adopt \(device.path) --wipe"))
    }
    return verdict
  }

  func isNamed(_ device: BlockDevice) -> Bool {
    options.disks.contains { specification in
      if case .path(let path) = specification { Self.key(path) == device.name } else { false }
    }
  }

  /// Acts on a verdict, in the disk's lane.
  private func apply(_ verdict: Verdict, to device: BlockDevice, _ serial: UInt64, isSecondLook: Bool = false) {
    switch verdict {
    case .refused(let reason): return setAside(device, .refused, reason, serial)
    case .held(let reason) where reason.code == .notChosen: return setAside(device, .held, reason, serial)
    // Whatever its initiators have made of it since: a disk that was adopted whole never gets a label.
    case .blank, .labelled, .held:
      if let adopted = adopted(device) { return exportWhole(device, adopted, serial) }
    }
    switch verdict {
    case .refused: break
    case .held(let reason):
      if reason.code == .data, !isSecondLook { lookAgain(device, serial) }
      // What is on it may be an initiator's.
      if reason.code != .kind, let former = DiskOpening.former(device, knownBytes: knownBytes) {
        return hold(device.name, path: device.path, device: device, former, serial: serial)
      }
      setAside(device, .held, reason, serial)
    case .blank, .labelled:
      take(device.name, path: device.path, device: device, serial: serial)
    }
  }

  /// Exports a disk that has a label, or gets one.
  func take(_ key: String, path: String, device: BlockDevice?, serial: UInt64) {
    do throws(DiskOpening.Refusal) {
      let opening = try open(path, device)
      if opening.label != nil {
        try admit(opening, key: key, serial: serial)
      } else {
        try labelBlank(opening, key: key, serial: serial)
      }
      publish(changed: true)
    } catch {
      hold(key, path: path, device: device, error, serial: serial)
      // To close it again is an event as well (udev watches for writers), which would find the next attempt under way and
      // begin anew, for ever.
      if !isCurrent(key, serial) { usleep(Self.settleMicroseconds) }
    }
  }

  /// How long a disk is left alone after an attempt that an event made void, in microseconds.
  private static let settleMicroseconds: UInt32 = 1_000_000

  private func setAside(_ device: BlockDevice, _ verdict: DiskVerdict, _ reason: Reason, _ serial: UInt64) {
    let isKept = record(
      Entry(
        key: device.name, path: device.path, model: device.model ?? "", serial: device.serial ?? "",
        byteCount: device.bytes, device: device, verdict: verdict, reason: reason.sentence, code: reason.code,
        advice: reason.remedy, serialNumber: serial))
    if isKept { Log.info("\(device.path) is \(verdict.rawValue): \(reason.sentence)") }
  }

  // MARK: Resize

  /// Whether the device is exported; a new size is then taken over.
  private func resized(_ device: BlockDevice) -> Bool {
    guard let entry = state.withLock({ $0.entries[device.name] }), let export = entry.export else { return false }
    if LoopWatch.isBeingDetached(device.name) {
      vanished(device.name, sequence: device.diskSequence)
      return true
    }
    let isCutOff = export.label.map { device.bytes / LabelArea.alignment < $0.diskBytes / LabelArea.alignment } ?? false
    guard device.bytes != entry.byteCount || isCutOff || hasOutgrown(device, export) else { return true }
    guard device.bytes >= entry.byteCount, !isCutOff else {
      // What was on its way when the disk grew says nothing.
      guard export.disk.currentByteCount <= device.bytes else { return true }
      withdraw(device.name, reason: "has shrunk to \(ByteCount.describe(device.bytes))")
      setAside(
        device, .held,
        Reason(
          .kind, "It has shrunk: its label, and perhaps data, is cut off.",
          remedy: "gatewayd disks adopt \(device.path) --wipe"), entry.serialNumber)
      return true
    }
    grow(device, entry, export)
    return true
  }

  /// Whether the disk is larger than its LUN and label say.
  private func hasOutgrown(_ device: BlockDevice, _ export: Export) -> Bool {
    guard let label = export.label else { return false }
    return device.bytes / LabelArea.alignment > label.diskBytes / LabelArea.alignment
      || export.unit.blocks < label.exportedBytes / UInt64(label.blockBytes)
  }

  /// This node may write to a shared disk from now on. What has grown while it was another's, or nobody's, grows now.
  func admitted(_ export: Export) {
    guard let label = export.label, export.disk.currentByteCount > label.diskBytes,
      let path = state.withLock({ $0.entries.values.first { $0.export === export }?.path }),
      let device = access.device(path)
    else { return }
    consider(device)
  }

  /// The label moves to the new end, then the LUN grows over the place where it was. Of a disk that is shared only where it
  /// is this node's: the other one's records are in the area, and its initiators' data may be in the place of before.
  private func grow(_ device: BlockDevice, _ entry: Entry, _ export: Export) {
    guard var label = export.label, let fd = export.disk.descriptor else { return }
    guard !export.isShared || export.isAdmitted else { return keepSize(device, entry, export) }
    label.diskBytes = device.bytes
    var code = export.moveLabel(to: label, fd: fd)
    // A reservation record is being written: that takes a moment, or the disk does not answer.
    for _ in 0..<100 where code == -EBUSY {
      usleep(20_000)
      code = export.moveLabel(to: label, fd: fd)
    }
    if code == -EACCES, export.isShared { return keepSize(device, entry, export) }
    guard code == 0 else {
      return note("\(device.path) has grown, but its label could not be moved: \(String(cString: strerror(-code)))")
    }
    export.unit.resize(toBlocks: label.exportedBytes / UInt64(label.blockBytes))
    remember(device)
    Log.notice("LUN \(label.lun): \(device.path) has grown to \(ByteCount.describe(device.bytes))")
    announceCapacity(of: label.lun)
  }

  /// The LUN stays as large as it is until the disk is this node's (`admitted`).
  private func keepSize(_ device: BlockDevice, _ entry: Entry, _ export: Export) {
    remember(device)
    guard device.bytes != entry.byteCount else { return }
    Log.notice(
      """
      LUN \(export.unit.number): \(device.path) has grown to \(ByteCount.describe(device.bytes)); the node that serves it \
      moves its label
      """)
  }

  private func remember(_ device: BlockDevice) {
    state.withLock { state in
      state.entries[device.name]?.byteCount = device.bytes
      state.entries[device.name]?.device = device
    }
  }
}

/// What the lanes of disks that are looked at at once have in common.
private final class Round: Sendable {
  private struct State {
    var count: Int
    /// The blank disks' serial numbers; nil once the round is over.
    var blank: [String: UInt64]? = [:]
  }

  private let state: Mutex<State>

  init(_ count: Int) { state = Mutex(State(count: count)) }

  func oneIsDone() { state.withLock { $0.count -= 1 } }

  /// Whether a blank disk is left to the end of the round; not, once that has come.
  func defers(_ device: BlockDevice, _ serial: UInt64) -> Bool {
    state.withLock { state in
      guard state.blank != nil else { return false }
      state.blank?[device.name] = serial
      return true
    }
  }

  /// Waits for the lanes, and ends the round. The blank disks, in the order of `devices`.
  func finish(within milliseconds: Int, in devices: [BlockDevice]) -> [(device: BlockDevice, serial: UInt64)] {
    for _ in 0..<milliseconds where state.withLock({ $0.count > 0 }) { usleep(1000) }
    let blank = state.withLock { state in
      defer { state.blank = nil }
      return state.blank ?? [:]
    }
    return devices.compactMap { device in blank[device.name].map { (device, $0) } }
  }
}
