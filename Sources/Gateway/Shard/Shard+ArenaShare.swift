import Reactor

/// A unit's share of the arena: its commands may hold as much as is left free after them, so one unit alone takes half, and
/// n units whose disks hang leave the others an (n+1)th. Without it a single disk that hangs holds all buffers until the
/// I/O deadline, and no other unit can be reached.
///
/// What is beyond the share waits for what the unit's own commands give back, in order; where a command cannot wait, it is
/// treated as by a full arena. A unit that holds nothing may always take one buffer: so who waits has something that comes
/// back.
extension Shard {
  @inline(__always)
  private func port(of index: Int) -> UnitPort? {
    let port = commands[index].pointee.port
    return port >= 0 ? ports[Int(port)] : nil
  }

  /// Whether the unit of a command may have `bytes` more.
  @inline(__always)
  func mayHold(_ bytes: Int, for index: Int) -> Bool {
    guard let port = port(of: index) else { return true }
    return Self.mayHold(bytes, port, free: pool.bytesFree)
  }

  @inline(__always)
  private static func mayHold(_ bytes: Int, _ port: UnitPort, free: Int) -> Bool {
    port.heldBytes == 0 || port.heldBytes + bytes <= free
  }

  /// A buffer for a command that cannot wait for one; nil: the arena is full, or its unit's share of it.
  @inline(__always)
  func take(_ bytes: Int, for index: Int) -> Buffer? { mayHold(bytes, for: index) ? pool.take(bytes) : nil }

  /// Counts a buffer that a piece has from now on.
  func count(_ buffer: Buffer, with number: Int) {
    if let port = port(of: Int(pieces[number].pointee.command)) { count(buffer, with: number, at: port) }
  }

  @inline(__always)
  private func count(_ buffer: Buffer, with number: Int, at port: UnitPort) {
    pieces[number].pointee.heldBytes += UInt32(buffer.capacity)
    port.heldBytes += buffer.capacity
  }

  /// The piece has no buffer any more.
  @inline(__always)
  func uncount(_ number: Int) {
    let piece = pieces[number]
    guard piece.pointee.heldBytes > 0, let port = port(of: Int(piece.pointee.command)) else { return }
    port.heldBytes -= Int(piece.pointee.heldBytes)
    piece.pointee.heldBytes = 0
    if !port.waiters.isEmpty { mayRetryShares = true }
  }

  /// Gives the piece its buffer; false when it must wait for one.
  func equip(_ number: Int, bytes: Int) -> Bool {
    let port = port(of: Int(pieces[number].pointee.command))
    let hasShare = port.map { $0.waiters.isEmpty && Self.mayHold(bytes, $0, free: pool.bytesFree) } ?? true
    if hasShare, let buffer = pool.take(bytes) {
      pieces[number].pointee.buffer = buffer
      if let port { count(buffer, with: number, at: port) }
      return true
    }
    pieces[number].pointee.state = .waiting
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
  }

  private func isWaiting(_ waiter: (piece: Int, generation: UInt32)) -> Bool {
    let piece = pieces[waiter.piece]
    return piece.pointee.generation == waiter.generation && piece.pointee.state == .waiting
  }

  /// Those who wait for the arena, in their order, as far as there is space again and their unit may have it.
  func retryBufferWaiters() {
    pool.isShort = false
    let waiters = bufferWaiters
    bufferWaiters = []
    var beyond: [(port: UnitPort, waiter: (piece: Int, generation: UInt32))] = []
    for (position, waiter) in waiters.enumerated() where isWaiting(waiter) {
      let index = Int(pieces[waiter.piece].pointee.command)
      let bytes = bufferBytes(waiter.piece)
      if let port = port(of: index), !Self.mayHold(bytes, port, free: pool.bytesFree) {
        beyond.append((port, waiter))
        continue
      }
      guard resume(waiter.piece, index, bytes) else {
        bufferWaiters.append(contentsOf: waiters[position...])
        break
      }
    }
    // They have waited longer than those who wait there.
    for (port, waiter) in beyond.reversed() { port.waiters.insert(waiter, at: 0) }
  }

  /// Those who wait for their unit's share.
  func retryShares() {
    mayRetryShares = false
    for case let port? in ports where !port.waiters.isEmpty {
      // Going on may make the port's commands wait again, behind these.
      let waiters = port.waiters
      port.waiters = []
      var rest = waiters.count
      for (position, waiter) in waiters.enumerated() where isWaiting(waiter) {
        let bytes = bufferBytes(waiter.piece)
        let index = Int(pieces[waiter.piece].pointee.command)
        guard Self.mayHold(bytes, port, free: pool.bytesFree), resume(waiter.piece, index, bytes) else {
          rest = position
          break
        }
      }
      port.waiters = waiters[rest...] + port.waiters
    }
  }

  /// Goes on with a piece that waited, if the arena has a buffer for it.
  private func resume(_ number: Int, _ index: Int, _ bytes: Int) -> Bool {
    guard let buffer = pool.take(bytes) else { return false }
    pieces[number].pointee.buffer = buffer
    count(buffer, with: number)
    resumePiece(number, index)
    return true
  }
}
