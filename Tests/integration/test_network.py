"""The network at its worst: connections cut at any place, bits turned over, pings without an answer. What was
acknowledged is there, what was not is old or new in each block, and nothing else is harmed."""

import contextlib
import random
import socket
import struct
import time
import unittest

from harness import initiator, process, scsi
from harness.case import GatewayCase
from harness.initiator import Closed
from harness.load import BLOCK, Writer, pattern

DIGESTS = {"HeaderDigest": "CRC32C", "DataDigest": "CRC32C"}


class Cut(Exception):
    """The connection was cut here on purpose."""


class CutConnection(initiator.Connection):
    """Resets itself after so many bytes have been sent, or so many PDUs have been received."""

    left = received = 1 << 60
    # Where each PDU that was sent has ended, of the last connection.
    ends = []

    def send_bytes(self, data):
        if len(data) <= self.left:
            self.left -= len(data)
            super().send_bytes(data)
            self.ends.append((self.ends or [0])[-1] + len(data))
            return
        with contextlib.suppress(OSError):
            super().send_bytes(data[:self.left])
            # Some time for what was sent to be taken, or none.
            if self.left % 3 == 0:
                time.sleep(0.002)
        self.reset()

    def receive(self, seconds=None):
        if self.received == 0:
            self.reset()
        self.received -= 1
        return super().receive(seconds)

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
        raise Cut


class FlippedConnection(initiator.Connection):
    """Turns one bit over of what it sends after the login, or has two runs of bytes change places."""

    flip_at = None
    swaps = False
    sent = 0

    def send_bytes(self, data):
        if self.flip_at is not None and self.sent <= self.flip_at // 8 < self.sent + len(data):
            data, place = bytearray(data), self.flip_at // 8 - self.sent
            if self.swaps:
                data[place:place + 16] = data[place + 8:place + 16] + data[place:place + 8]
            else:
                data[place] ^= 1 << self.flip_at % 8
        self.sent += len(data)
        super().send_bytes(bytes(data))


