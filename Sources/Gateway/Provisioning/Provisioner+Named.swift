import Discovery
import Glibc
import Reactor
import SCSI
import Storage

/// The disks of `--disk`: opened one after the other before anything else, on the thread that starts the gateway.
extension Provisioner {
  func openNamed() throws(StartError) {
    // Labelled disks first: their numbers are theirs.
    var blank: [(Int, DiskOpening)] = []
    for (position, specification) in options.disks.enumerated() {
      guard case .path(let path) = specification else { continue }
      let key = Self.key(path)
      let serial = begin(key, path: path, device: nil)
      do throws(DiskOpening.Refusal) {
        let opening = try open(path, Self.blockDevice(path))
        if opening.label == nil {
          try opening.checkBlank(knownBytes: knownBytes)
          blank.append((position, opening))
        } else {
          try admit(opening, key: key, serial: serial)
        }
      } catch {
        guard error.isHeld else { throw StartError("--disk \(path): \(error.reason)") }
        hold(key, path: path, device: Self.blockDevice(path), error, serial: serial)
      }
    }
    for (position, specification) in options.disks.enumerated() {
      switch specification {
      case .path(let path):
        guard let opening = blank.first(where: { $0.0 == position })?.1 else { continue }
        let key = Self.key(path)
        let serial = begin(key, path: path, device: nil)
        do throws(DiskOpening.Refusal) {
          try labelBlank(opening, key: key, serial: serial, content: .blank)
        } catch {
          guard error.isHeld else { throw StartError("--disk \(path): \(error.reason)") }
          hold(key, path: path, device: Self.blockDevice(path), error, serial: serial)
        }
      case .memory, .null, .slow, .faulty:
        try openSynthetic(specification, position)
      }
    }
  }

  private func openSynthetic(_ specification: DiskSpecification, _ position: Int) throws(StartError) {
    let disk: Disk
    let key = "\(specification.text)#\(position)"
    do throws(DiskError) {
      switch specification {
      case .path: return
      case .memory(let bytes): disk = try Disk.memory(byteCount: bytes, path: specification.text)
      case .null(let bytes): disk = Disk.null(byteCount: bytes, path: specification.text)
      case .slow(let bytes, let milliseconds):
        disk = try Disk.memory(byteCount: bytes, path: specification.text, faults: .slow(milliseconds: milliseconds))
      case .faulty(let bytes, let rules):
        guard let faults = FaultRules(rules) else {
          throw DiskError(
            path: specification.text,
            reason:
              "rules are medium=LBA+COUNT, hang=LBA+COUNT, slow=LBA+COUNT:MS, gone, flush-error, joined by commas")
        }
        disk = try Disk.memory(byteCount: bytes, path: specification.text, faults: faults)
      }
    } catch {
      throw StartError("--disk \(error.description)")
    }
    let rule = options.settings.rule(for: [specification.text, key])
    let blockBytes = max(rule?.blockBytes ?? 0, disk.facts.logical_block_bytes)
    var traits = DiskOpening.traits(disk, blockBytes: blockBytes, persistsReservations: false)
    if case .null = specification {
      traits.isThin = false
    } else {
      traits.isThin = true
      // What is lost as a whole is never there by half.
      traits.atomicBytesMax = UInt32(BufferPool.pieceBytes)
    }
    rule?.apply(to: &traits)
    let uuid = Identity.derivedUUID("\(cluster) \(key)")
    let serial = begin(key, path: specification.text, device: nil)
    defer { release(key) }
    do throws(DiskOpening.Refusal) {
      let number = try takeNumber(for: key)
      let unit: LogicalUnit
      do throws(ReservationRecordError) {
        unit = try LogicalUnit(
          number: number, identity: DiskOpening.identity(uuid), traits: traits,
          blocks: disk.byteCount / UInt64(traits.blockBytes), registry: registry)
      } catch {
        throw DiskOpening.Refusal(isHeld: false, reason: "\(error)")
      }
      try add(
        Export(unit: unit, disk: disk, label: nil, byteCount: disk.byteCount),
        Entry(
          key: key, path: specification.text, byteCount: disk.byteCount, verdict: .exported, serialNumber: serial))
    } catch {
      throw StartError("--disk \(specification.text): \(error.reason)")
    }
  }

  static func key(_ path: String) -> String {
    guard let real = realpath(path, nil) else { return path }
    defer { free(real) }
    let text = String(cString: real)
    return text.hasPrefix("/dev/") ? String(text.dropFirst(5)) : text
  }

  static func blockDevice(_ path: String) -> BlockDevice? {
    let name = key(path)
    return name.hasPrefix("/") ? nil : BlockDeviceReader().read(name)
  }
}
