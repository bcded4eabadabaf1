"""Whole sessions, from login to logout, that go wrong somewhere: requests lost, repeated, out of order, cut, with
fields at their limits. Some have digests, right ones and wrong ones, some prove who they are, or do not, and some are
for discovery. Behind each the gateway lives, another session's blocks are as they were, and nothing is left; nobody
got in without a proof where one is needed, and all that the gateway said has the number that was next.

`GATEWAYD_FUZZ_SECONDS` says for how long, `GATEWAYD_FUZZ_SEED` with which numbers; `./dev asan` runs it under the
sanitizer.
"""

import contextlib
import hashlib
import os
import random
import time
import unittest
from collections import Counter

from harness import initiator, process, scsi
from harness.case import GatewayCase
from harness.crc32c import digest
from harness.initiator import (
    COMMAND, DATA_OUT, FINAL, IMMEDIATE, LOGIN, LOGOUT, NOP_OUT, PDU, RESERVED, SNACK, TASK_MANAGEMENT, TEXT)
from harness.load import Writer

SECONDS = float(os.environ.get("GATEWAYD_FUZZ_SECONDS", "6"))
SEED = int(os.environ.get("GATEWAYD_FUZZ_SEED", str(int(time.time()) & 0xFFFFFF)))
NAME = "iqn.2026-01.example:fuzzed"
# Who has to prove it.
PROVEN, USER, SECRET = "iqn.2026-01.example:proven", "fuzzed", "fuzzed-secret-001"
MUTUAL_USER, MUTUAL_SECRET = "gateway", "gateway-secret-02"

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
SETTINGS = f"""
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
name = "{PROVEN}"
luns = [1]
[access.initiator.chap]
user = "{USER}"
secret = "{SECRET}"
mutual-user = "{MUTUAL_USER}"
mutual-secret = "{MUTUAL_SECRET}"
[[access.initiator]]
name = "*"
luns = [1]
"""


class Heard:
    """What the gateway says on a connection, checked as far as it can be, whatever it is an answer to."""

    def __init__(self, connection):
        self.connection = connection
        self.keys = {}
        # In full feature phase, and the StatSN that is next.
        self.is_in, self.stat_sn = False, None

    def take(self, seconds=0.02):
        pdu = self.connection.receive(seconds)
        if pdu.opcode not in (initiator.NOP_IN, initiator.RESPONSE, initiator.TASK_RESPONSE, initiator.LOGIN_RESPONSE,
                              initiator.TEXT_RESPONSE, initiator.DATA_IN, initiator.LOGOUT_RESPONSE, initiator.R2T,
                              initiator.REJECT):
            raise AssertionError(f"opcode {pdu.opcode:#x} comes from a target")
        if pdu.opcode == initiator.LOGIN_RESPONSE:
            self.login(pdu)
        is_status = pdu.flags & 1 if pdu.opcode == initiator.DATA_IN else pdu.opcode != initiator.R2T
        if is_status and (pdu.opcode != initiator.NOP_IN or pdu.tag != RESERVED):
            if self.stat_sn not in (None, pdu.stat_sn):
                raise AssertionError(f"StatSN {pdu.stat_sn}, not {self.stat_sn}, of opcode {pdu.opcode:#x}")
            self.stat_sn = pdu.stat_sn + 1 & 0xFFFFFFFF
        return pdu

    def login(self, pdu):
        if self.is_in:
            raise AssertionError("a Login Response in full feature phase")
        self.keys.update(initiator.decode_keys(pdu.data))
        if pdu.header[36:38] == bytes(2) and pdu.flags & 0x83 == 0x83:
            self.is_in = True
            self.connection.header_digest = self.keys.get("HeaderDigest") == "CRC32C"
            self.connection.data_digest = self.keys.get("DataDigest") == "CRC32C"

    def wait_for(self, is_there):
        """Takes what comes until that is so, for a while; the end is for the story to notice."""
        with contextlib.suppress(TimeoutError, initiator.Closed):
            while not is_there():
                self.take(0.2)


