"""The network at its worst: connections cut at any place, bits turned over, pings without an answer. What was
acknowledged is there, what was not is old or new in each block, and nothing else is harmed."""

import contextlib
import random
import socket
import struct
import time
import unittest

from harness import initiator, scsi
from harness.case import GatewayCase
from harness.initiator import Closed
from harness.load import BLOCK, Writer, pattern

DIGESTS = {"HeaderDigest": "CRC32C", "DataDigest": "CRC32C"}


class Cut(Exception):
    """The connection was cut here on purpose."""


class CutConnection(initiator.Connection):
    """Resets itself after so many bytes have been sent."""

    left = 1 << 60

    def send_bytes(self, data):
        if len(data) <= self.left:
            self.left -= len(data)
            return super().send_bytes(data)
        with contextlib.suppress(OSError):
            super().send_bytes(data[:self.left])
            # Some time for what was sent to be taken, or none.
            if self.left % 3 == 0:
                time.sleep(0.002)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
        raise Cut


class FlippedConnection(initiator.Connection):
    """Turns one bit over of what it sends after the login."""

    flip_at = None
    sent = 0

    def send_bytes(self, data):
        if self.flip_at is not None and self.sent <= self.flip_at // 8 < self.sent + len(data):
            data = bytearray(data)
            data[self.flip_at // 8 - self.sent] ^= 1 << self.flip_at % 8
        self.sent += len(data)
        super().send_bytes(bytes(data))


class Network(GatewayCase):
    BLOCKS = 40

    @contextlib.contextmanager
    def connections(self, kind):
        """Sessions that are made meanwhile have connections of this kind."""
        usual, initiator.Connection = initiator.Connection, kind
        try:
            yield
        finally:
            initiator.Connection = usual

    def content(self, version):
        return b"".join(pattern(lba, version) for lba in range(self.BLOCKS))

    def journey(self, session, version):
        """A bit of everything: immediate, unsolicited and solicited data, reads, a ping, task management, a logout."""
        session.ready()
        session.write(0, 0, self.content(version)).good()
        self.acknowledged = version
        session.read(0, 0, self.BLOCKS).good()
        session.ping(b"p" * 100)
        session.command(0, scsi.synchronize_cache10()).good()
        session.task_management(initiator.ABORT_TASK, 0, 9999)
        session.logout()

    def check(self, gateway, versions):
        """Each block is of one of these versions."""
        with initiator.Session(gateway, initiator="iqn.2026-01.example:reader") as reader:
            reader.ready()
            data = reader.read(0, 0, self.BLOCKS).good().data
        for lba in range(self.BLOCKS):
            block = data[lba * BLOCK:(lba + 1) * BLOCK]
            allowed = [pattern(lba, version) for version in versions]
            self.assertIn(block, allowed, f"block {lba}, of versions {versions}")

    def test_cut_anywhere(self):
        """A connection reset anywhere, within and between PDUs, leaves nothing behind and loses nothing"""
        gateway = self.start("memory:16M", "memory:16M")
        writer = self.keep(Writer(gateway, lun=1))
        before = self.holdings(gateway)
        writer.start()
        keys = {"InitialR2T": "Yes", "FirstBurstLength": "4096", "MaxBurstLength": "8192"}
        with initiator.Session(gateway) as first:
            first.ready()
            first.write(0, 0, self.content(0)).good()
        total = self.length_of_journey(gateway, keys)
        rng = random.Random(2)
        # Each boundary of a PDU is a multiple of four.
        places = sorted({*range(0, 600, 4), *(rng.randrange(total) for _ in range(150))})
        self.acknowledged, version = 1, 1
        for place in places:
            version += 1
            was = self.acknowledged
            with self.connections(CutConnection):
                CutConnection.left = place
                with contextlib.suppress(Cut, OSError, Closed):
                    session = initiator.Session(gateway, keys=keys)
                    self.journey(session, version)
            self.assert_alive(gateway)
            allowed = [self.acknowledged] if self.acknowledged == version else [was, version]
            self.check(gateway, allowed)
            if self.acknowledged != version:
                # Whole again for the next.
                with initiator.Session(gateway) as whole:
                    whole.ready()
                    whole.write(0, 0, self.content(version)).good()
                self.acknowledged = version
        writer.finish()
        self.assert_given_back(gateway, before, 5)
        print(f"network: cut at {len(places)} places of {total} bytes")

    def length_of_journey(self, gateway, keys):
        with self.connections(CutConnection):
            CutConnection.left = 1 << 60
            session = initiator.Session(gateway, keys=keys)
            connection = session.connection
            self.journey(session, 1)
        return (1 << 60) - connection.left

    def test_flipped_bits(self):
        """With digests on, a bit turned over anywhere never becomes an answer, or content that nobody wrote"""
        gateway = self.start("memory:16M")
        rng = random.Random(3)
        with initiator.Session(gateway, keys=DIGESTS) as session:
            self.assertTrue(session.connection.header_digest and session.connection.data_digest)
            session.ready()
            session.write(0, 0, self.content(0)).good()
        was, noticed, ended = 0, 0, 0
        for version in range(1, 121):
            with self.connections(FlippedConnection):
                session = initiator.Session(gateway, keys=DIGESTS, seconds=3)
            with session, contextlib.suppress(ConnectionError):
                session.ready()
                connection = session.connection
                # The command, its immediate data, or what is asked for later.
                span = 8 * (self.BLOCKS * BLOCK + 200)
                connection.sent, connection.flip_at = 0, rng.randrange(rng.choice((8 * 52, span)))
                done = False
                try:
                    result = session.write(0, 0, self.content(version))
                    done = result.status == scsi.GOOD
                    if not done:
                        noticed += 1
                except (Closed, AssertionError, TimeoutError):
                    # Closed; or a Reject, of what had to be thrown away.
                    ended += 1
            self.assert_alive(gateway)
            self.check(gateway, [version] if done else [was, version])
            with initiator.Session(gateway) as whole:
                whole.ready()
                whole.write(0, 0, self.content(version)).good()
            was = version
        self.assertGreater(noticed + ended, 60)
        print(f"network: {noticed} flipped bits answered with an error, {ended} with the end or a Reject")

    def test_no_sign_of_life(self):
        """A connection whose other end has vanished is asked, and closed; one that answers pings stays"""
        gateway = self.start(settings="[timeouts]\nnop-interval = 1\n")
        with initiator.Session(gateway, initiator="iqn.2026-01.example:alive") as alive, \
                initiator.Session(gateway, initiator="iqn.2026-01.example:vanished") as vanished:
            # Nothing unsolicited is sent to who has not spoken yet.
            alive.ready()
            vanished.ready()
            end = time.monotonic() + 4
            while time.monotonic() < end:
                with contextlib.suppress(TimeoutError):
                    alive.receive(0.5)
            names = [session["initiator"] for session in gateway.ask_json("sessions")]
            self.assertEqual(names, ["iqn.2026-01.example:alive"])
            self.assertTrue(vanished.connection.is_closed_within(1))


if __name__ == "__main__":
    unittest.main()
