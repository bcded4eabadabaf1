import Glibc
import Synchronization
import Testing

@testable import Discovery
@testable import Gateway

private let four = NetworkAddress([10, 0, 0, 50])!
private let six = NetworkAddress([0x20, 1, 0xD, 0xB8] + [UInt8](repeating: 0, count: 11) + [9])!

@Suite("The part for service addresses")
struct AddressPartTests {
  private let requests = [
    AddressRequest(.add, four, prefix: 24, index: 3), AddressRequest(.remove, six, prefix: 128, index: 1),
    AddressRequest(.announce, four, index: 70_000), AddressRequest(.announce, six, index: 2),
  ]

  @Test("A request is read as it was written")
  func codec() {
    for request in requests {
      #expect(request.encoded.count == AddressRequest.byteCount)
      #expect(AddressRequest(decoding: request.encoded) == request)
    }
    #expect(
      AddressRequest(.add, four, prefix: 24, index: 3).encoded == [
        1, 4, 24, 0,  // operation, bytes of the address, prefix
        0, 0, 0, 3,  // interface
        10, 0, 0, 50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
      ])
    for code in [0, EPERM, .max] as [Int32] {
      #expect(AddressRequest.result(AddressRequest.encode(result: code)) == code)
    }
    #expect(AddressRequest.result([]) == nil)
  }

  @Test("What is no request, or names an address that cannot move, is none")
  func strange() throws {
    let good = requests[0].encoded
    for count in 0..<good.count { #expect(AddressRequest(decoding: Array(good[..<count])) == nil) }
    for (place, value) in [(0, 0), (0, 4), (1, 5), (2, 0), (2, 33), (3, 1), (7, 0), (4, 0xFF), (12, 1)]
      as [(Int, UInt8)]
    {
      var bytes = good
      bytes[place] = value
      #expect(AddressRequest(decoding: bytes) == nil, "\(place) \(value)")
    }
    for bytes in [[127, 0, 0, 1], [169, 254, 0, 1], [224, 0, 0, 1], [0, 0, 0, 0]] as [[UInt8]] {
      let address = try #require(NetworkAddress(bytes))
      #expect(AddressRequest(decoding: AddressRequest(.add, address, prefix: 8, index: 1).encoded) == nil)
    }
    // ::ffff:10.0.0.50 is 10.0.0.50, which has a form of its own.
    let mapped: [UInt8] = [1, 16, 24, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 10, 0, 0, 50]
    #expect(AddressRequest(decoding: mapped) == nil)
    let service = AddressService(log: { _ in })
    #expect(service.answer(mapped, -1) == nil)
    #expect(service.answer(good, STDERR_FILENO) == nil)
  }

  @Test("Only addresses with gatewayd's mark are taken, removed and announced, and not more than 32")
  func refusals() {
    let own = AddressMessages.Found(address: four, prefix: 24, index: 3, isOurs: false)
    let ours = AddressMessages.Found(address: four, prefix: 24, index: 3, isOurs: true)
    let (add, remove) = (requests[0], AddressRequest(.remove, four, prefix: 24, index: 3))
    let announce = AddressRequest(.announce, four, index: 3)
    for request in [add, remove, announce] {
      #expect(AddressService.refusal(of: request, among: [own]) != nil)
      #expect(AddressService.refusal(of: request, among: [ours]) == nil)
    }
    #expect(AddressService.refusal(of: add, among: []) == nil)
    #expect(AddressService.refusal(of: remove, among: []) == nil)
    #expect(AddressService.refusal(of: announce, among: []) != nil)
    #expect(AddressService.refusal(of: AddressRequest(.announce, four, index: 4), among: [ours]) != nil)
    let many = (1...32 as ClosedRange<UInt8>).map {
      AddressMessages.Found(address: NetworkAddress([10, 1, 0, $0])!, prefix: 24, index: 3, isOurs: true)
    }
    #expect(AddressService.refusal(of: add, among: many) != nil)
    #expect(AddressService.refusal(of: add, among: Array(many.dropLast())) == nil)
  }
}

