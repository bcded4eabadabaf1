"""Disks that come, go and come back, and disks that are nobody's to take. Loop devices stand in for them."""

import os
import tempfile
import time
import unittest
from pathlib import Path

from harness import initiator, process, scsi
from harness.case import GatewayCase, run_help
from harness.load import Writer
from harness.loops import LoopDisk, are_available
from harness.metadata import write_md_superblock


class DiskCase(GatewayCase):
    def setUp(self):
        if not are_available():
            self.skipTest("loop devices need root")
        if "--only" not in run_help():
            self.skipTest("this gatewayd has no --only: it would look at the machine's own disks")

    def loop(self, size=64 << 20, **options):
        return self.keep(LoopDisk(size, **options))

    def discover(self, *devices, **options):
        """A gateway that may look at these devices and no others."""
        only = [word for device in devices for word in ("--only", device)]
        gateway = self.start("memory:16M", discovery=True, arguments=only, **options)
        return gateway

    def report(self, gateway, device):
        """What `disks --json` tells of a device; None: nothing."""
        disks = gateway.ask_json("disks")
        return next((disk for disk in disks if disk["path"] == device), None)

    def verdict(self, gateway, device, wanted, seconds=5):
        """Waits until the disk is judged like this; the report."""
        def judged():
            report = self.report(gateway, device)
            return report if report is not None and report["verdict"] == wanted else None
        try:
            return process.wait_until(judged, seconds, f"{device} is {wanted}", step=0.02)
        except process.TimedOut:
            raise AssertionError(f"{device} is not {wanted}: {self.report(gateway, device)}") from None


