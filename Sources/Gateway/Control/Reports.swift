import Glibc

// What the control socket tells. The field names are the keys of `--json`: scripts read them, so they only ever grow.

/// What a LUN or a session has done since it appeared.
public struct IOCounters: Codable, Sendable, Equatable {
  public var readCommands: UInt64 = 0
  public var writeCommands: UInt64 = 0
  public var otherCommands: UInt64 = 0
  public var readBytes: UInt64 = 0
  public var writtenBytes: UInt64 = 0
  /// Commands that ended in other than GOOD.
  public var failedCommands: UInt64 = 0
  /// Commands in flight now.
  public var activeCommands: UInt64 = 0

  public init() {}
}

/// One address that initiators reach.
public struct PortalReport: Codable, Sendable, Equatable {
  /// `[::]:3260`, with the port that was really taken.
  public var address: String
  /// `tcp` or `iser`; `http` of the metrics.
  public var transport: String
  /// `listening`, or in a few words why not.
  public var state: String

  public static let listening = "listening"
  /// It listens, and nobody gets there yet.
  public static let absent = "no interface has it"

  public init(address: String, transport: String, state: String) {
    self.address = address
    self.transport = transport
    self.state = state
  }
}

/// Memory of the daemon, in bytes.
public struct MemoryReport: Codable, Sendable, Equatable {
  /// Set aside for data at start.
  public var arenaBytes: UInt64
  /// Of these in use now.
  public var arenaUsedBytes: UInt64
  /// Resident set of the whole process; 0: not known.
  public var residentBytes: UInt64
  /// Open file descriptors.
  public var descriptors: Int

  public init(arenaBytes: UInt64, arenaUsedBytes: UInt64, residentBytes: UInt64, descriptors: Int = 0) {
    self.arenaBytes = arenaBytes
    self.arenaUsedBytes = arenaUsedBytes
    self.residentBytes = residentBytes
    self.descriptors = descriptors
  }
}

/// How long commands of a LUN took over one transport, from their arrival to their answer, since it appeared.
public struct LatencyReport: Codable, Sendable, Equatable {
  /// `tcp` or `iser`.
  public var transport: String
  /// `read`, `write`, `other`.
  public var direction: String
  public var commands: UInt64
  /// Within which half, and 99 of 100, were answered: at most a quarter too large. Nanoseconds.
  public var p50Ns: UInt64
  public var p99Ns: UInt64
  public var maxNs: UInt64

  init(_ key: LatencyKey, _ histogram: LatencyHistogram) {
    transport = key.transport
    direction = "\(key.direction)"
    commands = histogram.count
    p50Ns = histogram.quantile(0.5)
    p99Ns = histogram.quantile(0.99)
    maxNs = histogram.longestNs
  }
}

/// One LUN.
public struct LogicalUnitReport: Codable, Sendable, Equatable {
  public var number: UInt16
  /// NAA designator in hexadecimal, as initiators print it (`naa.6…` without the prefix).
  public var naa: String
  public var sizeBytes: UInt64
  public var blockBytes: UInt32
  /// Device node, or the `--disk` text.
  public var path: String
  public var serial: String
  /// `online`, `read-only`, `failed`, `gone`, or in a few words what is wrong.
  public var state: String
  public var counters: IOCounters
  /// Of each transport and direction that there were commands of; absent: told by an older gatewayd.
  public var latencies: [LatencyReport]?

  public init(
    number: UInt16, naa: String, sizeBytes: UInt64, blockBytes: UInt32, path: String, serial: String, state: String,
    counters: IOCounters = IOCounters()
  ) {
    self.number = number
    self.naa = naa
    self.sizeBytes = sizeBytes
    self.blockBytes = blockBytes
    self.path = path
    self.serial = serial
    self.state = state
    self.counters = counters
  }
}

/// What the gateway holds of RDMA devices, over all its threads: nothing, when nobody is connected over RDMA.
public struct ISERReport: Codable, Sendable, Equatable {
  public var connections = 0
  /// Identifiers of the connection manager: those of connections, and for a moment those of ended ones.
  public var identifiers = 0
  public var queuePairs = 0
  /// Devices in use, counted once a thread.
  public var devices = 0
  public var memoryRegions = 0
  public var completionQueues = 0

  public init() {}
}

