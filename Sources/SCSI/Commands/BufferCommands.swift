import Wire

/// READ BUFFER and WRITE BUFFER (SPC-5 §6.18, §6.49): one buffer for each nexus, of the logical unit that it wrote to last,
/// by which the way of the data can be tried. There is no microcode to be had or loaded.
extension DeviceServer {
  /// BUFFER CAPACITY, in bytes.
  static let bufferBytes: UInt32 = 4096

  private enum Mode {
    static let data: UInt8 = 0x02
    static let descriptor: UInt8 = 0x03
    static let echo: UInt8 = 0x0A
    static let echoDescriptor: UInt8 = 0x0B
  }

  func readBuffer(_ command: Command) -> Disposition {
    let cdb = command.cdb
    let offset = cdb.be24(3)
    let length = cdb.be24(6)
    switch cdb[1] & 0x1F {
    case Mode.descriptor:
      // Another buffer has no capacity (SPC-5 §6.18.5). OFFSET BOUNDARY: any byte.
      guard cdb[2] == 0 else { return .dataIn([0, 0, 0, 0], allocationLength: length) }
      return .dataIn([0, 0, UInt8(Self.bufferBytes >> 8), UInt8(Self.bufferBytes & 0xFF)], allocationLength: length)
    case Mode.echoDescriptor:
      // EBOS: what another has written over is told.
      return .dataIn([0x01, 0, UInt8(Self.bufferBytes >> 8), UInt8(Self.bufferBytes & 0xFF)], allocationLength: length)
    case Mode.data:
      guard cdb[2] == 0 else { return .checkCondition(.invalidFieldInCDB(byte: 2)) }
      guard offset <= Self.bufferBytes else { return .checkCondition(.invalidFieldInCDB(byte: 3)) }
      let data = command.nexus.buffer.bytes(of: command.unit.number) ?? []
      let whole = data + [UInt8](repeating: 0, count: Int(Self.bufferBytes) - data.count)
      return .dataIn(Array(whole[Int(offset)...]), allocationLength: length)
    case Mode.echo:
      // As much as was written, and nothing before (SPC-5 §6.18.8).
      switch command.nexus.buffer.echo(of: command.unit.number) {
      case .written(let data): return .dataIn(data, allocationLength: length)
      case .overwritten: return .checkCondition(.echoBufferOverwritten)
      case .none: return .checkCondition(.commandSequenceError)
      }
    default: return .checkCondition(.invalidFieldInCDB(byte: 1, bit: 4))
    }
  }

  func startWriteBuffer(_ cdb: CDB) -> Disposition {
    let offset = cdb.be24(3)
    let length = cdb.be24(6)
    switch cdb[1] & 0x1F {
    case Mode.data:
      guard cdb[2] == 0 else { return .checkCondition(.invalidFieldInCDB(byte: 2)) }
      guard offset <= Self.bufferBytes else { return .checkCondition(.invalidFieldInCDB(byte: 3)) }
      guard length <= Self.bufferBytes - offset else { return .checkCondition(.invalidFieldInCDB(byte: 6)) }
    case Mode.echo:
      guard length <= Self.bufferBytes else { return .checkCondition(.invalidFieldInCDB(byte: 6)) }
    default: return .checkCondition(.invalidFieldInCDB(byte: 1, bit: 4))
    }
    return collect(length, lengthAt: 6)
  }

  func writeBuffer(_ command: Command, _ data: [UInt8]) -> Disposition {
    let isEcho = command.cdb[1] & 0x1F == Mode.echo
    guard data.count <= Int(Self.bufferBytes) else { return .checkCondition(.parameterListLengthError) }
    command.nexus.writeBuffer(
      data, at: isEcho ? 0 : Int(command.cdb.be24(3)), isEcho: isEcho, lun: command.unit.number)
    return .status(.good)
  }
}

/// The buffer of a nexus. It goes with the session, and is not there before something is written.
struct NexusBuffer: Sendable {
  enum Echo: Equatable {
    case none
    case written([UInt8])
    case overwritten
  }

  private var lun: UInt16 = 0
  private var bytes: [UInt8] = []
  /// Bytes at the start that WRITE BUFFER wrote to be echoed; nil: none since something else was written.
  private var echoBytes: Int?
  /// Logical units whose echo data was written over by what this nexus wrote to another.
  private var overwritten: Set<UInt16> = []

  func bytes(of lun: UInt16) -> [UInt8]? { lun == self.lun && !bytes.isEmpty ? bytes : nil }

  func echo(of lun: UInt16) -> Echo {
    if lun == self.lun, let echoBytes { return .written(Array(bytes[..<echoBytes])) }
    return overwritten.contains(lun) ? .overwritten : .none
  }

  /// `offset` and `data` together are within the buffer: the device server has checked.
  mutating func write(_ data: [UInt8], at offset: Int, isEcho: Bool, lun: UInt16) {
    if echoBytes != nil { overwritten.insert(self.lun) }
    if lun != self.lun { bytes = [] }
    self.lun = lun
    overwritten.remove(lun)
    if !isEcho, echoBytes != nil { overwritten.insert(lun) }
    echoBytes = isEcho ? data.count : nil
    let missing = offset + data.count - bytes.count
    if missing > 0 { bytes += [UInt8](repeating: 0, count: missing) }
    bytes.replaceSubrange(offset..<offset + data.count, with: data)
  }
}
