import Datamover
import Glibc

/// A queue pair without a device, with the initiator at its other end. It holds what is posted until the test lets it
/// complete, in order as a reliable connection does; RDMA WRITE and READ really copy between the arena and the memory that
/// the initiator registered. What a device would refuse ends it: an error completion, and the rest is flushed. What a
/// device would not notice, or not at once, is kept in `offences`.
///
/// One thread at a time: the test hands it to the thread that drives the mover.
final class ScriptedQueuePair: QueuePair, @unchecked Sendable {
  /// The status of the verbs for these ends.
  static let flushed: UInt32 = 5
  static let localProtection: UInt32 = 4
  static let remoteAccess: UInt32 = 10
  static let localLength: UInt32 = 1

  /// Memory that the initiator has registered.
  final class Region {
    let base: UInt64
    var bytes: [UInt8]
    var mayRead: Bool
    var mayWrite: Bool

    init(base: UInt64, bytes: [UInt8], mayRead: Bool = true, mayWrite: Bool = true) {
      self.base = base
      self.bytes = bytes
      self.mayRead = mayRead
      self.mayWrite = mayWrite
    }

    /// Where in `bytes` a range lies; nil: not inside.
    func range(_ address: UInt64, _ count: UInt32) -> Range<Int>? {
      guard address >= base, address - base <= UInt64(bytes.count),
        UInt64(count) <= UInt64(bytes.count) - (address - base)
      else { return nil }
      return Int(address - base)..<Int(address - base) + Int(count)
    }
  }

  /// What the initiator received with one SEND.
  struct Message: Equatable {
    var bytes: [UInt8]
    var invalidatedKey: UInt32?
  }

  /// Work in the send queue. What is inline was copied when it was posted.
  private struct Posted {
    var work: SendWork
    var inline: [UInt8]?
  }

  let limits: QueuePairLimits
  /// Whether a range of local memory is registered under a key.
  var isRegistered: (_ address: UInt64, _ count: UInt32, _ key: UInt32) -> Bool = { _, _, _ in true }
  /// The initiator's memory by remote key.
  var regions: [UInt32: Region] = [:]
  /// All that the initiator has received.
  var messages: [Message] = []
  /// Everything that was ever posted to the send queue, and the sizes of the chains.
  private(set) var history: [SendWork] = []
  private(set) var chains: [Int] = []
  private(set) var receiveHistory: [ReceiveWork] = []
  /// "receive" and "send", in the order in which they were posted.
  private(set) var order: [String] = []
  private var queue: [Posted] = []
  private(set) var receives: [ReceiveWork] = []
  /// Entries of the send queue that no completion has freed.
  private(set) var sendsHeld = 0
  /// What the next post returns instead of taking the work.
  var refusal: Int32 = 0
  private(set) var isBroken = false
  private(set) var isTerminated = false
  private(set) var offences: [String] = []

  init(_ limits: QueuePairLimits) { self.limits = limits }

  var posted: [SendWork] { queue.map(\.work) }
  var readsPosted: Int { queue.count { $0.work.operation == .read } }

  // MARK: The mover's side

  func post(_ work: UnsafeBufferPointer<SendWork>) -> Int32 {
    if isTerminated { offences.append("posted after the end") }
    guard refusal == 0 else { return refusal }
    chains.append(work.count)
    for item in work {
      if sendsHeld == limits.sendsMax {
        offences.append("the send queue overflows")
        return -ENOMEM
      }
      if item.operation == .sendInvalidating, !limits.mayInvalidate { offences.append("invalidates what may not be") }
      var inline: [UInt8]?
      if item.isInline {
        if item.byteCount > limits.inlineBytesMax || item.operation == .read { offences.append("too long for inline") }
        inline = bytes(item.localAddress, item.byteCount)
      }
      sendsHeld += 1
      history.append(item)
      order.append("send")
      queue.append(Posted(work: item, inline: inline))
      if readsPosted > limits.readsMax { offences.append("more READs than the peer answers") }
    }
    return 0
  }

  func post(_ work: UnsafeBufferPointer<ReceiveWork>) -> Int32 {
    if isTerminated { offences.append("posted after the end") }
    guard refusal == 0 else { return refusal }
    for item in work {
      if receives.count == limits.receivesMax {
        offences.append("the receive queue overflows")
        return -ENOMEM
      }
      receives.append(item)
      receiveHistory.append(item)
      order.append("receive")
    }
    return 0
  }

  func terminate() {
    if isTerminated { offences.append("ended twice") }
    isTerminated = true
  }

  // MARK: The initiator's side, and the device's

