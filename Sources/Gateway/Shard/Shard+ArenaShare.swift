import Reactor

/// A unit's share of the arena: its commands may hold as much as is left free after them, so one unit alone takes half, and
/// n units whose disks hang leave the others an (n+1)th. Without it a single disk that hangs holds all buffers until the
/// I/O deadline, and no other unit can be reached.
///
/// What a command has given to the datamover counts as held until it is sent: an initiator that asks and takes nothing fills
/// its unit's share, and no more.
///
/// What is beyond the share waits for what the unit's own commands give back, in order; where a command cannot wait, it is
/// treated as by a full arena. A unit that holds nothing may always take one buffer: so who waits has something that comes
/// back.
///
/// Commands that have begun go first, and one that has only to go on may take a buffer beyond the share for the one that it
/// gave back: an initiator may serve the R2Ts of one command to its end before it looks at those of others, whose buffers
/// do not come back before. A disk that hangs gives nothing back, so it gains nothing by that.
extension Shard {
  private func port(of index: Int) -> UnitPort? { commands[index].pointee.unitPort?.takeUnretainedValue() }

  /// Whether the unit of a command may have `bytes` more.
  @inline(__always)
  func mayHold(_ bytes: Int, for index: Int) -> Bool {
    guard let port = commands[index].pointee.unitPort else {
      return commands[index].pointee.owner.map { mayHoldUntied(bytes, $0.takeUnretainedValue()) } ?? false
    }
    return port._withUnsafeGuaranteedRef { Self.mayHold(bytes, $0, free: pool.bytesFree) }
  }

  @inline(__always)
  static func mayHold(_ bytes: Int, _ port: UnitPort, free: Int) -> Bool {
    port.heldBytes == 0 || port.heldBytes + bytes <= free
  }

  /// A buffer for a command that cannot wait for one; nil: the arena is full, or its unit's share of it.
  @inline(__always)
  func take(_ bytes: Int, for index: Int) -> Buffer? {
    guard let port = commands[index].pointee.unitPort else { return takeUntied(bytes, for: index) }
    return port._withUnsafeGuaranteedRef { port in
      Self.mayHold(bytes, port, free: pool.bytesFree) ? pool.take(bytes, for: port) : nil
    }
  }

  /// Whether a connection may have `bytes` more for what is tied to no unit. Always a little, for a unit whose disk hangs still says
  /// who it is and takes reservations; never so much that those who take no answers could have what the units need.
  private func mayHoldUntied(_ bytes: Int, _ connection: Connection) -> Bool {
    let held = connection.account.heldBytes
    if held + bytes <= Self.untiedBytesMin || held == 0 && bytes <= Self.untiedBytesFirst { return true }
    let all = connections.reduce(0) { $0 + ($1?.account.heldBytes ?? 0) }
    return held + bytes <= pool.bytesFree / 4 && all + bytes <= pool.bytesFree
  }

  private static let untiedBytesMin = 16 << 10
  private static let untiedBytesFirst = 64 << 10

  /// A buffer for what the device server does by itself.
  @inline(never)
  private func takeUntied(_ bytes: Int, for index: Int) -> Buffer? {
    guard let connection = commands[index].pointee.owner?.takeUnretainedValue() else { return pool.take(bytes) }
    return mayHoldUntied(bytes, connection) ? pool.take(bytes, for: connection.account) : nil
  }

  /// The same for one that has no entry yet; nil also where others of its unit wait.
  @inline(__always)
  func takeInTurn(_ bytes: Int, at port: UnitPort) -> Buffer? {
    port.waiters.isEmpty && bufferWaiters.isEmpty && Self.mayHold(bytes, port, free: pool.bytesFree)
      ? pool.take(bytes, for: port) : nil
  }

  /// Puts a buffer that came before its command was known on the account of its unit.
  @inline(__always)
  func charge(_ buffer: inout Buffer, to index: Int) {
    guard let port = commands[index].pointee.unitPort else {
      if let connection = commands[index].pointee.owner {
        pool.charge(&buffer, to: connection.takeUnretainedValue().account)
      }
      return
    }
    port._withUnsafeGuaranteedRef { pool.charge(&buffer, to: $0) }
  }

  /// Whether a piece continues what its command has begun.
  private func continues(_ number: Int) -> Bool { pieces[number].pointee.offset > 0 }

  /// Whether a piece may have its buffer now, as far as its unit's share goes.
  private func mayEquip(_ number: Int, _ bytes: Int, at port: UnitPort) -> Bool {
    Self.mayHold(bytes, port, free: pool.bytesFree)
      || continues(number) && commands[Int(pieces[number].pointee.command)].pointee.pieceCount == 1
  }

  /// Gives the piece its buffer; false when it must wait for one.
  func equip(_ number: Int, bytes: Int) -> Bool {
    let index = Int(pieces[number].pointee.command)
    guard let port = commands[index].pointee.unitPort else {
      // Whether it may was looked at: what it waits for is the arena.
      guard let account = commands[index].pointee.owner?.takeUnretainedValue().account,
        let buffer = pool.take(bytes, for: account)
      else { return equip(number, bytes: bytes, at: nil) }
      pieces[number].pointee.buffer = buffer
      return true
    }
    return port._withUnsafeGuaranteedRef { equip(number, bytes: bytes, at: $0) }
  }

