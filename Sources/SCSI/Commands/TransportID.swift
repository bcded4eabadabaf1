import Wire

/// TransportIDs of iSCSI initiator ports (SPC-5 §7.6.4.6).
enum TransportID: Equatable {
  /// TPID FORMAT 01b: one initiator port.
  case port(name: String, isid: UInt64)
  /// TPID FORMAT 00b: every initiator port of this node that the device server knows.
  case node(name: String)

  /// PROTOCOL IDENTIFIER 5h.
  private static let iSCSI: UInt8 = 0x05

  static func encode(_ nexus: NexusIdentity) -> [UInt8] {
    var name = Array(nexus.initiatorPort.utf8) + [0]
    while name.count % 4 != 0 || name.count < 20 { name.append(0) }
    var data: [UInt8] = [0x40 | iSCSI, 0]
    data.append(be: UInt16(name.count))
    return data + name
  }

  /// The TransportID at `start` and how many bytes it takes; nil for anything malformed or of another protocol.
  static func decode(_ list: [UInt8], at start: Int, end: Int) -> (id: TransportID, byteCount: Int)? {
    guard end <= list.count, end - start >= 4, list[start] & 0x0F == iSCSI else { return nil }
    let length = Int(list.span.bytes.be16(start + 2))
    // At least 20, a multiple of four, and within the list.
    guard length >= 20, length % 4 == 0, end - start - 4 >= length else { return nil }
    let text = list[start + 4..<start + 4 + length].prefix { $0 != 0 }
    guard text.count < length, let name = String(validating: text, as: UTF8.self)?.lowercased() else { return nil }
    switch list[start] >> 6 {
    case 0b00: return isName(name) ? (.node(name: name), 4 + length) : nil
    case 0b01:
      let parts = name.split(separator: ",", omittingEmptySubsequences: false)
      guard parts.count == 3, parts[1] == "i", parts[2].hasPrefix("0x"), isName(String(parts[0])) else { return nil }
      let digits = parts[2].dropFirst(2)
      guard (1...12).contains(digits.count), !digits.hasPrefix("+"), let isid = UInt64(digits, radix: 16) else {
        return nil
      }
      return (.port(name: String(parts[0]), isid: isid), 4 + length)
    default: return nil
    }
  }

  private static func isName(_ name: String) -> Bool {
    !name.isEmpty && name.utf8.count <= PersistentReservations.nameBytesMax && !name.contains(",")
  }
}