class NarrowConnection(initiator.Connection):
    """What it is sent and does not take stays with the sender, but for a few KiB."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)


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
        """A bit of everything: immediate and solicited data, reads, a ping, task management, a logout."""
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
        """A connection reset anywhere, at and between PDUs of both sides, leaves nothing behind and loses nothing"""
        gateway = self.start("memory:16M", "memory:16M")
        writer = self.keep(Writer(gateway, lun=1))
        before = self.holdings(gateway)
        writer.start()
        keys = {"InitialR2T": "Yes", "FirstBurstLength": "4096", "MaxBurstLength": "8192"}
        with initiator.Session(gateway) as first:
            first.ready()
            first.write(0, 0, self.content(0)).good()
        ends, answers = self.length_of_journey(gateway, keys)
        rng = random.Random(2)
        # Behind each PDU, within and behind the header of the next, and anywhere.
        places = sorted({place for end in [0, *ends[:-1]] for place in (end, end + 20, end + 48)}
                        | {rng.randrange(ends[-1]) for _ in range(100)})
        self.acknowledged, self.version = 1, 1
        for place in places:
            self.cut(gateway, keys, left=place)
        # And behind each PDU of the target.
        for number in range(answers):
            self.cut(gateway, keys, received=number)
        writer.finish()
        self.assert_given_back(gateway, before, 5)
        print(f"network: cut at {len(places)} places of {len(ends)} PDUs, and behind {answers} of the target's")

    def cut(self, gateway, keys, left=1 << 60, received=1 << 60):
        """A journey that ends there; then each block is of before it or of it, and of it if it was acknowledged."""
        self.version += 1
        was = self.acknowledged
        with self.connections(CutConnection), contextlib.suppress(Cut, OSError, Closed):
            CutConnection.left, CutConnection.received = left, received
            self.journey(initiator.Session(gateway, keys=keys), self.version)
        self.assert_alive(gateway)
        self.check(gateway, [self.version] if self.acknowledged == self.version else [was, self.version])
        if self.acknowledged != self.version:
            # Whole again for the next.
            with initiator.Session(gateway) as whole:
                whole.ready()
                whole.write(0, 0, self.content(self.version)).good()
            self.acknowledged = self.version

    def length_of_journey(self, gateway, keys):
        """Where each PDU that is sent ends, in bytes; how many PDUs come."""
        with self.connections(CutConnection):
            CutConnection.left = CutConnection.received = 1 << 60
            CutConnection.ends = []
            session = initiator.Session(gateway, keys=keys)
            self.journey(session, 1)
        return list(CutConnection.ends), (1 << 60) - session.connection.received

    def test_flipped_bits(self):
        """With digests on, bits turned over and bytes that changed places never become content that nobody wrote"""
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
                connection.swaps = version % 3 == 0
                connection.sent, connection.flip_at = 0, rng.randrange(rng.choice((8 * 52, span)))
                done = False
                try:
                    result = session.write(0, 0, self.content(version))
                    done = result.status == scsi.GOOD
                    if not done:
                        noticed += 1
                except (Closed, AssertionError):
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

    def test_zero_window(self):
        """Who asks and takes nothing is ended after two intervals of keep-alive, and its buffers are others' again"""
        gateway = self.start("memory:16M", "slow:64M:1", settings="[timeouts]\nnop-interval = 1\n")
        before = self.holdings(gateway)
        writer = self.keep(Writer(gateway))
        writer.start()
        with self.connections(NarrowConnection):
            taker = self.keep(initiator.Session(gateway, initiator="iqn.2026-01.example:takes-nothing"))
        taker.ready(1)
        begin = time.monotonic()
        for number in range(100):
            taker.begin(1, scsi.read16(512 * number, 512), read=512 * BLOCK)
        process.wait_until(lambda: self.holdings(gateway)["arena"] > 1 << 20, 2, "its data waits in buffers")

        def is_there():
            # It has a sign of life in it, which asks for no answer: it is not for its silence that it is ended.
            alive = initiator.PDU(initiator.NOP_OUT | initiator.IMMEDIATE, initiator.FINAL)
            alive.tag = alive.transfer_tag = initiator.RESERVED
            with contextlib.suppress(OSError):
                taker.send(alive)
            return taker.initiator in [session["initiator"] for session in gateway.ask_json("sessions")]
        process.wait_until(lambda: not is_there(), 8, "it is ended", step=0.1)
        self.assertGreaterEqual(time.monotonic() - begin, 2, "ended too early")
        self.assertEqual(self.metric(gateway, "connections_ended_total", reason="stalled"), 1)
        self.assertEqual(self.metric(gateway, "keep_alives_total", outcome="missed"), 0)
        self.assertIn("it has taken no data for", gateway.log)
        writer.reach(writer.count + 20)
        writer.finish()
        self.assertLess(writer.longest, process.SLOWNESS)
        self.assert_given_back(gateway, before)

    def test_slow_and_steady(self):
        """Who takes its data slowly, three MB/s of it, is not ended for it, however much waits"""
        gateway = self.start("slow:64M:1", settings="[timeouts]\nnop-interval = 1\n")
        before = self.holdings(gateway)
        with self.connections(NarrowConnection):
            taker = self.keep(initiator.Session(gateway, seconds=10))
        taker.ready()
        taker.write(0, 0, self.content(1)).good()
        # More than the network between the two holds, so that something waits to be sent all the time.
        tags = [taker.begin(0, scsi.read16(0, 128), read=128 * BLOCK) for _ in range(120)]
        end, taken = time.monotonic() + 6, 0
        while time.monotonic() < end:
            result = taker.finish(tags.pop(0), read=128 * BLOCK).good()
            self.assertEqual(result.data[:self.BLOCKS * BLOCK], self.content(1))
            tags.append(taker.begin(0, scsi.read16(0, 128), read=128 * BLOCK))
            taken += 1
            if taken % 40 == 0:
                self.assertGreater(self.holdings(gateway)["arena"], 1 << 20, "nothing waits to be sent")
            time.sleep(0.02)
        self.assertGreater(taken, 80)
        for tag in tags:
            taker.finish(tag, read=128 * BLOCK).good()
        self.assertEqual(self.metric(gateway, "connections_ended_total", reason="stalled"), 0)
        taker.logout()
        self.assert_given_back(gateway, before)

    def test_slow_and_silent(self):
        """Who takes three MB/s of what it has asked for, and says nothing meanwhile, is not ended for its silence"""
        gateway = self.start("slow:64M:1", settings="[timeouts]\nnop-interval = 1\n")
        with self.connections(NarrowConnection):
            taker = self.keep(initiator.Session(gateway, seconds=10))
        taker.ready()
        total = 16 << 20
        for _ in range(16):
            taker.begin(0, scsi.read16(0, 2048), read=1 << 20)
        # Pings come behind the data that waits, so it cannot have answered any.
        for _ in self.taken(gateway, taker, total):
            time.sleep(0.01)

    def taken(self, gateway, taker, total):
        """Takes `total` bytes of what the session is sent, as they come: how many there are so far."""
        taken = 0
        while taken < total:
            part = taker.connection.socket.recv(1 << 15)
            self.assertTrue(part, f"ended after {taken >> 20} MiB: {gateway.log.splitlines()[-1]}")
            taken += len(part)
            yield taken

    def test_slow_at_the_end(self):
        """Who was quick has much in the kernel, with a ping behind; it is not ended while it takes the rest slowly"""
        gateway = self.start("memory:64M", settings="[timeouts]\nnop-interval = 1\n")
        taker = self.keep(initiator.Session(gateway, seconds=10))
        taker.ready()
        total, quick = 27 << 20, 23 << 20
        for _ in range(28):
            taker.begin(0, scsi.read16(0, 2048), read=1 << 20)
        for taken in self.taken(gateway, taker, total):
            if taken > quick:
                taker.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 49152)
                time.sleep(0.03)
        # A MiB is left: what it was sent would come in any case.
        self.assertEqual(self.metric(gateway, "keep_alives_total", outcome="missed"), 0)
        self.assertEqual(len(gateway.ask_json("sessions")), 1)

    def test_drops_that_starve_others(self):
        """Who takes a few bytes now and then, while others wait for its buffers, is ended, and they are served"""
        gateway = self.start("slow:64M:1", arguments=["--threads", "1"],
                             settings='[limits]\nmemory = "16M"\n[timeouts]\nnop-interval = 1\n')
        with self.connections(NarrowConnection):
            taker = self.keep(initiator.Session(gateway, seconds=10))
        taker.ready()
        other = self.keep(initiator.Session(gateway, initiator="iqn.2026-01.example:other"))
        other.ready()
        for _ in range(100):
            taker.begin(0, scsi.read16(0, 2048), read=1 << 20)
        time.sleep(1)
        tag = other.begin(0, scsi.read16(0, 2048), read=1 << 20)
        end, result = time.monotonic() + 12 * process.SLOWNESS, None
        while result is None and time.monotonic() < end:
            with contextlib.suppress(TimeoutError):
                result = other.finish(tag, read=1 << 20, seconds=0.3)
            with contextlib.suppress(OSError):
                taker.connection.socket.recv(65536, socket.MSG_DONTWAIT)
        self.assertIsNotNone(result, "it was never answered")
        result.good()
        self.assertEqual([session["initiator"] for session in gateway.ask_json("sessions")], [other.initiator])


if __name__ == "__main__":
    unittest.main()
