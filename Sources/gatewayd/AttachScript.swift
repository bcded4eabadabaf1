import Gateway

/// What `gatewayd attach` and `detach` do on an initiator, as a POSIX shell script: it drives other programs and nothing
/// else, can be read before it is run, and goes to hosts that have no gatewayd (`--print`).
struct AttachScript {
  enum Action: String {
    case attach
    case detach
  }

  var action: Action
  /// Where the gateway is, numeric.
  var host: String
  /// `10.0.0.1:3260`, `[fd00::1]:3260`.
  var portal: String
  var usesRDMA = true
  var usesMultipath = true

  /// The whole script.
  var text: String {
    // Nothing in it needs more than quotes: addresses are numeric.
    """
    #!/bin/sh
    # gatewayd \(action.rawValue) \(portal): for root of a Linux host with open-iscsi and, for two paths, multipath-tools.
    action='\(action.rawValue)'
    portal='\(portal)'
    host='\(host)'
    use_rdma=\(usesRDMA ? 1 : 0)
    use_multipath=\(usesMultipath ? 1 : 0)

    """ + Self.body
  }

  private static func words(_ settings: LinuxInitiator) -> String {
    settings.nodeSettings.map { "'\($0.name)=\($0.value)'" }.joined(separator: " ")
  }

  private static let body = #"""

    drop_in=\#(LinuxInitiator.dropIn)
    mark="# gateway $portal"
    scratch=""
    trap '[ -z "$scratch" ] || rm -f "$scratch"' EXIT

    note() { printf 'gatewayd: %s\n' "$*" >&2; }
    die() { note "$@"; exit 1; }

    # ---- What this host has

