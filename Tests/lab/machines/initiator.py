"""The machine with the kernel's initiator and open-iscsi."""

from . import target

ANY_SESSION = "/sys/class/iscsi_session/session*"


class Initiator:
    def __init__(self, machine, portal):
        self.machine, self.portal = machine, portal
        machine.run("modprobe -a scsi_transport_iscsi iscsi_tcp sd_mod sg ext4; iscsid", 60)
        machine.until("grep -q ISCSIADM_ABS /proc/net/unix", 20, "iscsid is up")

    def discover(self):
        """The names that SendTargets finds, with their portals."""
        return self.machine.run(f"iscsiadm -m discovery -t sendtargets -p {self.portal}", 60)

    def node(self, words=""):
        return f"iscsiadm -m node -T {target.NAME} -p {self.portal} {words}"

    def set(self, values):
        """Settings of the target's record: {"node.session.auth.authmethod": "CHAP"}."""
        self.machine.run("set -e; " + "; ".join(
            self.node(f"-o update -n '{name}' -v '{value}'") for name, value in values.items()))

    def login(self):
        self.machine.run(self.node("--login"), 60)

    def try_login(self):
        """(status, output) of a login that may be refused."""
        return self.machine.attempt(self.node("-o update -n node.session.initial_login_retry_max -v 1") + ";"
                                    + self.node("--login"), 90)

    def logout(self):
        self.machine.run(self.node("--logout"), 60)

    def forget(self):
        """Ends every session and forgets every record, whatever there is."""
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

    def has_disk(self, lun):
        return self.machine.attempt(f"ls -d {ANY_SESSION}/device/target*/*:*:*:{lun}/block/*")[0] == 0

    def kernel_log(self):
        return self.machine.run("dmesg")

    def clear_kernel_log(self):
        self.machine.run("dmesg -c >/dev/null")
