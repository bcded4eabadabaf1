/// Text Requests of the full-feature phase (RFC 7143 §11.10, §11.11) on one connection, of which one is outstanding at
/// a time: a request may come in pieces (C), and a long answer goes out in pieces that the initiator fetches with empty
/// requests. It owns at most one request and one answer.
///
/// Invariants:
///   bytes held of a request <= TextKeys.byteCountMax; pieces of a request <= pieceCountMax
///   data of a reply <= the initiator's limit for a data segment
public struct TextExchange: Sendable {
  /// A Text Response. StatSN, ExpCmdSN and MaxCmdSN are the sender's to fill in.
  public struct Reply: Equatable, Sendable {
    public var header: BasicHeaderSegment
    public var data: [UInt8]
  }

  public enum Step: Equatable, Sendable {
    case respond(Reply)
    /// A Reject PDU with this reason (RFC 7143 §11.17.1) and the request's header. What was collected is forgotten.
    case reject(reason: UInt8)
  }

  /// Reject reasons (RFC 7143 §11.17.1).
  static let protocolError: UInt8 = 0x04
  static let invalidPDUField: UInt8 = 0x09

  /// Text Requests of one sequence.
  public static let pieceCountMax = 64

  private enum State: Sendable {
    case idle
    case collecting(initiatorTaskTag: UInt32, transferTag: UInt32, bytes: [UInt8], pieceCount: Int)
    /// The answer stands, and its rest is fetched. `isLast`: the initiator has said that it has no more to ask.
    case answering(initiatorTaskTag: UInt32, transferTag: UInt32, rest: ArraySlice<UInt8>, isLast: Bool)
  }

  /// Bytes the initiator takes in one data segment; a Text Request may declare it anew (§13.12).
  public private(set) var maxRecvDataSegmentLength: Int

  private let targets: SendTargets
  private let transport: TransportCapabilities
  private var state = State.idle
  private var nextTransferTag: UInt32 = 1
  /// Keys that the current sequence has negotiated (§6.2: none twice).
  private var seenKeys: Set<String> = []

  public init(
    configuration: TargetConfiguration, transport: TransportCapabilities, localPortal: String, login: LoginResult
  ) {
    maxRecvDataSegmentLength = login.parameters.maxRecvDataSegmentLength
    self.transport = transport
    targets = SendTargets(
      configuration: configuration, localPortal: localPortal, initiatorName: login.initiatorName,
      isDiscovery: login.isDiscovery)
  }

  /// Takes a Text Request.
  public mutating func receive(_ header: BasicHeaderSegment, data: [UInt8]) -> Step {
    let isContinued = header.flags & 0x40 != 0
    guard header.opcode == .textRequest, header.dataSegmentLength == data.count, header.additionalHeaderBytes == 0,
      !(isContinued && header.isFinal)  // §11.10.2
    else { return reject(Self.invalidPDUField) }

    if header.targetTransferTag == BasicHeaderSegment.reservedTag {
      // §11.10.4: a request of its own; what was going on is over.
      state = .idle
      seenKeys = []
      return collect(header, data, before: [], pieceCount: 0, isContinued: isContinued)
    }
    switch state {
    case .collecting(header.initiatorTaskTag, header.targetTransferTag, let bytes, let pieceCount):
      return collect(header, data, before: bytes, pieceCount: pieceCount, isContinued: isContinued)
    case .answering(header.initiatorTaskTag, header.targetTransferTag, let rest, let isLast):
      if rest.isEmpty, !isLast { return collect(header, data, before: [], pieceCount: 0, isContinued: isContinued) }
      guard data.isEmpty, !isContinued else { return reject(Self.protocolError) }  // §11.11.2
      return send(rest, header, isLast: isLast || header.isFinal)
    case .idle, .collecting, .answering:
      return reject(Self.protocolError)
    }
  }

  private mutating func reject(_ reason: UInt8) -> Step {
    state = .idle
    seenKeys = []
    return .reject(reason: reason)
  }

