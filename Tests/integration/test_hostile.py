"""Peers that break the rules. Whatever they do, the session that behaves goes on and the gateway lives."""

import contextlib
import os
import random
import socket
import time
import unittest

from harness import initiator, process, scsi
from harness.case import GatewayCase
from harness.initiator import COMMAND, DATA_OUT, FINAL, IMMEDIATE, LOGIN, NOP_OUT, PDU, RESERVED, TEXT
from harness.load import Writer


def raw(opcode, flags=0, length=0, ahs=0, data=b"", tag=1, **words):
    """A PDU whose length fields say what they are told to say."""
    header = bytearray(48)
    header[0], header[1], header[4] = opcode, flags, ahs
    header[5:8] = length.to_bytes(3, "big")
    header[16:20] = tag.to_bytes(4, "big")
    for offset, value in words.items():
        header[int(offset[1:]):int(offset[1:]) + 4] = value.to_bytes(4, "big")
    return bytes(header) + data


# Before the login: what arrives on a new connection.
BEFORE_LOGIN = {
    "noise": random.Random(1).randbytes(4096),
    "zeroes": bytes(4096),
    "another protocol": b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n" + bytes(100),
    "a command before the login": raw(COMMAND | IMMEDIATE, FINAL | 1),
    "a data segment of 16 MiB": raw(LOGIN | IMMEDIATE, 0x87, length=0xFFFFFF, data=bytes(1 << 20)),
    "additional header segments": raw(LOGIN | IMMEDIATE, 0x87, ahs=255, data=bytes(1020)),
    "half a header": raw(LOGIN | IMMEDIATE, 0x87)[:24],
    "no keys": raw(LOGIN | IMMEDIATE, 0x87),
    "a reserved stage": raw(LOGIN | IMMEDIATE, 0x8A),
    "a version to come": raw(LOGIN | IMMEDIATE, 0x87)[:2] + b"\x09\x09" + raw(LOGIN | IMMEDIATE, 0x87)[4:],
    "text without an end": raw(LOGIN | IMMEDIATE, 0x87, length=8192, data=b"A" * 8192),
    "a key a thousand times": raw(LOGIN | IMMEDIATE, 0x87, length=6000, data=b"X-a=b\0" * 1000),
    "a continued login without an end": raw(LOGIN | IMMEDIATE, 0x44, length=8192, data=b"A" * 8192) * 64,
    "a transition to nowhere": raw(LOGIN | IMMEDIATE, 0x84),
}


