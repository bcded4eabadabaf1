"""The Debian package in a Debian that runs: its own systemd, udev, open-iscsi and a kernel, in an emulated machine.

./dev deb --test makes the package and the system, and says where they are: GATEWAYD_DEB, GATEWAYD_DEB_SYSTEM (a tar
file).
"""

import os
import re
import shutil
import tempfile
import unittest
from pathlib import Path

from harness import process
from machines.image import tool
from machines.lab import Lab
from machines.places import LAB
from machines.scene import counts, verify_command
from test_package import PACKAGE, STATE, UNITS, later

SYSTEM = Path(os.environ.get("GATEWAYD_DEB_SYSTEM", "none"))
AGENT = """[Unit]
Description=What the host asks for
After=multi-user.target

[Service]
ExecStart=/usr/local/sbin/lab-agent debian
StandardOutput=tty
TTYPath=/dev/ttyS0
OOMScoreAdjust=-1000

[Install]
WantedBy=multi-user.target
"""
DISK = "/dev/disk/by-id/virtio-data"
CHOSEN = f'[discovery]\nonly = ["{DISK}"]\n'
SERVICES = [unit.replace(".socket", ".service") for unit in UNITS]


def install_root(directory, packages):
    """A disk's image with the system, the lab's agent in it, and packages in /srv."""
    tree, image = directory / "tree", directory / "root.raw"
    tree.mkdir()
    process.run(["tar", "--extract", "--file", SYSTEM, "--directory", tree, "--numeric-owner"], seconds=300)
    for name, path in packages.items():
        shutil.copy(path, tree / f"srv/{name}.deb")
    shutil.copy(LAB / "guest" / "agent", tree / "usr/local/sbin/lab-agent")
    shutil.copy(tool("verify", ["-static"]), tree / "usr/local/bin/verify")
    system = tree / "etc/systemd/system"
    (system / "lab-agent.service").write_text(AGENT)
    (system / "multi-user.target.wants").mkdir(exist_ok=True)
    (system / "multi-user.target.wants/lab-agent.service").symlink_to("../lab-agent.service")
    # Nobody looks at its screens.
    (system / "getty.target").symlink_to("/dev/null")
    (tree / "etc/hostname").write_text("debian\n")
    with open(image, "wb") as file:
        file.truncate(2 << 30)
    process.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", tree, image], seconds=300)
    shutil.rmtree(tree)
    return image


