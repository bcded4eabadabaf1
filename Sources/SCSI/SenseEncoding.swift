import Wire

extension Sense {
  /// Sense data as a response carries it (SPC-5 §4.4).
  ///
  /// - Parameter descriptorFormat: response code 72h with an information and a sense-key-specific descriptor where
  ///   there is something to tell; else 70h, always 18 bytes, VALID only where INFORMATION fits 32 bits (SPC-5 §4.4.3).
  public func encode(descriptorFormat: Bool) -> [UInt8] {
    descriptorFormat ? encodeDescriptors() : encodeFixed()
  }

  private func encodeFixed() -> [UInt8] {
    var data = [UInt8](repeating: 0, count: 18)
    data[0] = 0x70
    data[2] = key.rawValue
    if key == .copyAborted {
      data.store(be: UInt32(truncatingIfNeeded: information ?? 0), at: 8)
    } else if let information, let narrow = UInt32(exactly: information) {
      data[0] |= 0x80  // VALID
      data.store(be: narrow, at: 3)
    }
    data[7] = 10  // ADDITIONAL SENSE LENGTH
    data.store(be: code, at: 12)
    if let specific = senseKeySpecific {
      data.replaceSubrange(15..<18, with: specific)
    }
    return data
  }

  private func encodeDescriptors() -> [UInt8] {
    var data: [UInt8] = [0x72, key.rawValue, UInt8(code >> 8), UInt8(truncatingIfNeeded: code), 0, 0, 0, 0]
    if let information, key == .copyAborted {
      data += [0x01, 0x0A, 0x00, 0x00]  // command-specific information descriptor (SPC-5 §4.4.2.3)
      data.append(be: information)
    } else if let information {
      data += [0x00, 0x0A, 0x80, 0x00]  // information descriptor, VALID (SPC-5 §4.4.2.2)
      data.append(be: information)
    }
    if let specific = senseKeySpecific {
      data += [0x02, 0x06, 0x00, 0x00] + specific + [0x00]  // SPC-5 §4.4.2.4
    }
    data[7] = UInt8(data.count - 8)
    return data
  }

  /// The three bytes of the sense-key-specific field: SKSV, and by the sense key C/D, BPV, BIT POINTER, FIELD POINTER (SPC-5
  /// §4.4.2.4.2), PROGRESS INDICATION (§4.4.2.4.4), or SD and FIELD POINTER (§4.4.2.4.5).
  private var senseKeySpecific: [UInt8]? {
    guard let field else { return nil }
    var flags: UInt8 = 0x80
    switch key {
    case .illegalRequest:
      if field.inCDB { flags |= 0x40 }
      if let bit = field.bit { flags |= 0x08 | (bit & 0x07) }
    case .notReady: break
    case .copyAborted: flags |= 0x20
    default: return nil
    }
    return [flags, UInt8(field.byte >> 8), UInt8(truncatingIfNeeded: field.byte)]
  }
}
