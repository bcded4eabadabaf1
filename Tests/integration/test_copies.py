"""EXTENDED COPY, SANITIZE, WRITE ATOMIC and what else is more than a transfer, over several LUNs and sessions."""

import os
import struct
import tempfile
import time
import unittest
from pathlib import Path

from harness import initiator, process, scsi
from harness.case import GatewayCase

SANITIZE_IN_PROGRESS, SANITIZE_FAILED = 0x041B, 0x3103


def write_atomic(lba, blocks):
    return struct.pack(">BBQHHBB", 0x9C, 0, lba, 0, blocks, 0, 0)


class Case(GatewayCase):
    def session(self, gateway, name="test", luns=(0,), **options):
        session = self.keep(initiator.Session(gateway, initiator=f"iqn.2026-01.example:{name}", **options))
        for lun in luns:
            session.ready(lun)
        return session

    def name(self, session, lun):
        return scsi.naa(session.command(lun, scsi.inquiry(0x83), read=255).data)

    def file(self, megabytes=72):
        directory = tempfile.TemporaryDirectory(prefix="gatewayd-disk-")
        self.addCleanup(directory.cleanup)
        path = Path(directory.name) / "disk"
        with open(path, "wb") as file:
            file.truncate(megabytes << 20)
        return path


class Copies(Case):
    def copy(self, session, targets, segments, lun=0, **options):
        parameters = scsi.copy_parameters(targets, segments, **options)
        return session.command(lun, scsi.extended_copy(len(parameters)), write=parameters, seconds=20)

    def test_between_units(self):
        """Blocks come from one LUN to another, of another block length too, and within one"""
        gateway = self.start("memory:16M", self.file(24), "memory:16M",
                             settings='[[disk]]\nname = "*#2"\nblock-bytes = 4096\n', arguments=["--threads", "2"])
        session = self.session(gateway, luns=range(3))
        self.assertEqual(sorted(session.capacity(lun)[1] for lun in range(3)), [512, 512, 4096])
        large = next(lun for lun in range(3) if session.capacity(lun)[1] == 4096)
        small, other = [lun for lun in range(3) if lun != large]
        targets = [(self.name(session, lun), session.capacity(lun)[1]) for lun in (small, other, large)]
        data = os.urandom(5 << 20)
        for start in range(0, len(data), 1 << 20):
            session.write(small, start // 512, data[start:start + (1 << 20)]).good()
        blocks = len(data) // 512
        self.copy(session, targets, [(0, 1, blocks, 0, 1000), (1, 2, blocks, 1000, 3)]).good()
        for lun, lba, length in [(other, 1000, 512), (large, 3, 4096)]:
            found = b"".join(session.read(lun, lba + start // length, (1 << 20) // length, length).good().data
                             for start in range(0, len(data), 1 << 20))
            self.assertEqual(found, data)
        status = session.command(0, scsi.receive_copy_results(0), read=64).good().data
        self.assertEqual(status[4:12], bytes([1, 0, 2, 0]) + (2 * len(data)).to_bytes(4, "big"))
        self.assert_alive(gateway)

    def test_masked(self):
        """A LUN that the initiator does not see cannot be read or written by a copy"""
        settings = '[[access.initiator]]\nname = "iqn.2026-01.example:few"\nluns = [0]\n'
        gateway = self.start("memory:16M", "memory:16M", settings=settings)
        everything = self.session(gateway, "all", luns=(0, 1))
        targets = [(self.name(everything, lun), 512) for lun in (0, 1)]
        secret = os.urandom(4096)
        everything.write(1, 0, secret).good()
        few = self.session(gateway, "few")
        for segment in [(0, 1, 8, 0, 0), (1, 0, 8, 0, 0)]:
            result = self.copy(few, targets, [segment])
            self.assertEqual((result.sense_key, result.asc), (0xA, 0x0804))
        self.assertEqual(everything.read(1, 0, 8).good().data, secret)
        self.assertEqual(few.read(0, 0, 8).good().data, bytes(4096))

    def test_reserved(self):
        """A reservation of the destination stops a copy, also one that is under way"""
        gateway = self.start("slow:64M:30", "slow:64M:30", arguments=["--threads", "2"])
        copier, other = self.session(gateway, "copier", luns=(0, 1)), self.session(gateway, "other", luns=(0, 1))
        targets = [(self.name(copier, lun), 512) for lun in (0, 1)]
        parameters = scsi.copy_parameters(targets, [(0, 1, 65535, 0, 0)])
        tag = copier.begin(0, scsi.extended_copy(len(parameters)), write=parameters)
        time.sleep(0.3)
        other.command(1, bytes([0x16, 0, 0, 0, 0, 0])).good()
        result = copier.finish(tag, write=parameters, seconds=5)
        self.assertEqual((result.sense_key, result.asc), (0xA, 0x0D01))
        details = copier.command(0, scsi.receive_copy_results(4), read=128).good().data
        self.assertEqual(details[56], scsi.RESERVATION_CONFLICT)

    def test_into_a_hole(self):
        """Copies to a disk that gives nothing back are on its account: the LUN that they come from is served on"""
        gateway = self.start("memory:64M", "faulty:64M:hang=8+131064", arguments=["--threads", "1"],
                             settings='[limits]\nmemory = "16M"\n')
        for number in range(4):
            copier = initiator.Session(gateway, initiator=f"iqn.2026-01.example:copier-{number}")
            copier.ready(0)
            copier.ready(1)
            targets = [(self.name(copier, lun), 512) for lun in (0, 1)]
            for identifier in range(16):
                # Each to a place of its own: where one is lost others wait, without memory.
                place = (16 * number + identifier + 1) * 512
                parameters = scsi.copy_parameters(targets, [(0, 1, 512, 0, place)], identifier=identifier)
                copier.begin(0, scsi.extended_copy(len(parameters)), write=parameters)
            time.sleep(0.3)
            copier.close()
        session = self.session(gateway, luns=(0, 1))
        for _ in range(20):
            session.read(0, 0, 512, seconds=3).good()
            session.write(0, 0, bytes(65536), seconds=3).good()

    def test_aborted(self):
        """A long copy ends within a bound when it is aborted or its session goes, and others are served meanwhile"""
        gateway = self.start("slow:64M:30", "memory:64M", arguments=["--threads", "1"])
        copier, other = self.session(gateway, "copier", luns=(0, 1)), self.session(gateway, "other", luns=(0, 1))
        targets = [(self.name(copier, lun), 512) for lun in (0, 1)]
        parameters = scsi.copy_parameters(targets, [(0, 1, 65535, 0, 0), (1, 0, 65535, 0, 0)])
        tag = copier.begin(0, scsi.extended_copy(len(parameters)), write=parameters)
        time.sleep(0.2)
        self.assertEqual(copier.command(0, scsi.receive_copy_results(0), read=12).good().data[4], 0)
        begin = time.monotonic()
        other.read(1, 0, 8).good()
        self.assertLess(time.monotonic() - begin, 1)
        self.assertEqual(copier.task_management(initiator.ABORT_TASK, 0, tag, seconds=3), 0)
        self.assertEqual(copier.command(0, scsi.receive_copy_results(0), read=12).sense_key, scsi.ILLEGAL_REQUEST)
        copier.begin(0, scsi.extended_copy(len(parameters)), write=parameters)
        time.sleep(0.1)
        copier.close()
        self.session(gateway, "next", luns=(0, 1)).write(1, 0, bytes(4096)).good()
        process.wait_until(lambda: gateway.ask_json("status")["memory"]["arenaUsedBytes"] == 0, 5, "buffers come back")
        self.assert_alive(gateway)

    def test_in_memory(self):
        """A copy between disks in memory leaves others their turn"""
        gateway = self.start("memory:256M", "memory:256M", arguments=["--threads", "1"])
        copier, other = self.session(gateway, "copier", luns=(0, 1)), self.session(gateway, "other", luns=(0, 1))
        targets = [(self.name(copier, lun), 512) for lun in (0, 1)]
        parameters = scsi.copy_parameters(targets, [(i % 2, 1 - i % 2, 65535, 0, 65536) for i in range(64)])
        tag = copier.begin(0, scsi.extended_copy(len(parameters)), write=parameters)
        worst, answers = 0, 0
        end = time.monotonic() + 1
        while time.monotonic() < end:
            begin = time.monotonic()
            other.read(0, 0, 8).good()
            worst, answers = max(worst, time.monotonic() - begin), answers + 1
        copier.finish(tag, write=parameters, seconds=60).good()
        self.assertLess(worst, 0.5)
        self.assertGreater(answers, 20)


class Sanitize(Case):
    def test_patterns(self):
        """OVERWRITE leaves its pattern in every block, after any number of passes, and nothing behind the LUN"""
        disk = self.file()
        gateway = self.start(disk)
        session = self.session(gateway)
        blocks = session.capacity()[0]
        area = disk.read_bytes()[blocks * 512:]
        for pattern, passes, invert in [(b"\xA5", 1, False), (b"abc", 2, True), (bytes(512), 1, True)]:
            session.write(0, 0, b"secret!!" * 512).good()
            parameters = scsi.overwrite_parameters(pattern, passes, invert)
            session.command(0, scsi.sanitize(1, len(parameters)), write=parameters, seconds=60).good()
            block = (pattern * 512)[:512]
            for lba in (0, 7, 513, blocks // 2, blocks - 1):
                self.assertEqual(session.read(0, lba, 1).good().data, block)
        after = disk.read_bytes()[blocks * 512:]
        # Of the label area only the records on sanitizing have changed.
        self.assertEqual(after[:7 << 20], area[:7 << 20])
        self.assertEqual(after[(7 << 20) + 8192:], area[(7 << 20) + 8192:])

    def test_in_progress(self):
        """It goes on without its session; others are told how far it is, and may ask who the LUN is"""
        gateway = self.start("slow:16M:40", arguments=["--threads", "2"])
        session, other = self.session(gateway, "first"), self.session(gateway, "other")
        parameters = scsi.overwrite_parameters(b"x", 2)
        session.command(0, scsi.sanitize(1, len(parameters), immediate=True), write=parameters).good()
        session.close()
        seen = []
        while True:
            result = other.command(0, scsi.test_unit_ready())
            if result.status == scsi.GOOD:
                break
            self.assertEqual((result.sense_key, result.asc), (scsi.NOT_READY, SANITIZE_IN_PROGRESS))
            seen.append(int.from_bytes(result.sense[16:18], "big"))
            self.assertEqual(other.read(0, 0, 1).asc, SANITIZE_IN_PROGRESS)
            other.command(0, scsi.inquiry(), read=255).good()
            self.assertEqual(other.command(0, scsi.request_sense(), read=18).good().data[2], scsi.NOT_READY)
            self.assertEqual(other.task_management(initiator.LUN_RESET, seconds=3), 0)
            other.command(0, scsi.test_unit_ready())  # the unit attention
            time.sleep(0.1)
        self.assertEqual(seen, sorted(seen))
        self.assertGreater(len(set(seen)), 3)
        self.assertEqual(other.read(0, 5, 1).good().data, b"x" * 512)

    def test_erased(self):
        """BLOCK ERASE deallocates a thin file and leaves zeroes"""
        disk = self.file()
        gateway = self.start(disk)
        session = self.session(gateway)
        session.write(0, 2048, os.urandom(1 << 20)).good()
        used = os.stat(disk).st_blocks
        session.command(0, scsi.sanitize(2), seconds=20).good()
        self.assertLess(os.stat(disk).st_blocks, used)
        self.assertEqual(session.read(0, 2048, 8).good().data, bytes(4096))

    def test_killed(self):
        """A gateway that dies meanwhile leaves the LUN failed until another SANITIZE has come to its end"""
        disk = self.file(1024)
        gateway = self.start(disk)
        session = self.session(gateway)
        parameters = scsi.overwrite_parameters(b"\x00", 31)
        session.command(0, scsi.sanitize(1, len(parameters), immediate=True, may_exit=True), write=parameters).good()
        time.sleep(0.2)
        self.assertEqual(session.command(0, scsi.test_unit_ready()).asc, SANITIZE_IN_PROGRESS)
        gateway.kill()
        session.close()
        gateway.start()
        session = self.keep(initiator.Session(gateway))
        session.command(0, scsi.test_unit_ready())  # power on
        for _ in range(2):
            result = session.command(0, scsi.test_unit_ready())
            self.assertEqual((result.sense_key, result.asc), (scsi.MEDIUM_ERROR, SANITIZE_FAILED))
        self.assertEqual(gateway.ask_json("status")["logicalUnits"][0]["state"], "sanitize failed")
        self.assertEqual(session.read(0, 0, 1).asc, SANITIZE_FAILED)
        session.command(0, scsi.sanitize(0x1F)).good()
        session.read(0, 0, 1).good()
        session.command(0, scsi.sanitize(2), seconds=20).good()
        session.close()
        gateway.terminate()
        gateway.start()
        self.session(gateway).read(0, 0, 1).good()

    def test_faulty(self):
        """A disk that cannot be written ends it with SANITIZE COMMAND FAILED"""
        gateway = self.start("faulty:16M:medium=20000+8")
        session = self.session(gateway)
        parameters = scsi.overwrite_parameters(b"z")
        result = session.command(0, scsi.sanitize(1, len(parameters)), write=parameters, seconds=20)
        self.assertEqual((result.sense_key, result.asc), (scsi.MEDIUM_ERROR, SANITIZE_FAILED))
        self.assertEqual(session.read(0, 0, 1).asc, SANITIZE_FAILED)
        self.assertEqual(session.command(0, scsi.sanitize(0x1F)).asc, 0x2400)

    def test_meets_writes(self):
        """What others have under way when it begins has landed, or is written after it, never in its midst"""
        gateway = self.start("slow:16M:20", arguments=["--threads", "2"])
        session, writer = self.session(gateway, "first"), self.session(gateway, "writer")
        tags = [writer.begin(0, scsi.write16(8 * i, 8), write=b"w" * 4096) for i in range(64)]
        parameters = scsi.overwrite_parameters(b"s")
        session.command(0, scsi.sanitize(1, len(parameters)), write=parameters, seconds=30).good()
        for tag in tags:
            writer.finish(tag, write=b"w" * 4096, seconds=20)
        found = session.read(0, 0, 512).good().data
        for i in range(64):
            self.assertIn(found[4096 * i:4096 * i + 4096], (b"w" * 4096, b"s" * 4096))


class Kinds(Case):
    def test_kinds(self):
        """[[disk]] makes LUNs read-only, removable, thick, of 4096-byte blocks; the label keeps the block length"""
        disk = self.file(32)
        rules = (f'[[disk]]\nname = "{disk}"\nblock-bytes = 4096\nread-only = true\n'
                 '[[disk]]\nname = "*#1"\nremovable = true\nthin = false\n')
        gateway = self.start(disk, "memory:16M", settings=rules)
        session = self.session(gateway, luns=(0, 1))
        self.assertEqual(session.capacity(0), (24 << 20 >> 12, 4096))
        self.assertEqual(session.write(0, 0, bytes(4096), 4096).sense_key, scsi.DATA_PROTECT)
        self.assertEqual(session.command(1, scsi.inquiry(), read=36).data[1], 0x80)
        self.assertEqual(session.command(1, scsi.inquiry(0xB2), read=8).sense_key, scsi.ILLEGAL_REQUEST)
        session.close()
        gateway.terminate()
        gateway.settings_path.write_text("")
        gateway.start()
        session = self.session(gateway)
        self.assertEqual(session.capacity(0), (24 << 20 >> 12, 4096))
        session.write(0, 0, bytes(4096), 4096).good()

    def test_atomic(self):
        """Atomic writes of several sessions to one place never mix"""
        gateway = self.start("memory:16M", arguments=["--threads", "2"])
        sessions = [self.session(gateway, f"writer-{i}") for i in range(4)]
        tags = []
        for turn in range(50):
            for i, session in enumerate(sessions):
                data = bytes([i + 1]) * (64 << 10)
                tags.append((session, session.begin(0, write_atomic(8, 128), write=data), data))
            found = sessions[turn % 4].read(0, 8, 128).good().data if turn % 10 == 9 else b""
            self.assertLessEqual(len(set(found)), 1)
            if turn % 10 == 9:
                for session, tag, data in tags:
                    session.finish(tag, write=data, seconds=20).good()
                tags = []

    def test_logs(self):
        """LOG SENSE counts what all shards have done"""
        gateway = self.start(self.file(), arguments=["--threads", "2"])
        sessions = [self.session(gateway, f"s-{i}") for i in range(4)]
        for session in sessions:
            session.write(0, 0, bytes(8192)).good()
            session.read(0, 0, 8).good()
        page = sessions[0].command(0, scsi.log_sense(0x19), read=512).good().data
        reads, writes, received, sent = struct.unpack_from(">QQQQ", page, 8)
        self.assertEqual((reads, writes, received, sent), (4, 4, 64, 32))
        used = sessions[0].command(0, scsi.log_sense(0x0C), read=512).good().data
        self.assertEqual(used[2:4], bytes([0, 24]))


if __name__ == "__main__":
    unittest.main()
