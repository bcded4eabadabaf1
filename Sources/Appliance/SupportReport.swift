/// What `gatewayd report` asks: commands whose answers hold no secrets. Settings are not among them.
public enum SupportReport {
  /// Of each answer.
  public static let bytesMax = 2 << 20

  /// An answer without what must not leave the machine: credentials on the kernel's command line, which the kernel logs too.
  /// What comes behind one in its line is left out with it, for a value may have blanks.
  public static func redacted(_ text: String) -> String {
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map { line in
      let words = line.split(separator: " ", omittingEmptySubsequences: false)
      let first = words.firstIndex { $0.drop { $0 == "\"" }.hasPrefix("systemd.set_credential") }
      guard let first else { return line }
      let kept = words[..<first] + ["systemd.set_credential (left out, and what follows it)"]
      return Substring(kept.joined(separator: " "))
    }
    return lines.joined(separator: "\n")
  }

  public static func sections(program: String) -> [[String]] {
    let own = [
      ["version"], ["slots"], ["status"], ["disks"], ["nics"], ["sessions", "--json"], ["pair"], ["metrics"],
      ["doctor"],
    ]
    return own.map { [program] + $0 } + [
      ["cat", "/etc/os-release"], ["uname", "-a"], ["cat", "/proc/cmdline"], ["uptime"], ["cat", "/proc/meminfo"],
      ["cat", "/run/gatewayd-boot/notes"],
      ["lsblk", "--output", "NAME,SIZE,TYPE,FSTYPE,PARTLABEL,MOUNTPOINTS,MODEL,SERIAL,WWN,TRAN,ROTA"],
      ["findmnt", "--real"], ["df", "-h"],
      ["ip", "-details", "address"], ["ip", "-statistics", "link"], ["ip", "route"], ["ip", "-6", "route"],
      ["rdma", "link"], ["networkctl", "--no-pager", "status", "--all"], ["ss", "-tn"],
      ["systemctl", "--no-pager", "--failed"], ["systemctl", "--no-pager", "status", "gatewayd.service"],
      ["systemd-analyze", "blame", "--no-pager"],
      ["journalctl", "--no-pager", "--boot", "--lines=3000", "--output=short-iso"],
    ]
  }
}