class Entry:
    """What is sent: a PDU, or one that depends on what was heard; the digests it gets, and what is done to it."""

    def __init__(self, story, make, digests=(False, False)):
        self.story, self.make, self.digests, self.distortions = story, make, digests, 0

    def distorted(self):
        entry = Entry(self.story, self.make, self.digests)
        entry.distortions = self.distortions + 1
        return entry

    def encode(self, heard):
        data = self.make(heard).encode()
        for _ in range(self.distortions):
            data = self.story.distorted(data)
        head, body = data[:48], data[48:]
        if self.digests[0] and len(head) == 48:
            head += self.checked(head)
        if self.digests[1] and body:
            body += self.checked(body)
        return head + body

    def checked(self, data):
        """Their digest: the right one nearly always, for behind a wrong one nothing is looked at."""
        right = digest(data)
        return right if self.story.rng.random() < 0.98 else bytes([right[0] ^ 1]) + right[1:]


class Story:
    """A session's PDUs, made from a seed, and what is done to them."""

    def __init__(self, rng, target):
        self.rng, self.target = rng, target
        self.cmd_sn, self.tag = 1, 0
        self.isid = b"\x80" + rng.randbytes(2) + b"\0\0\1"
        self.kind = rng.choices(("plain", "digests", "proven", "discovery"), (4, 3, 3, 2))[0]
        self.digests = (False, False)
        if self.kind == "digests" or rng.random() < 0.2:
            self.digests = rng.choice(((True, True), (True, False), (False, True)))
        self.name = PROVEN if self.kind == "proven" or rng.random() < 0.05 else NAME
        self.proof = rng.choice(("right", "right", "right", "wrong", "broken", "none"))
        # Whether a right proof was sent; whether nothing has changed the name, or where a Login Request ends.
        self.has_proved, self.has_name = False, True

    def login(self):
        """As functions of what was heard."""
        rng = self.rng
        keys = {"InitiatorName": self.name, "TargetName": self.target.name, "SessionType": "Normal"}
        if self.kind == "discovery":
            keys["SessionType"] = "Discovery"
            if rng.random() < 0.8:
                del keys["TargetName"]
        proves = self.kind == "proven" and self.proof != "none"
        keys["AuthMethod"] = rng.choice(("CHAP", "CHAP", "CHAP,None") if proves else ("None",) * 7 + ("CHAP",))
        operational = {"HeaderDigest": self.digest_key(0), "DataDigest": self.digest_key(1),
                       "InitialR2T": rng.choice(("Yes", "No")), "ImmediateData": rng.choice(("Yes", "No")),
                       "MaxRecvDataSegmentLength": rng.choice(("8192", "8192", "512")), "ErrorRecoveryLevel": "0",
                       "FirstBurstLength": rng.choice(("4096", "4096", "512")), "MaxBurstLength": "8192"}
        if self.kind == "discovery" and rng.random() < 0.8:
            for key in ("InitialR2T", "ImmediateData", "FirstBurstLength", "MaxBurstLength"):
                del operational[key]
        extra = b"".join(rng.sample(TEXTS, rng.choice((0, 0, 0, 1, 3))))
        stages = [(0 if proves else 0x81, lambda heard: initiator.encode_keys(keys))]
        if proves:
            algorithms = rng.choice(("5", "6", "7", "8", "5,6,7,8", "8,9,5"))
            stages += [(0, lambda heard: initiator.encode_keys({"CHAP_A": algorithms})), (0x81, self.prove)]
        stages.append((0x87, lambda heard: initiator.encode_keys(operational) + extra))
        for flags, text in stages:
            yield lambda heard, flags=flags, text=text: self.login_pdu(flags, text(heard))

    def login_pdu(self, flags, data):
        pdu = PDU(LOGIN | IMMEDIATE, flags, data)
        pdu.header[8:14] = self.isid
        return pdu.put(24, 1)

    def digest_key(self, which):
        return self.rng.choice(("CRC32C", "CRC32C,None")) if self.digests[which] else "None"

    def prove(self, heard):
        """CHAP's answer to the challenge, if there was one; right, wrong, or none that there can be."""
        rng = self.rng
        heard.wait_for(lambda: "CHAP_C" in heard.keys)
        try:
            challenge = bytes.fromhex(heard.keys.get("CHAP_C", "0x" + "00" * 16)[2:])
            number, algorithm = int(heard.keys.get("CHAP_I", "0")), heard.keys.get("CHAP_A", "5")
        except ValueError as error:
            raise AssertionError(f"a challenge that is none: {heard.keys}") from error
        method = {"5": "md5", "6": "sha1", "7": "sha256", "8": "sha3_256"}[algorithm]

        def answer(secret):
            return hashlib.new(method, bytes([number]) + secret + challenge).hexdigest()
        user, value = USER, "0x" + answer(SECRET.encode())
        if self.proof == "wrong":
            user, value = rng.choice((
                (USER, "0x" + answer(b"wrong-secret-0001")), (USER, "0x" + answer(MUTUAL_SECRET.encode())),
                (MUTUAL_USER, "0x" + answer(MUTUAL_SECRET.encode())), ("nobody", value), ("", value),
                # What an unknown name is compared with.
                ("nobody", "0x" + answer(challenge[::-1])), (USER, "0x" + answer(b"")), (USER, "0x" + challenge.hex())))
        elif self.proof == "broken":
            value = rng.choice(("", "0x", "0b", "0x0", "0xzz", value[2:], value[:-2], value + "00", value + " ",
                                "0x" + "00" * 1025, "0b" + "A" * 1500, "0b====", "-1", "0x" + "00" * len(challenge)))
        else:
            self.has_proved = "CHAP_C" in heard.keys
        keys = {"CHAP_N": user, "CHAP_R": value}
        if rng.random() < 0.4:
            keys["CHAP_I"] = rng.choice(("7", "7", "7", "256", "-1", "", "0x7"))
            keys["CHAP_C"] = rng.choice(("0x" + "5a" * 16, "0bWlpaWlpaWlpaWlpaWlpaWg==", "0x", "0x" + "00" * 1025,
                                         "0x" + challenge.hex(), "text"))
        return initiator.encode_keys(keys)

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
        # For discovery there are texts, mostly.
        kind = rng.choice((6, 7, 7, 7, 9)) if self.kind == "discovery" and rng.random() < 0.8 else rng.randrange(11)
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
        return [self.login_pdu(0x87, b"InitiatorName=" + NAME.encode() + b"\0")]

    def entries(self):
        """What is sent, mutated."""
        rng = self.rng
        told = [Entry(self, make) for make in self.login()]
        count = self.login_count = len(told)
        requests = [pdu for _ in range(rng.randrange(1, 14)) for pdu in self.request()]
        requests.append(self.number(PDU(LOGOUT | IMMEDIATE, FINAL)))
        told += [Entry(self, lambda heard, pdu=pdu: pdu, self.digests) for pdu in requests]
        # A login of several steps fails soon enough: half of what goes wrong does so behind it. With digests all of it:
        # from where on there are some must be clear.
        first = count if any(self.digests) else rng.choice((0, count))
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            place = rng.randrange(first, len(told))
            what = rng.randrange(5)
            if what == 0:
                told.insert(rng.randrange(first, len(told)), told[place])
            elif what == 1 and len(told) > first + 1:
                del told[place]
            elif what == 2:
                other = rng.randrange(first, len(told))
                told[place], told[other] = told[other], told[place]
            else:
                told[place] = told[place].distorted()
        return told

    def distorted(self, data):
        rng = self.rng
        before, data = data, bytearray(data)
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
        if before[:1] == bytes([LOGIN | IMMEDIATE]) and (
                data[:1] + data[4:8] + data[48:] != before[:1] + before[4:8] + before[48:]):
            self.has_name = False
        return bytes(data)


