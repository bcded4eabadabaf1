"""Disks that fail, each with the right sense; a disk that hangs harms nobody else."""

import contextlib
import os
import tempfile
import time
import unittest
from pathlib import Path

from harness import initiator, process, scsi
from harness.case import GatewayCase
from harness.load import Writer
from harness.loops import LoopDisk, are_available


class Faults(GatewayCase):
    def hang(self, gateway):
        """A session with a command that the disk never answers, and its tag."""
        session = self.keep(initiator.Session(gateway))
        session.ready(0)
        session.ready(1)
        tag = session.begin(0, scsi.read16(0, 1), read=512)
        with self.assertRaises(TimeoutError):
            session.receive_for(tag, 0.3)
        return session, tag

    def test_abort_task(self):
        """ABORT TASK of a command that the disk has swallowed is answered within 2 s"""
        gateway = self.start("faulty:64M:hang=0+8", "memory:64M")
        session, tag = self.hang(gateway)
        self.assertEqual(session.task_management(initiator.ABORT_TASK, 0, tag, session.cmd_sn - 1, seconds=2), 0)
        session.read(1, 0, 8).good()
        session.read(0, 1024, 8).good()

    def test_lun_reset(self):
        """LUN RESET with hanging commands is answered within 2 s, and the LUN lives on"""
        gateway = self.start("faulty:64M:hang=0+8", "memory:64M")
        session, _ = self.hang(gateway)
        for _ in range(8):
            session.begin(0, scsi.read16(0, 1), read=512)
        self.assertEqual(session.task_management(initiator.LUN_RESET, 0, seconds=2), 0)
        session.ready(0)
        session.read(0, 1024, 8).good()

    def test_others_are_unaffected(self):
        """While one disk hangs, other LUNs answer and logins go through"""
        gateway = self.start("faulty:64M:hang=0+8", "memory:64M")
        writer = self.keep(Writer(gateway, lun=1))
        writer.start()
        session, _ = self.hang(gateway)
        for _ in range(16):
            session.begin(0, scsi.read16(0, 8), read=4096)
        begin = time.monotonic()
        with initiator.Session(gateway, initiator="iqn.2026-01.example:late") as late:
            late.ready(1)
            late.read(1, 0, 8).good()
        self.assertLess(time.monotonic() - begin, 2)
        time.sleep(1)
        writer.finish()
        self.assertGreater(writer.count, 100)
        self.assertLess(writer.longest, 1)

    def test_logout_and_end(self):
        """A hanging disk delays neither logout nor the end of the gateway by SIGTERM"""
        gateway = self.start("faulty:64M:hang=0+8", "memory:64M")
        session, _ = self.hang(gateway)
        self.assertEqual(session.logout(), 0)
        self.hang(gateway)
        self.assertEqual(gateway.terminate(5), 0)

    def test_medium_error(self):
        """A medium error of a read names the first block that did not come; the blocks beside it read"""
        gateway = self.start("faulty:64M:medium=100+4,medium=1536+1,medium=600+1")
        with initiator.Session(gateway) as session:
            session.ready()
            session.read(0, 92, 8).good()
            session.read(0, 104, 8).good()
            # Of a read in parts (256 KiB) the lowest of those that failed, though all may be at the disk at once.
            for lba, blocks, first in ((96, 8, 96), (100, 1, 100), (512, 1536, 512)):
                result = session.read(0, lba, blocks)
                self.assertEqual((result.status, result.sense_key), (scsi.CHECK_CONDITION, scsi.MEDIUM_ERROR))
                self.assertEqual((result.asc, result.information), (0x1100, first))

    def test_write_error(self):
        """A medium error of a write names no block and counts nothing as written: its parts land in any order"""
        gateway = self.start("faulty:64M:medium=0+1,medium=600+1")
        with initiator.Session(gateway) as session:
            session.ready()
            for blocks in (8, 1536):
                result = session.write(0, 0, bytes(blocks * 512))
                self.assertEqual((result.status, result.sense_key), (scsi.CHECK_CONDITION, scsi.MEDIUM_ERROR))
                self.assertEqual((result.asc, result.information, result.residual), (0x0C00, None, blocks * 512))
            session.write(0, 1024, bytes(4096)).good()

    def test_short(self):
        """A disk that moves less than it should, without an error, has not moved it: MEDIUM ERROR"""
        gateway = self.start("faulty:64M:short=8+8")
        with initiator.Session(gateway) as session:
            session.ready()
            session.read(0, 0, 8).good()
            read, write = session.read(0, 8, 8), session.write(0, 8, bytes(4096))
            self.assertEqual((read.sense_key, read.asc, write.sense_key, write.asc),
                             (scsi.MEDIUM_ERROR, 0x1100, scsi.MEDIUM_ERROR, 0x0C00))

    def test_gone(self):
        """A disk that is gone is LOGICAL UNIT NOT SUPPORTED, so that multipath gives the path up"""
        gateway = self.start("memory:64M", "faulty:64M:gone")
        with initiator.Session(gateway) as session:
            session.ready(0)
            for _ in range(4):
                result = session.read(1, 0, 8)
                if result.sense_key != scsi.UNIT_ATTENTION:
                    break
            self.assertEqual((result.sense_key, result.asc), (scsi.ILLEGAL_REQUEST, 0x2500))

    def test_slow(self):
        """A slow disk is slow and nothing else"""
        gateway = self.start("slow:64M:200")
        with initiator.Session(gateway) as session:
            session.ready()
            begin = time.monotonic()
            tags = [session.begin(0, scsi.read16(8 * i, 8), read=4096) for i in range(8)]
            for tag in tags:
                session.finish(tag, read=4096).good()
            took = time.monotonic() - begin
            self.assertGreater(took, 0.19)
            self.assertLess(took, 1.2, "eight commands at once waited for each other")

    def test_failed_flush(self):
        """After a flush has failed none succeeds: what was written before may be lost. Other units' do"""
        # The disk fails one flush, and would not tell the next of it.
        gateway = self.start("faulty:64M:flush-error=1", "memory:64M")
        with initiator.Session(gateway) as session:
            session.ready(0)
            session.ready(1)
            session.write(0, 0, bytes(4096)).good()
            result = session.command(0, scsi.synchronize_cache10())
            self.assertEqual((result.sense_key, result.asc, result.information), (scsi.MEDIUM_ERROR, 0x0C00, None))
            for _ in range(3):
                self.assertEqual(session.command(0, scsi.synchronize_cache10()).sense_key, scsi.HARDWARE_ERROR)
            self.assertEqual(session.write(0, 0, bytes(4096), fua=True).sense_key, scsi.HARDWARE_ERROR)
            session.write(0, 0, bytes(4096)).good()
            session.read(0, 0, 8).good()
            session.command(1, scsi.synchronize_cache10()).good()

    def test_very_slow(self):
        """A command that takes ten seconds is answered; others on other units are not held up meanwhile"""
        gateway = self.start("faulty:64M:slow=0+8:10000", "memory:64M")
        with initiator.Session(gateway, seconds=20) as session:
            session.ready(0)
            session.ready(1)
            begin = time.monotonic()
            tag = session.begin(0, scsi.read16(0, 8), read=4096)
            for _ in range(20):
                session.read(1, 0, 8).good()
                session.read(0, 64, 8).good()
            self.assertLess(time.monotonic() - begin, 5)
            session.finish(tag, read=4096).good()
            self.assertGreater(time.monotonic() - begin, 9)


