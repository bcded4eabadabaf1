"""Updates as the ESP has them after each write: in a machine of the lab, with the image's disk and small versions."""

import io
import os
import random
import subprocess
import tarfile
import unittest

from appliance import IMAGES, WORK, latest, sign, suffixed
from esp import ESP, ESP_SECTOR, SECTOR, Judge, logged
from machines.lab import Lab
from machines.places import run

# So many times power is lost at a random write, and the ESP repaired as the next start does it.
REPAIRS = 20
MODULES = ["vfat", "nls_cp437", "nls_ascii", "nls_utf8"]


def small_version(version):
    """A signed .efi that says it is this version, and that no machine could start."""
    scratch = WORK / "small"
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "os-release").write_text(f"IMAGE_ID=gatewayd\nIMAGE_VERSION={version}\n")
    (scratch / "cmdline").write_text("quiet")
    for name, count in (("linux", 1 << 20), ("initrd", 3 << 20)):
        (scratch / name).write_bytes(os.urandom(count))
    path = scratch / f"{version}.efi"
    run([IMAGES.parents[1] / "image" / "uki", IMAGES / "stub", *(scratch / name for name in (
        "os-release", "cmdline", "linux", "initrd")), path])
    sign(path)
    return path


class Writes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = Lab("esp", modules=MODULES)
        cls.addClassCleanup(cls.lab.close)
        cls.machine = cls.lab.machine("esp")
        cls.disk, cls.log = cls.lab.directory / "disk", cls.lab.directory / "writes"
        run(["cp", "--sparse=always", suffixed(latest(), ".raw"), cls.disk])
        cls.first = latest().name.removeprefix("gatewayd-")
        run(["mren", "-i", f"{cls.disk}@@1M", f"::EFI/Linux/gatewayd-{cls.first}+3.efi", f"gatewayd-{cls.first}.efi"])
        cls.small = {version: small_version(version) for version in ("0.0.1", "94", "95")}
        public = WORK / "small" / "public"
        run(["openssl", "pkey", "-in", IMAGES / "signing-key.pem", "-pubout", "-outform", "DER", "-out", public])
        key = public.read_bytes()[-32:].hex()
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path in cls.small.values():
                for name in (path.name, path.name + ".sig"):
                    tar.add(path.with_name(name), name)
            entry = tarfile.TarInfo("update.pub")
            entry.size = len(key)
            tar.addfile(entry, io.BytesIO(key.encode()))
        cls.machine.ready()
        cls.machine.plug("files", megabytes=64, content=archive.getvalue())

    def test_every_write(self):
        """After each write of updates and of the way back, and with losses of a disk's cache, a whole version starts"""
        machine = self.machine
        before = self.lab.directory / "before"
        run(["dd", f"if={self.disk}", f"of={before}", "bs=1M", "skip=1", "count=1024", "conv=sparse", "status=none"])
        esp = ESP(self.disk)
        with open(self.log, "wb") as log:
            log.truncate(8 << 30)
        machine.qmp("blockdev-add", driver="raw", node_name="node-system", file={
            "driver": "blklogwrites", "log-sector-size": 512,
            "file": {"driver": "file", "filename": str(self.disk)},
            "log": {"driver": "file", "filename": str(self.log)}})
        machine.qmp("device_add", id="system", driver="virtio-blk-pci", drive="node-system", serial="system")
        machine.run(f"modprobe -a {' '.join(MODULES)}; mkdir -p /efi /up /usr/lib/gatewayd", 60)
        for name, action in (("files", "tar -x -f /dev/${disk##*/} -C /up && cp /up/update.pub /usr/lib/gatewayd/"),
                             ("system", "mount -t vfat -o ro,umask=0077 /dev/${disk##*/}1 /efi")):
            machine.until(f"for disk in /sys/block/vd*; do if [ $(cat $disk/serial) = {name} ]; then {action}; exit; "
                          "fi; done; exit 1", 60, f"{name} is a disk")

        def runs(version):
            """As if it had been started, and had proven itself."""
            machine.run(f"echo IMAGE_VERSION={version} >/usr/lib/os-release; cd /efi/EFI/Linux; "
                        f"[ ! -e gatewayd-{version}+3.efi ] || {{ mount -o remount,rw /efi && "
                        f"mv gatewayd-{version}+3.efi gatewayd-{version}.efi && sync && "
                        "mount -o remount,ro /efi; }", 120)

        runs(self.first)
        # A newer one; in its place an older one, for which the one that runs gets another name; a newer one than that,
        # and from there the way back.
        for version in ("94", "0.0.1"):
            machine.run(f"gatewayd update /up/{version}.efi", 120)
        runs("0.0.1")
        machine.run("gatewayd update /up/95.efi", 120)
        runs("95")
        machine.run("gatewayd rollback", 120)
        self.assertEqual(machine.run("ls /efi/EFI/Linux").split(), ["gatewayd-0.0.1.efi", "gatewayd-95+0.efi"])
        machine.run("umount /efi; sync", 60)
        machine.power_off()
        judge = Judge(esp, self.small | {self.first: suffixed(latest(), ".efi")})
        for sector, data in logged(self.log):
            if data is None:
                judge.flush()
            else:
                judge.write(sector, data)
        self.repair(before, judge)
        print(judge.summary(), flush=True)
        self.assertEqual(judge.faults, [], "\n".join(judge.faults))
        self.assertEqual(set(name.partition("+")[0].removesuffix(".efi") for name in judge.seen),
                         {f"gatewayd-{version}" for version in (self.first, "94", "0.0.1", "95")})

    def repair(self, before, judge):
        """Image and tests repair the same way (image/tree/usr/lib/gatewayd/state)."""
        copy = self.lab.directory / "repaired"
        generator = random.Random(1)
        for end in sorted(generator.sample(range(1, judge.writes), REPAIRS)):
            run(["cp", "--sparse=always", before, copy])
            number = 0
            with open(copy, "r+b") as file:
                for sector, data in logged(self.log):
                    if number == end:
                        break
                    if data is not None:
                        number += 1
                        file.seek((sector - ESP_SECTOR) * SECTOR)
                        file.write(data)
            subprocess.run(["fsck.vfat", "-a", "-w", copy], stdout=subprocess.DEVNULL, timeout=60, check=False)
            # Now there is nothing more to repair.
            run(["fsck.vfat", "-n", copy])
            judge.judge(ESP(copy, 0), f"repaired as after write {end}")
