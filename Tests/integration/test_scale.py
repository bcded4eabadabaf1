"""Many sessions, many units, a greedy neighbour, a full window: everybody is served, and everything is given back."""

import concurrent.futures
import contextlib
import socket
import struct
import threading
import unittest

from harness import initiator, process, scsi
from harness.case import GatewayCase
from harness.initiator import FINAL, IMMEDIATE, NOP_OUT, PDU, RESERVED
from harness.load import BLOCK, pattern
from harness.process import wait_until

OUT_OF_RESOURCES = 0x0302


def own_blocks(who, count=8):
    """Blocks that nobody else writes."""
    return b"".join(pattern(number, who) for number in range(count))


class Greedy(threading.Thread):
    """Large reads of a LUN, as many at a time as the window allows."""

    DEPTH, BYTES = 128, 1 << 20

    def __init__(self, target, lun):
        super().__init__(daemon=True)
        self.session = initiator.Session(target, initiator="iqn.2026-01.example:greedy")
        self.session.ready(lun)
        self.lun, self.count, self.error, self._end = lun, 0, None, threading.Event()

    def _begin(self):
        return self.session.begin(self.lun, scsi.read16(0, self.BYTES // BLOCK), read=self.BYTES)

    def run(self):
        try:
            tags = [self._begin() for _ in range(self.DEPTH)]
            while not self._end.is_set():
                self.session.finish(tags.pop(0), read=self.BYTES, seconds=20).good()
                self.count += 1
                tags.append(self._begin())
        except Exception as error:  # reported by close
            self.error = error

    def close(self):
        self._end.set()
        self.join(30)
        self.session.close()
        if self.error is not None:
            raise self.error


class Scale(GatewayCase):
    def test_many_sessions(self):
        """300 sessions at once do I/O, one more is refused, and their end gives everything back"""
        count = 300
        gateway = self.start(settings=f"[limits]\nsessions = {count}\nconnections-per-address = {count + 10}\n")
        before = self.holdings(gateway)

        def login(number):
            session = self.keep(initiator.Session(gateway, initiator=f"iqn.2026-01.example:host-{number}", seconds=20))
            session.ready()
            return session

        def write(number):
            sessions[number].write(0, 8 * number, own_blocks(number)).good()

        def check(number):
            # What another one wrote: there is one disk behind all of them.
            other = (number + 1) % count
            self.assertEqual(sessions[number].read(0, 8 * other, 8).good().data, own_blocks(other))

        with concurrent.futures.ThreadPoolExecutor(50) as threads:
            sessions = list(threads.map(login, range(count)))
            self.assertEqual(gateway.ask_json("status")["sessions"], count)
            with self.assertRaises(initiator.LoginRefused) as refused:
                initiator.Session(gateway, initiator="iqn.2026-01.example:late")
            self.assertEqual(refused.exception.status, OUT_OF_RESOURCES)
            list(threads.map(write, range(count)))
            list(threads.map(check, range(count)))
            self.assertEqual(set(threads.map(lambda session: session.logout(), sessions)), {0})
        self.assert_given_back(gateway, before, 5)
        with initiator.Session(gateway, initiator="iqn.2026-01.example:late") as late:
            late.ready()
            late.read(0, 0, 8).good()

    def is_taken(self, session, lba, data):
        result = session.write(1, lba, data)
        return result.status != scsi.TASK_SET_FULL and result.good()

    def test_greedy_neighbour(self):
        """Beside a session that asks for many times the memory there is, a modest one is served on any unit"""
        gateway = self.start("slow:64M:2", "memory:64M", settings='[limits]\nmemory = "16M"\n',
                             arguments=["--threads", "1"])
        greedy = self.keep(Greedy(gateway, lun=0))
        greedy.start()
        wait_until(lambda: greedy.count > 0 or greedy.error, 10, "the greedy one is served")
        with initiator.Session(gateway, initiator="iqn.2026-01.example:modest", seconds=20) as modest:
            modest.ready(0)
            modest.ready(1)
            begin = greedy.count
            for number in range(30):
                data = own_blocks(number)
                # A write has its data with it and cannot wait for memory: it may be told to come again.
                wait_until(lambda: self.is_taken(modest, 8 * number, data), 10, "a write is taken")
                self.assertEqual(modest.read(1, 8 * number, 8).good().data, data)
                self.assertEqual(modest.read(0, 8 * number, 8).good().data, bytes(8 * BLOCK))
            self.assertIsNone(greedy.error)
            self.assertTrue(greedy.is_alive())
            self.assertGreater(greedy.count, begin, "both were served")

    def test_deaf_neighbour(self):
        """An initiator that asks and takes no data leaves memory for the others' units"""
        # Not a disk in memory: what it sends has no buffer.
        gateway = self.start("null:64M", "memory:64M", settings='[limits]\nmemory = "16M"\n',
                             arguments=["--threads", "1"])
        deaf = self.keep(initiator.Session(gateway, initiator="iqn.2026-01.example:deaf"))
        deaf.ready(0)
        for _ in range(64):
            deaf.begin(0, scsi.read16(0, 2048), read=1 << 20)
        with initiator.Session(gateway, initiator="iqn.2026-01.example:other", seconds=2) as other:
            other.ready(1)
            other.read(1, 0, 8).good()
            other.write(1, 0, own_blocks(1)).good()

    def assert_others_are_served(self, gateway):
        # Not a disk in memory: it needs buffers.
        with initiator.Session(gateway, initiator="iqn.2026-01.example:other", seconds=3 * process.SLOWNESS) as other:
            other.ready(1)
            other.write(1, 0, own_blocks(1)).good()
            self.assertEqual(other.read(1, 0, 8).good().data, own_blocks(1))

    def test_parameters_that_do_not_come(self):
        """Parameter lists that are announced and not sent leave memory for the others' units"""
        gateway = self.start("memory:64M", "slow:64M:1", settings='[limits]\nmemory = "16M"\n',
                             arguments=["--threads", "1"])
        cdb = struct.pack(">BBBBBIB", 0x5F, 0, 0, 0, 0, 65536, 0)  # PERSISTENT RESERVE OUT
        for number in range(3):
            deaf = self.keep(initiator.Session(
                gateway, initiator=f"iqn.2026-01.example:deaf-{number}", keys={"ImmediateData": "No"}))
            deaf.ready(0)
            for _ in range(128):
                deaf.send(deaf.command_pdu(0, cdb, 65536, True))
        self.assert_others_are_served(gateway)

    def test_answers_that_are_not_taken(self):
        """Answers of the device server that an initiator does not take leave memory for the others' units"""
        for lun in (0, 9):  # one that is there, and one that is not
            gateway = self.start("memory:64M", "slow:64M:1", settings='[limits]\nmemory = "16M"\n',
                                 arguments=["--threads", "1"])
            deaf = self.keep(initiator.Session(gateway, initiator="iqn.2026-01.example:deaf"))
            deaf.ready(0)
            deaf.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connection.socket.settimeout(2)
            # READ BUFFER, INQUIRY
            cdb = bytes([0x3C, 2, 0, 0, 0, 0, 0, 0x10, 0, 0]) if lun == 0 else scsi.inquiry()
            with contextlib.suppress(OSError):
                for _ in range(9000):
                    deaf.send(deaf.command_pdu(lun, cdb, 4096))
            self.assert_others_are_served(gateway)

    def test_many_units(self):
        """64 LUNs with commands on all of them at once, and each has the content that was written to it"""
        count = 64
        gateway = self.start(*["memory:8M"] * count)
        session = self.keep(initiator.Session(gateway))
        for lun in range(count):
            session.ready(lun)
        self.assertEqual(session.luns(), list(range(count)))
        tags = [session.begin(lun, scsi.write16(64, 8), write=own_blocks(lun)) for lun in range(count)]
        for lun, tag in enumerate(tags):
            session.finish(tag, write=own_blocks(lun)).good()
        other = self.keep(initiator.Session(gateway, initiator="iqn.2026-01.example:other"))
        for lun in range(count):
            other.ready(lun)
        tags = [other.begin(lun, scsi.read16(64, 8), read=8 * BLOCK) for lun in reversed(range(count))]
        for lun, tag in zip(reversed(range(count)), tags):
            self.assertEqual(other.finish(tag, read=8 * BLOCK).good().data, own_blocks(lun), f"LUN {lun}")

    def window(self, session):
        """How many commands the target would take now: what a NOP-In says (RFC 7143 §4.2.2.1)."""
        pdu = PDU(NOP_OUT | IMMEDIATE, FINAL)
        pdu.tag, pdu.transfer_tag = session.new_tag(), RESERVED
        session.send(pdu)
        answer = session.receive_for(pdu.tag)
        return (answer.max_cmd_sn + 1 - session.cmd_sn) & 0xFFFFFFFF

    def test_window_of_a_slow_disk(self):
        """A slow disk closes the window; what waits for it is done once and in full, and it opens again"""
        depth, count = 8, 40
        gateway = self.start("slow:64M:200", settings=f"[limits]\nqueue-depth = {depth}\n")
        session = self.keep(initiator.Session(gateway))
        session.ready()
        self.assertEqual(self.window(session), depth)
        tags = [session.begin(0, scsi.write16(8 * n, 8), write=own_blocks(n)) for n in range(depth)]
        self.assertEqual(self.window(session), 0)
        # One that comes all the same is ignored (RFC 7143 §4.2.2.1): its number is to come yet, and it writes nothing.
        session.begin(0, scsi.write16(8 * count, 8), write=own_blocks(count))
        session.cmd_sn -= 1
        number = depth
        while tags:
            session.finish(tags.pop(0)).good()
            while number < count and self.window(session) > 0:
                tags.append(session.begin(0, scsi.write16(8 * number, 8), write=own_blocks(number)))
                number += 1
        self.assertEqual(self.window(session), depth)
        self.assertFalse(session.pending)
        data = session.read(0, 0, 8 * (count + 1)).good().data
        self.assertEqual(data, b"".join(own_blocks(n) for n in range(count)) + bytes(8 * BLOCK))


if __name__ == "__main__":
    unittest.main()