  @inline(__always)
  private func equip(_ number: Int, bytes: Int, at port: UnitPort?) -> Bool {
    let hasShare = port.map { ($0.waiters.isEmpty || continues(number)) && mayEquip(number, bytes, at: $0) } ?? true
    if hasShare, let buffer = port.map({ pool.take(bytes, for: $0) }) ?? pool.take(bytes) {
      pieces[number].pointee.buffer = buffer
      return true
    }
    pieces[number].pointee.state = .waiting
    let command = commands[Int(pieces[number].pointee.command)]
    // What was sent before may have taken its time.
    if command.pointee.diskCount == 0 { command.pointee.progressedAt = now }
    events.add(.noBuffer(.waited))
    let waiter = (piece: number, generation: pieces[number].pointee.generation)
    if hasShare { bufferWaiters.append(waiter) } else { queue(waiter, at: port!) }
    return false
  }

  /// Commands that are aborted while they wait leave their entry behind: it goes before there are many.
  private func queue(_ waiter: (piece: Int, generation: UInt32), at port: UnitPort) {
    if port.waiters.count >= 256, port.waiters.count.nonzeroBitCount == 1 {
      port.waiters.removeAll { !isWaiting($0) }
    }
    port.waiters.append(waiter)
    hasShareWaiters = true
  }

  private func isWaiting(_ waiter: (piece: Int, generation: UInt32)) -> Bool {
    let piece = pieces[waiter.piece]
    return piece.pointee.generation == waiter.generation && piece.pointee.state == .waiting
  }

  /// Those who still wait, in their order, but those who have begun before those who have not.
  private func inTurn(_ waiters: [(piece: Int, generation: UInt32)]) -> [(piece: Int, generation: UInt32)] {
    let waiters = waiters.filter { isWaiting($0) }
    guard waiters.contains(where: { continues($0.piece) }) else { return waiters }
    return waiters.filter { continues($0.piece) } + waiters.filter { !continues($0.piece) }
  }

  /// Those who wait for the arena, in their order, as far as there is space again and their unit may have it.
  func retryBufferWaiters() {
    pool.isShort = false
    let waiters = inTurn(bufferWaiters)
    bufferWaiters = []
    var beyond: [(port: UnitPort, waiter: (piece: Int, generation: UInt32))] = []
    for (position, waiter) in waiters.enumerated() where isWaiting(waiter) {
      let index = Int(pieces[waiter.piece].pointee.command)
      let bytes = bufferBytes(waiter.piece)
      if let port = port(of: index), !mayEquip(waiter.piece, bytes, at: port) {
        beyond.append((port, waiter))
        continue
      }
      // Others of its connection may have got what it was let in for.
      if commands[index].pointee.unitPort == nil, !mayHold(bytes, for: index) {
        refuseForMemory(index)
        continue
      }
      guard resume(waiter.piece, index, bytes) else {
        bufferWaiters.append(contentsOf: waiters[position...])
        break
      }
    }
    // They have waited longer than those who wait there.
    for (port, waiter) in beyond.reversed() { port.waiters.insert(waiter, at: 0) }
    // What they waited for may have come back meanwhile.
    if !beyond.isEmpty { (hasShareWaiters, mayRetryShares) = (true, true) }
  }

  /// Those who wait for their unit's share.
  func retryShares() {
    mayRetryShares = false
    for case let port? in ports where !port.waiters.isEmpty {
      // Going on may make the port's commands wait again, behind these.
      let waiters = inTurn(port.waiters)
      port.waiters = []
      var rest = waiters.count
      for (position, waiter) in waiters.enumerated() where isWaiting(waiter) {
        let bytes = bufferBytes(waiter.piece)
        let index = Int(pieces[waiter.piece].pointee.command)
        guard mayEquip(waiter.piece, bytes, at: port) else {
          // Of several pieces of commands that have begun, one further back may be the only one of its command.
          if continues(waiter.piece) {
            port.waiters.append(waiter)
            continue
          }
          rest = position
          break
        }
        guard resume(waiter.piece, index, bytes) else {
          // It is the arena that is full now: the port need not have anything that comes back.
          mayRetryShares = true
          rest = position
          break
        }
      }
      port.waiters += waiters[rest...]
    }
    hasShareWaiters = ports.contains { $0?.waiters.isEmpty == false }
  }

  /// Goes on with a piece that waited, if the arena has a buffer for it.
  private func resume(_ number: Int, _ index: Int, _ bytes: Int) -> Bool {
    let account = port(of: index) ?? commands[index].pointee.owner?.takeUnretainedValue().account
    guard let buffer = account.map({ pool.take(bytes, for: $0) }) ?? pool.take(bytes) else { return false }
    pieces[number].pointee.buffer = buffer
    resumePiece(number, index)
    return true
  }
}
