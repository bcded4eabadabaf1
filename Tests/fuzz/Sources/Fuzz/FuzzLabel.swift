import StorageLabel
import Wire

/// The label area of a disk from anywhere: a slot as it is, the same with header and checksum as they should be, two slots
/// against each other, and the label inside. A label that is accepted can be used: its sizes lead to no trap.
@Sendable func fuzzLabel(_ data: UnsafeRawBufferPointer) {
  let bytes = [UInt8](data)
  for kind in LabelArea.Kind.allCases {
    _ = try? Record.decode(bytes, kind: kind)
    let half = bytes.count / 2
    _ = try? Record.newest([Array(bytes[..<half]), Array(bytes[half...])], kind: kind)
    let payload = Array(bytes.prefix(Int(kind.slotBytes) - Record.headerBytes))
    let record = Record(kind: kind, sequence: 1, disk: UUID(random: [UInt8](repeating: 7, count: 16)), payload: payload)
    guard let again = try? Record.decode(record.encode(), kind: kind) else {
      preconditionFailure("a written record is refused")
    }
    precondition(again == record)
  }
  guard let label = Label(decoding: bytes) else { return }
  precondition(label.exportedBytes <= label.diskBytes)
  precondition(label.lun < 0x4000 && label.nodes.count <= Label.nodeSlots)
  precondition(Label(decoding: label.encode()) == label)
}
