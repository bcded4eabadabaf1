import CSystem
import Gateway
import Glibc

/// Everything wrong with a settings file, a line each, ready to print. Never a secret.
struct SettingsFileProblems: Error {
  var lines: [String]
}

/// The settings file: TOML in, checked settings out.
enum SettingsFile {
  static let standardPath = "/etc/gatewayd/gatewayd.toml"
  /// A settings file is a page or two.
  static let byteCountMax = 1 << 20

  /// The file to read: `--settings`; else one that came as a systemd credential; else the standard one if it is there. One that
  /// cannot be looked at is there, and so is a link that leads nowhere: what it says is not known, and the defaults export
  /// everything to everybody.
  /// - Parameter credentials: where they are, if not where this process has them.
  static func path(given: String?, credentials: String? = nil) -> String? {
    if let given { return given }
    let directory = credentials ?? getenv("CREDENTIALS_DIRECTORY").map { String(cString: $0) }
    return [directory.map { "\($0)/gatewayd.toml" }, standardPath].compactMap { $0 }.first {
      var info = stat()
      return lstat($0, &info) == 0 || errno != ENOENT
    }
  }

  /// CHAP secrets, the key of the pair and data of initiators are in the memory of this process: none of it goes to a core
  /// file. For those who look for a fault GATEWAYD_CORE in the environment leaves cores as the system has them.
  static func keepMemorySecret() {
    guard getenv("GATEWAYD_CORE") == nil else { return }
    let code = system_forbid_dumps()
    if code != 0 { Log.warning("cores of this process may have secrets in them: \(SystemError.text(-code))") }
  }

  /// Reads and checks the whole file.
  static func load(_ path: String) throws(SettingsFileProblems) -> Settings {
    keepMemorySecret()
    let (bytes, mode) = try contents(of: path)
    let document: TOMLDocument
    do { document = try TOMLReader.read(bytes) } catch {
      throw SettingsFileProblems(lines: ["\(path):\(error.line): \(error.message)"])
    }
    let settings: Settings
    do { settings = try SettingsReader.read(document.value) } catch {
      throw SettingsFileProblems(lines: error.lines(file: path, in: document))
    }
    if settings.hasSecrets, mode & S_IROTH != 0 {
      throw SettingsFileProblems(lines: [
        "\(path): the file holds CHAP secrets and everybody can read it; type: chmod o-rwx \(path)"
      ])
    }
    return settings
  }

  private static func contents(of path: String) throws(SettingsFileProblems) -> ([UInt8], mode_t) {
    func failed(_ code: Int32) -> SettingsFileProblems {
      SettingsFileProblems(lines: ["\(path): \(SystemError.text(code))"])
    }
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { throw failed(errno) }
    defer { close(descriptor) }
    var info = stat()
    guard fstat(descriptor, &info) == 0 else { throw failed(errno) }
    guard info.st_mode & S_IFMT == S_IFREG else {
      throw SettingsFileProblems(lines: ["\(path): not a regular file"])
    }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 64 << 10)
    while true {
      let count = read(descriptor, &chunk, chunk.count)
      guard count >= 0 else { throw failed(errno) }
      if count == 0 { return (bytes, info.st_mode) }
      bytes += chunk[..<count]
      guard bytes.count <= byteCountMax else {
        throw SettingsFileProblems(lines: ["\(path): larger than \(ByteCount.describe(UInt64(byteCountMax)))"])
      }
    }
  }
}

extension Settings {
  var hasSecrets: Bool {
    access.chap != nil || discoveryAuthentication != nil || access.rules.contains { $0.chap != nil }
  }
}
