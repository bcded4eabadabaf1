import Testing
import Wire

@testable import SCSI

/// Two logical units of 512-byte blocks and one of 4096, and what copies between them.
private struct CopyBench {
  let registry = NexusRegistry()
  let units: [LogicalUnit]
  let map: LogicalUnitMap
  let server: DeviceServer
  let a = Bench.nexus(1, name: "iqn.2026-01.org.example:a")
  let b = Bench.nexus(2, name: "iqn.2026-01.org.example:b")

  init(visible: [Int] = [0, 1, 2], readOnly: Bool = false) throws {
    let registry = registry
    units = try [512, 512, 4096].enumerated().map { number, blockBytes in
      var traits = LogicalUnitTraits(blockBytes: UInt32(blockBytes))
      traits.isReadOnly = readOnly && number == 1
      return try LogicalUnit(
        number: UInt16(number),
        identity: LogicalUnitIdentity(
          uuid: (0..<16).map { UInt8($0 * 16 + number) }, serial: "S", vendor: "GATEWAYD", product: "D", revision: "1"),
        traits: traits, blocks: 1000, registry: registry)
    }
    map = LogicalUnitMap(visible.map { [units] in units[$0] })
    server = DeviceServer(
      deviceName: "iqn.2026-01.org.example:gw", registry: registry,
      portGroups: TargetPortGroups([.init(id: 1, state: .activeOptimized, relativeTargetPorts: [1])]))
    for nexus in [a, b] { registry.attach(nexus) }
  }

  func target(_ number: Int, blockBytes: UInt32? = nil, change: (inout [UInt8]) -> Void = { _ in }) -> [UInt8] {
    let designator = Designator.naa(units[number].identity.uuid)
    var target: [UInt8] = [0xE4, 0, 0, 0, designator[0], designator[1], 0, designator[3]] + designator[4...]
    target += [UInt8](repeating: 0, count: 28 - target.count)
    target.append(be: blockBytes ?? units[number].traits.blockBytes)
    change(&target)
    return target
  }

  static func segment(
    _ from: UInt16 = 0, _ to: UInt16 = 0, blocks: UInt16 = 8, lba: UInt64 = 0, toLBA: UInt64 = 100, flags: UInt8 = 0
  ) -> [UInt8] {
    var segment: [UInt8] = [0x02, flags, 0, 24]
    segment.append(be: from)
    segment.append(be: to)
    segment += [0, 0]
    segment.append(be: blocks)
    segment.append(be: lba)
    segment.append(be: toLBA)
    return segment
  }

  static func list(
    _ targets: [[UInt8]], _ segments: [[UInt8]], id: UInt8 = 1, usage: UInt8 = 0, inline: UInt32 = 0
  ) -> [UInt8] {
    let (targets, segments) = (targets.flatMap { $0 }, segments.flatMap { $0 })
    var list: [UInt8] = [id, usage << 3]
    list.append(be: UInt16(targets.count))
    list += [0, 0, 0, 0]
    list.append(be: UInt32(segments.count))
    list.append(be: inline)
    return list + targets + segments
  }

  func send(_ list: [UInt8], from nexus: Nexus? = nil) -> Disposition {
    var cdb: [UInt8] = [0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    cdb.append(be: UInt32(list.count))
    let request = Request(cdb: CDB(cdb + [0, 0]), lun: 0)
    let first = server.execute(request, nexus: nexus ?? a, map: map)
    guard case .dataOut = first else { return first }
    return server.resume(request, nexus: nexus ?? a, map: map, parameters: list)
  }

  func receive(_ action: UInt8, id: UInt8 = 1, length: UInt32 = 512, from nexus: Nexus? = nil) -> Disposition {
    var cdb: [UInt8] = [0x84, action, id, 0, 0, 0, 0, 0, 0, 0]
    cdb.append(be: length)
    return server.execute(Request(cdb: CDB(cdb + [0, 0]), lun: 0), nexus: nexus ?? a, map: map)
  }

  func order(_ list: [UInt8]) -> CopyOrder? {
    guard case .copy(let order, _) = send(list) else { return nil }
    return order
  }

  /// The outcome of the first segment, as its executor would find it.
  func outcome(_ list: [UInt8]) -> Result<CopySegment, CopyFailure>? {
    guard let order = order(list), let first = order.segments.first else { return nil }
    defer { a.updateCopies { $0.end(order.token) } }
    if case .success(let segment) = first, let failure = server.refusal(of: segment, nexus: a) {
      return .failure(failure)
    }
    return first
  }

  func failure(_ list: [UInt8]) -> CopyFailure? {
    guard case .failure(let failure)? = outcome(list) else { return nil }
    return failure
  }
}

@Suite("EXTENDED COPY and RECEIVE COPY RESULTS")
struct CopyTests {
  @Test("A segment of type 02h names its units, places and bytes (SPC-4 §6.4.6.2)")
  func segment() throws {
    let bench = try CopyBench()
    let list = CopyBench.list(
      [bench.target(0), bench.target(1)], [CopyBench.segment(0, 1, blocks: 8, lba: 5, toLBA: 900)])
    let segment = try #require(try bench.outcome(list)?.get())
    #expect(segment.source === bench.units[0] && segment.destination === bench.units[1])
    #expect(segment.sourceLBA == 5 && segment.destinationLBA == 900 && segment.byteCount == 4096)
  }