class BeforeLogin(GatewayCase):
    def test_malformed(self):
        """A malformed beginning ends that connection, or is refused, and harms no other"""
        gateway = self.start()
        writer = self.keep(Writer(gateway))
        writer.start()
        for name, data in BEFORE_LOGIN.items():
            with self.subTest(name), contextlib.suppress(ConnectionError):
                with initiator.Connection(gateway.address, gateway.port) as connection:
                    connection.send_bytes(data)
                    with contextlib.suppress(OSError):  # the gateway may have closed it already
                        connection.socket.shutdown(socket.SHUT_WR)
                    self.assertTrue(connection.is_closed_within(3), "the connection is still there")
            self.assert_alive(gateway)
        writer.reach(20)
        writer.finish()

    def test_slow_loris(self):
        """Connections that trickle bytes are ended within the login's time; meanwhile others log in"""
        gateway = self.start(settings="[limits]\nlogin-timeout = 3\n")
        writer = self.keep(Writer(gateway))
        writer.start()
        header = raw(LOGIN | IMMEDIATE, 0x87, length=200)
        slow = [self.keep(initiator.Connection(gateway.address, gateway.port)) for _ in range(16)]
        alive, begin, position = list(slow), time.monotonic(), 0
        while alive and time.monotonic() - begin < 10:
            for connection in list(alive):
                try:
                    connection.send_bytes(header[position % 48:position % 48 + 1])
                    connection.socket.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        if not connection.socket.recv(1024):
                            alive.remove(connection)
                    connection.socket.settimeout(5)
                except OSError:
                    alive.remove(connection)
            position += 1
            with initiator.Session(gateway, initiator="iqn.2026-01.example:between") as session:
                session.ready()
            time.sleep(0.3)
        self.assertEqual(alive, [], "connections that outlived the login's time")
        writer.finish()
        self.assertLess(writer.longest, 1)

    def test_flood(self):
        """A flood of connections from one address is bounded and leaves the session and other addresses alone"""
        gateway = self.start(settings='[limits]\nconnections-per-address = 32\n', arguments=["--threads", "1"])
        writer = self.keep(Writer(gateway))
        writer.start()
        held = []
        for _ in range(300):
            with contextlib.suppress(OSError):
                connection = socket.socket()
                held.append(connection)
                connection.settimeout(1)
                connection.bind(("127.0.0.3", 0))
                connection.connect((gateway.address, gateway.port))
        self.addCleanup(lambda: [connection.close() for connection in held])
        begin = time.monotonic()
        with initiator.Session(gateway, initiator="iqn.2026-01.example:late") as session:
            session.ready()
        self.assertLess(time.monotonic() - begin, process.SLOWNESS)
        open_files = len(os.listdir(f"/proc/{gateway.pid}/fd"))
        self.assertLess(open_files, 150, "the flood is not bounded")
        writer.finish()
        self.assertLess(writer.longest, 1)

    def storm(self, gateway, count, addresses, begin=lambda connection: None):
        """So many connections, in turn from so many addresses, that never log in."""
        for number in range(count):
            connection = socket.socket()
            self.addCleanup(connection.close)
            connection.settimeout(2)
            connection.bind((f"127.0.3.{1 + number % addresses}", 0))
            with contextlib.suppress(OSError):
                connection.connect((gateway.address, gateway.port))
                begin(connection)

    def test_flood_from_everywhere(self):
        """All places taken by connections that do not log in, from many addresses: the oldest give way to who does"""
        gateway = self.start(settings="[limits]\nsessions = 16\nlogin-timeout = 600\n")
        writer = self.keep(Writer(gateway))
        writer.start()
        writer.reach(1)
        half = raw(LOGIN | IMMEDIATE, 0x87)[:24]
        for _ in range(3):
            self.storm(gateway, 120, 60, lambda connection: connection.sendall(half))
            begin = time.monotonic()
            with initiator.Session(gateway, initiator="iqn.2026-01.example:late") as session:
                session.ready()
            self.assertLess(time.monotonic() - begin, process.SLOWNESS)
        self.assertLess(len(os.listdir(f"/proc/{gateway.pid}/fd")), 16 + 64 + 64 + 40, "the flood is not bounded")
        writer.finish()
        self.assertLess(writer.longest, 1)

    def test_flood_from_my_address(self):
        """Connections of one's own address that hang in their login do not keep one out either"""
        gateway = self.start(settings="[limits]\nconnections-per-address = 4\nlogin-timeout = 600\n")
        self.storm(gateway, 12, 1)
        with initiator.Session(gateway, source="127.0.3.1") as session:
            session.ready()
            self.storm(gateway, 12, 1)
            session.ready()

    def test_login_storm(self):
        """Logins by the hundred neither leak nor disturb"""
        gateway = self.start()
        with initiator.Session(gateway) as session:
            session.ready()
            for _ in range(20):
                initiator.Session(gateway, initiator="iqn.2026-01.example:storm").close()
            before = self.resident(gateway), len(os.listdir(f"/proc/{gateway.pid}/fd"))
            for _ in range(300):
                initiator.Session(gateway, initiator="iqn.2026-01.example:storm").close()
            time.sleep(0.5)
            if process.SLOWNESS == 1:  # a sanitizer keeps what was freed
                self.assertLess(self.resident(gateway) - before[0], 2048, "KiB more")
            self.assertLessEqual(len(os.listdir(f"/proc/{gateway.pid}/fd")), before[1] + 2)
            session.read(0, 0, 8).good()

    def resident(self, gateway):
        with open(f"/proc/{gateway.pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


class FullFeature(GatewayCase):
    """Each test breaks one rule in a session of its own, beside a session that goes on."""

    def setUp(self):
        self.gateway = self.start()
        self.writer = self.keep(Writer(self.gateway))
        self.writer.start()
        self.session = self.keep(initiator.Session(self.gateway, initiator="iqn.2026-01.example:rude"))
        self.session.ready()

    def tearDown(self):
        self.assert_alive(self.gateway)
        count = self.writer.count
        process.wait_until(lambda: self.writer.count > count + 5 or self.writer.error, 5, "the other session goes on")
        self.writer.finish()

    def assert_refused(self, seconds=3):
        """A Reject, a response other than GOOD, or the end of the connection."""
        try:
            while True:
                pdu = self.session.receive(seconds)
                if pdu.opcode == initiator.REJECT:
                    return pdu
                if pdu.opcode == initiator.RESPONSE:
                    self.assertTrue(pdu.status or pdu.response, "GOOD")
                    return pdu
        except (initiator.Closed, ConnectionError):
            return None

    def assert_still_works(self):
        self.session.read(0, 0, 8).good()

    def test_unknown_opcode(self):
        """An opcode that does not exist is rejected (RFC 7143 §7.3)"""
        self.session.connection.send_bytes(raw(0x1C | IMMEDIATE, FINAL, w24=self.session.cmd_sn))
        self.assert_refused()

    def test_target_opcode(self):
        """An opcode that only targets send is rejected"""
        self.session.connection.send_bytes(raw(0x31 | IMMEDIATE, FINAL, w24=self.session.cmd_sn))
        self.assert_refused()

    def test_long_segment(self):
        """A data segment above MaxRecvDataSegmentLength is refused and not stored (RFC 7143 §13.12)"""
        self.session.connection.send_bytes(raw(NOP_OUT | IMMEDIATE, FINAL, length=0xFFFFFF, w20=RESERVED,
                                               w24=self.session.cmd_sn))
        with contextlib.suppress(OSError):
            self.session.connection.send_bytes(bytes(1 << 20))
        self.assert_refused()

    def test_data_out_for_nobody(self):
        """Data-Out for a task that does not exist does no harm"""
        pdu = PDU(DATA_OUT, FINAL, bytes(512))
        pdu.tag, pdu.transfer_tag = 0x7777, 0x1234
        self.session.connection.send(pdu)
        with contextlib.suppress(initiator.Closed, TimeoutError):
            self.session.receive(0.5)

    def test_data_out_beyond_the_r2t(self):
        """Data-Out beyond what its R2T asked for is an error and writes nothing (RFC 7143 §7.5)"""
        self.session.write(0, 512, bytes(65536)).good()
        session = self.keep(initiator.Session(self.gateway, keys={"ImmediateData": "No"}))
        session.ready()
        tag = session.send(session.command_pdu(0, scsi.write16(512, 128), 65536, True))
        r2t = session.receive_for(tag)
        self.assertEqual(r2t.opcode, initiator.R2T)
        pdu = PDU(DATA_OUT, FINAL, b"\xFF" * 4096)
        pdu.header[8:16] = r2t.header[8:16]
        pdu.tag, pdu.transfer_tag = tag, r2t.transfer_tag
        pdu.put(40, 0x10000000)
        session.connection.send(pdu)
        with contextlib.suppress(initiator.Closed, TimeoutError, ConnectionError):
            result = session.receive_for(tag, 2)
            self.assertFalse(result.opcode == initiator.RESPONSE and result.status == 0 and result.response == 0)
        self.assertEqual(self.session.read(0, 512, 128).good().data, bytes(65536))

    def test_unexpected_immediate_data(self):
        """Immediate data where ImmediateData=No was agreed is refused"""
        session = self.keep(initiator.Session(self.gateway, keys={"ImmediateData": "No"}))
        session.ready()
        self.session.close()
        self.session = session
        session.send(session.command_pdu(0, scsi.write16(0, 1), 512, True, bytes(512)))
        self.assert_refused()

    def test_more_data_than_said(self):
        """More immediate data than the Expected Data Transfer Length is refused"""
        pdu = self.session.command_pdu(0, scsi.write16(0, 1), 512, True, bytes(4096))
        self.session.send(pdu)
        self.assert_refused()

    def test_command_window(self):
        """A command outside the CmdSN window is ignored (RFC 7143 §4.2.2.1)"""
        for distance in (10_000, -5):
            pdu = self.session.command_pdu(0, scsi.test_unit_ready())
            pdu.put(24, self.session.cmd_sn + distance).put(28, self.session.exp_stat_sn)
            self.session.connection.send(pdu)
        self.assert_still_works()
        self.assertEqual(list(self.session.pending), [])

    def test_unknown_lun(self):
        """A LUN that does not exist, in every addressing method, is LOGICAL UNIT NOT SUPPORTED (SAM-5 §4.7)"""
        for field in (0x0063 << 48, 0x4063 << 48, 0xC001 << 48, 0x0001_0000_0000_0001, 0xFFFF_FFFF_FFFF_FFFF):
            pdu = self.session.command_pdu(0, scsi.test_unit_ready())
            pdu.header[8:16] = field.to_bytes(8, "big")
            result = self.session.finish(self.session.send(pdu))
            self.assertEqual((result.sense_key, result.asc), (scsi.ILLEGAL_REQUEST, 0x2500), f"{field:#x}")

    def test_range(self):
        """Reads and writes outside the medium are refused, however large the numbers"""
        for lba, blocks in ((1 << 17, 1), ((1 << 64) - 1, 1), ((1 << 64) - 1, (1 << 32) - 1), (0, (1 << 32) - 1)):
            result = self.session.command(0, scsi.read16(lba, blocks), read=512)
            self.assertEqual(result.status, scsi.CHECK_CONDITION, f"{lba} + {blocks}")
            self.assertEqual(result.sense_key, scsi.ILLEGAL_REQUEST)
        self.assert_still_works()

    def test_residuals(self):
        """A transfer length that the CDB does not agree with gives a residual and never more data than expected"""
        for expected in (0, 1, 511, 513, 4095, 8192):
            tag = self.session.begin(0, scsi.read16(0, 8), read=expected)
            result = self.session.finish(tag, read=expected)
            self.assertIn(result.status, (scsi.GOOD, scsi.CHECK_CONDITION))
        self.assert_still_works()

    def test_broken_text(self):
        """Text that is no key=value does no harm"""
        for data in (b"\0" * 100, b"A" * 4000, b"=\0=\0", b"SendTargets\0", b"SendTargets=\xFF\xFE\0"):
            pdu = PDU(TEXT | IMMEDIATE, FINAL, data)
            pdu.tag, pdu.transfer_tag = self.session.new_tag(), RESERVED
            with contextlib.suppress(ConnectionError, initiator.Closed, TimeoutError):
                self.session.send(pdu)
                self.session.receive(1)

    def test_noise_in_a_session(self):
        """Random PDUs in a session, a thousand of them over many sessions, do no harm"""
        generator = random.Random(7)
        for _ in range(40):
            with contextlib.suppress(ConnectionError, initiator.Closed, TimeoutError):
                with initiator.Session(self.gateway, initiator="iqn.2026-01.example:noise") as session:
                    for _ in range(25):
                        session.connection.send(self.random_pdu(generator, session))
                    while True:
                        session.connection.receive(0.02)

    def random_pdu(self, generator, session):
        pdu = PDU(header=generator.randbytes(48), data=generator.randbytes(generator.choice((0, 0, 4, 48, 512))))
        opcode = generator.choice((0, 1, 2, 4, 5, 6, 0x10, generator.randrange(256)))
        pdu.header[0] = opcode | generator.choice((0, IMMEDIATE))
        pdu.header[4] = generator.choice((0, 0, 0, generator.randrange(4)))
        pdu.header[8:16] = bytes(8)
        if generator.random() < 0.8:
            pdu.put(24, session.cmd_sn + generator.randrange(3))
        if pdu.header[0] & 0x3F == COMMAND:
            # Harmless ones: this is about the transport, and LUN 0 is the writer's.
            pdu.header[32] = generator.choice((0x00, 0x12, 0x25, 0x28, 0x88, 0x9E, 0xA0, 0x1A, 0x5E))
        return pdu

    def test_half_a_pdu(self):
        """A connection that ends in the middle of a PDU, or is reset, takes nothing with it"""
        for part in (1, 47, 48, 100, 511):
            session = initiator.Session(self.gateway, initiator="iqn.2026-01.example:half")
            data = session.command_pdu(0, scsi.write16(2048, 1), 512, True, bytes(512)).put(24, session.cmd_sn).encode()
            session.connection.send_bytes(data[:part])
            session.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            session.close()

    def test_reinstatement(self):
        """A login with the same name and ISID takes the session's place (RFC 7143 §6.3.5)"""
        isid = b"\x80\0\0\0\0\x09"
        first = self.keep(initiator.Session(self.gateway, initiator="iqn.2026-01.example:twin", isid=isid))
        second = self.keep(initiator.Session(self.gateway, initiator="iqn.2026-01.example:twin", isid=isid))
        self.assertTrue(first.connection.is_closed_within(2))
        second.ready()

    def test_into_a_session(self):
        """A login into a session that lives, of whoever, or into one that is not there, is refused, and harms nobody"""
        gateway = self.start()
        with initiator.Session(gateway) as session:
            session.ready()
            for name, isid, into, status in [("test", session.isid, session.tsih, 0x0206),
                                             ("other", None, session.tsih, 0x0206),
                                             ("other", None, session.tsih ^ 0x5555, 0x020A)]:
                with self.assertRaises(initiator.LoginRefused) as refused:
                    initiator.Session(gateway, initiator=f"iqn.2026-01.example:{name}", isid=isid, into=into)
                self.assertEqual(refused.exception.status, status)
            session.read(0, 0, 8).good()

    def test_silent_initiator_is_asked(self):
        """NOP-Out with data is answered with that data (RFC 7143 §11.19)"""
        data = os.urandom(4096)
        self.assertEqual(self.session.ping(data)[:4096], data)


if __name__ == "__main__":
    unittest.main()