/// `gatewayd status`.
public struct StatusReport: Codable, Sendable, Equatable {
  public var version: String
  public var processID: Int32
  public var uptimeSeconds: UInt64
  public var targetName: String
  public var alias: String?
  public var portals: [PortalReport]
  public var threads: Int
  public var sessions: Int
  public var memory: MemoryReport
  public var iser: ISERReport
  /// The NICs, and whether they are listened on; absent: told by an older gatewayd.
  public var rdma: RDMAReport?
  public var logicalUnits: [LogicalUnitReport]
  /// What a person should know, a sentence each; empty: nothing.
  public var problems: [String]
  /// Where the metrics are served; absent: told by an older gatewayd.
  public var metrics: [PortalReport]?

  public init(
    version: String = GatewayVersion.current, processID: Int32 = getpid(), uptimeSeconds: UInt64, targetName: String,
    alias: String? = nil,
    portals: [PortalReport], threads: Int, sessions: Int, memory: MemoryReport, iser: ISERReport = ISERReport(),
    rdma: RDMAReport? = nil, logicalUnits: [LogicalUnitReport], problems: [String] = [],
    metrics: [PortalReport]? = nil
  ) {
    self.version = version
    self.processID = processID
    self.uptimeSeconds = uptimeSeconds
    self.targetName = targetName
    self.alias = alias
    self.portals = portals
    self.threads = threads
    self.sessions = sessions
    self.memory = memory
    self.iser = iser
    self.rdma = rdma
    self.logicalUnits = logicalUnits
    self.problems = problems
    self.metrics = metrics
  }
}

/// What became of a disk.
public enum DiskVerdict: String, Codable, Sendable {
  /// A LUN.
  case exported
  /// Not touched until a person adopts it.
  case held
  /// Never exported.
  case refused
}

/// One disk of `gatewayd disks`.
public struct DiskReport: Codable, Sendable, Equatable {
  /// Device node, or the `--disk` text.
  public var path: String
  public var model: String
  public var serial: String
  public var sizeBytes: UInt64
  public var verdict: DiskVerdict
  /// The LUN of an exported disk.
  public var lun: UInt16?
  /// Why it is held or refused, for a person; empty for an exported disk.
  public var reason: String
  /// The reason for machines; nil: it has none.
  public var code: String?
  /// What to do about it, ready to paste where it is a command; nil: nothing to be done.
  public var advice: String?

  public init(
    path: String, model: String, serial: String, sizeBytes: UInt64, verdict: DiskVerdict, lun: UInt16? = nil,
    reason: String = "", code: String? = nil, advice: String? = nil
  ) {
    self.path = path
    self.model = model
    self.serial = serial
    self.sizeBytes = sizeBytes
    self.verdict = verdict
    self.lun = lun
    self.reason = reason
    self.code = code
    self.advice = advice
  }
}

/// What `gatewayd sessions --end ID` has done.
public struct EndReport: Codable, Sendable, Equatable {
  /// Its TSIH.
  public var session: UInt16
}

/// One session of `gatewayd sessions`.
public struct SessionReport: Codable, Sendable, Equatable {
  /// Target Session Identifying Handle (RFC 7143 §11.12.6).
  public var id: UInt16
  public var initiator: String
  /// InitiatorAlias; nil: it told none.
  public var alias: String?
  /// The peer's address and port, of the leading connection.
  public var address: String
  /// `tcp` or `iser`.
  public var transport: String
  /// Age of the session.
  public var ageSeconds: UInt64
  public var connections: Int
  /// What was negotiated, by the names of RFC 7143 §13 (`MaxBurstLength`: `262144`).
  public var parameters: [String: String]
  public var counters: IOCounters

  public init(
    id: UInt16, initiator: String, alias: String? = nil, address: String, transport: String, ageSeconds: UInt64,
    connections: Int = 1, parameters: [String: String] = [:], counters: IOCounters = IOCounters()
  ) {
    self.id = id
    self.initiator = initiator
    self.alias = alias
    self.address = address
    self.transport = transport
    self.ageSeconds = ageSeconds
    self.connections = connections
    self.parameters = parameters
    self.counters = counters
  }
}

/// What came of `gatewayd disks adopt`.
public struct AdoptReport: Codable, Sendable, Equatable {
  public var path: String
  public var lun: UInt16
  public var naa: String

  public init(path: String, lun: UInt16, naa: String) {
    self.path = path
    self.lun = lun
    self.naa = naa
  }
}
