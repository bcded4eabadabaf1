"""Whole sessions, from login to logout, that go wrong somewhere: requests lost, repeated, out of order, cut, with
fields at their limits. Behind each the gateway lives, another session's blocks are as they were, and nothing is left.

`GATEWAYD_FUZZ_SECONDS` says for how long, `GATEWAYD_FUZZ_SEED` with which numbers; `./dev asan` runs it under the
sanitizer.
"""

import contextlib
import os
import random
import time
import unittest

from harness import initiator, scsi
from harness.case import GatewayCase
from harness.initiator import (
    COMMAND, DATA_OUT, FINAL, IMMEDIATE, LOGIN, LOGOUT, NOP_OUT, PDU, RESERVED, SNACK, TASK_MANAGEMENT, TEXT)
from harness.load import Writer

SECONDS = float(os.environ.get("GATEWAYD_FUZZ_SECONDS", "6"))
SEED = int(os.environ.get("GATEWAYD_FUZZ_SEED", str(int(time.time()) & 0xFFFFFF)))
NAME = "iqn.2026-01.example:fuzzed"

# Numbers at which something ends.
LIMITS = (0, 1, 2, 3, 4, 0x7F, 0x80, 0xFF, 0x100, 0x1FF, 0x200, 0xFFFF, 0x10000, 0xFFFFFF, 0x7FFFFFFF, 0x80000000,
          0xFFFFFFFE, 0xFFFFFFFF)
# Where a header has numbers: offset and bytes.
FIELDS = ((1, 1), (2, 1), (4, 1), (5, 3), (8, 8), (16, 4), (20, 4), (24, 4), (28, 4), (32, 4), (36, 4), (40, 4),
          (44, 4), (33, 1), (34, 8), (42, 4))
TEXTS = (
    b"HeaderDigest=CRC32C,None\0", b"DataDigest=CRC32C\0", b"MaxRecvDataSegmentLength=512\0",
    b"MaxRecvDataSegmentLength=0\0", b"MaxRecvDataSegmentLength=16777216\0", b"MaxBurstLength=0\0",
    b"FirstBurstLength=16777215\0", b"MaxOutstandingR2T=65536\0", b"ErrorRecoveryLevel=2\0", b"MaxConnections=8\0",
    b"DataPDUInOrder=No\0", b"SendTargets=All\0", b"SendTargets=\0", b"=\0", b"InitialR2T=\0", b"a\0",
    b"X-com.example.a=" + b"b" * 300 + b"\0", b"InitiatorName=\0", b"TargetName=" + b"x" * 300 + b"\0",
    b"SessionType=Discovery\0", b"AuthMethod=CHAP,None\0", b"CHAP_A=5,6,7,8\0", b"CHAP_R=0x\0", b"CHAP_N=\xff\xfe\0")
# Operation codes, beside those of reads and writes.
OPERATIONS = (
    0x00, 0x03, 0x12, 0x1A, 0x25, 0x28, 0x2A, 0x34, 0x35, 0x37, 0x41, 0x42, 0x4D, 0x55, 0x56, 0x5A, 0x5E, 0x5F, 0x83,
    0x84, 0x89, 0x8B, 0x8F, 0x93, 0x9C, 0x9E, 0xA0, 0xA3, 0xA4)


# Nobody but the writer and the reader sees the unit that they use.
SETTINGS = """
[limits]
login-timeout = 2
sessions = 64
[[access.initiator]]
name = "iqn.2026-01.example:writer-0"
luns = [0]
[[access.initiator]]
name = "iqn.2026-01.example:reader"
luns = [0]
[[access.initiator]]
name = "*"
luns = [1]
"""