  @Test("DC says whose blocks are counted; what is not whole blocks of both is an inexact segment (SPC-4 §6.4.6.2)")
  func blockLengths() throws {
    let bench = try CopyBench()
    let targets = [bench.target(0), bench.target(2)]
    let counted = CopyBench.list(targets, [CopyBench.segment(0, 1, blocks: 2, flags: 0x02)])
    #expect(try bench.outcome(counted)?.get().byteCount == 8192)
    #expect(try bench.outcome(CopyBench.list(targets, [CopyBench.segment(0, 1, blocks: 16)]))?.get().byteCount == 8192)
    let inexact = bench.failure(CopyBench.list(targets, [CopyBench.segment(0, 1, blocks: 9)]))
    #expect(inexact?.sense.code == 0x260A && inexact?.sense.key == .copyAborted)
  }

  @Test("An empty parameter list, and one without segments, is GOOD (SPC-4 §6.4.1)")
  func empty() throws {
    let bench = try CopyBench()
    #expect(bench.send([]).answer == .good)
    #expect(bench.send(CopyBench.list([bench.target(0)], [])).answer == .good)
  }

  @Test("Lists that are cut off, too many descriptors and inline data are refused before anything is copied")
  func lengths() throws {
    let bench = try CopyBench()
    let whole = CopyBench.list([bench.target(0)], [CopyBench.segment()])
    for count in 1..<whole.count {
      #expect(bench.send(Array(whole[..<count])).answer == .sense(.illegalRequest, 0x1A00))
    }
    let target = bench.target(0)
    let many = CopyBench.list([[UInt8]](repeating: target, count: 17), [CopyBench.segment()])
    #expect(bench.send(many).sense == .tooManyTargetDescriptors)
    let segments = [[UInt8]](repeating: CopyBench.segment(), count: 65)
    #expect(bench.send(CopyBench.list([target], segments)).sense == .tooManySegmentDescriptors)
    let both = CopyBench.list([[UInt8]](repeating: target, count: 17), segments)
    #expect(bench.send(both).answer == .sense(.illegalRequest, 0x1A00))
    #expect(
      bench.send(CopyBench.list([target], [CopyBench.segment()], inline: 4)).sense == .inlineDataLengthExceeded)
    var long = whole
    long.store(be: UInt32.max, at: 8)
    #expect(bench.send(long).answer == .sense(.illegalRequest, 0x1A00))
  }

