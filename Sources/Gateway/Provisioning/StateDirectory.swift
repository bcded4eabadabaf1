import Glibc
import Storage
import Wire

/// What is kept between starts besides the labels: the cluster and the next LUN number, so that a gateway whose disks are
/// all away still has its name and gives no number twice; the sizes of labelled disks, to find their labels again once they
/// have grown; and the disks that were adopted whole. One small file, replaced atomically.
extension Provisioner {
  private var statePath: String? { options.stateDirectory.map { "\($0)/cluster" } }

  /// Reads the state; a directory that does not exist is made.
  func loadState() throws(StartError) {
    guard let directory = options.stateDirectory, let path = statePath else { return }
    if mkdir(directory, 0o700) != 0, errno != EEXIST {
      let reason = String(cString: strerror(errno))
      throw StartError("the state directory \(directory) cannot be made: \(reason)", code: errno)
    }
    guard Glibc.access(directory, W_OK) == 0 else {
      let reason = String(cString: strerror(errno))
      throw StartError("the state directory \(directory) cannot be written: \(reason)", code: errno)
    }
    guard let text = Self.read(path) else { return }
    let lines = text.split(separator: "\n")
    let fields = lines.first?.split(separator: " ") ?? []
    guard fields.count == 2, let cluster = UUID(String(fields[0])), let next = UInt16(fields[1]), next < 16384,
      let (knownBytes, adopted) = Self.disks(lines.dropFirst())
    else {
      throw StartError("\(path) is damaged: remove it, and the cluster is taken from the disks' labels again")
    }
    state.withLock { state in
      state.cluster = cluster
      state.nextLUN = next
      state.adopted = adopted
      state.knownBytes = knownBytes
    }
  }

  /// The lines after the first: `size` and bytes; or UUID, LUN, identity (with blanks in it). nil if one is of no such form.
  private static func disks(_ lines: ArraySlice<Substring>) -> (Set<UInt64>, [String: Adopted])? {
    var known: Set<UInt64> = []
    var found: [String: Adopted] = [:]
    for line in lines {
      let fields = line.split(separator: " ", maxSplits: 2)
      if fields.first == "size" {
        guard fields.count == 2, let bytes = UInt64(fields[1]), known.count < State.knownBytesMax else { return nil }
        known.insert(bytes)
        continue
      }
      guard fields.count == 3, let uuid = UUID(String(fields[0])), let lun = UInt16(fields[1]), lun < 16384 else {
        return nil
      }
      found[String(fields[2])] = Adopted(uuid: uuid, lun: lun)
    }
    return (known, found)
  }

  /// The file's text; nil if there is none. At most 1 MiB of it.
  private static func read(_ path: String) -> String? {
    guard let file = fopen(path, "r") else { return nil }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 1 << 20)
    let count = fread(&bytes, 1, bytes.count, file)
    return String(decoding: bytes[..<count], as: UTF8.self)
  }

  /// Writes the state if there is a directory for it; a failure is told, and not fatal where the labels have the same.
  @discardableResult
  func saveState() -> Bool {
    guard let path = statePath else { return false }
    return saving.withLock { _ in save(path) }
  }

  /// One writer of the file at a time.
  private func save(_ path: String) -> Bool {
    let (cluster, next, adopted, known) = state.withLock { ($0.cluster, $0.nextLUN, $0.adopted, $0.knownBytes) }
    guard let cluster else { return false }
    var text = "\(cluster) \(next)\n"
    for bytes in known.sorted() { text += "size \(bytes)\n" }
    for (key, disk) in adopted.sorted(by: { $0.key < $1.key }) { text += "\(disk.uuid) \(disk.lun) \(key)\n" }
    let temporary = path + ".new"
    guard let file = fopen(temporary, "w") else {
      Log.warning("\(temporary) cannot be written: \(String(cString: strerror(errno)))")
      return false
    }
    let isWritten = fputs(text, file) >= 0 && fflush(file) == 0 && fsync(fileno(file)) == 0
    fclose(file)
    guard isWritten, rename(temporary, path) == 0 else {
      Log.warning("\(path) cannot be replaced: \(String(cString: strerror(errno)))")
      return false
    }
    return true
  }
}
