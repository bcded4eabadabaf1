import Wire

/// What a SANITIZE asks for, decoded. The logical unit refuses what touches the medium from then on, until
/// `LogicalUnit.endSanitize` is called.
public struct SanitizeOrder: Equatable, Sendable {
  public enum Method: Equatable, Sendable {
    /// The pattern in each block, from its beginning and again and again; so many times over everything, every other time
    /// inverted, so that the last is not.
    case overwrite(pattern: [UInt8], passes: UInt8, inverts: Bool)
    /// Deallocate all.
    case blockErase
    /// Nothing but to leave the state of failure.
    case exitFailureMode
  }

  public var method: Method
  /// IMMED: GOOD when it has begun.
  public var isImmediate = false
  /// AUSE: the state of failure can be left without another SANITIZE.
  public var mayExit = false
}

/// Whether what is on the medium is being made unreadable, or should have been (SBC-4 §4.11).
public enum Sanitation: Equatable, Sendable {
  case none
  /// With the state that there was before: it comes back if nothing could be begun.
  case running(mayExit: Bool, wasFailed: Bool?)
  /// It failed, or was interrupted.
  case failed(mayExit: Bool)
}

/// How a sanitize operation ended.
public enum SanitizeOutcome: Sendable {
  case completed
  case failed
  /// It could not be begun: as if nothing had been asked.
  case notBegun
}

/// SANITIZE (SBC-4 §5.31). CRYPTOGRAPHIC ERASE is not there, because nothing is encrypted.
extension DeviceServer {
  private enum Action {
    static let overwrite: UInt8 = 0x01
    static let exitFailureMode: UInt8 = 0x1F
  }

  private static let headerBytes: UInt32 = 4

  func startSanitize(_ command: Command) -> Disposition {
    let cdb = command.cdb
    let length = UInt32(cdb.be16(7))
    guard cdb.serviceAction != Action.overwrite else {
      guard length > Self.headerBytes, length <= Self.headerBytes + command.unit.traits.blockBytes else {
        return .checkCondition(.invalidFieldInCDB(byte: 7))
      }
      return collect(length, lengthAt: 7)
    }
    guard length == 0 else { return .checkCondition(.invalidFieldInCDB(byte: 7)) }
    let isExit = cdb.serviceAction == Action.exitFailureMode
    return sanitize(isExit ? .exitFailureMode : .blockErase, command)
  }

  /// OVERWRITE's parameter list: INVERT, TEST and OVERWRITE COUNT, reserved, INITIALIZATION PATTERN LENGTH (2), the pattern.
  func sanitize(_ command: Command, _ list: [UInt8]) -> Disposition {
    guard list.count > Int(Self.headerBytes) else { return .checkCondition(.parameterListLengthError) }
    if list[0] & 0x60 != 0 { return .checkCondition(.invalidFieldInParameterList(byte: 0, bit: 6)) }
    let passes = list[0] & 0x1F
    guard passes > 0 else { return .checkCondition(.invalidFieldInParameterList(byte: 0, bit: 4)) }
    let length = Int(list.span.bytes.be16(2))
    guard length > 0, length <= Int(command.unit.traits.blockBytes) else {
      return .checkCondition(.invalidFieldInParameterList(byte: 2))
    }
    guard list.count >= 4 + length else { return .checkCondition(.parameterListLengthError) }
    return sanitize(
      .overwrite(pattern: Array(list[4..<4 + length]), passes: passes, inverts: list[0] & 0x80 != 0), command)
  }

  private func sanitize(_ method: SanitizeOrder.Method, _ command: Command) -> Disposition {
    let order = SanitizeOrder(
      method: method, isImmediate: command.cdb[1] & 0x80 != 0, mayExit: command.cdb[1] & 0x20 != 0)
    return command.unit.open(order)
  }
}

extension LogicalUnitState {
  /// What becomes of a SANITIZE, given what there is.
  mutating func open(_ order: SanitizeOrder) -> Sense? {
    var wasFailed: Bool?
    switch sanitation {
    case .none: break
    case .running: return .sanitizeInProgress(0)
    case .failed(let mayExit):
      // What was asked for without a way out ends by a SANITIZE without one (SBC-4 §4.11.3, §5.31.1).
      if order.method == .exitFailureMode {
        if !mayExit { return .invalidFieldInCDB(byte: 1, bit: 4) }
      } else if order.mayExit, !mayExit {
        return .invalidFieldInCDB(byte: 1, bit: 5)
      }
      wasFailed = mayExit
    }
    sanitation = .running(mayExit: order.mayExit, wasFailed: wasFailed)
    return nil
  }

  mutating func end(_ outcome: SanitizeOutcome) {
    guard case .running(let mayExit, let wasFailed) = sanitation else { return }
    switch outcome {
    case .completed: sanitation = .none
    case .failed: sanitation = .failed(mayExit: mayExit)
    case .notBegun: sanitation = wasFailed.map { .failed(mayExit: $0) } ?? .none
    }
  }
}