  private mutating func collect(
    _ header: BasicHeaderSegment, _ data: [UInt8], before: [UInt8], pieceCount: Int, isContinued: Bool
  ) -> Step {
    guard before.count + data.count <= TextKeys.byteCountMax, pieceCount < Self.pieceCountMax else {
      return reject(Self.protocolError)
    }
    guard isContinued else { return answer(header, before + data) }
    let tag = takeTransferTag()
    state = .collecting(
      initiatorTaskTag: header.initiatorTaskTag, transferTag: tag, bytes: before + data, pieceCount: pieceCount + 1)
    return .respond(reply(header, flags: 0, transferTag: tag, data: []))
  }

  private mutating func answer(_ header: BasicHeaderSegment, _ bytes: [UInt8]) -> Step {
    let keys: TextKeys
    do throws(TextKeysError) {
      keys = try TextKeys(parsing: bytes)
    } catch {
      return reject(Self.protocolError)
    }
    var answers = TextKeys()
    for pair in keys.pairs {
      guard seenKeys.count < TextKeys.countMax, seenKeys.insert(pair.key).inserted, take(pair, &answers) else {
        return reject(Self.protocolError)
      }
    }
    return send(answers.bytes[...], header, isLast: header.isFinal)
  }

  /// Answers one key; false where the value makes the whole request void.
  private mutating func take(_ pair: TextKeys.Pair, _ answers: inout TextKeys) -> Bool {
    switch pair.key {
    case "SendTargets":
      targets.answer(pair.value, &answers)
    case "MaxRecvDataSegmentLength":
      guard transport.declaresMaxRecvDataSegmentLength else { return true }  // RFC 7145 §6.2
      guard let length = TextValue.number(pair.value), OperationalKey.segmentRange.contains(length) else {
        return false
      }
      maxRecvDataSegmentLength = length
    case "InitiatorAlias", "X#NodeArchitecture":
      break  // declarations that ask for nothing (§13.7, §13.26)
    default:
      if TextValue.isAnswer(pair.value) { return true }
      // A key of the login phase is understood, and too late.
      let isKnown = OperationalKey.byName[pair.key] != nil || LoginMachine.isLoginKey(pair.key)
      answers.append(pair.key, isKnown ? TextValue.reject : TextValue.notUnderstood)
    }
    return true
  }

  /// Sends as much of the answer as one data segment holds, and keeps the rest.
  private mutating func send(_ rest: ArraySlice<UInt8>, _ header: BasicHeaderSegment, isLast: Bool) -> Step {
    let countMax = min(maxRecvDataSegmentLength, transport.controlDataBytesMax ?? .max)
    let piece = Self.piece(of: rest, byteCountMax: countMax)
    let left = rest.dropFirst(piece.count)
    if left.isEmpty, isLast, header.isFinal {
      state = .idle
      seenKeys = []
      return .respond(
        reply(header, flags: 0x80, transferTag: BasicHeaderSegment.reservedTag, data: Array(piece)))
    }
    // F only answers F (§11.11.1), and C says that pairs are still to come (§11.11.2).
    let tag = takeTransferTag()
    state = .answering(
      initiatorTaskTag: header.initiatorTaskTag, transferTag: tag, rest: left, isLast: isLast)
    return .respond(reply(header, flags: left.isEmpty ? 0 : 0x40, transferTag: tag, data: Array(piece)))
  }

  /// A beginning of `rest`, whole pairs if one fits: not every initiator puts a cut pair together.
  private static func piece(of rest: ArraySlice<UInt8>, byteCountMax: Int) -> ArraySlice<UInt8> {
    let piece = rest.prefix(byteCountMax)
    guard piece.count < rest.count, let end = piece.lastIndex(of: 0) else { return piece }
    return piece[...end]
  }

  private func reply(
    _ request: BasicHeaderSegment, flags: UInt8, transferTag: UInt32, data: [UInt8]
  ) -> Reply {
    var header = BasicHeaderSegment(.textResponse, flags: flags, initiatorTaskTag: request.initiatorTaskTag)
    header.dataSegmentLength = data.count
    header.lun = request.lun
    header.targetTransferTag = transferTag
    return Reply(header: header, data: data)
  }

  private mutating func takeTransferTag() -> UInt32 {
    let tag = nextTransferTag
    nextTransferTag = tag == BasicHeaderSegment.reservedTag - 1 ? 1 : tag + 1
    return tag
  }
}
