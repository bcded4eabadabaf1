/// Which block device is built on which: partitions on disks, dm and md on their slaves, loop devices on the file system
/// that holds their file. A walk downwards tells what a mount really stands on.
public struct DeviceGraph: Equatable, Sendable {
  public struct Node: Equatable, Sendable {
    public var name: String
    public var number: DeviceNumber
    /// The disk that a partition is cut from.
    public var disk: String?
    public var slaves: [String]
    /// `dm/name`, by which /dev/mapper knows it.
    public var mapName: String?
    /// Whether it is one disk over several paths.
    public var isMultipath: Bool
    /// The file behind a loop device.
    public var backingFile: String?
    /// PARTUUID, lower case, for root= on the kernel's command line and the boot loader's variable.
    public var partitionUUID: String?

    public init(
      name: String, number: DeviceNumber, disk: String? = nil, slaves: [String] = [], mapName: String? = nil,
      isMultipath: Bool = false, backingFile: String? = nil, partitionUUID: String? = nil
    ) {
      self.name = name
      self.number = number
      self.disk = disk
      self.slaves = slaves
      self.mapName = mapName
      self.isMultipath = isMultipath
      self.backingFile = backingFile
      self.partitionUUID = partitionUUID
    }
  }

  public private(set) var nodes: [String: Node] = [:]
  private var names: [DeviceNumber: String] = [:]
  private var mapNames: [String: String] = [:]

  public init(_ nodes: [Node] = []) {
    for node in nodes {
      self.nodes[node.name] = node
      names[node.number] = node.name
      if let mapName = node.mapName { mapNames[mapName] = node.name }
    }
  }

  /// The graph of an enumeration.
  public init(_ devices: [BlockDevice]) {
    var nodes: [Node] = []
    for device in devices {
      nodes.append(
        Node(
          name: device.name, number: device.number, slaves: device.slaves, mapName: device.mapName,
          isMultipath: device.isMultipath, backingFile: device.backingFile))
      for partition in device.partitions {
        nodes.append(
          Node(
            name: partition.name, number: partition.number, disk: device.name, partitionUUID: partition.uuid))
      }
    }
    self.init(nodes)
  }

  /// Every partition with this PARTUUID (lower case): a cloned disk has them too.
  public func names(ofPartition uuid: String) -> [String] {
    nodes.values.filter { $0.partitionUUID == uuid }.map(\.name).sorted()
  }

  public func name(of number: DeviceNumber) -> String? { names[number] }

  /// The device at a path, by its last component or by its map's name. The fallback where stat(2) cannot help.
  public func name(ofPath path: String) -> String? {
    guard path.hasPrefix("/dev/") else { return nil }
    let rest = path.dropFirst("/dev/".count)
    if rest.hasPrefix("mapper/") { return mapNames[String(rest.dropFirst("mapper/".count))] }
    let name = String(rest.map { $0 == "/" ? "!" : $0 })
    return nodes[name] != nil ? name : nil
  }

  /// The device itself and everything beneath it. `backing` gives the devices that hold a loop device's file.
  /// Every name is visited once, so a graph with a cycle ends too.
  public func beneath(_ name: String, backing: (Node) -> [String] = { _ in [] }) -> Set<String> {
    var seen: Set<String> = []
    var pending = [name]
    while let next = pending.popLast() {
      guard seen.insert(next).inserted, let node = nodes[next] else { continue }
      pending += node.slaves
      if let disk = node.disk { pending.append(disk) }
      if node.backingFile != nil { pending += backing(node) }
    }
    return seen
  }
}
