import SCSI
import StorageLabel

/// What a backing disk says of its persistent reservations, and its sense data. Whatever it says, no more keys are taken from
/// it than it sent, and a reservation has a type that there is.
@Sendable func fuzzReservations(_ data: UnsafeRawBufferPointer) {
  let bytes = [UInt8](data)
  if let keys = RegisteredKeys(decoding: bytes) { precondition(8 + 8 * keys.keys.count <= bytes.count) }
  if let found = HeldReservation.read(bytes), let held = found.reservation {
    precondition(held.type < 16 && held.isOurType == (held.type == 5))
  }
  if let can = ReservationCapabilities(decoding: bytes) {
    precondition(can.types != nil || !PersistentReservations.Kind.allCases.contains(where: can.has))
  }
  for isExtended in [false, true] {
    guard let report = NVMeReservationReport(decoding: bytes, isExtended: isExtended) else { continue }
    precondition((isExtended ? 64 : 24) * (1 + report.keys.keys.count) <= bytes.count)
    if let held = report.reservation {
      precondition(PersistentReservations.Kind(rawValue: held.type) != nil)
      precondition(held.key == 0 || report.keys.keys.contains(held.key))
    }
  }
  if let sense = SenseData(decoding: bytes) {
    precondition(sense.key < 16 && (!sense.tellsOfRegistrations || sense.isUnitAttention))
  }
}
