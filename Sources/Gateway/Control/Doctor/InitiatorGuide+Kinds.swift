import HA

/// What the gateway's side of a stall takes.
private enum Takeover {
  /// Silence, fence and recovery (docs/HA.md), rounded up.
  static let seconds = 1
  /// A restart of a gateway that is alone: what is under way, labels, a second to be up.
  static let restartSeconds = 5
  /// DefaultTime2Wait, which open-iscsi offers: it waits so long before it logs in again.
  static let loginAgainSeconds = 2
}

extension InitiatorGuide {
  // MARK: Linux

  static func linux(_ target: Target) -> InitiatorGuide {
    let timers = LinuxInitiator.multipath
    let settings = timers.nodeSettings.map { "  iscsiadm $record -o update -n '\($0.name)' -v \($0.value)" }
    var commands = [
      "mkdir -p /etc/multipath/conf.d; [ -e /etc/multipath.conf ] || : >/etc/multipath.conf",
      "cat >\(LinuxInitiator.dropIn) <<'EOF'",
    ]
    commands += timers.multipathDevices + ["EOF"]
    commands += [
      "systemctl enable --now iscsid multipathd; multipathd reconfigure", "attach() {",
      "  record=\"-m node -T \(target.name) -p $1 -I $2\"", "  iscsiadm $record -o new",
    ]
    commands += settings
    commands += ["  iscsiadm $record -o update -n node.startup -v automatic", "  iscsiadm $record --login", "}"]
    if !target.rdmaPortals.isEmpty { commands.append("modprobe ib_iser") }
    commands += target.rdmaPortals.map { "attach '\($0)' iser" }
    commands += target.portals.map { "attach '\($0)' default" }
    commands += [
      // Debian's multipath takes only disks that it was told of.
      "sleep 3; for d in /sys/block/sd*; do grep -q GATEWAYD $d/device/vendor && multipath -a /dev/${d##*/}; done",
      "multipathd reconfigure; multipath -ll",
    ]
    return InitiatorGuide(
      .linux,
      title:
        "Linux with open-iscsi and dm-multipath, for root's sh or bash (with gatewayd there: gatewayd attach ADDRESS)",
      notes: otherNodeNotes(target)
        + ["The same names in /etc/iscsi/iscsid.conf hold for all records that are made later."],
      commands: commands, stalls: target.isPair ? linuxStalls(timers) : aloneStalls)
  }

  /// For a pair, with these timers.
  static func linuxStalls(_ timers: LinuxInitiator) -> [InitiatorStall] {
    let given = timers.fastIOFail ?? timers.replacementTimeout
    let ping = timers.noopInterval + timers.noopTimeout
    let isMeasured = timers == .multipath
    return [
      InitiatorStall(
        fault: "kill -9 of the active",
        stall: isMeasured ? "5.3 to 7.1 s" : seconds(max(given, Takeover.seconds), plus: 1),
        basis: isMeasured ? .measured : .timers),
      InitiatorStall(
        fault: "planned switchover",
        stall: isMeasured ? "0.7 to 2.1 s, once 6.6 s" : seconds(min(given, Takeover.loginAgainSeconds), plus: 1),
        basis: isMeasured ? .measured : .timers),
      InitiatorStall(
        fault: "power-off, SIGSTOP, or its network cut",
        stall: isMeasured ? "15.5 to 16.5 s" : "up to \(seconds(ping + given, plus: 1))",
        basis: isMeasured ? .measured : .timers),
      InitiatorStall(
        fault: "both nodes away", stall: "errors after \(noPathSeconds + given) s (no_path_retry)", basis: .timers),
    ]
  }

  private static var noPathSeconds: Int { LinuxInitiator.checksWithoutPath * LinuxInitiator.checkSeconds }

  private static var aloneStalls: [InitiatorStall] {
    let given = LinuxInitiator.multipath.fastIOFail ?? 0
    let ping = LinuxInitiator.multipath.noopInterval + LinuxInitiator.multipath.noopTimeout
    return [
      InitiatorStall(
        fault: "one of several networks cut", stall: "up to \(seconds(ping + given, plus: 1))", basis: .timers),
      InitiatorStall(
        fault: "restart of gatewayd", stall: "\(Takeover.restartSeconds + LinuxInitiator.checkSeconds) s",
        basis: .timers),
      InitiatorStall(
        fault: "gateway away", stall: "errors after \(noPathSeconds + given) s (no_path_retry)", basis: .timers),
    ]
  }

