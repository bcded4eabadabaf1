import Glibc
import Synchronization

/// The daemon's end of the control socket. It owns the socket file, one thread that accepts, and a thread per client, at
/// most `clientsMax` at a time. A client has `requestSeconds` to ask and as long to take its answer; one that is slow,
/// stuck or hostile costs a thread for that long and nothing else. The gateway's own threads are never used.
public final class ControlServer: Sendable {
  /// Requests in work at one time, those included whose client has gone but which the gateway has not finished.
  public static let clientsMax = 8
  /// Of these, how many for users that may only read: they cannot shut out an administrator.
  static let readersMax = 6

  /// How long a client may take, for tests to shorten.
  struct Patience: Sendable {
    var requestSeconds = 5.0
    var answerSeconds = 10.0
    /// Adoption writes to a disk and may wipe it.
    var adoptionSeconds = 120.0
  }

  private struct State {
    var listener: ControlSocket?
    var wakeWriter: Int32 = -1
    var clients = 0
    var readers = 0
  }

  let path: String
  let control: any GatewayControl
  let patience: Patience
  private let state = Mutex(State())

  /// - Parameter path: Of the socket; at most 107 bytes.
  public convenience init(path: String, control: any GatewayControl) {
    self.init(path: path, control: control, patience: Patience())
  }

  init(path: String, control: any GatewayControl, patience: Patience) {
    self.path = path
    self.control = control
    self.patience = patience
  }

  /// Makes the socket and begins to answer.
  /// - Throws: When another daemon answers there, or the socket cannot be made.
  public func start() throws(ControlError) {
    try prepareDirectory()
    try removeStale()
    let listener = try ControlSocket.make()
    let code = listener.bind(to: path)
    guard code == 0 else {
      listener.close()
      throw ControlError(.failed, "control socket \(path): \(SystemError.text(code))")
    }
    // Nobody can connect before listen(2), so the mode is in force for the first client. Its group may read.
    guard chmod(path, 0o660) == 0, listen(listener.descriptor, 16) == 0 else {
      let code = errno
      listener.close()
      throw ControlError(.failed, "control socket \(path): \(SystemError.text(code))")
    }
    var pipe: [Int32] = [-1, -1]
    guard Glibc.pipe(&pipe) == 0 else {
      listener.close()
      throw ControlError(.failed, "control socket: \(SystemError.text(errno))")
    }
    for end in pipe { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    state.withLock {
      $0.listener = listener
      $0.wakeWriter = pipe[1]
    }
    let wake = pipe[0]
    guard ControlThread.start({ self.acceptLoop(listener, wake: wake) }) else {
      _ = close(wake)
      listener.close()
      stop()
      throw ControlError(.failed, "control socket: no thread")
    }
  }

  /// Takes the socket away. Requests in work run on to their own ends.
  public func stop() {
    let (isStarted, writer) = state.withLock { state in
      defer {
        state.listener = nil
        state.wakeWriter = -1
      }
      return (state.listener != nil, state.wakeWriter)
    }
    guard isStarted else { return }
    unlink(path)
    // The accepting thread sees the end of the pipe and closes the listener.
    _ = close(writer)
  }

  private func acceptLoop(_ listener: ControlSocket, wake: Int32) {
    defer {
      listener.close()
      _ = close(wake)
    }
    while true {
      var entries = [
        pollfd(fd: listener.descriptor, events: Int16(POLLIN), revents: 0),
        pollfd(fd: wake, events: Int16(POLLIN), revents: 0),
      ]
      _ = poll(&entries, 2, -1)
      guard entries[1].revents == 0 else { return }
      guard entries[0].revents != 0 else { continue }
      let descriptor = accept(listener.descriptor, nil, nil)
      if descriptor >= 0 {
        admit(ControlSocket(descriptor: descriptor))
      } else if errno == EMFILE || errno == ENFILE || errno == ENOMEM {
        // The client stays in the backlog; without the pause the loop would spin.
        _ = poll(&entries[1], 1, 200)
      }
    }
  }

  private func admit(_ socket: ControlSocket) {
    _ = fcntl(socket.descriptor, F_SETFD, FD_CLOEXEC)
    _ = fcntl(socket.descriptor, F_SETFL, O_NONBLOCK)
    let user = socket.peerUser()
    let mayChange = user == 0 || user == geteuid()
    let isAdmitted = state.withLock { state in
      guard state.clients < Self.clientsMax, mayChange || state.readers < Self.readersMax else { return false }
      state.clients += 1
      if !mayChange { state.readers += 1 }
      return true
    }
    let session = ControlSession(server: self, socket: socket, mayChange: mayChange)
    guard isAdmitted else { return session.refuse("gatewayd answers \(Self.clientsMax) requests at a time; try again") }
    if !ControlThread.start({ session.run() }) {
      session.refuse("gatewayd has no thread for this")
      release(mayChange: mayChange)
    }
  }

  /// A request is over: its client and its work.
  func release(mayChange: Bool) {
    state.withLock { state in
      state.clients -= 1
      if !mayChange { state.readers -= 1 }
    }
  }

  /// The directory of the socket, made if missing for us alone. In a directory that others may write to they could put a
  /// socket of their own in our place.
  private func prepareDirectory() throws(ControlError) {
    guard let slash = path.lastIndex(of: "/"), slash != path.startIndex else { return }
    let directory = String(path[..<slash])
    if mkdir(directory, 0o755) == 0 || errno == EEXIST {
      var info = stat()
      guard stat(directory, &info) == 0 else { return }
      let isOpen = info.st_mode & 0o002 != 0
      let isOurs = info.st_uid == geteuid() || info.st_uid == 0
      guard isOurs, !isOpen || info.st_mode & 0o1000 != 0 else {
        throw ControlError(.failed, "control socket: others may write to \(directory); use --control PATH")
      }
    } else {
      throw ControlError(.failed, "control socket: \(directory): \(SystemError.text(errno)); use --control PATH")
    }
  }

  /// Removes a socket that a dead daemon left.
  private func removeStale() throws(ControlError) {
    var info = stat()
    guard lstat(path, &info) == 0 else { return }
    guard info.st_mode & S_IFMT == S_IFSOCK else {
      throw ControlError(.failed, "control socket: \(path) is something else than a socket; use --control PATH")
    }
    let probe = try ControlSocket.make()
    defer { probe.close() }
    let code = probe.connect(to: path)
    guard code == ECONNREFUSED else {
      throw ControlError(
        .failed,
        code == 0 || code == EAGAIN
          ? "another gatewayd runs already: it answers at \(path)" : "control socket \(path): \(SystemError.text(code))"
      )
    }
    unlink(path)
  }
}
