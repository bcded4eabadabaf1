import Glibc
import Storage

/// What is kept between starts besides the labels: the cluster, and the next LUN number, so that a gateway whose disks are
/// all away still has its name and gives no number twice. One line in a file, replaced atomically.
extension Provisioner {
  private var statePath: String? { options.stateDirectory.map { "\($0)/cluster" } }

  /// Reads the state; a directory that does not exist is made.
  func loadState() throws(StartError) {
    guard let directory = options.stateDirectory, let path = statePath else { return }
    if mkdir(directory, 0o700) != 0, errno != EEXIST {
      let reason = String(cString: strerror(errno))
      throw StartError("the state directory \(directory) cannot be made: \(reason)", code: errno)
    }
    guard access(directory, W_OK) == 0 else {
      let reason = String(cString: strerror(errno))
      throw StartError("the state directory \(directory) cannot be written: \(reason)", code: errno)
    }
    guard let line = Identity.readLine(of: path) else { return }
    let fields = line.split(separator: " ")
    guard fields.count == 2, let cluster = UUID(String(fields[0])), let next = UInt16(fields[1]), next <= Label.lunCount else {
      throw StartError("\(path) is damaged: remove it, and the cluster is taken from the disks' labels again")
    }
    state.withLock { state in
      state.cluster = cluster
      state.nextLUN = next
    }
  }

  /// Writes the state if there is a directory for it; a failure is told, not fatal: the labels have it all.
  func saveState() {
    guard let path = statePath else { return }
    let (cluster, next) = state.withLock { ($0.cluster, $0.nextLUN) }
    guard let cluster else { return }
    let temporary = path + ".new"
    guard let file = fopen(temporary, "w") else {
      return Log.warning("\(temporary) cannot be written: \(String(cString: strerror(errno)))")
    }
    let isWritten = fputs("\(cluster) \(next)\n", file) >= 0 && fflush(file) == 0 && fsync(fileno(file)) == 0
    fclose(file)
    guard isWritten, rename(temporary, path) == 0 else {
      return Log.warning("\(path) cannot be replaced: \(String(cString: strerror(errno)))")
    }
  }
}