    # The interface that leads to the gateway; nothing: there is no route.
    interface_to_gateway() { ip -o route get "$host" 2>/dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p;q'; }

    # Whether an RDMA device stands on this interface: IP over InfiniBand (type 32), or one whose GIDs are made of it.
    has_rdma() {
      [ "$(cat "/sys/class/net/$1/type" 2>/dev/null)" = 32 ] ||
        cat /sys/class/infiniband/*/ports/*/gid_attrs/ndevs/* 2>/dev/null | grep -qx "$1"
    }

    # Says why there can be no iSER; nothing: there can.
    why_no_iser() {
      interface=$(interface_to_gateway)
      if [ -z "$interface" ]; then
        echo "there is no route to $host"
      elif ! ls -d /sys/class/infiniband/* >/dev/null 2>&1; then
        echo "this host has no RDMA device"
      elif ! has_rdma "$interface"; then
        echo "no RDMA device leads to $host, which is reached through $interface"
      elif ! modprobe ib_iser 2>/dev/null && [ ! -d /sys/module/ib_iser ]; then
        echo "this kernel has no module ib_iser"
      fi
    }

    # Says why there can be no multipath; nothing: there can.
    why_no_multipath() {
      if ! command -v multipath >/dev/null || ! command -v multipathd >/dev/null; then
        echo "multipath-tools is missing (Debian: apt-get install multipath-tools; Fedora: dnf install device-mapper-multipath)"
      elif ! modprobe dm-multipath 2>/dev/null && [ ! -d /sys/module/dm_multipath ]; then
        echo "this kernel has no module dm-multipath"
      elif ! start_multipathd; then
        echo "multipathd does not run"
      fi
    }

    multipathd_runs() { multipathd show daemon 2>/dev/null | grep -q '^pid'; }

    start_multipathd() {
      multipathd_runs && return
      # It may want a file to start with.
      [ -e /etc/multipath.conf ] || [ ! -d /run/systemd/system ] || : >/etc/multipath.conf
      if [ -d /run/systemd/system ]; then systemctl enable --now multipathd >&2; else multipathd; fi || return
      for _ in 1 2 3 4 5 6 7 8 9 10; do
        multipathd_runs && return
        sleep 1
      done
      return 1
    }

    # ---- The multipath settings, with a line for each gateway that wants them

    write_drop_in() {
      mkdir -p "${drop_in%/*}"
      scratch=$(mktemp "$drop_in.XXXXXX") || die "cannot write $drop_in"
      {
        echo "# Written by 'gatewayd attach' for the gateways below; 'gatewayd detach' takes it away with the last of them."
        { grep '^# gateway ' "$drop_in" 2>/dev/null; echo "$mark"; } | sort -u
        cat <<'SETTINGS'
    \#(LinuxInitiator.multipath.multipathDevices.joined(separator: "\n"))
    SETTINGS
      } >"$scratch"
      chmod 644 "$scratch"
      if cmp -s "$scratch" "$drop_in"; then rm -f "$scratch"; else mv "$scratch" "$drop_in" && reconfigure; fi
      scratch=""
    }

    # Takes this gateway's line away, and the file with the last line.
    clear_drop_in() {
      grep -qxF "$mark" "$drop_in" 2>/dev/null || return 0
      if [ "$(grep -c '^# gateway ' "$drop_in")" -gt 1 ]; then
        scratch=$(mktemp "$drop_in.XXXXXX") && grep -vxF "$mark" "$drop_in" >"$scratch"
        chmod 644 "$scratch"
        mv "$scratch" "$drop_in"
        scratch=""
      else
        rm -f "$drop_in"
        ! multipathd_runs || reconfigure
      fi
    }

    reconfigure() { multipathd reconfigure >/dev/null 2>&1 || note "multipathd did not take the new settings"; }

    # ---- Sessions and disks, as the kernel tells of them

    # A line for each disk of a session with this portal: LUN, disk, transport.
    disks() {
      for connection in /sys/class/iscsi_connection/connection*; do
        [ "$(cat "$connection/persistent_address" 2>/dev/null)" = "$host" ] || continue
        [ "$(cat "$connection/persistent_port")" = "${portal##*:}" ] || continue
        number=${connection##*/connection}
        session=/sys/class/iscsi_session/session${number%%:*}
        case $(cat "$session"/device/../scsi_host/host*/proc_name 2>/dev/null) in
          *iser*) transport=iSER ;;
          *) transport=TCP ;;
        esac
        for block in "$session"/device/target*/*:*:*:*/block/*; do
          [ -e "$block" ] || continue
          lun=${block%/block/*}
          echo "${lun##*:} ${block##*/} $transport"
        done
      done
    }

    # The disks of all its sessions, once they are complete: the kernel looks for them after the login.
    settled_disks() {
      before=""
      for _ in 1 2 3 4 5 6 7 8; do
        now=$(disks)
        if [ -n "$now" ] && [ "$now" = "$before" ]; then break; fi
        before=$now
        sleep 1
      done
      ! command -v udevadm >/dev/null || udevadm settle --timeout=10
      echo "$now" | sort -n
    }

    # The multipath map that a disk is part of, as dm-N.
    map_of() {
      for holder in "/sys/block/$1/holders/"dm-*; do
        case $(cat "$holder/dm/uuid" 2>/dev/null) in mpath-*) echo "${holder##*/}" ;; esac
      done
    }

    # Whether something is mounted from a disk or map, or stands on it.
    is_in_use() {
      for device in "/sys/block/$1" "/sys/block/$1/$1"*; do
        [ -e "$device/dev" ] || continue
        if grep -q "^[0-9]* [0-9]* $(cat "$device/dev") " /proc/self/mountinfo; then return 0; fi
        # btrfs shows a number of its own there.
        if grep -q " - [^ ]* /dev/${device##*/} " /proc/self/mountinfo; then return 0; fi
        for member in /sys/fs/btrfs/*/devices/"${device##*/}"; do [ ! -e "$member" ] || return 0; done
        for holder in "$device"/holders/*; do
          [ -e "$holder" ] || continue
          case $(cat "$holder/dm/uuid" 2>/dev/null) in
            mpath-*) ;;
            part*-mpath-*) if is_in_use "${holder##*/}"; then return 0; fi ;;
            *) return 0 ;;
          esac
        done
      done
      if tail -n +2 /proc/swaps | grep -q "^/dev/$1[0-9p]* "; then return 0; fi
      # Who has it open, a virtual machine for example; udev and multipathd look at every disk.
      # shellcheck disable=SC2012 # Names of descriptors are numbers.
      for process in $(ls -l /proc/[0-9]*/fd 2>/dev/null |
        awk -v disk="^/dev/$1[0-9p]*\$" '/^\/proc/ { split($1, part, "/") } $NF ~ disk { print part[3] }'); do
        case $(cat "/proc/$process/comm" 2>/dev/null) in
          multipathd | systemd-udevd | *udev-worker* | "") ;;
          *) return 0 ;;
        esac
      done
      return 1
    }

    # ---- Attach

    # How soon a path that is gone is noticed and given up: with a second one beside it, or alone.
    set_timers() {
      if [ "$use_multipath" = 1 ]; then
        set -- \#(words(LinuxInitiator.multipath))
      else
        set -- \#(words(LinuxInitiator.singlePath))
      fi
      # shellcheck disable=SC2086 # As below.
      for timer in "$@"; do iscsiadm $record -o update -n "${timer%=*}" -v "${timer##*=}"; done
    }

    # Logs a target in by an interface of open-iscsi, and again at every boot: 0, or the reason is in $complaint.
    login() {
      record="-m node -T $target -p $portal -I $1"
      # shellcheck disable=SC2086 # These are words, and none of them has a blank or a star in it.
      {
        iscsiadm $record >/dev/null 2>&1 || complaint=$(iscsiadm $record -o new 2>&1) || return
        set_timers
        # Once now; at a boot the gateway may be later than this host.
        iscsiadm $record -o update -n node.session.initial_login_retry_max -v 1
        complaint=$(iscsiadm $record --login 2>&1)
        status=$?
        # 15: there is such a session already.
        if [ $status != 0 ] && [ $status != 15 ]; then
          complaint=$(printf '%s\n' "$complaint" | grep -i 'could not\|error\|initiator' | tail -n 1)
          iscsiadm $record -o delete >/dev/null 2>&1
          return 1
        fi
        iscsiadm $record -o update -n node.session.initial_login_retry_max -v 8
        iscsiadm $record -o update -n node.startup -v automatic
      }
    }

    attach_target() {
      over=""
      if [ -z "$no_iser" ]; then
        if login iser; then over=iSER; else note "no iSER: the login failed (${complaint:-no reason given}): TCP alone"; fi
      fi
      if [ -z "$over" ] || [ "$use_multipath" = 1 ]; then
        if login default; then over=${over:+$over and }TCP; else note "no TCP: the login failed (${complaint:-no reason given})"; fi
      fi
      [ -n "$over" ] && echo "$target at $portal over $over"
    }

    attach() {
      no_iser="--tcp-only was given"
      if [ "$use_rdma" = 1 ]; then
        no_iser=$(why_no_iser)
        [ -z "$no_iser" ] || note "no iSER: $no_iser: TCP alone"
      fi
      if [ "$use_multipath" = 1 ]; then
        reason=$(why_no_multipath)
        if [ -n "$reason" ]; then
          note "no multipath, so only one path to each disk: $reason"
          use_multipath=0
        fi
      fi
      modprobe iscsi_tcp 2>/dev/null
      found=$(iscsiadm -m discovery -t sendtargets -p "$portal" -o nonpersistent 2>&1) ||
        die "no gateway answers at $portal: $(printf '%s\n' "$found" | tail -n 1)"
      targets=$(printf '%s\n' "$found" | sed -n 's/^[^ ]*:[0-9]*,[0-9]* //p' | sort -u)
      [ -n "$targets" ] || die "the gateway at $portal shows this host no target"
      [ "$use_multipath" = 0 ] || write_drop_in
      is_attached=0
      for target in $targets; do
        if attach_target; then is_attached=1; fi
      done
      if [ $is_attached = 0 ]; then
        clear_drop_in
        die "nothing was attached"
      fi
      list=$(settled_disks)
      [ -n "$list" ] || { echo "The gateway exports no disk yet."; return; }
      [ "$use_multipath" = 0 ] || join "$list"
      show "$list"
    }

    # Makes one device of the paths to each disk. Debian's multipath takes only disks that it was told of.
    join() {
      for disk in $(echo "$1" | cut -d ' ' -f 2); do
        [ -n "$(map_of "$disk")" ] && continue
        multipath -a "/dev/$disk" >/dev/null 2>&1
        multipathd add path "$disk" >/dev/null 2>&1
      done
      for disk in $(echo "$1" | cut -d ' ' -f 2); do
        for _ in 1 2 3 4 5 6 7 8 9 10; do
          [ -n "$(map_of "$disk")" ] && break
          multipathd add map "$disk" >/dev/null 2>&1
          sleep 1
        done
      done
      ! command -v udevadm >/dev/null || udevadm settle --timeout=10
    }

    # A line for each LUN: the device to use, and the paths to it.
    show() {
      for lun in $(echo "$1" | cut -d ' ' -f 1 | uniq); do
        paths=$(echo "$1" | sed -n "s/^$lun //p" | sed 's/\(.*\) \(.*\)/\2 \1/' | sort | paste -s -d ,)
        disk=$(echo "$1" | sed -n "s/^$lun \([^ ]*\) .*/\1/p" | head -n 1)
        map=$(map_of "$disk")
        if [ -n "$map" ]; then name=mapper/$(cat "/sys/block/$map/dm/name"); else name=$disk; fi
        echo "LUN $lun: /dev/$name ($(echo "$paths" | sed 's/,/, /g'))"
      done
    }

    # ---- Detach

    # Refuses if something uses the disks, or lets go of their maps.
    release() {
      names=$(echo "$1" | cut -d ' ' -f 2)
      maps=$(for disk in $names; do map_of "$disk"; done | sort -u)
      lone=""
      for map in $maps; do
        others=0
        for path in "/sys/block/$map/slaves/"*; do
          echo "$names" | grep -qx "${path##*/}" || others=1
        done
        # A map with other paths stays.
        [ $others = 1 ] || lone="$lone $map"
      done
      for name in $names $lone; do
        [ -n "$(map_of "$name")" ] && continue
        if is_in_use "$name"; then die "$(shown "$name") is in use: nothing was changed"; fi
      done
      for map in $lone; do
        name=$(cat "/sys/block/$map/dm/name")
        paths=$(ls "/sys/block/$map/slaves")
        multipath -f "$name" >/dev/null 2>&1 || multipathd del map "$name" 2>/dev/null | grep -q ok ||
          die "/dev/mapper/$name is in use"
        for path in $paths; do multipath -w "/dev/$path" >/dev/null 2>&1; done
      done
    }

    shown() {
      if [ -e "/sys/block/$1/dm/name" ]; then echo "/dev/mapper/$(cat "/sys/block/$1/dm/name")"; else echo "/dev/$1"; fi
    }

    detach() {
      list=$(disks)
      if ! iscsiadm -m node -p "$portal" >/dev/null 2>&1 && [ -z "$list" ]; then
        clear_drop_in
        die "nothing of $portal is attached"
      fi
      [ -z "$list" ] || release "$list"
      # Not an error: a record without a session.
      iscsiadm -m node -p "$portal" --logout >/dev/null 2>&1
      left=$(disks)
      [ -z "$left" ] || die "the sessions with $portal did not end"
      iscsiadm -m node -p "$portal" -o delete >/dev/null 2>&1
      clear_drop_in
      echo "Detached from $portal."
    }

    [ "$(id -u)" = 0 ] || die "only root can do this"
    command -v iscsiadm >/dev/null ||
      die "iscsiadm is missing (Debian: apt-get install open-iscsi; Fedora: dnf install iscsi-initiator-utils)"
    command -v ip >/dev/null || die "ip is missing (Debian: apt-get install iproute2)"
    "$action"

    """#
}