class Systemd(unittest.TestCase):
    """One machine, and its package's life in the order of the tests' names."""

    goes_on = True

    @classmethod
    def setUpClass(cls):
        if not process.is_root():
            raise unittest.SkipTest("the owners of a system's files need root")
        cls.directory = Path(tempfile.mkdtemp(prefix="gatewayd-deb-"))
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        packages = {"first": PACKAGE, "later": later(cls.directory)}
        # What the package has loaded, and the lab's other machines do without.
        lab = Lab("debian", modules=["nvme"])
        cls.addClassCleanup(lab.close)
        cls.machine = lab.machine("debian", megabytes=1024, root=install_root(cls.directory, packages))
        print(f"debian: booted in {cls.machine.ready():.1f} s", flush=True)
        cls.machine.plug("data", megabytes=96)

    def run_in(self, script, seconds=60):
        return self.machine.run(script, seconds)

    def assert_well(self):
        """No unit has failed, of ours or of anybody's."""
        self.assertEqual(self.run_in("systemctl list-units --failed --plain --no-legend"), "")

    def install(self, name, how="--install"):
        said = self.run_in(f"DEBIAN_FRONTEND=noninteractive dpkg --force-confold {how} {name}", 240)
        self.assertNotRegex(said.lower(), r"error|cannot|not found|unbound|failed")

    def lun(self):
        """The kernel's disk that is our LUN."""
        return "/dev/" + self.machine.until(
            "set -- /sys/class/iscsi_session/session*/device/target*/*/block/*; [ -e $1 ] && echo ${1##*/}", 60,
            "the LUN is a disk")

    def test_1_installed(self):
        """Installed, the service runs as its user in its sandbox, enabled, and exports nothing; no unit fails"""
        self.run_in("systemctl is-system-running --wait >/dev/null || true", 240)
        failed = self.run_in("systemctl list-units --failed --plain --no-legend")
        self.assertEqual(failed, "", "before the package is there")
        self.install("/srv/first.deb")
        self.assert_well()
        for unit in UNITS:
            self.assertEqual(self.run_in(f"systemctl is-active {unit}; systemctl is-enabled {unit}"), "active\nenabled")
        self.assertEqual(self.run_in("ps -o user= -C gatewayd | sort -u"), "gatewayd")
        shown = dict(line.split("=", 1) for line in self.run_in(
            "systemctl show gatewayd -p CapabilityBoundingSet -p NRestarts -p StatusText").splitlines())
        self.assertEqual((shown["CapabilityBoundingSet"], shown["NRestarts"]), ("", "0"))
        status = self.run_in("cat /proc/$(systemctl show gatewayd -p MainPID --value)/status")
        for line in ("CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
            self.assertIn(line, status)
        self.assertNotIn("exported", self.run_in("gatewayd disks"))
        exposure = self.run_in("systemd-analyze security --no-pager gatewayd.service | tail -n 1")
        print(f"      {exposure}", flush=True)
        self.assertLess(float(re.search(r"gatewayd.service: ([0-9.]+)", exposure).group(1)), 3)

    def test_2_chosen(self):
        """A disk that the settings choose is a LUN after a reload, the disk of the system never; the kernel logs in"""
        self.run_in(f"printf '%s' '{CHOSEN}' >/etc/gatewayd/gatewayd.toml; systemctl reload gatewayd; "
                    "systemctl is-active gatewayd")
        self.run_in("systemctl restart gatewayd")
        self.machine.until(f"gatewayd disks | grep $(readlink -f {DISK}) | grep exported", 60, "the disk is exported")
        root = self.run_in("findmnt -no SOURCE /")
        self.assertNotIn("exported", self.run_in(f"gatewayd disks | grep {root}"))
        self.run_in("iscsiadm -m discovery -t sendtargets -p 127.0.0.1 && iscsiadm -m node --login", 120)
        output = self.run_in(verify_command(self.lun(), seconds=5, depth=4), 90)
        self.assertGreater(counts(output)["writes"], 0)
        self.assert_well()

    def busy(self, event):
        """Verified I/O over the session while something is done to the service: the longest request, ms."""
        self.machine.background("verify", verify_command(self.lun(), seconds=600, depth=4))
        self.run_in("sleep 3")
        event()
        # Until it is over, however slow the machine is, and a time of quiet after it.
        self.run_in("sleep 10; pkill -TERM -x verify")
        status, output = self.machine.finish("verify", 120)
        if status != 0:
            output += self.run_in("dmesg | tail -n 40; journalctl -u iscsid -u gatewayd --no-pager | tail -n 40")
        self.assertEqual(status, 0, output)
        return counts(output)["longest"]

    def test_3_upgrade(self):
        """An upgrade under verified load is one restart; the session goes on, without an error"""
        # Unpacking takes long here, and disturbs nobody; the second half is the one that restarts.
        self.install("/srv/later.deb", "--unpack")
        longest = self.busy(lambda: self.install("gatewayd", "--configure"))
        log = self.run_in(
            "journalctl -u gatewayd -o short-monotonic --no-pager | grep -E 'Stopping|Started' | tail -n 2")
        stopping, started = (float(re.search(r"\[ *([0-9.]+)\]", line).group(1)) for line in log.splitlines())
        print(f"      upgrade: {started - stopping:.2f} s from the stop to the next start, the longest request "
              f"{longest} ms", flush=True)
        self.assertGreater(longest / 1000, (started - stopping) / 2, "the restart was under no load")
        self.assertIn("99.0-1", self.run_in("dpkg-query -W -f '${Version}' gatewayd"))
        self.assertIn("virtio-data", self.run_in("cat /etc/gatewayd/gatewayd.toml"))
        self.assert_well()

    def test_4_killed(self):
        """Killed under verified load it is started again, and nothing is lost"""
        longest = self.busy(lambda: self.run_in("systemctl kill --signal=KILL --kill-who=main gatewayd"))
        print(f"      kill -9: the longest request {longest} ms", flush=True)
        self.assertEqual(self.run_in("systemctl show gatewayd -p NRestarts --value"), "1")
        self.assert_well()

    def test_5_restart_of_the_machine(self):
        """After the machine starts again the LUN is there, with its number, and the initiator's session too"""
        before = self.run_in("gatewayd disks --json | tr -d ' \\n' | grep -o '\"lun\":[0-9]*'")
        self.run_in("iscsiadm -m node -o update -n node.startup -v automatic; sync")
        self.machine.power_cut()
        self.machine.plug("data")
        self.machine.until(f"gatewayd disks | grep $(readlink -f {DISK}) | grep exported", 120, "the disk is exported")
        self.assertEqual(self.run_in("gatewayd disks --json | tr -d ' \\n' | grep -o '\"lun\":[0-9]*'"), before)
        # open-iscsi does it at its start, if that is after the gateway's; else its user does.
        self.machine.until("iscsiadm -m session || { iscsiadm -m node --login && iscsiadm -m session; }", 120,
                           "the initiator is logged in")
        # It was before the disk was there, perhaps: a message tells of that.
        self.run_in(verify_command(self.lun(), seconds=2), 90)

    def test_6_removed(self):
        """Removed, nothing of it runs or fails, and the state stays; purged, nothing is left but the user"""
        self.run_in("iscsiadm -m node --logout; iscsiadm -m node -o delete", 120)
        said = self.run_in("dpkg --remove gatewayd", 120)
        self.assertNotRegex(said.lower(), r"error|cannot|failed")
        self.assertEqual(self.run_in("pgrep -x gatewayd || true"), "")
        self.assertEqual(self.run_in("ls -d /run/gatewayd 2>/dev/null || true"), "")
        self.run_in(f"test -d /{STATE} && test -e /etc/gatewayd/gatewayd.toml")
        self.assert_well()
        said = self.run_in("dpkg --purge gatewayd", 120)
        self.assertNotRegex(said.lower(), r"error|cannot|failed")
        left = self.run_in("find / -xdev -path /proc -prune -o -path /sys -prune -o -path /var/lib/dpkg -prune -o "
                           "-path /var/log -prune -o -name '*gatewayd*' -print")
        self.assertEqual(left, "")
        for unit in {*UNITS, *SERVICES}:
            self.assertEqual(self.run_in(f"systemctl is-active {unit} || true"), "inactive")
        self.assert_well()


if __name__ == "__main__":
    unittest.main()
