import Wire

/// Device Identification, VPD page 83h (SPC-5 §7.7.6). Every nexus sees the same designators of the logical unit;
/// those of the target port are the ones of its own.
extension DeviceServer {
  func identification(_ unit: LogicalUnit, _ nexus: Nexus) -> [UInt8] {
    let identity = unit.identity
    var data = Designator.naa(identity.uuid)
    data += Designator.t10(identity)
    data += Designator.logicalUnitGroup
    data += Designator.relativeTargetPort(nexus.identity.relativeTargetPort)
    data += Designator.targetPortGroup(nexus.targetPortGroup)
    // RFC 7143 §4.2.7.1 with SPC-5 §7.7.6.11: "NAME,t,0xTPGT" is the target port, NAME the target device.
    let tag = String(nexus.targetPortGroup, radix: 16)
    let port = deviceName + ",t,0x" + String(repeating: "0", count: 4 - tag.count) + tag
    data += Designator.name(port, association: .targetPort)
    data += Designator.name(deviceName, association: .targetDevice)
    return data
  }
}

enum Designator {
  enum Association: UInt8 {
    case logicalUnit = 0x00
    case targetPort = 0x10
    case targetDevice = 0x20
  }

  private static let iSCSI: UInt8 = 0x50
  private static let protocolIdentifierValid: UInt8 = 0x80

  /// One designation descriptor.
  private static func descriptor(
    codeSet: UInt8, type: UInt8, association: Association, _ value: [UInt8]
  ) -> [UInt8] {
    let isPort = association != .logicalUnit
    return [
      (isPort ? iSCSI : 0) | codeSet, (isPort ? protocolIdentifierValid : 0) | association.rawValue | type, 0,
      UInt8(value.count),
    ] + value
  }

  /// NAA IEEE Registered Extended, 16 bytes, made from the UUID (initiators prefer it to the locally assigned format
  /// 3h).
  ///
  ///     bits 127-124  6h
  ///     bits 123-100  company identifier 02 47 57h: locally administered (the U/L bit is set), so that it is nobody's
  ///     bits  99-64   the upper 36 bits of a 64-bit mix of the first eight bytes of the UUID
  ///     bits  63-0    the last eight bytes of the UUID
  static func naa(_ uuid: [UInt8]) -> [UInt8] {
    var halves: (UInt64, UInt64) = (0, 0)
    for (i, byte) in uuid.prefix(16).enumerated() {
      if i < 8 { halves.0 = halves.0 << 8 | UInt64(byte) } else { halves.1 = halves.1 << 8 | UInt64(byte) }
    }
    let high = UInt64(0x6) << 60 | UInt64(0x02_4757) << 36 | mix(halves.0) >> 28
    var value: [UInt8] = []
    value.append(be: high)
    value.append(be: halves.1)
    return descriptor(codeSet: 1, type: 3, association: .logicalUnit, value)
  }

  /// A bijection of 64 bits in which every input bit reaches every output bit (the finaliser of SplitMix64).
  private static func mix(_ value: UInt64) -> UInt64 {
    var z = value
    z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
    return z ^ z >> 31
  }

  /// T10 vendor ID: vendor, product and serial number (SPC-5 §7.7.6.4).
  static func t10(_ identity: LogicalUnitIdentity) -> [UInt8] {
    var value: [UInt8] = []
    value.append(text: identity.vendor, paddedTo: 8)
    value.append(text: identity.product, paddedTo: 16)
    value += Array(identity.serial.utf8.prefix(200))
    return descriptor(codeSet: 2, type: 1, association: .logicalUnit, value)
  }

  /// Logical unit group 0: all logical units share their port groups' states (SPC-5 §7.7.6.8).
  static let logicalUnitGroup = descriptor(codeSet: 1, type: 6, association: .logicalUnit, [0, 0, 0, 0])

  static func relativeTargetPort(_ id: UInt16) -> [UInt8] {
    descriptor(codeSet: 1, type: 4, association: .targetPort, [0, 0, UInt8(id >> 8), UInt8(truncatingIfNeeded: id)])
  }

  static func targetPortGroup(_ id: UInt16) -> [UInt8] {
    descriptor(codeSet: 1, type: 5, association: .targetPort, [0, 0, UInt8(id >> 8), UInt8(truncatingIfNeeded: id)])
  }

  /// SCSI name string: UTF-8, a null, and nulls up to a multiple of four (SPC-5 §7.7.6.11).
  static func name(_ name: String, association: Association) -> [UInt8] {
    var value = Array(name.utf8.prefix(247)) + [0]
    while value.count % 4 != 0 { value.append(0) }
    return descriptor(codeSet: 3, type: 8, association: association, value)
  }
}

extension LogicalUnitIdentity {
  /// The NAA designator of VPD page 83h as initiators print it: 32 hexadecimal digits.
  public var naa: String {
    // A designation descriptor has a header of four bytes (SPC-5 §7.7.6.1).
    Designator.naa(uuid).dropFirst(4).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }
}
