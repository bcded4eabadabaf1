import Datamover
import Reactor

/// The RDMA side of one shard: its devices, and the connections over them by the number that the connection manager's events
/// name. A device is there as long as connections use it.
final class VerbsTable {
  struct Entry {
    var endpoint: VerbsEndpoint
    /// Index and generation of its connection; that may be gone while the identifier lingers.
    var connection: Int
    var generation: UInt32
  }

  /// An endpoint whose connection is gone, kept until the peer has heard of it or the deadline has come.
  struct Retired {
    var number: UInt64
    var deadline: UInt64
  }

  /// A device in its place; the place's generation tells it from an earlier one.
  struct Place {
    var device: VerbsDevice?
    var generation: UInt32 = 0
  }

  var places: [Place] = []
  var entries: [UInt64: Entry] = [:]
  var retired: [Retired] = []
  /// Completions are asked for without sleeping until then; 0: they are not.
  var pollsUntil: UInt64 = 0
  let batch = UnsafeMutablePointer<WorkCompletion>.allocate(capacity: batchMax)
  static let batchMax = 256

  deinit { batch.deallocate() }

  var isEmpty: Bool { entries.isEmpty }

  /// The device that a token names, if it is still that one.
  func device(_ token: Token) -> VerbsDevice? {
    let index = Int(token.index)
    guard index < places.count, places[index].generation & 0xFF_FFFF == token.generation else { return nil }
    return places[index].device
  }

  func token(_ operation: UInt8, _ index: Int) -> Token {
    Token(operation, index: UInt32(index), generation: places[index].generation)
  }

  /// Puts a device into a free place and returns that.
  func add(_ device: VerbsDevice) -> Int {
    let index = places.firstIndex { $0.device == nil } ?? places.count
    if index == places.count { places.append(Place()) }
    places[index].device = device
    places[index].generation &+= 1
    return index
  }

  func index(of device: VerbsDevice) -> Int? { places.firstIndex { $0.device === device } }

  /// All but the connections.
  var counts: ISERReport {
    var counts = ISERReport()
    counts.identifiers = entries.count
    counts.queuePairs = entries.values.count { $0.endpoint.isActive }
    for case let device? in places.map(\.device) {
      counts.devices += 1
      counts.memoryRegions += device.memoryRegionCount
      counts.completionQueues += device.completionQueueCount
    }
    return counts
  }
}

extension ISERReport {
  mutating func add(_ other: ISERReport) {
    connections += other.connections
    identifiers += other.identifiers
    queuePairs += other.queuePairs
    devices += other.devices
    memoryRegions += other.memoryRegions
    completionQueues += other.completionQueues
  }
}
