extension CommandTable {
  private static let reads: CommandRow.Flags = [.needsMedium]
  private static let writes: CommandRow.Flags = [.needsMedium, .changesMedium]

  /// The rows of SBC-4. Bits in byte 1: DPO 10h, FUA 08h.
  static let blocks: [CommandRow] =
    transfers + verifying + whole + sanitizing + [
      CommandRow(
        "UNMAP", [0x42, 0, 0, 0, 0, 0, group, 0xFF, 0xFF, 0], .unmap, persistent: .writing,
        [.needsMedium, .changesMedium, .thinOnly]),
      CommandRow(
        "GET LBA STATUS", [0x9E, 0x12] + full(12) + [0, 0], .lbaStatus, serviceAction: 0x12, persistent: .reading, reads
      ),
      CommandRow(
        "COMPARE AND WRITE", [0x89, 0x18] + full(8) + [0, 0, 0, 0xFF, group, 0], .compareAndWrite, persistent: .writing,
        writes),
    ]

  private static let transfers: [CommandRow] = [
    CommandRow("READ(6)", [0x08, 0x1F, 0xFF, 0xFF, 0xFF, 0], .read, fields: .six, persistent: .reading, reads),
    CommandRow("READ(10)", ten(0x28, 0x18), .read, fields: .ten, persistent: .reading, reads),
    CommandRow("READ(12)", twelve(0xA8, 0x18), .read, fields: .twelve, persistent: .reading, reads),
    CommandRow("READ(16)", sixteen(0x88, 0x18), .read, fields: .sixteen, persistent: .reading, reads),
    CommandRow("WRITE(6)", [0x0A, 0x1F, 0xFF, 0xFF, 0xFF, 0], .write, fields: .six, persistent: .writing, writes),
    CommandRow("WRITE(10)", ten(0x2A, 0x18), .write, fields: .ten, persistent: .writing, writes),
    CommandRow("WRITE(12)", twelve(0xAA, 0x18), .write, fields: .twelve, persistent: .writing, writes),
    CommandRow("WRITE(16)", sixteen(0x8A, 0x18), .write, fields: .sixteen, persistent: .writing, writes),
    CommandRow("ORWRITE(16)", sixteen(0x8B, 0x18), .orWrite, fields: .sixteen, persistent: .writing, writes),
    // Bytes 10 and 11, ATOMIC BOUNDARY, must be zero: a write is atomic as a whole.
    CommandRow(
      "WRITE ATOMIC(16)", [0x9C, 0x18] + full(8) + [0, 0, 0xFF, 0xFF, group, 0], .writeAtomic, persistent: .writing,
      writes),
    // UNMAP 08h; NDOB 01h in the 16-byte form only.
    CommandRow("WRITE SAME(10)", ten(0x41, 0x08), .writeSame, fields: .ten, persistent: .writing, writes),
    CommandRow("WRITE SAME(16)", sixteen(0x93, 0x09), .writeSame, fields: .sixteen, persistent: .writing, writes),
  ]

  // DPO 10h, BYTCHK 06h.
  private static let verifying: [CommandRow] = [
    CommandRow("VERIFY(10)", ten(0x2F, 0x16), .verify, fields: .ten, persistent: .reading, reads),
    CommandRow("VERIFY(12)", twelve(0xAF, 0x16), .verify, fields: .twelve, persistent: .reading, reads),
    CommandRow("VERIFY(16)", sixteen(0x8F, 0x16), .verify, fields: .sixteen, persistent: .reading, reads),
    CommandRow("WRITE AND VERIFY(10)", ten(0x2E, 0x16), .writeAndVerify, fields: .ten, persistent: .writing, writes),
    CommandRow(
      "WRITE AND VERIFY(12)", twelve(0xAE, 0x16), .writeAndVerify, fields: .twelve, persistent: .writing, writes),
    CommandRow(
      "WRITE AND VERIFY(16)", sixteen(0x8E, 0x16), .writeAndVerify, fields: .sixteen, persistent: .writing, writes),
  ]

  // IMMED 02h.
  private static let whole: [CommandRow] = [
    CommandRow("PRE-FETCH(10)", ten(0x34, 0x02), .prefetch, fields: .ten, persistent: .reading, reads),
    CommandRow("PRE-FETCH(16)", sixteen(0x90, 0x02), .prefetch, fields: .sixteen, persistent: .reading, reads),
    CommandRow("SYNCHRONIZE CACHE(10)", ten(0x35, 0x02), .synchronizeCache, fields: .ten, persistent: .writing, reads),
    CommandRow(
      "SYNCHRONIZE CACHE(16)", sixteen(0x91, 0x02), .synchronizeCache, fields: .sixteen, persistent: .writing, reads),
    // In standby as well: a host that cannot read a path's capacity takes it for 0, and does not ask again when the path
    // becomes active.
    CommandRow(
      "READ CAPACITY(10)", [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], .readCapacity10, legacy: .allowed, persistent: .always,
      [reads, .anyAccessState]),
    CommandRow(
      "READ CAPACITY(16)", [0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0], .readCapacity16,
      serviceAction: 0x10, legacy: .allowed, persistent: .always, [reads, .anyAccessState]),
    CommandRow(
      "READ DEFECT DATA(10)", [0x37, 0, 0x1F, 0, 0, 0, 0, 0xFF, 0xFF, 0], .readDefectData10, persistent: .reading,
      reads),
    CommandRow(
      "READ DEFECT DATA(12)", [0xB7, 0x1F] + full(8) + [0, 0], .readDefectData12, persistent: .reading, reads),
  ]

  // IMMED 80h, AUSE 20h; ZNR is for zoned devices. An erased block is a deallocated one.
  private static let sanitizing: [CommandRow] = [
    sanitize("SANITIZE, OVERWRITE", 0x01, []),
    sanitize("SANITIZE, BLOCK ERASE", 0x02, .thinOnly),
    sanitize("SANITIZE, EXIT FAILURE MODE", 0x1F, []),
  ]

  // PARAMETER LIST LENGTH is looked at also where it must be zero: the whole field is then in error.
  private static func sanitize(_ name: StaticString, _ action: UInt8, _ flags: CommandRow.Flags) -> CommandRow {
    CommandRow(
      name, [0x48, 0xA0 | action, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0], .sanitize, serviceAction: action,
      persistent: .writing, [.needsMedium, .changesMedium, flags])
  }

  /// GROUP NUMBER (SBC-4 §4.22): taken and of no effect, because no group statistics are kept.
  private static let group: UInt8 = 0x3F

  private static func full(_ count: Int) -> [UInt8] { [UInt8](repeating: 0xFF, count: count) }

  /// LBA in bytes 2 to 5, length in 7 and 8.
  private static func ten(_ opcode: UInt8, _ flags: UInt8) -> [UInt8] {
    [opcode, flags] + full(4) + [group] + full(2) + [0]
  }

  /// LBA in bytes 2 to 5, length in 6 to 9.
  private static func twelve(_ opcode: UInt8, _ flags: UInt8) -> [UInt8] {
    [opcode, flags] + full(8) + [group, 0]
  }

  /// LBA in bytes 2 to 9, length in 10 to 13.
  private static func sixteen(_ opcode: UInt8, _ flags: UInt8) -> [UInt8] {
    [opcode, flags] + full(12) + [group, 0]
  }
}