@Suite("Disks whose reservations nobody touches")
struct SystemDisksTests {
  /// sda with the running system on sda2, sdb with an image of the gateway, sdc and a map over it that are free.
  private static var devices: [BlockDevice] {
    var devices = [("sda", 0), ("sdb", 16), ("sdc", 32)].map { name, minor in
      BlockDevice(name: name, number: DeviceNumber(major: 8, minor: minor), bytes: 1 << 30)
    }
    devices[0].partitions = [partition("sda2", 2, nil)]
    devices[1].partitions = [partition("sdb1", 17, "gatewayd-esp")]
    var map = BlockDevice(name: "dm-0", number: DeviceNumber(major: 253, minor: 0), bytes: 1 << 30)
    map.slaves = ["sdc"]
    return devices + [map]
  }

  private static func partition(_ name: String, _ minor: UInt32, _ label: String?) -> BlockDevice.Partition {
    .init(
      name: name, number: DeviceNumber(major: 8, minor: minor), index: 1, startBytes: 1 << 20, bytes: 1 << 20,
      label: label)
  }

  private func obstacle(_ major: UInt32, _ minor: UInt32) -> String? {
    var evidence = SystemUse.Evidence()
    evidence.mountinfo = [Array("1 1 8:2 / / rw - ext4 /dev/root rw".utf8)]
    let use = SystemUse(graph: DeviceGraph(Self.devices), evidence: evidence)
    return SystemDisks.obstacle(DeviceNumber(major: major, minor: minor), use, Self.devices)
  }

  @Test("The disk of the running system and its partitions, an image of the gateway, and what nobody knows")
  func obstacles() {
    #expect(obstacle(8, 0) != nil && obstacle(8, 2) != nil)
    #expect(obstacle(8, 16) != nil && obstacle(8, 17) != nil)
    #expect(obstacle(8, 99) != nil)
    #expect(obstacle(8, 32) == nil && obstacle(253, 0) == nil)
  }

  @Test("What was found is believed for a while")
  func believed() {
    let looks = LookCounter()
    let disks = SystemDisks {
      looks.count()
      return $0 == 1 ? "in use" : nil
    }
    let second: UInt64 = 1_000_000_000
    for _ in 0..<5 { #expect(disks.obstacle(1, at: second) == "in use" && disks.obstacle(2, at: second) == nil) }
    #expect(looks.total == 2)
    // After a minute it is still believed, and looked at anew meanwhile, once.
    for _ in 0..<5 { #expect(disks.obstacle(1, at: 62 * second) == "in use") }
    while looks.total < 3 { usleep(1000) }
    usleep(10_000)
    #expect(disks.obstacle(1, at: 63 * second) == "in use" && looks.total == 3)
    // What nobody has asked about for longer is looked at first.
    #expect(disks.obstacle(2, at: 200 * second) == nil && looks.total == 4)
  }
}

@Suite("Sockets that the service manager passed")
struct PassedSocketsTests {
  private func passed(_ pid: String?, _ count: String?) -> [Int32] {
    PassedSockets.passed(
      environment: { ["LISTEN_PID": pid, "LISTEN_FDS": count][$0] ?? nil }, processID: 77)
  }

  @Test("They are those from 3 on, if they are meant for this process (sd_listen_fds(3))")
  func passed() {
    #expect(passed("77", "2") == [3, 4])
    #expect(passed("78", "2") == [] && passed(nil, "2") == [] && passed("77", nil) == [])
    for count in ["0", "-1", "65", "2147483647", "x", ""] { #expect(passed("77", count) == []) }
  }
}

private final class LookCounter: Sendable {
  private let value = Mutex(0)
  func count() { value.withLock { $0 += 1 } }
  var total: Int { value.withLock { $0 } }
}
