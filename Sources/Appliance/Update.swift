import Discovery
import Gateway
import Glibc

/// Brings another version onto the ESP. The signature comes first, then the ESP is looked at; the new file comes under another
/// name, is read again and proven again, and only then gets its own. Whatever fails, the version that runs stays.
public struct Update {
  public struct Problem: Error, Equatable, Sendable, CustomStringConvertible {
    public var description: String
    public init(_ description: String) { self.description = description }
  }

  /// What is left free on the ESP beyond the file.
  private static let spareBytes: UInt64 = 1 << 20
  /// An image of ours has some 70 MiB.
  public static let bytesMax: UInt64 = 512 << 20
  private static let temporaryName = "update.new"

  var directory = SystemFiles.slotsDirectory
  var mountPoint = "/efi"
  var key: UpdateKey
  private let turn: Turn

  /// One at a time: they share a name on the ESP and a place for what is fetched.
  private final class Turn: Sendable {
    let descriptor: Int32

    init() throws(Problem) {
      let path = "/run/gatewayd-update.lock"
      descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
      guard descriptor >= 0 else { throw Problem("\(path): \(SystemError.text(errno))") }
      guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
        throw Problem("another update, rollback or reset is under way")
      }
    }

    deinit { if descriptor >= 0 { close(descriptor) } }
  }

  public init() throws(Problem) {
    guard let text = SystemFiles.text(UpdateKey.standardPath), let key = UpdateKey(hexadecimal: text) else {
      throw Problem("this system has no key that updates are signed with (\(UpdateKey.standardPath))")
    }
    self.key = key
    turn = try Turn()
  }

  /// - Returns: The version that was installed.
  public func install(_ path: String, signature signaturePath: String) throws(Problem) -> String {
    guard let signature = KernelText.bytes(of: signaturePath, limit: UpdateKey.signatureBytes + 1) else {
      throw Problem("\(signaturePath): \(SystemError.text(errno))")
    }
    let image = try MappedFile(path)
    guard key.isSignature(signature, of: image.bytes) else {
      throw Problem("the signature is not that of this file by our key: it is damaged, or somebody else's")
    }
    let found: KernelImage
    do throws(KernelImage.Problem) { found = try KernelImage(RawSpan(_unsafeBytes: image.bytes)) } catch {
      throw Problem("\(path): \(error)")
    }
    let change: Slots.Change
    do throws(Slots.Refusal) { change = try SystemFiles.slots().installing(found.version) } catch {
      throw Problem(error.description)
    }
    try checkSpace(UInt64(image.bytes.count), change)
    try writable { () throws(Problem) in
      unlink("\(directory)/\(Self.temporaryName)")
      for file in change.removed { try remove(file) }
      try bring(image, signature)
      try finish(change)
    }
    return found.version
  }

  /// Has the other version taken at the next start.
  public static func goBack(_ slots: Slots) throws(Problem) {
    let change: Slots.Change
    do throws(Slots.Refusal) { change = try slots.goingBack() } catch { throw Problem(error.description) }
    let update = try Update()
    try update.writable { () throws(Problem) in try update.finish(change) }
  }

  /// What the removed ones take counts as free.
  private func checkSpace(_ bytes: UInt64, _ change: Slots.Change) throws(Problem) {
    let freed = change.removed.reduce(UInt64(0)) { $0 + (SystemFiles.byteCount("\(directory)/\($1)") ?? 0) }
    let free = SystemFiles.freeBytes(directory) + freed
    guard free >= bytes + Self.spareBytes else {
      throw Problem("the ESP has room for \(free >> 20) MiB, and \(bytes >> 20) MiB are needed")
    }
  }

  /// The ESP is writable only while something is done to it.
  func writable(_ body: () throws(Problem) -> Void) throws(Problem) {
    try remount("rw")
    defer {
      sync()
      try? remount("ro")
    }
    try body()
  }

  private func remount(_ mode: String) throws(Problem) {
    let result = SystemFiles.run(["mount", "-o", "remount,\(mode)", mountPoint])
    guard result?.status == 0 else {
      throw Problem("\(mountPoint) cannot be mounted '\(mode)': \(result?.output ?? "")")
    }
  }

  /// FAT frees a file's room and its name in any order. A version that has its name and not all of its room any more would be
  /// started: so it loses its name first, for good.
  private func remove(_ file: String) throws(Problem) {
    let path = "\(directory)/\(Self.temporaryName)"
    guard rename("\(directory)/\(file)", path) == 0 else { throw Problem("\(file): \(SystemError.text(errno))") }
    try SystemFiles.flush(directory)
    unlink(path)
  }

  /// Writes the file under a name that the boot loader does not take, and reads it back from the medium.
  private func bring(_ image: borrowing MappedFile, _ signature: [UInt8]) throws(Problem) {
    let path = "\(directory)/\(Self.temporaryName)"
    do throws(Problem) {
      try SystemFiles.write(image.bytes, to: path)
      let copy = try MappedFile(path)
      guard key.isSignature(signature, of: copy.bytes) else {
        throw Problem("what was written is not what is read again")
      }
    } catch {
      unlink(path)
      throw error
    }
  }

  private func finish(_ change: Slots.Change) throws(Problem) {
    var renamings = change.renamed
    if let added = change.added { renamings.insert(.init(from: Self.temporaryName, to: added), at: 0) }
    for renaming in renamings {
      guard rename("\(directory)/\(renaming.from)", "\(directory)/\(renaming.to)") == 0 else {
        let reason = SystemError.text(errno)
        unlink("\(directory)/\(Self.temporaryName)")
        throw Problem("\(renaming.from): \(reason)")
      }
      // One name after the other, also in a disk that keeps writes in a cache: where the running version's name changes, the
      // other one has to be there for good. FAT has the place of a file in its name: so the file first, then the directory.
      try SystemFiles.flush("\(directory)/\(renaming.to)")
      try SystemFiles.flush(directory)
    }
  }
}

/// A file in memory for as long as this lives; nobody else writes to it.
struct MappedFile: ~Copyable {
  let bytes: UnsafeRawBufferPointer

  init(_ path: String) throws(Update.Problem) {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw Update.Problem("\(path): \(SystemError.text(errno))") }
    defer { close(descriptor) }
    guard let count = SystemFiles.byteCount(path), count > 0, count <= Update.bytesMax else {
      throw Update.Problem("\(path): it is empty or too large")
    }
    // From the medium, not from the cache: this is also how a copy is read again.
    posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED)
    guard let start = mmap(nil, Int(count), PROT_READ, MAP_PRIVATE, descriptor, 0), start != MAP_FAILED else {
      throw Update.Problem("\(path): \(SystemError.text(errno))")
    }
    bytes = UnsafeRawBufferPointer(start: start, count: Int(count))
  }

  deinit { munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count) }
}

/// Asks the next start to forget what is kept (image/tree/usr/lib/gatewayd/state does it).
public enum FactoryReset {
  /// - Parameter keepsSettings: what an operator has put on the ESP stays; only the state partition is made anew.
  public static func request(keepsSettings: Bool) throws(Update.Problem) {
    try Update().writable { () throws(Update.Problem) in
      mkdir("/efi/gatewayd", 0o700)
      let name = keepsSettings ? "state-reset" : "factory-reset"
      try SystemFiles.write(UnsafeRawBufferPointer(start: nil, count: 0), to: "/efi/gatewayd/\(name)")
    }
  }
}
