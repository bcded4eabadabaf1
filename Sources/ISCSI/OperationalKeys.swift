/// How one operational key is negotiated: a row of the table of RFC 7143 §13 and RFC 7145 §6.
struct OperationalKey: Sendable {
  typealias Flag = WritableKeyPath<NegotiatedParameters, Bool> & Sendable
  typealias Number = WritableKeyPath<NegotiatedParameters, Int> & Sendable

  /// The result function of the key (RFC 7143 §6.2), or what stands in its place.
  enum Kind: Sendable {
    /// A list of digests in the order of preference; the field tells CRC32C from None.
    case digest(Flag)
    case booleanOr(Flag)
    case booleanAnd(Flag)
    case minimum(Number, ClosedRange<Int>)
    case maximum(Number, ClosedRange<Int>)
    /// A minimum that is also bound by the result for MaxBurstLength.
    case firstBurst
    /// Declared: no answer, and a bad value cannot be rejected.
    case declaredNumber(Number, ClosedRange<Int>, zeroAllowed: Bool)
    case declaredFlag(Flag)
    /// A list of names of which we have one.
    case choice(String)
    /// Obsolete: whatever is offered, this is the answer.
    case always(String)
  }

  /// When a key may come, beside login of a leading connection of a normal session, where all may.
  struct Use: OptionSet, Sendable {
    let rawValue: UInt8
    /// Also on a connection that joins or reinstates (the key is not "LO").
    static let everyConnection = Use(rawValue: 1)
    /// Means something in a discovery session; else it is Irrelevant there.
    static let discovery = Use(rawValue: 2)
    /// Also in the full-feature phase.
    static let fullFeature = Use(rawValue: 4)
    /// Means something only with RDMAExtensions=Yes (RFC 7145 §6).
    static let onlyRDMA = Use(rawValue: 8)
  }

  var name: String
  var kind: Kind
  var use: Use

  private init(_ name: String, _ kind: Kind, _ use: Use = []) {
    self.name = name
    self.kind = kind
    self.use = use
  }

  /// A burst or segment: 512 to 2^24 - 1 bytes.
  static let segmentRange = 512...16_777_215

  static let table: [OperationalKey] = [
    OperationalKey("HeaderDigest", .digest(\.headerDigest), [.everyConnection, .discovery]),  // §13.1
    OperationalKey("DataDigest", .digest(\.dataDigest), [.everyConnection, .discovery]),  // §13.1
    OperationalKey("MaxConnections", .minimum(\.maxConnections, 1...65_535)),  // §13.2
    OperationalKey("InitialR2T", .booleanOr(\.initialR2T)),  // §13.10
    OperationalKey("ImmediateData", .booleanAnd(\.immediateData)),  // §13.11
    OperationalKey(
      "MaxRecvDataSegmentLength",
      .declaredNumber(\.maxRecvDataSegmentLength, segmentRange, zeroAllowed: false),
      [.everyConnection, .discovery, .fullFeature]),  // §13.12
    OperationalKey("MaxBurstLength", .minimum(\.maxBurstLength, segmentRange)),  // §13.13
    OperationalKey("FirstBurstLength", .firstBurst),  // §13.14
    OperationalKey("DefaultTime2Wait", .maximum(\.defaultTime2Wait, 0...3600), .discovery),  // §13.15
    OperationalKey("DefaultTime2Retain", .minimum(\.defaultTime2Retain, 0...3600), .discovery),  // §13.16
    OperationalKey("MaxOutstandingR2T", .minimum(\.maxOutstandingR2T, 1...65_535)),  // §13.17
    OperationalKey("DataPDUInOrder", .booleanOr(\.dataPDUInOrder)),  // §13.18
    OperationalKey("DataSequenceInOrder", .booleanOr(\.dataSequenceInOrder)),  // §13.19
    OperationalKey("ErrorRecoveryLevel", .minimum(\.errorRecoveryLevel, 0...2), .discovery),  // §13.20
    OperationalKey("TaskReporting", .choice("RFC3720")),  // §13.23
    OperationalKey("iSCSIProtocolLevel", .minimum(\.protocolLevel, 0...31), .discovery),  // §13.24
    OperationalKey("OFMarker", .always("No"), [.everyConnection, .discovery]),  // §13.25
    OperationalKey("IFMarker", .always("No"), [.everyConnection, .discovery]),
    OperationalKey("OFMarkInt", .always(TextValue.reject), [.everyConnection, .discovery]),
    OperationalKey("IFMarkInt", .always(TextValue.reject), [.everyConnection, .discovery]),
    OperationalKey("RDMAExtensions", .booleanAnd(\.rdmaExtensions), .discovery),  // RFC 7145 §6.3
    OperationalKey(
      "TargetRecvDataSegmentLength", .minimum(\.targetRecvDataSegmentLength, segmentRange),
      [.everyConnection, .discovery, .onlyRDMA]),  // RFC 7145 §6.4
    OperationalKey(
      "InitiatorRecvDataSegmentLength", .minimum(\.initiatorRecvDataSegmentLength, segmentRange),
      [.everyConnection, .discovery, .onlyRDMA]),  // RFC 7145 §6.5
    OperationalKey(
      "MaxOutstandingUnexpectedPDUs",
      .declaredNumber(\.maxOutstandingUnexpectedPDUs, 2...Int(UInt32.max), zeroAllowed: true), .discovery),
    OperationalKey(
      "MaxAHSLength", .declaredNumber(\.maxAHSLength, 2...Int(UInt32.max), zeroAllowed: true),
      [.everyConnection, .discovery]),  // RFC 7145 §6.8
    OperationalKey(
      "TaggedBufferForSolicitedDataOnly", .declaredFlag(\.taggedBufferForSolicitedDataOnly), .discovery),
    OperationalKey("iSERHelloRequired", .declaredFlag(\.helloRequired), .discovery),  // RFC 7145 §6.10
  ]

  static let byName = Dictionary(uniqueKeysWithValues: table.map { ($0.name, $0) })
}
