/// Who a disk is. The two nodes of a pair must come to the same name for the same disk, one of them perhaps without
/// udev: so what the kernel says comes first, and udev only fills what it leaves out.
extension BlockDeviceReader {
  func readIdentity(_ directory: String, into device: inout BlockDevice) {
    // A loop device is as old as its attachment; its file may have any name tomorrow.
    guard device.kind != .loop else { return }
    let known = properties(device.name)
    device.vendor = KernelText.attribute("\(directory)/device/vendor").flatMap(Self.vendor) ?? known["ID_VENDOR"]
    device.model = KernelText.attribute("\(directory)/device/model") ?? known["ID_MODEL"]
    device.serial =
      KernelText.attribute("\(directory)/serial") ?? KernelText.attribute("\(directory)/device/serial")
      ?? Self.unitSerialNumber(page: KernelText.bytes(of: "\(directory)/device/vpd_pg80") ?? [])
      ?? known["ID_SERIAL_SHORT"] ?? known["ID_SERIAL"]
    device.wwid =
      device.mapUUID.flatMap(Self.name(ofMap:))
      ?? (KernelText.attribute("\(directory)/wwid") ?? KernelText.attribute("\(directory)/device/wwid"))
      .flatMap(Self.normalized)
      ?? (known["ID_WWN_WITH_EXTENSION"] ?? known["ID_WWN"]).flatMap(Self.normalized)
      ?? (device.serial ?? KernelText.attribute("\(directory)/md/uuid")).map { "serial.\(Self.joined($0))" }
  }

  /// PCI's and virtio's vendor numbers ("0x1af4") are no names.
  private static func vendor(_ text: String) -> String? { text.hasPrefix("0x") ? nil : text }

  /// "0x5000c500…" as udev writes an NAA name becomes "naa.5000c500…"; the kernel's forms stay, white space joined.
  static func normalized(_ name: String) -> String? {
    let text = joined(name)
    if text.hasPrefix("0x") { return "naa." + text.dropFirst(2).lowercased() }
    return text.isEmpty ? nil : text
  }

  /// The serial that scsi_id gives a multipath map: a digit for the designator type (SPC-5 §7.7.6), then the designator.
  static func name(ofMap uuid: String) -> String? {
    guard uuid.hasPrefix("mpath-") else { return nil }
    let name = uuid.dropFirst("mpath-".count)
    switch name.first {
    case "3": return "naa." + name.dropFirst().lowercased()
    case "2": return "eui." + name.dropFirst().lowercased()
    case "1": return "t10." + joined(String(name.dropFirst()))
    // NVMe maps carry the kernel's own name.
    case nil: return nil
    default: return joined(String(name))
    }
  }

  /// Runs of white space become one underscore, as udev has it; anything unprintable a question mark.
  static func joined(_ text: String) -> String {
    KernelText.printable(text.split(whereSeparator: \.isWhitespace).joined(separator: "_"))
  }

  /// PRODUCT SERIAL NUMBER of VPD page 80h (SPC-5 §7.7.19); nil if malformed or blank.
  static func unitSerialNumber(page: [UInt8]) -> String? {
    guard page.count > 4, page[1] == 0x80 else { return nil }
    let length = Int(page[2]) << 8 | Int(page[3])
    let text = KernelText.trimmed(page[4...].prefix(length))
    return text.isEmpty ? nil : KernelText.printable(text)
  }
}
