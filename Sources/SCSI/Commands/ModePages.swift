import Wire

/// The mode pages (SPC-5 §7.5, SBC-4 §6.5). Each is a value for the current state and a mask of what MODE SELECT may
/// change; the default values are those of a logical unit that nobody has touched.
struct ModePage {
  enum Values: UInt8 {
    case current = 0b00
    case changeable = 0b01
    case defaults = 0b10
  }

  let code: UInt8
  /// The page with its two header bytes.
  let bytes: [UInt8]
  /// As long as `bytes`; ones for what can be changed.
  let mask: [UInt8]

  /// The pages in the order in which MODE SENSE returns them all.
  static func all(_ traits: LogicalUnitTraits, _ mode: ModeParameters) -> [ModePage] {
    [errorRecovery, caching(traits), control(mode), informationalExceptions]
  }

  private init(_ code: UInt8, _ bytes: [UInt8], changeable: [Int: UInt8] = [:]) {
    self.code = code
    self.bytes = [code, UInt8(bytes.count)] + bytes
    var mask = [UInt8](repeating: 0, count: bytes.count + 2)
    for (byte, bits) in changeable { mask[byte] = bits }
    self.mask = mask
  }

  /// Read-Write Error Recovery (SBC-4 §6.5.10): AWRE and ARRE, because the disk does it.
  private static let errorRecovery = ModePage(0x01, [0xC0] + [UInt8](repeating: 0, count: 9))

  /// Caching (SBC-4 §6.5.6): WCE as the disk has it.
  private static func caching(_ traits: LogicalUnitTraits) -> ModePage {
    ModePage(0x08, [traits.hasWriteCache ? 0x04 : 0x00] + [UInt8](repeating: 0, count: 17))
  }

  /// Control (SPC-5 §7.5.9): D_SENSE and SWP can be changed; QUEUE ALGORITHM MODIFIER 1, BUSY TIMEOUT unlimited.
  private static func control(_ mode: ModeParameters) -> ModePage {
    ModePage(
      0x0A,
      [mode.descriptorSense ? 0x04 : 0x00, 0x10, mode.softwareWriteProtect ? 0x08 : 0x00, 0, 0, 0, 0xFF, 0xFF, 0, 0],
      changeable: [2: 0x04, 4: 0x08])
  }

  /// Informational Exceptions Control (SPC-5 §7.5.13): DEXCPT.
  private static let informationalExceptions = ModePage(0x1C, [0x08] + [UInt8](repeating: 0, count: 9))

  func values(_ which: Values) -> [UInt8] {
    switch which {
    case .current, .defaults: bytes
    case .changeable: Array(bytes[..<2]) + mask[2...]
    }
  }
}

extension ModeParameters {
  /// Takes over what a MODE SELECT page changes; the page has been checked against the mask.
  mutating func adopt(_ page: [UInt8]) {
    guard page[0] & 0x3F == 0x0A else { return }
    descriptorSense = page[2] & 0x04 != 0
    softwareWriteProtect = page[4] & 0x08 != 0
  }
}