  static func linuxServiceAddress(_ target: Target) -> InitiatorGuide {
    let timers = LinuxInitiator.singlePath
    let portal = target.servicePortals.first ?? "SERVICE-ADDRESS:3260"
    let again = Takeover.seconds + 2 * Takeover.loginAgainSeconds
    let commands =
      ["record='-m node -T \(target.name) -p \(portal) -I default'", "iscsiadm $record -o new"]
      + timers.nodeSettings.map { "iscsiadm $record -o update -n '\($0.name)' -v \($0.value)" }
      + ["iscsiadm $record -o update -n node.startup -v automatic", "iscsiadm $record --login"]
    return InitiatorGuide(
      .linuxServiceAddress,
      title:
        "Linux with open-iscsi, without multipath, on an address that moves with the active node; TCP only, for root's sh or bash",
      notes: target.servicePortals.isEmpty
        ? ["There is no service address yet: [pair] addresses in the settings of both nodes (docs/SETTINGS.md)."] : [],
      commands: commands,
      stalls: [
        InitiatorStall(fault: "kill -9 of the active", stall: "up to \(again) s", basis: .timers),
        InitiatorStall(fault: "planned switchover", stall: "up to \(again) s", basis: .timers),
        InitiatorStall(
          fault: "power-off, SIGSTOP",
          stall: "up to \(timers.noopInterval + again) s; "
            + "\(timers.noopInterval + timers.noopTimeout + again) s where a firewall drops the new owner's reset",
          basis: .timers),
        InitiatorStall(
          fault: "both nodes away", stall: "errors after \(timers.replacementTimeout) s (replacement_timeout)",
          basis: .timers),
      ])
  }

  // MARK: VMware

  static func vmware(_ target: Target) -> InitiatorGuide {
    let (interval, timeout, recovery) = (5, 10, 5)
    let set = "esxcli iscsi adapter param set --adapter=$HBA"
    var commands = [
      "HBA=vmhba64  # see: esxcli iscsi adapter list",
      "esxcli storage nmp satp rule add --satp=VMW_SATP_ALUA --psp=VMW_PSP_RR --vendor=GATEWAYD --model=DISK "
        + "--claim-option=tpgs_on --description=gatewayd",
      "esxcli iscsi software set --enabled=true",
      "\(set) --key=NoopOutInterval --value=\(interval)",
      "\(set) --key=NoopOutTimeout --value=\(timeout)",
      "\(set) --key=RecoveryTimeout --value=\(recovery)",
    ]
    commands += target.portals.map { "esxcli iscsi adapter discovery sendtarget add --adapter=$HBA --address=\($0)" }
    commands += ["esxcli storage core adapter rescan --adapter=$HBA", "esxcli storage nmp path list"]
    var notes = otherNodeNotes(target)
    if !target.rdmaPortals.isEmpty {
      notes.append(
        "Over iSER: esxcli rdma iser add; then HBA is its adapter, with 'esxcli iscsi networkportal add' for its interface."
      )
    }
    notes.append("Disks that ESXi has already seen take the rule after a restart of the host.")
    return InitiatorGuide(
      .vmware, title: "VMware ESXi, in its shell", notes: notes, commands: commands,
      stalls: [
        crash(target, noticedAfter: recovery),
        InitiatorStall(
          fault: silence(target),
          stall: "up to \(seconds(interval + timeout + recovery, plus: 1))", basis: .timers),
        InitiatorStall(
          fault: "no path at all",
          stall: "the host gives a disk up after 140 s (Misc.APDTimeout, its default); "
            + "virtual machines wait on", basis: .timers),
        InitiatorStall(fault: "ESXi has not been tried", stall: "nothing was measured", basis: .unknown),
      ])
  }

  // MARK: Windows

