import ISCSI
import Wire

/// The text format of RFC 7143 §6.1: what was parsed and written again parses to the same.
@Sendable func fuzzText(_ data: UnsafeRawBufferPointer) {
  let bytes = [UInt8](data)
  guard let keys = try? TextKeys(parsing: bytes) else { return }
  precondition(keys.pairs.count <= TextKeys.countMax)
  guard let again = try? TextKeys(parsing: keys.bytes) else { preconditionFailure("written text does not parse") }
  precondition(again == keys)
  for pair in keys.pairs { _ = ISCSIName(pair.value) }
}