class Comings(DiskCase):
    def test_disks_come_and_go_under_load(self):
        """Four disks appear and vanish under load, and the others see no error"""
        disks = [self.loop() for _ in range(4)]
        devices = [disk.device for disk in disks]
        for disk in disks[1:]:
            disk.detach()
        gateway = self.discover(*devices)
        first = self.verdict(gateway, devices[0], "exported")
        writers = [self.keep(Writer(gateway, lun=first["lun"])), self.keep(Writer(gateway, lun=0))]
        for writer in writers:
            writer.start()
        with initiator.Session(gateway) as session:
            session.ready()
            for _ in range(2):
                numbers = [self.appear(gateway, session, disk, device) for disk, device in zip(disks[1:], devices[1:])]
                self.assertEqual(len(set(numbers)), 3)
                for disk, number in zip(disks[1:], numbers):
                    self.vanish(session, disk, number)
        for writer in writers:
            writer.finish()
            self.assertGreater(writer.count, 100)
            self.assertLess(writer.longest, process.SLOWNESS)

    def appear(self, gateway, session, disk, device):
        before = set(self.luns(session))
        disk.attach(device)
        new = process.wait_until(lambda: set(self.luns(session)) - before, 10, f"{device} is a LUN")
        number = new.pop()
        session.ready(number)
        session.write(number, 0, bytes(4096)).good()
        return number

    def vanish(self, session, disk, number):
        disk.detach()
        process.wait_until(lambda: number not in self.luns(session), 10, f"LUN {number} is gone")

    def luns(self, session):
        return session.luns()

    def assert_told(self, session, code, lun=0):
        """A message with sense data: its length, then fixed format, UNIT ATTENTION with this code."""
        data = self.assert_message(session, 0, lun=lun, seconds=10)
        self.assertEqual((int.from_bytes(data[:2], "big"), data[2]), (len(data) - 2, 0x70))
        told = scsi.Result(scsi.CHECK_CONDITION, b"", data[2:])
        self.assertEqual((told.sense_key, told.asc), (scsi.UNIT_ATTENTION, code))
        # ADDITIONAL SENSE LENGTH.
        self.assertEqual(data[9], len(data) - 2 - 8)

    def test_messages(self):
        """A LUN that comes or goes: an Async Message to each session that has spoken, and a unit attention to all

        Not to one that is not shown it.
        """
        disk = self.loop()
        device = disk.device
        disk.detach()
        masks = '[[access.initiator]]\nname = "iqn.2026-01.example:masked"\nluns = [0]\n'
        gateway = self.discover(device, settings=masks)
        masked = self.keep(initiator.Session(gateway, initiator="iqn.2026-01.example:masked"))
        masked.ready()
        digests = {"HeaderDigest": "CRC32C", "DataDigest": "CRC32C"}
        spoken = [self.keep(initiator.Session(gateway, initiator=f"iqn.2026-01.example:spoken-{number}", keys=keys))
                  for number, keys in enumerate(({}, digests, {}))]
        for session in spoken:
            session.ready()
        seeker = self.keep(initiator.Session(gateway, initiator="iqn.2026-01.example:seeker", discovery=True))
        seeker.ping()
        silent = self.keep(initiator.Session(gateway, initiator="iqn.2026-01.example:silent"))
        for comes in (True, False):
            if comes:
                disk.attach(device)
            else:
                disk.detach()
            for session in spoken:
                self.assert_told(session, 0x3F0E)
                # Once for this, and what follows has the number that follows.
                expected = session.exp_stat_sn
                tag = session.begin(0, scsi.test_unit_ready())
                pdu = session.receive_for(tag)
                self.assertEqual(pdu.stat_sn, expected)
                sense = scsi.Result(pdu.status, b"", pdu.data[2:])
                self.assertEqual((sense.sense_key, sense.asc), (scsi.UNIT_ATTENTION, 0x3F0E))
                session.command(0, scsi.test_unit_ready()).good()
                self.assertEqual(list(session.pending), [])
                self.assertEqual(len(session.luns()), 2 if comes else 1)
            masked.command(0, scsi.test_unit_ready()).good()
            self.assertEqual((masked.luns(), list(masked.pending)), ([0], []))
            # A discovery session has no units; who has said nothing yet is sent nothing.
            expected = seeker.exp_stat_sn
            seeker.ping()
            self.assertEqual((seeker.exp_stat_sn, list(seeker.pending)), (expected + 1, []))
        with self.assertRaises(TimeoutError):
            silent.connection.receive(0.3)
        told = [silent.command(0, scsi.test_unit_ready()) for _ in range(4)]
        self.assertIn((scsi.UNIT_ATTENTION, 0x3F0E), [(each.sense_key, each.asc) for each in told if each.sense])
        self.assertEqual((told[-1].status, list(silent.pending)), (scsi.GOOD, []))

    def test_message_of_growth(self):
        """The Async Message of a disk that grows names its LUN"""
        disk = self.loop()
        gateway = self.discover(disk.device)
        number = self.verdict(gateway, disk.device, "exported")["lun"]
        self.assertNotEqual(number, 0)
        with initiator.Session(gateway) as session:
            session.ready()
            session.ready(number)
            disk.grow(96 << 20)
            self.assert_told(session, 0x2A09, lun=number)
            result = session.command(number, scsi.test_unit_ready())
            self.assertEqual((result.sense_key, result.asc), (scsi.UNIT_ATTENTION, 0x2A09))
            session.command(0, scsi.test_unit_ready()).good()

    def test_same_disk_same_lun(self):
        """A disk that comes back has the LUN and the NAA that it had, also behind another device node"""
        disk, spare = self.loop(), self.loop()
        first, second = disk.device, spare.device
        gateway = self.discover(first, second)
        number = self.verdict(gateway, first, "exported")["lun"]
        spare.detach()
        with initiator.Session(gateway) as session:
            session.ready()
            session.ready(number)
            session.write(number, 100, b"\x5A" * 512).good()
            before = scsi.naa(session.command(number, scsi.inquiry(0x83), read=255).good().data)
            disk.detach()
            process.wait_until(lambda: number not in session.luns(), 2, "the LUN is gone")
            process.wait_until(lambda: disk.is_gone(first), 5, f"{first} is released")
            for device in (first, second):
                disk.attach(device)
                process.wait_until(lambda: number in session.luns(), 2, "the LUN is back")
                session.ready(number)
                after = scsi.naa(session.command(number, scsi.inquiry(0x83), read=255).good().data)
                self.assertEqual(after, before)
                self.assertEqual(session.read(number, 100, 1).good().data, b"\x5A" * 512)
                disk.detach()
                process.wait_until(lambda: number not in session.luns(), 2, "the LUN is gone")
        self.assertIsNotNone(before)

    def test_over_a_restart(self):
        """LUN numbers and names stay over a restart, whatever order the disks come in"""
        disks = [self.loop() for _ in range(3)]
        devices = [disk.device for disk in disks]
        gateway = self.discover(*devices)
        before = {device: self.verdict(gateway, device, "exported")["lun"] for device in devices}
        self.assertEqual(gateway.terminate(), 0)
        for disk in disks:
            disk.detach()
        for disk, device in zip(disks, reversed(devices)):
            disk.attach(device)
        gateway.start()
        for disk, device in zip(reversed(disks), devices):
            was = before[devices[disks.index(disk)]]
            self.assertEqual(self.verdict(gateway, device, "exported")["lun"], was)

    def test_growth(self):
        """A disk that grows: CAPACITY DATA HAS CHANGED, and the new size"""
        disk = self.loop(64 << 20)
        gateway = self.discover(disk.device)
        number = self.verdict(gateway, disk.device, "exported")["lun"]
        with initiator.Session(gateway) as session:
            session.ready(number)
            before = session.capacity(number)[0]
            disk.grow(96 << 20)

            def grown():
                result = session.command(number, scsi.read_capacity16(), read=32)
                return result.status == scsi.GOOD and int.from_bytes(result.data[:8], "big") + 1 > before
            process.wait_until(grown, 3, "the LUN is larger")


    def test_growth_while_off(self):
        """A disk that grew while the gateway was off is held, and has number, name and content again after --grow"""
        disk = self.loop(64 << 20)
        device = disk.device
        gateway = self.discover(device)
        number = self.verdict(gateway, device, "exported")["lun"]
        with initiator.Session(gateway) as session:
            session.ready(number)
            session.write(number, 70000, b"\x5A" * 512).good()
            before = scsi.naa(session.command(number, scsi.inquiry(0x83), read=255).good().data)
        self.assertEqual(gateway.terminate(), 0)
        disk.grow(160 << 20)
        gateway.start()
        report = self.verdict(gateway, device, "held")
        self.assertIn("has grown", report["reason"])
        self.assertIn("--grow", report["advice"])
        gateway.ask("disks", "adopt", device, "--yes", "--grow")
        self.assertEqual(self.verdict(gateway, device, "exported")["lun"], number)
        with initiator.Session(gateway) as session:
            session.ready(number)
            self.assertEqual(scsi.naa(session.command(number, scsi.inquiry(0x83), read=255).good().data), before)
            self.assertEqual(session.read(number, 70000, 1).good().data, b"\x5A" * 512)
            self.assertEqual((session.capacity(number)[0]) * 512, 152 << 20)
            old = session.read(number, (56 << 20) // 512, 128).good().data
            self.assertEqual(old, bytes(len(old)))


class NotOurs(DiskCase):
    def assert_left_alone(self, device, *words, verdict=None, mounted=None):
        """The disk is held or refused, with these words in the reason, and not a byte of it has changed.

        `mounted` is the place of its file system, which is frozen meanwhile: ext4 goes on with its tables, bitmaps and
        superblock for seconds after a mount, and that is not to be mistaken for a gateway's doing.
        """
        if mounted:
            process.run(["fsfreeze", "--freeze", mounted])
        try:
            return self.compare_left_alone(device, *words, verdict=verdict)
        finally:
            if mounted:
                process.run(["fsfreeze", "--unfreeze", mounted])

    def compare_left_alone(self, device, *words, verdict=None):
        before = self.beginning(device)
        gateway = self.discover(device)
        report = process.wait_until(lambda: self.report(gateway, device), 5, f"{device} is reported")
        self.assertIn(report["verdict"], [verdict] if verdict else ["held", "refused"], report)
        for word in words:
            self.assertIn(word.lower(), report["reason"].lower())
        self.assertEqual(self.beginning(device), before)
        return gateway

    def beginning(self, device):
        """The first MiB; None where the machine lets nobody read its own disk, which then cannot be compared."""
        try:
            with open(device, "rb") as disk:
                return disk.read(1 << 20)
        except PermissionError:
            return None

    def test_file_system(self):
        """A disk with a file system is held"""
        disk = self.loop()
        process.run(["mkfs.ext4", "-q", "-F", disk.device])
        self.assert_left_alone(disk.device, "ext4", verdict="held")

    def test_mounted(self):
        """A mounted disk is refused, and says where it is mounted"""
        disk = self.loop()
        process.run(["mkfs.ext4", "-q", "-F", disk.device])
        with tempfile.TemporaryDirectory(prefix="gatewayd-mount-") as place:
            if process.run(["mount", disk.device, place], check=False).returncode != 0:
                self.skipTest("cannot mount here")
            try:
                self.assert_left_alone(disk.device, "mounted", verdict="refused", mounted=place)
            finally:
                process.run(["umount", place])

    def test_swap(self):
        """A disk in use as swap is refused"""
        disk = self.loop()
        process.run(["mkswap", disk.device])
        if process.run(["swapon", disk.device], check=False).returncode != 0:
            self.skipTest("no swap here")
        try:
            self.assert_left_alone(disk.device, "swap", verdict="refused")
        finally:
            process.run(["swapoff", disk.device])

    def test_swap_file(self):
        """A disk whose file system holds a swap file is refused"""
        disk = self.loop(128 << 20)
        process.run(["mkfs.ext4", "-q", "-F", disk.device])
        with tempfile.TemporaryDirectory(prefix="gatewayd-mount-") as place:
            if process.run(["mount", disk.device, place], check=False).returncode != 0:
                self.skipTest("cannot mount here")
            swap = Path(place, "swap")
            try:
                swap.write_bytes(bytes(16 << 20))
                swap.chmod(0o600)
                process.run(["mkswap", swap])
                if process.run(["swapon", swap], check=False).returncode != 0:
                    self.skipTest("no swap here")
                self.assert_left_alone(disk.device, verdict="refused", mounted=place)
            finally:
                process.run(["swapoff", swap], check=False)
                process.run(["umount", place])

    def test_md_member(self):
        """A member of a RAID is held, active or not"""
        disk = self.loop(attach=False)
        write_md_superblock(disk.file)
        disk.attach()
        self.assert_left_alone(disk.device, "linux_raid_member")

    def test_partitions(self):
        """A disk with a partition table is held, and says how many partitions"""
        disk = self.loop()
        process.run(["parted", "-s", disk.device, "mklabel", "gpt", "mkpart", "data", "1MiB", "100%"])
        self.assert_left_alone(disk.device, "partition")

    def test_unknown_content(self):
        """A disk with content that nobody knows is held"""
        disk = self.loop(attach=False)
        with open(disk.file, "r+b") as file:
            file.write(b"precious " * 1000)
        disk.attach()
        self.assert_left_alone(disk.device, verdict="held")

    def test_held_open(self):
        """A disk that somebody else holds is not taken (O_EXCL)"""
        disk = self.loop()
        holder = os.open(disk.device, os.O_RDWR | os.O_EXCL)
        self.addCleanup(os.close, holder)
        self.assert_left_alone(disk.device)

    def test_root_disk(self):
        """The disk the system runs from is refused"""
        source = process.run(["findmnt", "-no", "SOURCE", "/"]).stdout.strip()
        if not source.startswith("/dev/") or not Path(source).exists():
            self.skipTest("the root file system is on no block device")
        parent = process.run(["lsblk", "-no", "PKNAME", source], check=False).stdout.split()
        device = f"/dev/{parent[0]}" if parent else source
        if os.environ.get("CI"):
            self.assert_left_alone(device, verdict="refused")
            return
        # On somebody's own machine not even a broken gateway gets the chance.
        gateway = self.discover(self.loop().device)
        report = process.wait_until(lambda: self.report(gateway, device), 5, f"{device} is reported")
        self.assertEqual(report["verdict"], "refused", report)

    def test_adopt(self):
        """A held disk is exported after `disks adopt --wipe`, and not before"""
        disk = self.loop()
        process.run(["mkfs.ext4", "-q", "-F", disk.device])
        gateway = self.assert_left_alone(disk.device, verdict="held")
        refused = gateway.ask("disks", "adopt", disk.device, "--wipe", check=False)
        self.assertNotEqual(refused.returncode, 0, "without --yes")
        gateway.ask("disks", "adopt", disk.device, "--yes", "--wipe")
        number = self.verdict(gateway, disk.device, "exported")["lun"]
        with initiator.Session(gateway) as session:
            session.ready(number)
            session.read(number, 0, 8).good()

    def test_adopt_whole(self):
        """A disk adopted with --whole keeps its content and size, and its LUN and NAA over a restart"""
        disk = self.loop()
        with open(disk.device, "r+b") as file:
            file.write(b"precious" * 64)
        size = os.path.getsize(disk.file)
        gateway = self.assert_left_alone(disk.device, verdict="held")
        gateway.ask("disks", "adopt", disk.device, "--yes", "--whole")
        number = self.verdict(gateway, disk.device, "exported")["lun"]
        identities = []
        for _ in range(2):
            with initiator.Session(gateway) as session:
                session.ready(number)
                self.assertEqual(session.read(number, 0, 1).good().data, b"precious" * 64)
                session.write(number, size // 512 - 1, b"\xA5" * 512).good()
                identities.append(scsi.naa(session.command(number, scsi.inquiry(0x83), read=255).good().data))
            gateway.terminate()
            gateway.start()
            self.verdict(gateway, disk.device, "exported")
        self.assertEqual(identities[0], identities[1])
        with open(disk.device, "rb") as file:
            self.assertEqual(file.read(512), b"precious" * 64)

    def test_adopt_copy_whole(self):
        """A copy of a LUN's disk that is adopted with --whole is another LUN, whatever the label in its content says"""
        first, copy = self.loop(), self.loop()
        with open(copy.device, "r+b") as file:
            file.write(b"content")
        gateway = self.discover(first.device, copy.device)
        number = self.verdict(gateway, first.device, "exported")["lun"]
        self.verdict(gateway, copy.device, "held")
        with open(first.device, "rb") as source, open(copy.device, "r+b") as target:
            target.write(source.read())
            os.fsync(target.fileno())
        gateway.ask("disks", "adopt", copy.device, "--yes", "--whole")
        for _ in range(2):
            other = self.verdict(gateway, copy.device, "exported")["lun"]
            self.assertNotEqual(other, number, gateway.ask("disks").stdout + gateway.log)
            with initiator.Session(gateway) as session:
                session.ready(number)
                session.ready(other)
                names = {scsi.naa(session.command(lun, scsi.inquiry(0x83), read=255).good().data)
                         for lun in (number, other)}
                self.assertEqual(len(names), 2)
                self.assertEqual(session.capacity(other)[0] * 512, os.path.getsize(copy.file))
            gateway.terminate()
            gateway.start()

    def test_only(self):
        """A disk that --only does not name is not touched"""
        ours, other = self.loop(), self.loop()
        gateway = self.discover(ours.device)
        self.verdict(gateway, ours.device, "exported")
        report = self.report(gateway, other.device)
        self.assertTrue(report is None or report["verdict"] != "exported", report)
        with open(other.device, "rb") as disk:
            self.assertEqual(disk.read(1 << 20), bytes(1 << 20))

    def test_settings_name_disks(self):
        """Disks that the settings do not name are not touched, labelled or not, until the settings name them"""
        blank, labelled, content = self.loop(), self.loop(), self.loop()
        # More blank ones: none of them may get the number of the labelled one, though its label is read later.
        more = [self.loop() for _ in range(3)]
        gateway = self.discover(labelled.device)
        number = self.verdict(gateway, labelled.device, "exported")["lun"]
        gateway.stop()
        Path(content.device).write_bytes(b"precious" * 512)
        before = [Path(disk.device).read_bytes() for disk in (blank, labelled, content)]

        gateway = self.start("memory:16M", discovery=True, settings="[discovery]\nonly = []\n")
        for disk, word in ((blank, "blank"), (labelled, "label"), (content, "not touched")):
            report = self.verdict(gateway, disk.device, "held")
            self.assertEqual(report["code"], "not-chosen")
            self.assertIn(word, report["reason"])
            self.assertIn(disk.device, report["advice"])
            for way in ("--wipe", "--whole"):
                adoption = gateway.ask("disks", "adopt", disk.device, way, "--yes", check=False)
                self.assertEqual(adoption.returncode, 1, adoption)
                self.assertIn("reload", adoption.stderr)
        with initiator.Session(gateway) as session:
            self.assertEqual(len(session.luns()), 1)
            self.assertEqual([Path(disk.device).read_bytes() for disk in (blank, labelled, content)], before)
            names = ", ".join(f'"{disk.device}"' for disk in (blank, labelled, content, *more))
            gateway.settings_path.write_text(f"[discovery]\nonly = [{names}]\n")
            gateway.reload()
            self.assertEqual(self.verdict(gateway, labelled.device, "exported")["lun"], number)
            self.verdict(gateway, blank.device, "exported")
            for disk in more:
                self.verdict(gateway, disk.device, "exported")
            self.assertIn("adopt", self.verdict(gateway, content.device, "held")["advice"])
            self.assertEqual(len(session.luns()), 6)

            gateway.settings_path.write_text("[discovery]\nonly = []\n")
            gateway.reload()
            process.wait_until(lambda: "until the next start" in gateway.log, 5, "it is told what stays")
            self.assertEqual(len(session.luns()), 6)


if __name__ == "__main__":
    unittest.main()