  private func bytes(_ address: UInt64, _ count: UInt32) -> [UInt8] {
    Array(UnsafeRawBufferPointer(start: UnsafeRawPointer(bitPattern: UInt(address)), count: Int(count)))
  }

  /// Carries out the work at the head of the send queue, and what follows until one of them gives a completion; nil: there
  /// is none.
  func completeSend() -> WorkCompletion? {
    while !queue.isEmpty {
      let entry = queue.removeFirst()
      let status = isBroken ? Self.flushed : perform(entry)
      if status != 0 { isBroken = true }
      guard entry.work.isSignalled || status != 0 else { continue }
      // A completion frees its entry and those of the silent work before it.
      sendsHeld = queue.count
      return WorkCompletion(id: entry.work.id, status: status, byteCount: 0xDEAD)
    }
    return nil
  }

  /// Lets the next work fail with `status`.
  func failSend(_ status: UInt32) -> WorkCompletion? {
    guard !queue.isEmpty else { return nil }
    let work = queue.removeFirst().work
    isBroken = true
    sendsHeld = queue.count
    return WorkCompletion(id: work.id, status: status, byteCount: 0)
  }

  private func perform(_ entry: Posted) -> UInt32 {
    let work = entry.work
    // A WRITE of no bytes asks for no key on either side (IBTA's C9-88).
    if work.operation == .write, work.byteCount == 0 { return 0 }
    if entry.inline == nil, !isRegistered(work.localAddress, work.byteCount, work.localKey) {
      offences.append("\(work.operation) of memory that is not registered")
      return Self.localProtection
    }
    switch work.operation {
    case .send, .sendInvalidating:
      let invalidated = work.operation == .sendInvalidating ? work.remoteKey : nil
      // An initiator ends the connection when a key is invalidated that is none of its own.
      if let invalidated, regions.removeValue(forKey: invalidated) == nil { return Self.remoteAccess }
      messages.append(
        Message(bytes: entry.inline ?? bytes(work.localAddress, work.byteCount), invalidatedKey: invalidated))
    case .write:
      guard let region = regions[work.remoteKey], region.mayWrite,
        let range = region.range(work.remoteAddress, work.byteCount)
      else { return Self.remoteAccess }
      region.bytes.replaceSubrange(range, with: bytes(work.localAddress, work.byteCount))
    case .read:
      guard let region = regions[work.remoteKey], region.mayRead,
        let range = region.range(work.remoteAddress, work.byteCount)
      else { return Self.remoteAccess }
      region.bytes[range].withUnsafeBytes {
        UnsafeMutableRawPointer(bitPattern: UInt(work.localAddress))!
          .copyMemory(from: $0.baseAddress!, byteCount: $0.count)
      }
    }
    return 0
  }

  /// The initiator sends a message: it fills the first receive; nil: there is none, and the initiator waits.
  func deliver(_ message: [UInt8]) -> WorkCompletion? {
    guard !receives.isEmpty else { return nil }
    let receive = receives.removeFirst()
    guard !isBroken else { return WorkCompletion(id: receive.id, status: Self.flushed, byteCount: 0) }
    guard message.count <= Int(receive.headerBytes + receive.dataBytes) else {
      isBroken = true
      return WorkCompletion(id: receive.id, status: Self.localLength, byteCount: 0)
    }
    guard isRegistered(receive.headerAddress, receive.headerBytes, receive.headerKey),
      isRegistered(receive.dataAddress, receive.dataBytes, receive.dataKey)
    else {
      offences.append("receive into memory that is not registered")
      isBroken = true
      return WorkCompletion(id: receive.id, status: Self.localProtection, byteCount: 0)
    }
    let header = message.prefix(Int(receive.headerBytes))
    fill(receive.headerAddress, header)
    fill(receive.dataAddress, message.dropFirst(header.count))
    return WorkCompletion(id: receive.id, status: 0, byteCount: UInt32(message.count))
  }

  private func fill(_ address: UInt64, _ bytes: ArraySlice<UInt8>) {
    bytes.withUnsafeBytes {
      guard let source = $0.baseAddress else { return }
      UnsafeMutableRawPointer(bitPattern: UInt(address))!.copyMemory(from: source, byteCount: $0.count)
    }
  }

  /// The queue pair is in error: everything that is posted comes back, flushed.
  func flushAll() -> [WorkCompletion] {
    isBroken = true
    var all = receives.map { WorkCompletion(id: $0.id, status: Self.flushed, byteCount: 0) }
    receives = []
    while let completion = completeSend() { all.append(completion) }
    return all
  }
}
