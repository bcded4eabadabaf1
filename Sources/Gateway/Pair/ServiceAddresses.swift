import Discovery
import Glibc
import HA
import Synchronization

/// The addresses that move with the active node, for initiators that know one portal only.
///
/// `take` comes after the fence, never before. It adds them to their interfaces and tells the neighbours each second for ten,
/// because a switch or a host may miss one; `drop` takes them away before it returns. Addresses that a crash left behind are
/// dropped at the start. Only what gatewayd added itself is ever removed.
public final class ServiceAddresses: Sendable {
  static let announcements = 11

  /// An address that is held.
  private struct Held: Sendable {
    var address: ServiceAddress
    var index: UInt32
    var interface: String
  }

  private struct State: Sendable {
    var wanted: [ServiceAddress]
    var held: [Held] = []
    var isTaken = false
    /// Grows with each change of mind: announcements of an earlier one end.
    var turn = 0
    var problems: [ServiceAddress: String] = [:]

    mutating func addMissing() {
      problems = [:]
      for address in wanted where !held.contains(where: { $0.address == address }) {
        do throws(AddressError) { held.append(try ServiceAddresses.add(address)) } catch {
          problems[address] = error.description
          continue
        }
        if let added = held.last { Log.notice("service address: \(address) taken on \(added.interface)") }
      }
    }
  }

  private let state: Mutex<State>
  private let onThread: @Sendable () -> Void

  public convenience init(_ addresses: [ServiceAddress]) { self.init(addresses, onThread: {}) }

  /// - Parameter onThread: called first on each thread of this object: tests enter a network namespace there.
  init(_ addresses: [ServiceAddress], onThread: @escaping @Sendable () -> Void) {
    state = Mutex(State(wanted: addresses))
    self.onThread = onThread
  }

  /// Removes what an earlier run left behind. Before anything else, for the peer may have them now.
  ///
  /// - Returns: What could not be done.
  @discardableResult
  public func dropLeftovers() -> [String] {
    state.withLock { state -> [String] in
      guard !state.isTaken else { return [] }
      return Self.removeMarked()
    }
  }

  /// Adds the addresses and begins to announce them. Returns as soon as they are there.
  ///
  /// - Returns: What could not be done, a sentence for each address.
  @discardableResult
  public func take() -> [String] {
    let (turn, problems) = state.withLock { state -> (Int, [String]) in
      state.isTaken = true
      state.turn += 1
      state.addMissing()
      return (state.turn, state.problems.values.sorted())
    }
    for problem in problems { Log.error("service address: \(problem)") }
    ControlThread.start { [self] in
      onThread()
      announce(turn)
    }
    return problems
  }

  /// Removes the addresses.
  ///
  /// - Returns: What could not be done.
  @discardableResult
  public func drop() -> [String] {
    let problems = state.withLock { state -> [String] in
      state.isTaken = false
      state.turn += 1
      state.problems = [:]
      let held = state.held
      state.held = []
      return held.compactMap(Self.drop)
    }
    for problem in problems { Log.error("service address: \(problem)") }
    return problems
  }

  /// Those that are this node's now.
  var held: [NetworkAddress] { state.withLock { $0.held.map(\.address.address) } }

  /// Other addresses from now on: after the settings were read again.
  public func set(_ addresses: [ServiceAddress]) {
    let isTaken = state.withLock { state -> Bool in
      state.wanted = addresses
      let gone = state.held.filter { !addresses.contains($0.address) }
      state.held.removeAll { held in !addresses.contains(held.address) }
      for held in gone { if let problem = Self.drop(held) { Log.error("service address: \(problem)") } }
      return state.isTaken
    }
    if isTaken { take() }
  }

  public var report: [ServiceAddressReport] {
    state.withLock { state in
      state.wanted.map { address in
        let held = state.held.first { $0.address == address }
        return ServiceAddressReport(
          address: address.description, interface: held?.interface, problem: state.problems[address])
      }
    }
  }

  // MARK: In the kernel

  private static func add(_ address: ServiceAddress) throws(AddressError) -> Held {
    guard let interfaces = try? NetworkInterfaces.read(), let home = address.home(among: interfaces) else {
      throw AddressError(
        what: "\(address): no interface has a network with it; write \(address)%INTERFACE")
    }
    let index = if_nametoindex(home)
    guard index != 0 else { throw AddressError(what: "\(address): no interface \(home)") }
    if try AddressSocket().list().contains(where: { $0.address == address.address && !$0.isOurs }) {
      throw AddressError(what: "\(address) is this machine's own address")
    }
    let request = AddressRequest(.add, address.address, prefix: address.prefix, index: index)
    let code = AddressPart.standard.perform(request)
    guard code == 0 else { throw AddressError(what: "\(address) cannot be added to \(home)", code: code) }
    return Held(address: address, index: index, interface: home)
  }

  /// Removes it and says so.
  private static func drop(_ held: Held) -> String? {
    if let problem = remove(held) { return problem }
    Log.notice("service address: \(held.address) dropped from \(held.interface)")
    return nil
  }

  private static func remove(_ held: Held) -> String? {
    let request = AddressRequest(.remove, held.address.address, prefix: held.address.prefix, index: held.index)
    let code = AddressPart.standard.perform(request)
    // Gone already, or with its interface.
    guard code != 0, code != EADDRNOTAVAIL, code != ENODEV else { return nil }
    return AddressError(what: "\(held.address) cannot be removed from \(held.interface)", code: code).description
  }

  private static func removeMarked() -> [String] {
    do throws(AddressError) {
      var problems: [String] = []
      for found in try AddressSocket().list() where found.isOurs {
        let request = AddressRequest(.remove, found.address, prefix: found.prefix, index: found.index)
        let code = AddressPart.standard.perform(request)
        if code == 0 { Log.notice("service address: \(found.address) was left behind, dropped") }
        guard code != 0, code != EADDRNOTAVAIL else { continue }
        problems.append(
          AddressError(what: "\(found.address) was left behind and cannot be removed", code: code).description)
      }
      return problems
    } catch {
      return [error.description]
    }
  }

  // MARK: Announcing

  /// Ends with the announcements, or goes on while an address is missing: its interface may come yet.
  private func announce(_ turn: Int) {
    var number = 0
    var isComplete = false
    while number < Self.announcements || !isComplete {
      if number > 0 { sleep(number < Self.announcements ? 1 : 5) }
      number += 1
      // Sent under the lock: nothing is announced after `drop` has returned.
      let isCurrent = state.withLock { state -> Bool in
        guard state.turn == turn else { return false }
        let before = state.held.count
        if number > 1, before < state.wanted.count { state.addMissing() }
        if number <= Self.announcements || state.held.count > before { Self.announce(&state) }
        isComplete = state.held.count == state.wanted.count
        return true
      }
      guard isCurrent else { return }
    }
  }

  private static func announce(_ state: inout State) {
    for held in state.held {
      let code = AddressPart.standard.perform(AddressRequest(.announce, held.address.address, index: held.index))
      guard code != 0 else { continue }
      let error = AddressError(what: "\(held.address) cannot be announced on \(held.interface)", code: code)
      if state.problems.updateValue(error.description, forKey: held.address) == nil {
        Log.error("service address: \(error)")
      }
    }
  }
}

/// One service address, for `gatewayd pair`.
public struct ServiceAddressReport: Sendable, Equatable, Codable {
  public var address: String
  /// Where it is now; nil: this node does not have it.
  public var interface: String?
  public var problem: String?

  var text: String { address + (interface.map { " on \($0)" } ?? "") + (problem.map { " (\($0))" } ?? "") }
}
