import Discovery
import Glibc
import Privileged

/// Changes of service addresses: by this process where the kernel lets it, else by the privileged part.
struct AddressPart: Sendable {
  static let standard = AddressPart(client: PartClient(.addresses))

  /// The part's own calls have bounds of a second; it may have to be started first.
  private static let milliseconds: Int32 = 10_000

  let client: PartClient

  /// - Returns: 0 or a positive errno.
  func perform(_ request: AddressRequest) -> Int32 {
    let code = AddressKernel.perform(request)
    // EAFNOSUPPORT: a service's RestrictAddressFamilies= keeps sockets for announcements away.
    guard [EPERM, EACCES, EAFNOSUPPORT].contains(code) else { return code }
    do throws(PartFailure) {
      let answer = try client.ask(request.encoded, milliseconds: Self.milliseconds)
      return AddressRequest.result(answer) ?? EPROTO
    } catch {
      return error == .lost ? ETIMEDOUT : EPERM
    }
  }
}

/// The same, without asking anybody.
enum AddressKernel {
  /// - Returns: 0 or a positive errno.
  static func perform(_ request: AddressRequest) -> Int32 {
    do throws(AddressError) {
      switch request.operation {
      case .add: return try AddressSocket().change(.add, request.address, prefix: request.prefix, index: request.index)
      case .remove:
        return try AddressSocket().change(.remove, request.address, prefix: request.prefix, index: request.index)
      case .announce: try Announcement.send(request.address, index: request.index)
      }
      return 0
    } catch {
      return error.code == 0 ? EIO : error.code
    }
  }
}

/// The part itself: carries out what the daemon asks, if it is about a service address. It trusts nobody: of addresses that do
/// not carry gatewayd's mark none is taken, removed or announced.
struct AddressService: Sendable {
  private let log: @Sendable (String) -> Void

  init(log: @escaping @Sendable (String) -> Void) { self.log = log }

  /// - Returns: nil: that was no request.
  func answer(_ bytes: [UInt8], _ descriptor: Int32) -> [UInt8]? {
    guard descriptor < 0, let request = AddressRequest(decoding: bytes) else { return nil }
    do throws(AddressError) {
      if let refusal = Self.refusal(of: request, among: try AddressSocket().list()) {
        log("\(request.address) on interface \(request.index): \(refusal)")
        return AddressRequest.encode(result: EACCES)
      }
      return AddressRequest.encode(result: AddressKernel.perform(request))
    } catch {
      return AddressRequest.encode(result: error.code == 0 ? EIO : error.code)
    }
  }

  /// Why it is not done; nil: it is.
  static func refusal(of request: AddressRequest, among found: [AddressMessages.Found]) -> String? {
    let same = found.filter { $0.address == request.address }
    switch request.operation {
    case .add:
      if same.contains(where: { !$0.isOurs }) { return "it is this machine's own address" }
      let count = found.count { $0.isOurs && $0.address != request.address }
      return count < ServiceAddress.countMax ? nil : "there are \(count) already"
    case .remove:
      // What is not there may be removed: the kernel says what it thinks of it.
      return same.allSatisfy(\.isOurs) ? nil : "it is this machine's own address"
    case .announce:
      return same.contains { $0.isOurs && $0.index == request.index } ? nil : "it is no service address of this machine"
    }
  }
}