class Sessions(GatewayCase):
    def test_fuzzed(self):
        """Sessions that go wrong anywhere harm nobody else, and leave nothing of themselves"""
        gateway = self.start("memory:16M", "memory:16M", settings=SETTINGS)
        before = self.holdings(gateway)
        writer = self.keep(Writer(gateway, pause=0.001))
        writer.start()
        print(f"fuzzed sessions: seed {SEED} (GATEWAYD_FUZZ_SEED)", flush=True)
        end, number, outcomes = time.monotonic() + SECONDS, 0, Counter()
        while time.monotonic() < end:
            story = Story(random.Random(SEED * 1_000_003 + number), gateway)
            number += 1
            try:
                outcomes[story.kind, self.tell(gateway, story)] += 1
            except AssertionError as error:
                raise AssertionError(f"session {number - 1} of seed {SEED}, {story.kind}: {error}") from error
            if number % 64 == 0:
                self.assertIsNone(gateway.process.poll(), f"it has ended before session {number}\n{gateway.log}")
                if writer.error is not None:
                    raise AssertionError(f"session {number} disturbed another's") from writer.error
        self.assert_alive(gateway)
        writer.finish()
        self.assertFalse(writer.missing(gateway))
        self.assert_given_back(gateway, before, 40)
        told = ", ".join(f"{outcomes[kind, True]} of {outcomes[kind, True] + outcomes[kind, False]} {kind}"
                         for kind in ("plain", "digests", "proven", "discovery"))
        print(f"fuzzed sessions: {number} beside {writer.count} verified writes; seen in full feature phase: {told}")
        if number > 500:
            for kind in ("plain", "digests", "proven", "discovery"):
                self.assertGreater(outcomes[kind, True], 5, f"of {kind} hardly any gets in: {told}")

    def tell(self, gateway, story):
        """Sends it; whether full feature phase was seen."""
        rng = story.rng
        with initiator.Connection(gateway.address, gateway.port) as connection:
            heard = Heard(connection)
            with contextlib.suppress(OSError, TimeoutError, initiator.Closed):
                for number, entry in enumerate(story.entries()):
                    if number == story.login_count and any(story.digests):
                        # Who speaks earlier is sent a Login Response with a digest; see TooEarly.
                        heard.wait_for(lambda: heard.is_in)
                    connection.send_bytes(entry.encode(heard))
                    if rng.random() < 0.3:
                        # Some wait for answers, others send all of it at once.
                        with contextlib.suppress(TimeoutError):
                            heard.take()
                while rng.random() < 0.8:
                    heard.take()
            if heard.is_in and story.name == PROVEN and story.kind != "discovery" and story.has_name:
                self.assertTrue(story.has_proved, "let in without a proof")
            return heard.is_in


class TooEarly(GatewayCase):
    def test_digest(self):
        """A Login Response has no digest, also if the initiator does not wait for it (RFC 7143 §6.1)"""
        gateway = self.start()
        for _ in range(20):
            session = self.keep(initiator.Session(gateway, login=False))
            session._exchange(0, 1, {"InitiatorName": NAME, "TargetName": gateway.name, "SessionType": "Normal",
                                     "AuthMethod": "None"})
            login = session.login_pdu(1, 3, b"HeaderDigest=CRC32C\0DataDigest=CRC32C\0")
            ping = PDU(NOP_OUT | IMMEDIATE, FINAL, b"ping")
            ping.tag, ping.transfer_tag = 1, RESERVED
            ping.put(24, session.cmd_sn)
            # Both in one segment.
            session.connection.send_bytes(login.encode() + ping.encode(True, True))
            with contextlib.suppress(initiator.Closed):
                answer = session.connection.receive()
                self.assertEqual((answer.opcode, answer.flags), (initiator.LOGIN_RESPONSE, 0x87))
                session.connection.header_digest = session.connection.data_digest = True
                self.assertEqual(session.connection.receive(process.SLOWNESS).data, b"ping")


if __name__ == "__main__":
    unittest.main()
