"""Disks that fail, each with the right sense; a disk that hangs harms nobody else."""

import time
import unittest

from harness import initiator, scsi
from harness.case import GatewayCase
from harness.load import Writer


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
        """A medium error is MEDIUM ERROR with the block in INFORMATION; the blocks beside it read"""
        gateway = self.start("faulty:64M:medium=100+4")
        with initiator.Session(gateway) as session:
            session.ready()
            session.read(0, 92, 8).good()
            session.read(0, 104, 8).good()
            result = session.read(0, 96, 8)
            self.assertEqual((result.status, result.sense_key), (scsi.CHECK_CONDITION, scsi.MEDIUM_ERROR))
            self.assertEqual(result.asc, 0x1100)

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


if __name__ == "__main__":
    unittest.main()