  @Test("Other descriptor types, designators that are too long and block lengths that are not the unit's are refused")
  func descriptors() throws {
    let bench = try CopyBench()
    let segment = CopyBench.segment()
    func sense(_ change: (inout [UInt8]) -> Void) -> Sense? {
      bench.send(CopyBench.list([bench.target(0, change: change)], [segment])).sense
    }
    #expect(sense { $0[0] = 0xE0 } == .unsupportedTargetDescriptorType(byte: 16))
    #expect(sense { $0[1] = 0xE0 } == nil)
    #expect(sense { $0[7] = 21 } == .invalidFieldInParameterList(byte: 23))
    #expect(sense { $0[30] = 9 } == .invalidFieldInParameterList(byte: 45))
    var stream = segment
    stream[0] = 0x03
    #expect(
      bench.send(CopyBench.list([bench.target(0)], [stream])).sense == .unsupportedSegmentDescriptorType(byte: 48))
    var short = segment
    short[3] = 20
    #expect(
      bench.send(CopyBench.list([bench.target(0)], [short])).sense == .invalidFieldInParameterList(byte: 50))
    #expect(
      bench.send(CopyBench.list([bench.target(0)], [segment], usage: 1)).sense
        == .invalidFieldInParameterList(byte: 1, bit: 4))
    #expect(
      bench.send(CopyBench.list([bench.target(0)], [segment], usage: 3)).sense == .invalidFieldInParameterList(byte: 0))
  }

  @Test("A unit that is no disk, not there, or not seen by the nexus is unreachable: COPY ABORTED with the segment")
  func unreachable() throws {
    let bench = try CopyBench(visible: [0, 2])
    let unreachable = { (list: [UInt8]) in bench.failure(list)?.sense.code == 0x0804 }
    #expect(unreachable(CopyBench.list([bench.target(0) { $0[1] = 0x01 }], [CopyBench.segment()])))
    #expect(unreachable(CopyBench.list([bench.target(0) { $0[8] ^= 1 }], [CopyBench.segment()])))
    #expect(unreachable(CopyBench.list([bench.target(0), bench.target(1)], [CopyBench.segment(0, 1)])))
    let missing = bench.failure(CopyBench.list([bench.target(0)], [CopyBench.segment(0, 1)]))
    #expect(missing?.sense.field == Sense.FieldPointer(inCDB: false, byte: 6))
    // A segment before it is not kept from being copied.
    let order = try #require(
      bench.order(CopyBench.list([bench.target(0)], [CopyBench.segment(), CopyBench.segment(0, 1)])))
    #expect(order.segments.count == 2)
    guard case .success = order.segments[0], case .failure(let failure) = order.segments[1] else {
      return #expect(Bool(false))
    }
    #expect(failure.sense.information == 1)
  }

  @Test("Beyond a unit's capacity the segment ends, with what the unit would have said (SPC-4 §6.4.6.4)")
  func range() throws {
    let bench = try CopyBench()
    for (lba, toLBA): (UInt64, UInt64) in [(993, 0), (0, 993), (.max, 0), (0, .max)] {
      let failure = bench.failure(CopyBench.list([bench.target(0)], [CopyBench.segment(lba: lba, toLBA: toLBA)]))
      #expect(failure?.sense.key == .copyAborted && failure?.cause == .logicalBlockAddressOutOfRange)
    }
  }

  @Test("Reservations, write protection and a sanitize operation of source and destination are kept")
  func protection() throws {
    let bench = try CopyBench()
    let list = CopyBench.list([bench.target(0), bench.target(1)], [CopyBench.segment(0, 1)])
    #expect(bench.failure(list) == nil)
    for unit in [bench.units[0], bench.units[1]] {
      _ = unit.reserve(for: bench.b)
      let failure = unit.number == 0 ? nil : bench.failure(list)
      // The unit that the command is sent to says so itself.
      if unit.number == 0 { #expect(bench.send(list).answer == .conflict) }
      if unit.number == 1 { #expect(failure?.sense.code == 0x0D01 && failure?.status == .reservationConflict) }
      _ = unit.release(for: bench.b)
    }
    let readOnly = try CopyBench(readOnly: true)
    let protected = CopyBench.list([readOnly.target(0), readOnly.target(1)], [CopyBench.segment(0, 1)])
    #expect(readOnly.failure(protected)?.cause == .writeProtected)
    let back = CopyBench.list([readOnly.target(0), readOnly.target(1)], [CopyBench.segment(1, 0)])
    #expect(readOnly.failure(back) == nil)
    _ = bench.units[1].open(SanitizeOrder(method: .blockErase))
    #expect(bench.failure(list)?.cause?.code == 0x041B)
  }

  @Test("RECEIVE COPY STATUS tells how far a copy is, to its own nexus and no other (SPC-4 §6.25)")
  func status() throws {
    let bench = try CopyBench()
    #expect(bench.receive(0x00).sense == .invalidFieldInCDB(byte: 2))
    let order = try #require(bench.order(CopyBench.list([bench.target(0)], [CopyBench.segment()], id: 7)))
    #expect(bench.receive(0x00, id: 7).data == [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0])
    #expect(bench.receive(0x00, id: 7, from: bench.b).sense == .invalidFieldInCDB(byte: 2))
    // The identifier is taken while it runs.
    #expect(
      bench.send(CopyBench.list([bench.target(0)], [CopyBench.segment()], id: 7)).answer
        == .sense(.illegalRequest, 0x0016))
    bench.a.updateCopies {
      $0.progress(order.token, byteCount: 4096, segments: 1)
      $0.end(order.token)
    }
    #expect(bench.receive(0x00, id: 7).data == [0, 0, 0, 8, 1, 0, 1, 0, 0, 0, 0x10, 0])
    #expect(bench.receive(0x01, id: 7).data == [0, 0, 0, 0])
    #expect(bench.receive(0x04, id: 7).data == [0, 0, 0, 0])
  }

  @Test("What failed is told with the unit's status and sense; 10b and 11b keep nothing, nor does an abort")
  func failures() throws {
    let bench = try CopyBench()
    let list = CopyBench.list([bench.target(0)], [CopyBench.segment()])
    let order = try #require(bench.order(list))
    let failure = CopyFailure.device(segment: 0, cause: .unrecoveredReadError(lba: 5))
    bench.a.updateCopies { $0.end(order.token, failure) }
    #expect(bench.receive(0x00).data[4] == 2)
    let details = bench.receive(0x04).data
    #expect(details.count == 60 + 18 && details[3] == 74 && details[56] == 0x02 && details[59] == 18)
    #expect(details[62] == 0x03 && details[72] == 0x11)
    let discarding = try #require(
      bench.order(CopyBench.list([bench.target(0)], [CopyBench.segment()], id: 2, usage: 2)))
    #expect(bench.receive(0x00, id: 2).data[4] == 0)
    bench.a.updateCopies { $0.end(discarding.token) }
    #expect(bench.receive(0x00, id: 2).sense == .invalidFieldInCDB(byte: 2))
    let aborted = try #require(bench.order(CopyBench.list([bench.target(0)], [CopyBench.segment()], id: 3)))
    bench.a.updateCopies { $0.abandon(aborted.token) }
    #expect(bench.receive(0x00, id: 3).sense == .invalidFieldInCDB(byte: 2))
  }

  @Test("There are at most 16 copies of a nexus at a time, and the results of as many are kept")
  func limits() throws {
    let bench = try CopyBench()
    var tokens: [UInt64] = []
    for id in 0..<16 {
      let order = try #require(bench.order(CopyBench.list([bench.target(0)], [CopyBench.segment()], id: UInt8(id))))
      tokens.append(order.token)
    }
    let next = CopyBench.list([bench.target(0)], [CopyBench.segment()], id: 99)
    #expect(bench.send(next).answer == .sense(.illegalRequest, 0x5503))
    for token in tokens { bench.a.updateCopies { $0.end(token) } }
    for id in 100..<200 {
      let order = try #require(bench.order(CopyBench.list([bench.target(0)], [CopyBench.segment()], id: UInt8(id))))
      bench.a.updateCopies { $0.end(order.token) }
    }
    #expect(bench.a.copies.entries.count <= 32)
    #expect(bench.receive(0x00, id: 199).data[4] == 1)
  }

  @Test("Operating parameters and VPD page 8Fh tell the same limits (SPC-4 §6.25.4, §7.8.17)")
  func parameters() throws {
    let bench = try CopyBench()
    let data = bench.receive(0x03, id: 0).data
    #expect(data.count == 46 && data[3] == 42)
    #expect(Array(data[8..<20]) == [0, 16, 0, 64, 0, 0, 0x09, 0, 0x10, 0, 0, 0])
    #expect(Array(data[34..<46]) == [0, 16, 16, 9, 0, 0, 0, 0, 0, 2, 0x02, 0xE4])
    #expect(bench.receive(0x03, id: 1).sense == .invalidFieldInCDB(byte: 2))
    #expect(bench.receive(0x03, id: 0, length: 4).data == Array(data[..<4]))
    let page = bench.server.execute(
      Request(cdb: CDB([0x12, 1, 0x8F, 1, 0, 0]), lun: 0), nexus: bench.a, map: bench.map
    ).data
    var types: [UInt16] = []
    var offset = 4
    while offset < page.count {
      types.append(page.span.bytes.be16(offset))
      offset += 4 + Int(page.span.bytes.be16(offset + 2))
    }
    #expect(offset == page.count && types == [0x0001, 0x0004, 0x0008, 0x8001])
    #expect(Array(page[8..<18]) == [9, 0x83, 1, 0, 0x84, 4, 0, 1, 3, 4])
  }

  @Test("COPY ABORTED carries the segment's number and its field in both formats (SPC-5 §4.4.2.4.5)")
  func sense() {
    let sense = CopyFailure(CopyFailure.unreachableTarget, segment: 3, byte: 6).sense
    #expect(
      sense.encode(descriptorFormat: false)
        == [0x70, 0, 0x0A, 0, 0, 0, 0, 10, 0, 0, 0, 3, 0x08, 0x04, 0, 0xA0, 0, 6])
    #expect(
      sense.encode(descriptorFormat: true)
        == [0x72, 0x0A, 0x08, 0x04, 0, 0, 0, 20, 1, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 2, 6, 0, 0, 0xA0, 0, 6, 0])
  }
}