class Story:
    """A session's PDUs, made from a seed, and what is done to them."""

    def __init__(self, rng, target):
        self.rng, self.target = rng, target
        self.cmd_sn, self.tag = 1, 0
        self.isid = b"\x80" + rng.randbytes(2) + b"\0\0\1"

    def login(self):
        rng = self.rng
        keys = {"InitiatorName": NAME, "TargetName": self.target.name, "SessionType": "Normal", "AuthMethod": "None"}
        operational = {"HeaderDigest": "None", "DataDigest": "None", "InitialR2T": rng.choice(("Yes", "No")),
                       "ImmediateData": rng.choice(("Yes", "No")), "MaxRecvDataSegmentLength": "8192",
                       "ErrorRecoveryLevel": "0", "FirstBurstLength": "4096", "MaxBurstLength": "8192"}
        extra = b"".join(rng.sample(TEXTS, rng.choice((0, 0, 0, 1, 3))))
        for stage, following, data in ((0, 1, initiator.encode_keys(keys)),
                                       (1, 3, initiator.encode_keys(operational) + extra)):
            pdu = PDU(LOGIN | IMMEDIATE, 0x80 | stage << 2 | following, data)
            pdu.header[8:14] = self.isid
            yield pdu.put(24, self.cmd_sn)

    def number(self, pdu):
        self.tag += 1
        pdu.tag = self.tag
        pdu.put(24, self.cmd_sn)
        if not pdu.header[0] & IMMEDIATE:
            self.cmd_sn += 1
        return pdu

    def command(self, cdb, expected=0, is_write=False, data=b""):
        pdu = PDU(COMMAND, FINAL | 1 | (0 if not expected else 0x20 if is_write else 0x40), data)
        pdu.put(20, expected)
        pdu.header[32:48] = bytes(cdb).ljust(16, b"\0")
        pdu.header[9] = 1
        return self.number(pdu)

    def request(self):
        rng = self.rng
        kind = rng.randrange(11)
        blocks = rng.choice((1, 2, 8, 64))
        if kind < 2:
            return [self.command(scsi.read16(rng.randrange(4096), blocks), blocks * 512)]
        if kind < 4:
            first = rng.randbytes(min(blocks * 512, rng.choice((0, 512, 4096))))
            command = self.command(scsi.write16(rng.randrange(4096), blocks), blocks * 512, True, first)
            rest = []
            for number in range(rng.randrange(3)):
                data = PDU(DATA_OUT, rng.choice((0, FINAL)), rng.randbytes(512))
                data.header[9] = 1
                data.tag, data.transfer_tag = command.tag, rng.choice((RESERVED, 1, 2))
                rest.append(data.put(36, number).put(40, len(first) + 512 * number))
            return [command, *rest]
        if kind == 4:
            opcode = rng.choice(OPERATIONS)
            size = rng.choice((0, 8, 24, 96, 512))
            is_write = rng.random() < 0.4
            data = rng.randbytes(size) if is_write else b""
            return [self.command(bytes([opcode]) + rng.randbytes(15), size, is_write, data)]
        if kind == 5:
            # All but the resets of the whole target, which end what others have under way.
            pdu = PDU(TASK_MANAGEMENT | IMMEDIATE, FINAL | rng.choice((1, 2, 3, 4, 5, 8)))
            pdu.header[9] = 1
            return [self.number(pdu.put(20, rng.randrange(self.tag + 2)).put(32, self.cmd_sn))]
        if kind == 6:
            pdu = PDU(NOP_OUT | rng.choice((0, IMMEDIATE)), FINAL, rng.randbytes(rng.choice((0, 4, 100))))
            return [self.number(pdu.put(20, RESERVED))]
        if kind == 7:
            pdu = PDU(TEXT | IMMEDIATE, rng.choice((FINAL, FINAL, 0x40, 0)), rng.choice(TEXTS))
            return [self.number(pdu.put(20, rng.choice((RESERVED, 1))))]
        if kind == 8:
            return [self.number(PDU(SNACK | IMMEDIATE, FINAL | rng.randrange(4)).put(40, rng.randrange(4)))]
        if kind == 9:
            return [self.number(PDU(LOGOUT | IMMEDIATE, FINAL | rng.randrange(3)))]
        return list(self.login())[:1]

    def pdus(self):
        """The PDUs as bytes, mutated."""
        rng = self.rng
        told = list(self.login())
        for _ in range(rng.randrange(1, 14)):
            told += self.request()
        told.append(self.number(PDU(LOGOUT | IMMEDIATE, FINAL)))
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            place = rng.randrange(len(told))
            what = rng.randrange(5)
            if what == 0:
                told.insert(rng.randrange(len(told)), told[place])
            elif what == 1 and len(told) > 1:
                del told[place]
            elif what == 2:
                other = rng.randrange(len(told))
                told[place], told[other] = told[other], told[place]
            else:
                told[place] = self.distorted(told[place])
        for each in told:
            yield each if isinstance(each, bytes) else each.encode()

    def distorted(self, pdu):
        rng = self.rng
        data = bytearray(pdu if isinstance(pdu, bytes) else pdu.encode())
        for _ in range(rng.randrange(1, 4)):
            if rng.random() < 0.6:
                offset, size = rng.choice(FIELDS)
                data[offset:offset + size] = (rng.choice(LIMITS) & (1 << 8 * size) - 1).to_bytes(size, "big")
            elif not data:
                break
            elif rng.random() < 0.5:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            else:
                del data[rng.randrange(len(data)):]
                break
        if data and data[0] & 0x3F == TASK_MANAGEMENT and len(data) > 1 and data[1] & 0x7F in (6, 7):
            data[1] = FINAL | 1
        return bytes(data)


class Sessions(GatewayCase):
    def test_fuzzed(self):
        """Sessions that go wrong anywhere harm nobody else, and leave nothing of themselves"""
        gateway = self.start("memory:16M", "memory:16M", settings=SETTINGS)
        before = self.holdings(gateway)
        writer = self.keep(Writer(gateway, pause=0.001))
        writer.start()
        print(f"fuzzed sessions: seed {SEED} (GATEWAYD_FUZZ_SEED)", flush=True)
        end, number = time.monotonic() + SECONDS, 0
        while time.monotonic() < end:
            rng = random.Random(SEED * 1_000_003 + number)
            number += 1
            with contextlib.suppress(OSError, TimeoutError, initiator.Closed), \
                    initiator.Connection(gateway.address, gateway.port) as connection:
                for data in Story(rng, gateway).pdus():
                    connection.send_bytes(data)
                    if rng.random() < 0.3:
                        # Some wait for answers, others send all of it at once.
                        connection.receive(0.02)
                while rng.random() < 0.8:
                    connection.receive(0.02)
            if number % 64 == 0:
                self.assert_alive(gateway)
                if writer.error is not None:
                    raise AssertionError(f"session {number} disturbed another's") from writer.error
        self.assert_alive(gateway)
        writer.finish()
        self.assertFalse(writer.missing(gateway))
        self.assert_given_back(gateway, before, 40)
        print(f"fuzzed sessions: {number} beside {writer.count} verified writes")


if __name__ == "__main__":
    unittest.main()