class Files(GatewayCase):
    """Real disks: loop devices, and files in a file system of their own."""

    def setUp(self):
        if not are_available():
            self.skipTest("loop devices and mounts need root")

    def test_full(self):
        """A thin disk whose pool is full says SPACE ALLOCATION FAILED, and goes on when there is room"""
        pool = self.keep(LoopDisk(16 << 20))
        process.run(["mkfs.ext4", "-q", "-m", "0", pool.device])
        directory = tempfile.mkdtemp(prefix="gatewayd-pool-")
        self.addCleanup(os.rmdir, directory)
        process.run(["mount", pool.device, directory])
        self.addCleanup(process.run, ["umount", "-l", directory])
        file = Path(directory, "thin.raw")
        with open(file, "wb") as sparse:
            sparse.truncate(64 << 20)
        filler = Path(directory, "filler")
        gateway = self.start(str(file))
        with initiator.Session(gateway, seconds=20) as session:
            session.ready()
            session.write(0, 0, b"a" * 65536).good()
            with open(filler, "wb") as other, contextlib.suppress(OSError):
                while True:
                    other.write(bytes(65536))
                    other.flush()
            result = None
            for number in range(1, 400):
                result = session.write(0, 128 * number, b"b" * 65536)
                if result.status != scsi.GOOD:
                    break
            self.assertEqual((result.sense_key, result.asc), (scsi.DATA_PROTECT, 0x2707))
            self.assertEqual(session.read(0, 0, 128).good().data, b"a" * 65536)
            filler.unlink()
            process.run(["sync", "-f", directory])
            session.write(0, 128 * number, b"b" * 65536).good()
            session.command(0, scsi.synchronize_cache10()).good()
        # The file system is given up before it is unmounted.
        gateway.terminate()

    def test_read_only(self):
        """A disk that the kernel makes read-only under us refuses writes with WRITE PROTECTED, and is read"""
        disk = self.keep(LoopDisk(64 << 20))
        gateway = self.start(disk.device)
        with initiator.Session(gateway, seconds=20) as session:
            session.ready()
            session.write(0, 0, b"a" * 4096).good()
            # The kernel keeps that of a loop device for whoever has it next.
            self.addCleanup(process.run, ["blockdev", "--setrw", disk.device])
            process.run(["blockdev", "--setro", disk.device])
            results = []
            for _ in range(4):
                results.append(session.write(0, 8, b"b" * 4096))
                if results[-1].sense_key != scsi.UNIT_ATTENTION:
                    break
            self.assertEqual((results[-1].sense_key, results[-1].asc), (scsi.DATA_PROTECT, 0x2700))
            self.assertEqual(session.read(0, 0, 8).good().data, b"a" * 4096)


if __name__ == "__main__":
    unittest.main()
