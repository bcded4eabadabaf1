"""The machine with the kernel's initiator and open-iscsi."""

from . import target

ANY_SESSION = "/sys/class/iscsi_session/session*"


class Initiator:
    def __init__(self, machine, portal, name=target.NAME):
        """`portal`, `name`: the target's address and iSCSI name."""
        self.machine, self.portal, self.name = machine, portal, name
        # What discovery and sessions go over unless told otherwise: "tcp" or "iser".
        self.transport = "tcp"
        self.prepare()

    def prepare(self):
        """After each boot."""
        self.machine.run("modprobe -a scsi_transport_iscsi iscsi_tcp ib_iser sd_mod sg ext4; iscsid", 60)
        self.machine.until("grep -q ISCSIADM_ABS /proc/net/unix", 20, "iscsid is up")

    def interface(self, transport=None):
        """open-iscsi's name for a transport."""
        return {"tcp": "default", "iser": "iser"}[transport or self.transport]

    def discover(self, transport=None):
        """The names that SendTargets finds, with their portals."""
        return self.machine.run(
            f"iscsiadm -m discovery -t sendtargets -p {self.portal} -I {self.interface(transport)}", 60)

    def node(self, words="", transport=None):
        return f"iscsiadm -m node -T {self.name} -p {self.portal} -I {self.interface(transport)} {words}"

    def set(self, values):
        """Settings of the target's record: {"node.session.auth.authmethod": "CHAP"}."""
        self.machine.run("set -e; " + "; ".join(
            self.node(f"-o update -n '{name}' -v '{value}'") for name, value in values.items()))

    def login(self, transport=None):
        self.machine.run(self.node("--login", transport), 60)

    def try_login(self):
        """(status, output) of a login that may be refused."""
        return self.machine.attempt(self.node("-o update -n node.session.initial_login_retry_max -v 1") + ";"
                                    + self.node("--login"), 90)

    def logout(self, transport=None):
        self.machine.run(self.node("--logout", transport), 60)

    def forget(self):
        """Ends every session and forgets every record, whatever there is."""
        self.machine.attempt("multipath -F; killall multipathd; dmsetup remove_all --force; "
                             "rm -rf /etc/multipath /etc/multipath.conf; "
                             "while pidof multipathd; do usleep 100000; done", 40)
        self.machine.attempt("iscsiadm -m node -u; iscsiadm -m node -o delete; iscsiadm -m discoverydb -o delete", 90)

    def rescan(self):
        self.machine.run("iscsiadm -m session --rescan", 60)

    def disk(self, lun, seconds=30):
        """The device of a LUN, the first session's if there are several."""
        return self.disks(lun, 1, seconds)[0]

    def disks(self, lun, count, seconds=30):
        """The devices of a LUN, one for each session, in their order."""
        pattern = f"{ANY_SESSION}/device/target*/*:*:*:{lun}/block/*"
        found = self.machine.until(f"ls -d {pattern} | wc -l | grep -qx {count} && ls -d {pattern}", seconds,
                                   f"LUN {lun} is {count} disk(s)")
        return ["/dev/" + path.rsplit("/", 1)[1] for path in found.split()]

    def paths(self, lun, seconds=30):
        """The devices of a LUN by the transport that leads to each: {"iser": "/dev/sda", "tcp": "/dev/sdb"}."""
        script = (f"for session in {ANY_SESSION}; do "
                  f"for disk in $session/device/target*/*:*:*:{lun}/block/*; do "
                  "echo $(cat $session/device/../scsi_host/host*/proc_name) ${disk##*/}; done; done")
        found = self.machine.until(f"{script} | grep -q sd && {{ {script}; }}", seconds, f"LUN {lun} is a disk")
        names = {"iscsi_tcp": "tcp", "iscsi_iser": "iser"}
        return {names[kind]: "/dev/" + disk for kind, disk in (line.split() for line in found.splitlines())
                if disk.startswith("sd")}

    # ---- With `gatewayd attach` and dm-multipath

    def attach(self, address=None, words=""):
        """(status, output) of `gatewayd attach`."""
        return self.machine.attempt(f"gatewayd attach {address or self.portal} {words}", 150)

    def detach(self, address=None):
        return self.machine.attempt(f"gatewayd detach {address or self.portal}", 90)

    def attached(self, lun, *addresses, words=""):
        """Attaches the gateway by these addresses; the device of a LUN, a multipath map."""
        for address in addresses or [self.portal]:
            status, output = self.attach(address, words)
            if status != 0:
                raise AssertionError(output)
        (disk, *_) = self.paths(lun).values()
        return "/dev/mapper/" + self.machine.run(f"cat /sys/block/{disk.removeprefix('/dev/')}/holders/dm-*/dm/name")

    def resize(self, lun, device, size):
        """Every path of a multipath map is looked at anew, then the map has the new size in bytes."""
        for disk in self.routes(lun).values():
            # A path may be on its way back.
            self.machine.until(f"sg_turs {disk}; echo 1 >/sys/block/{disk.removeprefix('/dev/')}/device/rescan; "
                               f"[ $(blockdev --getsize64 {disk}) = {size} ]", 60, f"{disk} has grown")
        self.machine.run(f"multipathd resize map {device.removeprefix('/dev/mapper/')}", 60)
        self.machine.until(f"[ $(blockdev --getsize64 {device}) = {size} ]", 20, f"{device} has grown")

    def priorities(self):
        """What multipathd thinks of each disk: {"sda": (50, "ready"), …}."""
        lines = self.machine.run("multipathd show paths raw format '%d %p %T'").splitlines()
        # A state may be of two words: "i/o pending".
        return {disk: (int(priority), state) for disk, priority, state in (line.split(None, 2) for line in lines)}

    def carriers(self, lun, seconds=1):
        """The transports whose paths to a LUN carry requests now."""
        return self._busy(self.paths(lun), seconds)

    def routes(self, lun):
        """The devices of a LUN by address and transport: {("10.0.0.1", "tcp"): "/dev/sda"}."""
        found = self.machine.run(
            "for connection in /sys/class/iscsi_connection/connection*; do "
            "number=${connection##*/connection}; session=/sys/class/iscsi_session/session${number%%:*}; "
            f"for disk in $session/device/target*/*:*:*:{lun}/block/*; do echo $(cat $connection/persistent_address "
            "$session/device/../scsi_host/host*/proc_name) ${disk##*/}; done; done")
        names = {"iscsi_tcp": "tcp", "iscsi_iser": "iser"}
        return {(address, names[kind]): "/dev/" + disk
                for address, kind, disk in map(str.split, found.splitlines()) if disk.startswith("sd")}

    def busy_routes(self, lun, seconds=1):
        """Those that carry requests now."""
        return self._busy(self.routes(lun), seconds)

    def _busy(self, paths, seconds):
        count = "; ".join(f"echo $(cat /sys/block/{path.removeprefix('/dev/')}/stat)" for path in paths.values())
        before, after = (
            [int(words[0]) + int(words[4]) for words in map(str.split, half.splitlines())]
            for half in self.machine.run(f"{count}; sleep {seconds}; echo; echo ---; {count}").split("\n\n---\n"))
        return {name for name, first, second in zip(paths, before, after) if second > first}

    def has_disk(self, lun):
        return self.machine.attempt(f"ls -d {ANY_SESSION}/device/target*/*:*:*:{lun}/block/*")[0] == 0

    def kernel_log(self):
        return self.machine.run("dmesg")

    def clear_kernel_log(self):
        self.machine.run("dmesg -c >/dev/null")


