"""Disks that several machines share: LIO in a machine of its own exports them over iSCSI, with persistent reservations.

    lab = Lab("pair", modules=shared_disk.MODULES)
    jbod, left, right = (lab.machine(name) for name in ("jbod", "left", "right"))
    …ready…
    shelf = Shelf(jbod)
    lun = shelf.add("one", megabytes=64)
    path = Nexus(left, shelf).login().disk(lun)     # "/dev/sda"

A `Nexus` is a session of a machine; a second one under another initiator name is a second nexus of the same machine.
"""

from .initiator import ANY_SESSION, own_interface

NAME = "iqn.2026-01.example.lab:shelf"
MODULES = ["target_core_mod", "iscsi_target_mod", "target_core_iblock", "target_core_file"]
CONFIG = "/sys/kernel/config/target"
GROUP = f"{CONFIG}/iscsi/{NAME}/tpgt_1"


class Shelf:
    """The machine with the disks."""

    def __init__(self, machine):
        self.machine, self.portal = machine, f"{machine.address}:3260"
        self.disks = {}
        self.prepare()

    def prepare(self):
        """After each boot. LIO keeps in /etc/target/pr which registrations are to outlive a loss of power."""
        self.machine.run(f"modprobe -a {' '.join(MODULES)}; mkdir -p /etc/target/pr /var/target/pr /var/target/alua; "
                         "mount -t configfs none /sys/kernel/config 2>/dev/null; "
                         f"mkdir -p {CONFIG}/iscsi {GROUP}", 60)
        attributes = {"authentication": 0, "generate_node_acls": 1, "demo_mode_write_protect": 0,
                      "cache_dynamic_acls": 1, "default_cmdsn_depth": 64}
        self.machine.run("set -e; " + "; ".join(f"echo {value} >{GROUP}/attrib/{name}"
                                                for name, value in attributes.items()))
        # A small write goes out with its data: when nothing comes back, it is on the disk nevertheless.
        self.machine.run(f"echo No >{GROUP}/param/InitialR2T")
        self.machine.run(f"set -e; mkdir -p {GROUP}/np/{self.portal}; echo 1 >{GROUP}/enable")

    def add(self, name, megabytes=64):
        """A disk of so many MiB, with nothing on it; its LUN."""
        self.machine.plug(name, megabytes=megabytes)
        lun = len(self.disks)
        device = self.machine.until(f"for disk in /sys/block/vd*; do [ \"$(cat $disk/serial)\" = {name} ] && "
                                    "echo /dev/${disk##*/} && exit 0; done; exit 1", 20, f"{name} is a disk")
        # The serial number makes the NAA designator: its hexadecimal digits count, so it is made of those only.
        serial = "".join(f"{ord(letter):02x}" for letter in name)[:25]
        core = f"{CONFIG}/core/iblock_0/{name}"
        self.machine.run(f"set -e; mkdir -p {core}; echo udev_path={device} >{core}/control; echo 1 >{core}/enable; "
                         f"echo {serial} >{core}/wwn/vpd_unit_serial; "
                         f"mkdir -p {GROUP}/lun/lun_{lun}; ln -s {core} {GROUP}/lun/lun_{lun}/{name}")
        self.disks[name] = lun
        return lun

    def keep_out(self, machine, is_out=True):
        """Nothing goes to that machine any more, as if its cable were cut; or it does again."""
        self.machine.run(f"ip route {'add' if is_out else 'delete'} blackhole {machine.address}/32")

    def registrations(self, name):
        """What LIO itself knows: the registered keys, and the line that tells the reservation's type."""
        pr = f"{CONFIG}/core/iblock_0/{name}/pr"
        keys = self.machine.run(f"cat {pr}/res_pr_registered_i_pts").splitlines()
        found = [int(words[words.index("Key:") + 1], 16) for words in map(str.split, keys) if "Key:" in words]
        return sorted(found), self.machine.run(f"cat {pr}/res_pr_type")


class Nexus:
    """A session of a machine with the shelf, under an initiator name of its own."""

    def __init__(self, machine, shelf, name=None, timeout=5):
        """`name`: the end of the initiator name, and open-iscsi's name for it; none: the machine's own.

        `timeout`: seconds until commands of a session that is gone fail.
        """
        self.machine, self.shelf, self.name, self.timeout = machine, shelf, name, timeout

    @property
    def interface(self):
        return self.name or "default"

    def _node(self, words):
        return f"iscsiadm -m node -T {NAME} -p {self.shelf.portal} -I {self.interface} {words}"

    def login(self):
        self.machine.run("modprobe -a scsi_transport_iscsi iscsi_tcp sd_mod sg; pidof iscsid >/dev/null || iscsid", 60)
        self.machine.until("grep -q ISCSIADM_ABS /proc/net/unix", 20, "iscsid is up")
        if self.name is not None:
            own_interface(self.machine, self.name)
        self.machine.run(f"set -e; {self._node('-o new')}; "
                         f"{self._node(f'-o update -n node.session.timeo.replacement_timeout -v {self.timeout}')}; "
                         f"{self._node('--login')}", 90)
        return self

    def logout(self):
        self.machine.run(self._node("--logout"), 60)

    def rescan(self, lun):
        """Its kernel asks how large the disk is."""
        self.machine.run(f"echo 1 >/sys/block/{self.disk(lun).removeprefix('/dev/')}/device/rescan")

    def disk(self, lun, seconds=30):
        """The device of a LUN by this session."""
        name = f"iqn.2026-01.example.lab:{self.name or self.machine.name}"
        return self.machine.until(
            f"for session in {ANY_SESSION}; do "
            f"[ \"$(cat $session/targetname) $(cat $session/initiatorname)\" = '{NAME} {name}' ] || continue; "
            f"for disk in $session/device/target*/*:*:*:{lun}/block/*; do "
            "[ -b /dev/${disk##*/} ] && echo /dev/${disk##*/} && exit 0; done; done; exit 1",
            seconds, f"LUN {lun} is a disk")
