"""The unmodified image from its first start on: what it exports and refuses, keeps and shows, and what it takes."""

import hashlib
import os
import re
import shutil
import tempfile
import time
import unittest
from pathlib import Path

from appliance import IMAGES, REPOSITORY, ApplianceCase, initiate, latest, suffixed
from machines.places import run

MEMORY_MIB_MAX = 420
IMAGE_MIB_MAX = 120


class Size(ApplianceCase):
    @classmethod
    def setUpClass(cls):
        pass

    def test_size(self):
        """What an update brings, and what is flashed, have at most 120 MiB; the stick needs at most 1.1 GiB"""
        for suffix in (".efi", ".raw.zst"):
            self.assertLess(suffixed(latest(), suffix).stat().st_size, IMAGE_MIB_MAX << 20)
        self.assertLess(suffixed(latest(), ".raw").stat().st_size, 1.1 * (1 << 30))


class Rebuild(unittest.TestCase):
    def test_same_bytes(self):
        """Built twice of the same source, packages and key, all files are the same"""
        sums = []
        # A commit in between is another source.
        os.environ.setdefault("SOURCE_DATE_EPOCH", str(int(time.time())))
        self.addCleanup(os.environ.pop, "SOURCE_DATE_EPOCH")
        with tempfile.TemporaryDirectory(dir=IMAGES.parent) as directory:
            for name in ("one", "other"):
                output = Path(directory) / name
                run([REPOSITORY / "image" / "build", "--version", "1", "--key", IMAGES / "signing-key.pem",
                     "--output", output], 600)
                sums.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                             for path in output.glob("gatewayd-*")})
                shutil.rmtree(output)
        self.assertEqual(len(sums[0]), 10)
        self.assertEqual(*sums)