def own_interface(machine, name):
    """An interface of open-iscsi's, if there is none of that name, with an initiator name that ends like it."""
    update = f"iscsiadm -m iface -I {name} -o update"
    machine.run(f"iscsiadm -m iface -I {name} >/dev/null 2>&1 && exit 0; set -e; iscsiadm -m iface -I {name} -o new; "
                f"{update} -n iface.transport_name -v tcp; "
                f"{update} -n iface.initiatorname -v iqn.2026-01.example.lab:{name}")


class Path:
    """A session with one portal under an initiator name of its own: one I_T nexus, which nobody else uses."""

    def __init__(self, machine, portal, name):
        """`name`: the end of the initiator name, and open-iscsi's name for it."""
        self.machine, self.portal, self.name = machine, portal, name

    def node(self, words):
        return f"iscsiadm -m node -T {target.NAME} -p {self.portal} -I {self.name} {words}"

    def login(self):
        own_interface(self.machine, self.name)
        # Commands of a session that is gone fail soon, for nobody takes them elsewhere.
        self.machine.run(f"set -e; {self.node('-o new')}; "
                         f"{self.node('-o update -n node.session.timeo.replacement_timeout -v 3')}; "
                         f"{self.node('--login')}", 90)
        return self

    def disk(self, lun, seconds=30):
        """The device of a LUN by this path."""
        host, port = self.portal.rsplit(":", 1)
        return self.machine.until(
            "for connection in /sys/class/iscsi_connection/connection*; do "
            "number=${connection##*/connection}; session=/sys/class/iscsi_session/session${number%%:*}; "
            "[ \"$(cat $session/initiatorname $connection/persistent_address $connection/persistent_port "
            f"| paste -s -d ' ')\" = 'iqn.2026-01.example.lab:{self.name} {host} {port}' ] || continue; "
            f"for disk in $session/device/target*/*:*:*:{lun}/block/*; do "
            "[ -b /dev/${disk##*/} ] && echo /dev/${disk##*/} && exit 0; done; done; exit 1",
            seconds, f"LUN {lun} is there by {self.portal} for {self.name}")
