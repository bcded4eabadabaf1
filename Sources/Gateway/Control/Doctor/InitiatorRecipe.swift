import Glibc

/// Commands for one kind of initiator, ready to paste.
public struct InitiatorRecipe: Codable, Sendable, Equatable {
  public var title: String
  public var commands: [String]

  /// For an address that initiators reach, `10.0.0.1` or `fd00::1`.
  public static func all(targetName: String, host: String, port: UInt16, lun: UInt16) -> [InitiatorRecipe] {
    let portal = ListenAddress(host: host, port: port).description
    let url = "iscsi://\(portal)/\(targetName)/\(lun)"
    return [
      InitiatorRecipe(
        title: "Linux, iSER and TCP as one device (from here; with gatewayd there: 'gatewayd attach')",
        commands: ["gatewayd attach '\(portal)' --print | ssh root@INITIATOR sh"]),
      InitiatorRecipe(
        title: "Linux (open-iscsi)",
        commands: [
          "iscsiadm -m discovery -t sendtargets -p '\(portal)'",
          "iscsiadm -m node -T '\(targetName)' -p '\(portal)' --login",
        ]),
      InitiatorRecipe(
        title: "libiscsi", commands: ["iscsi-ls --show-luns 'iscsi://\(portal)'", "iscsi-inq '\(url)'"]),
      InitiatorRecipe(
        title: "QEMU", commands: ["qemu-system-x86_64 -drive 'file=\(url),format=raw,if=virtio,cache=none'"]),
      InitiatorRecipe(
        title: "Windows (PowerShell)",
        commands: [
          "Set-Service MSiSCSI -StartupType Automatic; Start-Service MSiSCSI",
          "New-IscsiTargetPortal -TargetPortalAddress '\(host)' -TargetPortalPortNumber \(port)",
          "Connect-IscsiTarget -NodeAddress '\(targetName)' -IsPersistent $true",
        ]),
      InitiatorRecipe(
        title: "VMware ESXi (vmhba64: see 'esxcli iscsi adapter list')",
        commands: [
          "esxcli iscsi software set --enabled=true",
          "esxcli iscsi adapter discovery sendtarget add --adapter=vmhba64 --address='\(portal)'",
          "esxcli storage core adapter rescan --adapter=vmhba64",
        ]),
      multipath,
    ]
  }

  /// The same target over RDMA, for an address with its port that a NIC has.
  public static func overRDMA(targetName: String, portal: String) -> [InitiatorRecipe] {
    [
      InitiatorRecipe(
        title: "Linux over iSER (open-iscsi)",
        commands: [
          "modprobe ib_iser",
          // Discovery is the same over TCP; the interface "iser" comes with open-iscsi.
          "iscsiadm -m discovery -t sendtargets -p '\(portal)'",
          "iscsiadm -m node -o new -T '\(targetName)' -p '\(portal)' -I iser",
          "iscsiadm -m node -T '\(targetName)' -p '\(portal)' -I iser --login",
        ]),
      InitiatorRecipe(
        title:
          "VMware ESXi over iSER (vmhba65 and vmk1: see 'esxcli iscsi adapter list', 'esxcli network ip interface list')",
        commands: [
          "esxcli rdma device list",
          "esxcli rdma iser add",
          "esxcli iscsi networkportal add --adapter=vmhba65 --nic=vmk1",
          "esxcli iscsi adapter discovery sendtarget add --adapter=vmhba65 --address='\(portal)'",
          "esxcli storage core adapter rescan --adapter=vmhba65",
        ]),
    ]
  }

  /// For initiators that log in over two paths, RDMA and TCP or two networks: ALUA says which to prefer. Vendor and product
  /// are those of our INQUIRY data.
  static let multipath = InitiatorRecipe(
    title: "Linux with several paths (/etc/multipath.conf, then: multipathd reconfigure)",
    commands: [
      "devices {",
      "  device {",
      "    vendor \"GATEWAYD\"",
      "    product \"DISK\"",
      "    prio alua",
      "    path_grouping_policy group_by_prio",
      "    failback immediate",
      "    no_path_retry 12",
      "    fast_io_fail_tmo 5",
      "  }",
      "}",
    ])
}

/// The addresses of this machine's interfaces that are up.
enum OwnAddresses {
  /// Numeric, IPv4 first; without loopback and without IPv6 link-local ones, which need a scope that differs at each peer.
  static func all() -> [String] {
    var first: UnsafeMutablePointer<ifaddrs>?
    guard getifaddrs(&first) == 0 else { return [] }
    defer { freeifaddrs(first) }
    var addresses: [[UInt8]] = []
    var next = first
    while let entry = next?.pointee {
      next = entry.ifa_next
      let isUp = entry.ifa_flags & UInt32(IFF_UP) != 0
      let isLoopback = entry.ifa_flags & UInt32(IFF_LOOPBACK) != 0
      guard isUp, !isLoopback, let address = entry.ifa_addr else { continue }
      if let bytes = bytes(of: UnsafeRawPointer(address)) { addresses.append(bytes) }
    }
    let isLinkLocal: ([UInt8]) -> Bool = { $0.count == 16 && $0[0] == 0xFE && $0[1] & 0xC0 == 0x80 }
    return addresses.filter { !isLinkLocal($0) }.sorted { $0.count < $1.count }.map(IPNetwork.text(of:))
  }

  /// The 4 or 16 bytes of a socket address; nil: of another family.
  private static func bytes(of address: UnsafeRawPointer) -> [UInt8]? {
    // The family says which structure it is; both begin with it.
    switch Int32(address.loadUnaligned(as: sa_family_t.self)) {
    case AF_INET:
      withUnsafeBytes(of: address.loadUnaligned(as: sockaddr_in.self).sin_addr) { [UInt8]($0) }
    case AF_INET6:
      withUnsafeBytes(of: address.loadUnaligned(as: sockaddr_in6.self).sin6_addr) { [UInt8]($0) }
    default: nil
    }
  }
}
