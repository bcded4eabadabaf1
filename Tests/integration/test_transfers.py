"""Transfers that do not go as they should: too many at once, cut off in the middle, never taken, never sent."""

import concurrent.futures
import contextlib
import os
import struct
import time
import unittest

from harness import initiator, scsi
from harness.case import GatewayCase
from harness.initiator import DATA_OUT, FINAL, IMMEDIATE, NOP_OUT, PDU, RESERVED

PIECE = 256 << 10


def data_out(r2t, data, offset, number=0, is_final=True):
    """A Data-Out for an R2T: `offset` within what it asks for."""
    pdu = PDU(DATA_OUT, FINAL if is_final else 0, data)
    pdu.header[8:16] = r2t.header[8:16]
    pdu.tag, pdu.transfer_tag = r2t.tag, r2t.transfer_tag
    return pdu.put(36, number).put(40, r2t.word(40) + offset)


class Transfers(GatewayCase):
    def session(self, gateway, name, **keys):
        session = self.keep(initiator.Session(gateway, initiator=f"iqn.2026-01.example:{name}", keys=keys))
        session.ready()
        return session

    def test_parameters_leave_no_residual(self):
        """Parameters that were taken leave no residual, and what nobody wanted does (RFC 7143 §11.4.5)"""
        session = self.session(self.start("memory:16M"), "parameters")
        register = scsi.persistent_reserve_out(6)
        self.assertEqual(session.command(0, register, write=scsi.reserve_parameters(0, 0xA)).good().residual, 0)
        unmap = struct.pack(">BBBBBBBHB", 0x42, 0, 0, 0, 0, 0, 0, 24, 0)
        extent = struct.pack(">HHIQII", 22, 16, 0, 0, 8, 0)
        self.assertEqual(session.command(0, unmap, write=extent).good().residual, 0)
        self.assertEqual(session.command(0, scsi.synchronize_cache10(), write=bytes(512)).good().residual, 512)

    def test_more_reads_than_memory(self):
        """Reads that together need many times the memory there is are all answered"""
        gateway = self.start("slow:64M:3", settings='[limits]\nmemory = "16M"\n', arguments=["--threads", "1"])
        sessions = [self.session(gateway, f"reader-{i}") for i in range(3)]
        tags = {s: [s.begin(0, scsi.read16(0, 4096), read=2 << 20) for _ in range(120)] for s in sessions}

        def finish(session):
            for tag in tags[session]:
                session.finish(tag, read=2 << 20, seconds=20).good()

        with concurrent.futures.ThreadPoolExecutor(len(sessions)) as threads:
            list(threads.map(finish, sessions))

    def test_more_writes_than_memory(self):
        """So are writes, whose R2Ts wait for memory"""
        gateway = self.start(settings='[limits]\nmemory = "16M"\n', arguments=["--threads", "1"])
        session = self.session(gateway, "writer", ImmediateData="No")
        data = os.urandom(1 << 20) * 2
        tags = [session.begin(0, scsi.write16(4096 * (i % 8), 4096), write=data) for i in range(48)]
        for tag in tags:
            session.finish(tag, write=data, seconds=20).good()
        self.assertEqual(session.read(0, 4096, 4096).good().data, data)

    def test_aborted_while_data_comes_in(self):
        """Data of an aborted write lands in nobody else's buffer, whatever part of it the disk has in hand"""
        gateway = self.start("slow:64M:400", arguments=["--threads", "1"])
        first = self.session(gateway, "first", ImmediateData="No")
        second = self.session(gateway, "second", ImmediateData="No")
        length = min(first.target_segment, PIECE)
        tag = first.begin(0, scsi.write16(0, 1024), write=bytes(2 * PIECE))
        first._send_data(first.receive_for(tag), bytes(2 * PIECE))
        # The disk has the first piece; the second stops in the middle of a PDU.
        encoded = data_out(first.receive_for(tag), b"\xEE" * length, 0, is_final=length == PIECE).encode()
        first.connection.send_bytes(encoded[:len(encoded) // 2])
        time.sleep(0.1)
        self.assertEqual(second.task_management(initiator.LUN_RESET, seconds=3), 0)
        second.ready()
        data = b"\x11" * PIECE
        tag = second.begin(0, scsi.write16(8192, PIECE // 512), write=data)
        r2t = second.receive_for(tag)
        number, step = 0, min(second.target_segment, PIECE - 4096)
        for offset in range(0, PIECE - 4096, step):
            part = min(step, PIECE - 4096 - offset)
            second.connection.send(data_out(r2t, data[:part], offset, number, False))
            number += 1
        time.sleep(0.1)
        first.connection.send_bytes(encoded[len(encoded) // 2:])
        time.sleep(0.1)
        second.connection.send(data_out(r2t, data[:4096], PIECE - 4096, number))
        second.finish(tag).good()
        self.assertEqual(second.read(0, 8192, PIECE // 512).good().data, data)

    def test_order_of_r2ts(self):
        """R2Ts come in the order of their offsets, also with several outstanding (RFC 7143 §13.19)"""
        gateway = self.start()
        session = self.session(gateway, "orderly", ImmediateData="No", MaxOutstandingR2T="4", MaxBurstLength="65536")
        data = os.urandom(1 << 20)
        tag = session.begin(0, scsi.write16(0, 2048), write=data)
        offsets = []
        while True:
            pdu = session.receive_for(tag)
            if pdu.opcode != initiator.R2T:
                break
            offsets.append(pdu.word(40))
            session._send_data(pdu, data)
        self.assertEqual(pdu.status, scsi.GOOD)
        self.assertEqual(offsets, sorted(offsets))
        self.assertEqual(session.read(0, 0, 2048).good().data, data)

    def test_answers_not_taken(self):
        """An initiator that asks and never reads an answer takes no memory without bound"""
        gateway = self.start(settings="[timeouts]\nnop-interval = 1\n")
        other = self.session(gateway, "other")
        session = self.session(gateway, "deaf")
        before = self.resident(gateway)
        session.connection.socket.settimeout(0.5)
        pdu = PDU(NOP_OUT | IMMEDIATE, FINAL, bytes(min(session.target_segment, PIECE)))
        pdu.tag, pdu.transfer_tag = 1, RESERVED
        encoded = pdu.put(24, session.cmd_sn).encode()
        with contextlib.suppress(OSError):
            for _ in range((400 << 20) // len(encoded)):
                session.connection.send_bytes(encoded)
        self.assertLess(self.resident(gateway) - before, 64 << 10, "KiB more")
        other.read(0, 0, 8).good()

    def resident(self, gateway):
        with open(f"/proc/{gateway.pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

    def test_compare_and_write_behind_a_hung_write(self):
        """COMPARE AND WRITE of blocks that a hung disk is writing is answered by the deadline too"""
        gateway = self.start("faulty:64M:hang=0+8", settings="[timeouts]\nio-deadline = 1\n")
        session = self.session(gateway, "careful")
        hung = session.begin(0, scsi.write16(0, 1), write=bytes(512))
        tag = session.begin(0, scsi.compare_and_write(0), write=bytes(1024))
        self.assertEqual(session.finish(hung, seconds=4).status, scsi.CHECK_CONDITION)
        self.assertEqual(session.finish(tag, seconds=4).status, scsi.CHECK_CONDITION)
        session.read(0, 1024, 8).good()

    def test_behind_a_write_that_was_given_up(self):
        """What comes behind a write that a hung disk still has is answered by the deadline too, READ and WRITE alike"""
        gateway = self.start("faulty:64M:hang=0+8192", settings="[timeouts]\nio-deadline = 1\n")
        session = self.session(gateway, "careful")
        for operation in (lambda: session.write(0, 0, bytes(4096), seconds=6),
                          lambda: session.read(0, 0, 8, seconds=6),
                          lambda: session.write(0, 0, bytes(4096), seconds=6)):
            self.assertEqual(operation().status, scsi.CHECK_CONDITION)

    def test_behind_an_unmap_that_was_aborted(self):
        """An UNMAP that a hung disk still has keeps nothing but its extent from the others"""
        gateway = self.start("faulty:64M:hang=0+8", settings="[timeouts]\nio-deadline = 10\n")
        session = self.session(gateway, "careful")
        parameters = struct.pack(">HH4xQI4xQI4x", 38, 32, 0, 8, 4096, 8)
        session.begin(0, struct.pack(">B6xHx", 0x42, len(parameters)), write=parameters)
        self.assertEqual(session.task_management(initiator.ABORT_TASK_SET, 0, seconds=4), 0)
        session.pending.clear()
        session.write(0, 4096, bytes(4096), seconds=3).good()
        session.read(0, 8, 8, seconds=3).good()

    def begun_orwrite(self, gateway):
        """An ORWRITE of a MiB from block 0 that has its first burst, and with it its blocks: (session, task tag)"""
        slow = self.session(gateway, "slow", ImmediateData="No", MaxOutstandingR2T="1", MaxBurstLength="262144")
        tag = slow.begin(0, struct.pack(">BBQIBB", 0x8B, 0, 0, 2048, 0, 0), write=bytes(1 << 20))
        slow._send_data(slow.receive_for(tag), bytes(1 << 20))
        return slow, tag

    def test_data_that_trickles_behind_a_held_range(self):
        """An ORWRITE whose data trickles in keeps others from its blocks for the deadline, and no longer"""
        gateway = self.start(settings="[timeouts]\nio-deadline = 2\n")
        slow, tag = self.begun_orwrite(gateway)
        other = self.session(gateway, "other")
        r2t = slow.receive_for(tag)
        read = other.begin(0, scsi.read16(0, 8), read=4096)
        ended, number = None, 0
        while ended is None and number < 100:
            with contextlib.suppress(TimeoutError):
                ended = other.receive_for(read, 0.1)
            if ended is None:
                slow.connection.send(data_out(r2t, bytes(512), 512 * number, number, False))
                number += 1
        self.assertIsNotNone(ended, "the read was never answered")
        self.assertEqual(ended.status, 0)
        self.assertEqual(slow.finish(tag, seconds=4).status, scsi.CHECK_CONDITION)

    def test_reset_of_data_that_trickles(self):
        """A reset gives the blocks of an ORWRITE to others, though a PDU of it goes on trickling in"""
        gateway = self.start(settings="[timeouts]\nio-deadline = 60\n")
        slow, tag = self.begun_orwrite(gateway)
        other = self.session(gateway, "other")
        encoded = data_out(slow.receive_for(tag), bytes(65536), 0).encode()
        slow.connection.send_bytes(encoded[:1024])
        self.assertEqual(other.task_management(initiator.LUN_RESET, 0, seconds=4), 0)
        slow.connection.send_bytes(encoded[1024:2048])
        other.ready()
        other.write(0, 0, bytes(4096), seconds=3).good()
        other.read(0, 0, 2048, seconds=3).good()
        # The rest of the PDU belongs to nobody, and the connection goes on.
        slow.connection.send_bytes(encoded[2048:])
        slow.pending.clear()
        slow.ready()
        slow.read(0, 0, 8).good()

    def test_cold_reset(self):
        """After TARGET COLD RESET everybody comes back to POWER ON (29/00), who was away then too"""
        gateway = self.start()

        def comes(name, isid, expected):
            session = self.keep(initiator.Session(gateway, initiator=f"iqn.2026-01.example:{name}", isid=isid))
            result = session.finish(session.begin(0, scsi.test_unit_ready()))
            self.assertEqual((result.sense_key, result.asc), (scsi.UNIT_ATTENTION, expected))
            return session
        hosts = (("away", b"\x80AWAY0"), ("here", b"\x80HERE0"))
        comes(*hosts[0], scsi.POWER_ON).logout()
        comes(*hosts[0], scsi.NEXUS_LOSS).logout()
        here = comes(*hosts[1], scsi.POWER_ON)
        self.assertEqual(here.task_management(initiator.COLD_RESET, seconds=5), 0)
        self.assertTrue(here.connection.is_closed_within(5))
        for name, isid in hosts:
            comes(name, isid, scsi.POWER_ON)

    def test_aborts_of_a_hung_disk(self):
        """Commands that a hung disk swallows and their initiator aborts again and again leave memory for the others"""
        gateway = self.start("faulty:64M:hang=0+2048", "memory:64M", arguments=["--threads", "1"],
                             settings='[limits]\nmemory = "64M"\n')
        session = self.session(gateway, "patient")
        session.ready(1)
        for _ in range(6):
            for _ in range(60):
                session.begin(0, scsi.read16(0, 512), read=PIECE)
            self.assertEqual(session.task_management(initiator.ABORT_TASK_SET, 0, seconds=4), 0)
            session.pending.clear()
        session.read(1, 0, 4096, seconds=2).good()
        self.assertEqual(session.finish(session.begin(0, scsi.read16(0, 1), read=512), read=512).status, scsi.BUSY)

    def test_data_never_sent(self):
        """A write whose data does not come is ended; one that takes its time beside it is not"""
        gateway = self.start(settings="[timeouts]\nio-deadline = 1\n")
        session = self.session(gateway, "silent", ImmediateData="No")
        silent = session.begin(0, scsi.write16(0, 8), write=bytes(4096))
        slow = session.begin(0, scsi.write16(8, 16), write=bytes(8192))
        session.receive_for(silent)
        r2t = session.receive_for(slow)
        for number in range(8):
            session.connection.send(data_out(r2t, bytes(1024), 1024 * number, number, number == 7))
            time.sleep(0.3)
        session.finish(slow).good()
        result = session.finish(silent, seconds=4)
        self.assertEqual((result.status, result.sense_key), (scsi.CHECK_CONDITION, scsi.ABORTED_COMMAND))
        session.read(0, 0, 8).good()

    def test_unsolicited_data_never_sent(self):
        """A write whose unsolicited data does not come is ended like one that was asked for it"""
        gateway = self.start(settings="[timeouts]\nio-deadline = 1\n")
        session = self.session(gateway, "silent", ImmediateData="No", InitialR2T="No")
        command = session.command_pdu(0, scsi.write16(0, 8), 4096, True, b"")
        command.header[1] &= 0x7F
        result = session.finish(session.send(command), seconds=4)
        self.assertEqual((result.status, result.sense_key), (scsi.CHECK_CONDITION, scsi.ABORTED_COMMAND))
        session.write(0, 0, bytes(4096)).good()

    def test_unsolicited_data_without_end(self):
        """More unsolicited data than was agreed to ends the command, and what comes on is not counted"""
        gateway = self.start("faulty:64M:hang=0+8", settings="[timeouts]\nio-deadline = 2\n")
        session = self.session(gateway, "endless", InitialR2T="No", FirstBurstLength="65536")
        command = session.command_pdu(0, scsi.write16(0, 2048), 1 << 20, True, bytes(4096))
        command.header[1] &= 0x7F
        tag = session.send(command)
        for number in range(40):
            pdu = PDU(DATA_OUT, 0, bytes(65536)).set_lun(gateway.first_lun)
            pdu.tag, pdu.transfer_tag = tag, RESERVED
            session.connection.send(pdu.put(36, number).put(40, 4096 + 65536 * number))
        result = session.finish(tag, seconds=6)
        self.assertEqual((result.status, result.sense_key), (scsi.CHECK_CONDITION, scsi.ABORTED_COMMAND))
        session.read(0, 1024, 8).good()

    def test_waiting_behind_a_hung_disk(self):
        """What waits for memory that a hung disk keeps is told that it is busy, and does not wait for ever"""
        gateway = self.start("faulty:64M:hang=0+8192", "memory:64M", arguments=["--threads", "1"],
                             settings='[limits]\nmemory = "16M"\n[timeouts]\nio-deadline = 1\n')
        session = self.session(gateway, "patient")
        session.ready(1)
        tags = [session.begin(0, scsi.read16(0, 2048), read=1 << 20) for _ in range(40)]
        statuses = {session.finish(tag, read=1 << 20, seconds=10).status for tag in tags}
        self.assertEqual(statuses, {scsi.CHECK_CONDITION, scsi.BUSY})
        session.read(1, 0, 4096, seconds=2).good()

    def test_long_extents(self):
        """UNMAP of more than a GiB in one extent is done in parts, with blocks of 4096 bytes too"""
        gateway = self.start("memory:6G", settings='[[disk]]\nname = "*"\nblock-bytes = 4096\n')
        session = self.session(gateway, "trim")
        blocks = (1 << 20) - 8
        places = (0, 3, 1 << 18, blocks - 1, blocks)
        for lba in places:
            session.write(0, lba, b"x" * 4096, block_bytes=4096).good()
        extent = struct.pack(">HHIQII", 22, 16, 0, 0, blocks, 0)
        unmap = struct.pack(">BBBBBBBHB", 0x42, 0, 0, 0, 0, 0, 0, 24, 0)
        self.assertEqual(session.command(0, unmap, write=extent).good().residual, 0)
        for lba in places:
            expected = b"x" * 4096 if lba == blocks else bytes(4096)
            self.assertEqual(session.read(0, lba, 1, 4096).good().data, expected, lba)

    def test_command_before_the_login_is_settled(self):
        """A command that begins while its login is settled never writes what its initiator has not sent"""
        gateway = self.start(arguments=["--threads", "2"])
        session = self.session(gateway, "hasty")
        session.write(0, 0, b"a" * 4096).good()
        for _ in range(6):
            hasty = self.keep(initiator.Session(gateway, initiator=session.initiator, isid=session.isid, login=False))
            hasty._exchange(0, 1, {"InitiatorName": hasty.initiator, "SessionType": "Normal",
                                   "TargetName": gateway.name, "AuthMethod": "None"})
            login = hasty.login_pdu(1, 3, initiator.encode_keys({"InitialR2T": "No"}))
            command = hasty.command_pdu(0, scsi.write16(0, 8), 4096, True, b"b" * 4096)
            command.put(24, hasty.cmd_sn).put(28, hasty.exp_stat_sn + 1)
            sent = login.encode() + command.encode()
            hasty.connection.socket.sendall(sent[:-3000])
            time.sleep(0.2)
            # It may be that it is over already.
            with contextlib.suppress(OSError):
                hasty.connection.socket.sendall(sent[-3000:])
            time.sleep(0.1)
            hasty.close()
            session = self.session(gateway, "hasty")
            self.assertIn(set(session.read(0, 0, 8).good().data), ({97}, {98}))


if __name__ == "__main__":
    unittest.main()
