/// What `gatewayd report` asks: commands whose answers hold no secrets. Settings are not among them.
public enum SupportReport {
  /// Of each answer.
  public static let bytesMax = 2 << 20

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