class Life(ApplianceCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.machine.blank("first", 64)
        cls.machine.blank("second", 96)
        cls.machine.power_on("first", "second")

    def test_1_exports(self):
        """At its first start it exports the two blank disks and refuses the one that it was started from"""
        page = self.machine.until(r"(?s)LUN 0 .*LUN 1 ").string
        self.assertRegex(page, r"Started from /dev/vd\w")
        self.assertRegex(page, r"Not exported /dev/vd\w refused: The running system is on it")
        self.assertRegex(page, r"Addresses +\S+ 10\.0\.2\.15/24")
        self.assertNotIn("Notes", page)

    def test_2_initiator(self):
        """An initiator writes and reads both LUNs"""
        for lun in (0, 1):
            initiate(f"write -P {0x51 + lun} 0 8M", f"read -P {0x51 + lun} 0 8M", url=self.machine.url(lun))

    def test_3_units(self):
        """No unit has failed, and the version has proven itself"""
        self.machine.until(r"^Version .*\(proven\)")
        self.machine.can_log_in()
        self.assertEqual(self.machine.run("systemctl --failed --no-legend --plain"), "")
        self.assertEqual(self.machine.run("ls /efi/EFI/Linux"), f"{latest().name}.efi")

    def test_4_boot_disk_cannot_be_opened(self):
        """The daemon's user cannot open the disk that the system was started from, and can open the others"""
        script = "setpriv --reuid gatewayd --regid gatewayd --groups disk dd if=%s of=/dev/null bs=4096 count=1"
        disk = self.machine.run("cat /run/gatewayd-boot/disk")
        status, output = self.machine.attempt(script % disk)
        self.assertNotEqual(status, 0)
        self.assertIn("Permission denied", output)
        self.machine.run(script % "/dev/disk/by-id/virtio-first")

    def test_5_memory(self):
        """It uses at most 420 MiB of memory, itself included"""
        facts = dict(re.findall(r"^(\w+): +(\d+) kB", self.machine.run("cat /proc/meminfo"), re.MULTILINE))
        used = (int(facts["MemTotal"]) - int(facts["MemAvailable"])) >> 10
        print(f"memory used: {used} MiB of {int(facts['MemTotal']) >> 10}; {self.machine.run('systemd-analyze time')}")
        self.assertLess(used, MEMORY_MIB_MAX)

    def test_6_hot_plug(self):
        """A blank disk that is plugged in becomes a LUN; one with a file system is held, and the page says why"""
        from machines.places import run
        self.machine.blank("third", 80)
        self.machine.plug("third")
        self.machine.until(r"LUN 2 .*80 MiB|LUN 2 72 MiB", 60)
        self.machine.unplug("third")
        self.machine.until(r"(?s)\A(?!.*LUN 2 .*online)", 60, "the third disk is gone")
        self.machine.blank("foreign", 72)
        run(["mkfs.ext4", "-q", self.machine.path("foreign")])
        self.machine.plug("foreign")
        self.machine.until(r"held: .*ext4", 60)

    def test_7_report(self):
        """The report has the log and every disk, and no settings"""
        report = self.machine.run("gatewayd report", 300)
        for word in ("==== ", "LUN", "gatewayd-state", "systemd[1]", "MemTotal"):
            self.assertIn(word, report)
        self.assertNotIn("[access", report)

    def test_8_restart(self):
        """After a restart it is the same: name, numbers, data, the key for logins; the disk's GUIDs are its own"""
        name, node = self.machine.target(), self.machine.run("cat /state/gatewayd/node")
        key = self.machine.run("sha256sum </state/host-key")
        guids = self.machine.run("lsblk -no PARTUUID,PTUUID $(cat /run/gatewayd-boot/disk)")
        self.assertNotIn("6b0e4c1d-51b1-4c9c-9f31-6d1b7b0a", guids.lower())
        self.machine.restart()
        self.machine.until(r"(?s)LUN 0 .*LUN 1 ")
        self.assertEqual(self.machine.target(), name)
        self.machine.can_log_in()
        self.assertEqual(self.machine.run("cat /state/gatewayd/node"), node)
        self.assertEqual(self.machine.run("sha256sum </state/host-key"), key)
        self.assertIn("systemd[1]", self.machine.run("cat /state/log/0"))
        for lun in (0, 1):
            initiate(f"read -P {0x51 + lun} 0 8M", url=self.machine.url(lun))

    def test_9_factory_reset(self):
        """A factory reset forgets what was kept on its own disk, and nothing on the data disks"""
        name, node = self.machine.target(), self.machine.run("cat /state/gatewayd/node")
        self.machine.run("mount -o remount,rw /efi && mkdir -p /efi/gatewayd && : >/efi/gatewayd/kept && sync && "
                         "mount -o remount,ro /efi; : >/state/old")
        self.machine.restart("gatewayd factory-reset --keep-settings --yes --reboot")
        self.machine.until(r"(?s)Notes +state-reset: done.*LUN 0 .*LUN 1 ")
        self.machine.can_log_in()
        self.assertEqual(self.machine.run("ls /efi/gatewayd; ls /state | grep -x old || true"), "README.txt\nkept")
        self.machine.restart("gatewayd factory-reset --yes --reboot")
        self.machine.until(r"(?s)Notes +factory-reset: done.*LUN 0 .*LUN 1 ")
        self.machine.can_log_in()
        self.assertEqual(self.machine.run("ls /efi/gatewayd 2>/dev/null || true"), "")
        self.assertEqual(self.machine.target(), name)
        self.assertNotEqual(self.machine.run("cat /state/gatewayd/node"), node)
        # A node with another identity looks for the one that the labels name, before it serves.
        self.machine.until(r"^Pair +this node is active")
        initiate(f"read -P {0x51} 0 8M", url=self.machine.url(0))


class Twins(ApplianceCase):
    def test_twins(self):
        """Two disks with the same image: it is not clear which is the system's, so neither is exported or written"""
        self.machine.flash("twin")
        self.machine.blank("data")
        before = self.machine.path("twin").read_bytes()[:1 << 20]
        self.machine.power_on("twin", "data")
        page = self.machine.until(r"(?s)LUN 0 .*/dev/vd").string
        self.assertIn("no state is kept: several disks carry what it was started from", page)
        self.assertEqual(len(re.findall(r"refused: The gateway's own system is on it|refused: The running system",
                                        page)), 2, page)
        self.assertEqual(self.machine.path("twin").read_bytes()[:1 << 20], before)


class Settings(ApplianceCase):
    def test_1_esp(self):
        """A settings file on the ESP is taken"""
        self.machine.put_on_esp("gatewayd.toml", '[target]\nname = "iqn.2026-01.example:esp"\n')
        self.machine.power_on()
        self.machine.until(r"^Target +iqn\.2026-01\.example:esp$")

    def test_2_credential(self):
        """Settings by a system credential go before those of the ESP"""
        self.machine.power_off()
        self.machine.credentials["gatewayd.toml"] = '[target]\nname = "iqn.2026-01.example:credential"\n'
        self.machine.power_on()
        self.machine.until(r"^Target +iqn\.2026-01\.example:credential$")


class NetworkStart(ApplianceCase):
    def test_network(self):
        """Started by kernel and initrd alone, as PXE does it, it exports a blank disk, and says that nothing is kept"""
        base = latest()
        self.machine.has_system = False
        self.machine.devices = ["-kernel", suffixed(base, ".vmlinuz"), "-initrd", suffixed(base, ".initrd"),
                                "-append", "console=tty0 console=ttyS0,115200 panic=10"]
        self.machine.blank("data")
        self.machine.power_on("data")
        self.machine.until(r"^Exported +LUN 0 ")
        self.assertIn("no state is kept", self.machine.page())
        initiate("write -P 7 0 64k", "read -P 7 0 64k", url=self.machine.url(0))
