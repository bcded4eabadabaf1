import CSystem
import Glibc
import Privileged

/// What this process may not send to a disk itself: asked of the privileged part, with the disk's descriptor.
public struct FencePart: Sendable {
  /// That of the system.
  public static let standard = FencePart(PartClient(.fence))

  /// Whether the system has one, started or not: its socket is there.
  public static var isInstalled: Bool { access(Part.fence.socketPath, F_OK) == 0 }

  private let client: PartClient

  public init(_ client: PartClient) { self.client = client }

  /// What to do when neither this process nor a part may.
  static let remedy = "\(Part.fence.unit) does not answer, and it has no CAP_SYS_RAWIO and CAP_SYS_ADMIN"

  /// Waits as long as the disk keeps the part, as the disk would keep this process: when it returns, nothing of the request is
  /// under way any more.
  ///
  /// - Parameter refusal: the kernel's answer to this process: it stands if there is no part.
  func ask(
    _ request: FenceRequest, _ fd: Int32, timeoutMilliseconds: UInt32, insteadOf refusal: FenceFailure
  ) throws(FenceFailure) -> FenceAnswer {
    let bounds = FenceMessages.timeoutMilliseconds
    let timeout = min(max(timeoutMilliseconds, bounds.lowerBound), bounds.upperBound)
    let message = FenceMessages.encode(request, timeoutMilliseconds: timeout)
    // A part that dies with a question: another one answers. With an order, it may have been carried out.
    for _ in 0..<(request.isQuestion ? 2 : 1) {
      let bytes: [UInt8]
      do throws(PartFailure) {
        bytes = try client.ask(message, passing: fd)
      } catch {
        if error == .lost { continue }
        throw refusal
      }
      guard let answer = FenceMessages.answer(bytes) else { break }
      return try answer.get()
    }
    throw .timedOut
  }
}

/// The part itself: carries out what the daemon asks, on the disk that came with the request. It trusts nobody: the descriptor
/// must be of a block device, open for writing, that the system does not stand on.
public struct FenceService: Sendable {
  /// Why reservations of a block device are not to be touched; nil: they may be.
  public typealias Obstacle = @Sendable (_ device: UInt64) -> String?

  private let obstacle: Obstacle
  private let log: @Sendable (String) -> Void

  public init(obstacle: @escaping Obstacle, log: @escaping @Sendable (String) -> Void) {
    self.obstacle = obstacle
    self.log = log
  }

  /// - Returns: nil: that was no request.
  public func answer(_ bytes: [UInt8], _ descriptor: Int32) -> [UInt8]? {
    guard let (request, timeout) = FenceMessages.request(bytes), descriptor >= 0 else { return nil }
    var number: UInt64 = 0
    let code = system_block_device(descriptor, &number)
    guard code == 0 else { return refuse("what came is no block device that is open for writing", -code) }
    if let reason = obstacle(number) { return refuse("a disk is not touched: \(reason)", EACCES) }
    return FenceMessages.encode(perform(request, descriptor, timeout))
  }

  private func perform(
    _ request: FenceRequest, _ descriptor: Int32, _ timeout: UInt32
  ) -> Result<FenceAnswer, FenceFailure> {
    do throws(FenceFailure) {
      if request == .resetUnit {
        try UnitReset.send(descriptor)
        return .success(.done)
      }
      guard let fence = Fence(descriptor: descriptor, timeoutMilliseconds: timeout) else {
        return .failure(.failed(EOPNOTSUPP))
      }
      return .success(try fence.perform(request))
    } catch {
      return .failure(error)
    }
  }

  private func refuse(_ reason: String, _ code: Int32) -> [UInt8] {
    log(reason)
    return FenceMessages.encode(.failure(.failed(code)))
  }
}