  static func windows(_ target: Target) -> InitiatorGuide {
    let linkDown = 10
    let hold = 120
    let keep = 60
    let parameters =
      "HKLM:\\SYSTEM\\CurrentControlSet\\Control\\Class\\{4d36e97b-e325-11ce-bfc1-08002be10318}\\*\\Parameters"
    var commands = [
      "Set-Service MSiSCSI -StartupType Automatic; Start-Service MSiSCSI",
      "Install-WindowsFeature Multipath-IO",
      "New-MSDSMSupportedHW -VendorId GATEWAYD -ProductId DISK",
      "Update-MPIOClaimedHW -Confirm:$false",
      "Set-MPIOSetting -NewPathVerificationState Enabled -NewPathVerificationPeriod 10 -NewPDORemovePeriod \(keep) "
        + "-NewDiskTimeout 60",
      // The initiator's own: of all adapters of that class only it has this value.
      "$own = Get-ItemProperty '\(parameters)' -ErrorAction SilentlyContinue | Where-Object MaxRequestHoldTime",
      "$own | Set-ItemProperty -Name LinkDownTime -Value \(linkDown)",
      "$own | Set-ItemProperty -Name MaxRequestHoldTime -Value \(hold)",
      "$own | Set-ItemProperty -Name EnableNOPOut -Value 1",
    ]
    for portal in target.portals {
      let (host, port) = parts(portal)
      commands += [
        "New-IscsiTargetPortal -TargetPortalAddress '\(host)' -TargetPortalPortNumber \(port)",
        "Connect-IscsiTarget -NodeAddress '\(target.name)' -TargetPortalAddress '\(host)' -TargetPortalPortNumber \(port) "
          + "-IsPersistent $true -IsMultipathEnabled $true",
      ]
    }
    commands.append("Restart-Computer -Confirm")
    return InitiatorGuide(
      .windows, title: "Windows Server, in PowerShell as Administrator",
      notes: otherNodeNotes(target) + [
        "Without PowerShell's module the claim is: mpclaim -r -i -d \"GATEWAYDDISK            \" (it restarts the machine).",
        "If Install-WindowsFeature asks for a restart: restart, and paste it again.",
        "With MPIO, LinkDownTime counts; MaxRequestHoldTime is for disks with a single path.",
      ], commands: commands,
      stalls: [
        crash(target, noticedAfter: linkDown),
        InitiatorStall(
          fault: silence(target),
          stall: "not known: how long Windows waits for a NOP-In is not documented; then \(linkDown) s", basis: .unknown
        ),
        InitiatorStall(
          fault: "no path at all", stall: "the disk goes after \(keep) s (PDORemovePeriod)", basis: .timers),
        InitiatorStall(fault: "Windows has not been tried", stall: "nothing was measured", basis: .unknown),
      ])
  }

  // MARK: libiscsi

  static func libiscsi(_ target: Target) -> InitiatorGuide {
    let portal = (target.servicePortals + target.portals).first ?? ""
    let url = "iscsi://\(portal)/\(target.name)/\(target.lun)"
    return InitiatorGuide(
      .libiscsi, title: "libiscsi, and QEMU by it: one path",
      notes: target.isPair && target.servicePortals.isEmpty
        ? ["For a pair it needs a service address: [pair] addresses in the settings of both nodes."] : [],
      commands: [
        "iscsi-ls --show-luns 'iscsi://\(portal)'", "iscsi-inq '\(url)'",
        "qemu-system-x86_64 -drive 'file=\(url),format=raw,if=virtio,cache=none'",
      ],
      stalls: [
        InitiatorStall(
          fault: "any", stall: "not known: libiscsi logs in again by itself, and was not tried with a pair",
          basis: .unknown)
      ])
  }

  // MARK: Small things

  /// Where the other path, or this node, is used again so many seconds after the connection broke.
  private static func crash(_ target: Target, noticedAfter timer: Int) -> InitiatorStall {
    InitiatorStall(
      fault: target.isPair ? "kill -9 of the active" : "restart of gatewayd",
      stall: seconds(timer, plus: target.isPair ? Takeover.seconds : Takeover.restartSeconds), basis: .timers)
  }

  /// The fault that only a ping notices.
  private static func silence(_ target: Target) -> String {
    target.isPair ? "power-off, SIGSTOP, or its network cut" : "one of several networks cut"
  }

  private static func otherNodeNotes(_ target: Target) -> [String] {
    target.portals.contains(otherNode)
      ? [
        "Replace OTHER-NODE by the other node's address; with several networks, add a line for each address of a node."
      ]
      : []
  }

  private static func seconds(_ timers: Int, plus more: Int) -> String { "\(timers + more) s" }

  /// `10.0.0.1:3260`, `[fd00::1]:3260`, also where the host is a word.
  private static func parts(_ portal: String) -> (host: String, port: String) {
    guard let colon = portal.lastIndex(of: ":") else { return (portal, "3260") }
    let host = portal[..<colon].filter { $0 != "[" && $0 != "]" }
    return (String(host), String(portal[portal.index(after: colon)...]))
  }
}
