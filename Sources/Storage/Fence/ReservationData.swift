import SCSI
import Wire

/// What a disk tells of its persistent reservations: parameter data of PERSISTENT RESERVE IN, and NVMe's reservation
/// report. Readers are total: any bytes give a value or nil.

/// READ KEYS (SPC-5 §6.16.2).
public struct RegisteredKeys: Equatable, Sendable {
  /// PRGENERATION: grows with every change to registrations.
  public var generation: UInt32
  /// One for each registration (an I_T nexus), also where they are equal.
  public var keys: [UInt64]

  public init(generation: UInt32, keys: [UInt64]) {
    self.generation = generation
    self.keys = keys
  }

  /// Reads parameter data, which may be cut at the allocation length.
  public init?(decoding bytes: [UInt8]) {
    guard bytes.count >= 8 else { return nil }
    let span = bytes.span.bytes
    let length = span.be32(4)
    guard length % 8 == 0 else { return nil }
    let count = min(Int(length), bytes.count - 8) / 8
    self.init(generation: span.be32(0), keys: (0..<count).map { span.be64(8 + 8 * $0) })
  }

  /// Bytes of the whole list, told by its header: more than there were when it was cut.
  static func byteCount(_ bytes: [UInt8]) -> Int { bytes.count >= 8 ? 8 + Int(bytes.span.bytes.be32(4)) : 0 }
}

/// The one reservation of a disk.
public struct HeldReservation: Equatable, Sendable {
  /// The holder's key; 0 for an all-registrants type.
  public var key: UInt64
  /// The type as SPC-5 table 63 numbers it.
  public var type: UInt8

  public init(key: UInt64, type: UInt8) {
    self.key = key
    self.type = type
  }

  /// Write Exclusive - Registrants Only.
  public var isOurType: Bool { type == PersistentReservations.Kind.writeExclusiveRegistrantsOnly.rawValue }

  /// READ RESERVATION (SPC-5 §6.16.3): the generation, and nil for no reservation.
  public static func read(_ bytes: [UInt8]) -> (generation: UInt32, reservation: HeldReservation?)? {
    guard bytes.count >= 8 else { return nil }
    let span = bytes.span.bytes
    let length = span.be32(4)
    if length == 0 { return (span.be32(0), nil) }
    guard length >= 16, bytes.count >= 24 else { return nil }
    return (span.be32(0), HeldReservation(key: span.be64(8), type: span.byte(21) & 0x0F))
  }
}

/// What a disk can of persistent reservations.
public struct ReservationCapabilities: Equatable, Sendable {
  /// Registrations can outlive a loss of power (PTPL_C).
  public var canPersist: Bool
  /// They do now (PTPL_A).
  public var persists: Bool
  /// Types by their number in SPC-5 table 63, a bit each; nil: the disk does not tell.
  public var types: UInt16?

  public init(canPersist: Bool, persists: Bool, types: UInt16?) {
    self.canPersist = canPersist
    self.persists = persists
    self.types = types
  }

  public func has(_ kind: PersistentReservations.Kind) -> Bool { types.map { $0 >> kind.rawValue & 1 == 1 } ?? false }

  /// REPORT CAPABILITIES (SPC-5 §6.16.4).
  public init?(decoding bytes: [UInt8]) {
    guard bytes.count >= 8 else { return nil }
    let span = bytes.span.bytes
    guard span.be16(0) >= 8 else { return nil }
    // PERSISTENT RESERVATION TYPE MASK: WR_EX_AR is bit 7 of byte 4, EX_AC_AR bit 0 of byte 5.
    let isTold = span.byte(3) & 0x80 != 0
    let mask = UInt16(span.byte(4)) | UInt16(span.byte(5) & 1) << 8
    self.init(
      canPersist: span.byte(2) & 1 == 1, persists: span.byte(3) & 1 == 1, types: isTold ? mask & 0x1EA : nil)
  }

  /// RESCAP, byte 31 of NVMe's Identify Namespace (NVM Command Set 1.0 figure 97): PTPL, then a bit for each type.
  public init(rescap: UInt8, persists: Bool = false) {
    var types: UInt16 = 0
    for (bit, kind) in NVMeReservationReport.kinds.enumerated() where rescap >> (bit + 1) & 1 == 1 {
      types |= 1 << UInt16(kind.rawValue)
    }
    self.init(canPersist: rescap & 1 == 1, persists: persists, types: types)
  }
}

/// Reservation Report (NVMe base 2.0 §7.5, little-endian), in the terms of SPC-5.
public struct NVMeReservationReport: Equatable, Sendable {
  public var keys: RegisteredKeys
  public var reservation: HeldReservation?
  /// Persist Through Power Loss State.
  public var persists: Bool

  /// Reservation types 1 to 6 (RTYPE).
  static let kinds: [PersistentReservations.Kind] = [
    .writeExclusive, .exclusiveAccess, .writeExclusiveRegistrantsOnly, .exclusiveAccessRegistrantsOnly,
    .writeExclusiveAllRegistrants, .exclusiveAccessAllRegistrants,
  ]

  /// - Parameter isExtended: the extended data structure, with host identifiers of 128 bits.
  public init?(decoding bytes: [UInt8], isExtended: Bool) {
    let (header, entry, keyPlace) = isExtended ? (64, 64, 8) : (24, 24, 16)
    guard bytes.count >= header else { return nil }
    let type = bytes[4]
    guard type <= Self.kinds.count else { return nil }
    let told = Int(Self.little(bytes, at: 5, count: 2))
    var keys: [UInt64] = []
    var holder: UInt64 = 0
    for index in 0..<min(told, (bytes.count - header) / entry) {
      let place = header + index * entry
      let key = Self.little(bytes, at: place + keyPlace, count: 8)
      keys.append(key)
      if bytes[place + 2] & 1 == 1 { holder = key }
    }
    self.keys = RegisteredKeys(generation: UInt32(Self.little(bytes, at: 0, count: 4)), keys: keys)
    if type == 0 {
      reservation = nil
    } else {
      let kind = Self.kinds[Int(type) - 1]
      reservation = HeldReservation(key: kind.isAllRegistrants ? 0 : holder, type: kind.rawValue)
    }
    persists = bytes[9] & 1 == 1
  }

  /// Bytes of the whole report, told by its header.
  static func byteCount(_ bytes: [UInt8], isExtended: Bool) -> Int {
    guard bytes.count >= 24 else { return 0 }
    return (isExtended ? 64 : 24) * (1 + Int(little(bytes, at: 5, count: 2)))
  }

  private static func little(_ bytes: [UInt8], at offset: Int, count: Int) -> UInt64 {
    (0..<count).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) }
  }
}
