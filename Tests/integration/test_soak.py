"""Many sessions and units, verified I/O, and everything that goes wrong in a cluster's day, at once and for a while:
nothing that was acknowledged is lost, each fault is answered as documented, and all is given back at the end.

The faults of disks: bad blocks, a flush that failed, one that never answers, a slow one, one that is gone, some that
are pulled out, one that is read-only for a while, and a thin one whose pool is full for a while.

`./dev soak [seconds]` is the long form; `./dev test` has a short one of fewer sessions.
"""

import os
import random
import socket
import struct
import tempfile
import threading
import time
import traceback
import unittest
from collections import Counter
from pathlib import Path

from harness import initiator, process, scsi
from harness.initiator import DATA_OUT, FINAL, Closed
from harness.load import BLOCK, pattern
from harness.loops import LoopDisk, are_available
from harness.case import GatewayCase

SECONDS = float(os.environ.get("GATEWAYD_SOAK_SECONDS", "8"))
IS_LONG = SECONDS >= 60
SESSIONS = int(os.environ.get("GATEWAYD_SOAK_SESSIONS", "256" if IS_LONG else "48"))
LUNS = int(os.environ.get("GATEWAYD_SOAK_LUNS", "64" if IS_LONG else "16"))
SEED = int(os.environ.get("GATEWAYD_SOAK_SEED", str(int(time.time()) & 0xFFFFFF)))
WORKERS = 8
# A disk is left 64 commands a thread that were aborted and never come back; then its unit is busy.
HUNG_MAX = 64 // WORKERS - 1

# What a session has to itself of each of its units.
REGION = 64
PLAIN = LUNS - 5
MEDIUM, HANG, SLOW, FLUSH, GONE = range(PLAIN, LUNS)
# Where there are loop devices.
PROTECTED, THIN = LUNS, LUNS + 1
# What is written to a thin disk at once, and how many of them there are before it gives all of it back.
CHUNK, CHUNKS = 128, 100


def write_same16(lba, blocks):
    return struct.pack(">BBQIBB", 0x93, 0, lba, blocks, 0, 0)


def unmap(lba, blocks):
    return (bytes([0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]),
            struct.pack(">HH4xQI4x", 22, 16, lba, blocks))


def told(session, lun, cdb, read=0, write=None):
    """The answer to a command once the unit attentions are told: other disks come and go meanwhile."""
    for _ in range(16):
        result = session.command(lun, cdb, read=read, write=write, seconds=30)
        if result.sense_key != scsi.UNIT_ATTENTION:
            break
    return result


def expect(result, *allowed):
    """The answer is one of these: sense key and code, or GOOD."""
    found = scsi.GOOD if result.status == scsi.GOOD else (result.sense_key, result.asc)
    if found not in allowed:
        raise AssertionError(f"answered with status {result.status:#x}, {found}; allowed: {allowed}")
    return found


class Client:
    """A session, the blocks that are its own, and what may be in them: versions, of which 0 is zeros."""

    def __init__(self, worker, number, lun):
        self.worker, self.number, self.lun = worker, number, lun
        self.base = 8 + number * REGION
        self.possible = {}
        self.version = 0
        self.session = None
        self.isid = b"\x80" + struct.pack(">IB", number + 1, 0)

    def open(self):
        # Digests cost this side much.
        keys = {"HeaderDigest": "CRC32C", "DataDigest": "CRC32C"} if self.number % 16 == 0 else {}
        if self.number % 5 == 0:
            keys = {**keys, "InitialR2T": "No"}
        if self.number % 7 == 0:
            keys = {**keys, "ImmediateData": "No"}
        name = f"iqn.2026-01.example:soak-{self.number}"
        self.session = initiator.Session(self.worker.target, initiator=name, isid=self.isid, keys=keys, seconds=30)
        self.worker.count["logins"] += 1

    def content(self, first, count, version):
        if version == 0:
            return bytes(count * BLOCK)
        return b"".join(pattern(lba, version << 16 | self.number) for lba in range(first, first + count))

    def begin(self, rng):
        """One request, sent: (tag, what, first, count, version)."""
        first = self.base + rng.randrange(REGION)
        count = rng.randint(1, self.base + REGION - first)
        what = rng.choices(("write", "read", "zero", "flush"), (45, 45, 5, 5))[0]
        if what == "read":
            return self.session.begin(self.lun, scsi.read16(first, count), read=count * BLOCK), what, first, count, 0
        if what == "flush":
            return self.session.begin(self.lun, scsi.synchronize_cache10()), what, first, count, 0
        version = 0
        if what == "write":
            self.version = version = self.version + 1
            cdb, data = scsi.write16(first, count, fua=rng.random() < 0.2), self.content(first, count, version)
        else:
            cdb, data = write_same16(first, count), bytes(BLOCK)
        for lba in range(first, first + count):
            self.possible.setdefault(lba, {0}).add(version)
        return self.session.begin(self.lun, cdb, write=data), what, first, count, version

    def end(self, request):
        """Its answer, compared. Whether it was carried out."""
        tag, what, first, count, version = request
        data = None
        if what == "write":
            data = self.content(first, count, version)
        elif what == "zero":
            data = bytes(BLOCK)
        result = self.session.finish(tag, read=count * BLOCK if what == "read" else 0, write=data, seconds=30)
        if result.sense_key == scsi.UNIT_ATTENTION:
            self.worker.count["unit attentions"] += 1
            return False
        result.good()
        if what == "read":
            self.compare(first, count, result.data)
        elif what in ("write", "zero"):
            for lba in range(first, first + count):
                self.possible[lba] = {version}
        return True

    def compare(self, first, count, data):
        for index in range(count):
            lba = first + index
            block = data[index * BLOCK:(index + 1) * BLOCK]
            allowed = self.possible.get(lba, {0})
            if not any(block == self.content(lba, 1, version) for version in allowed):
                raise AssertionError(f"LUN {self.lun}, block {lba} of session {self.number} holds {block[:16].hex()}, "
                                     f"not one of {allowed}")
            if len(allowed) > 1:
                # What was read once stays.
                self.possible[lba] = {version for version in allowed if block == self.content(lba, 1, version)}

    def verify(self):
        """All of its blocks, whatever unit attentions there are."""
        self.compare(self.base, REGION,
                     told(self.session, self.lun, scsi.read16(self.base, REGION), REGION * BLOCK).good().data)
        self.worker.count["blocks compared at the end"] += REGION

    def close(self):
        if self.session is not None:
            self.session.close()
            self.session = None

    def reset(self):
        """The connection ends as if the machine had lost power."""
        self.session.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


class Worker(threading.Thread):
    """A share of the sessions, on units that no other worker uses, so that it knows what a reset ends."""

    def __init__(self, target, index, end, barrier):
        super().__init__(daemon=True)
        self.target, self.index, self.end, self.barrier = target, index, end, barrier
        self.rng = random.Random(SEED * 1000 + index)
        self.count = Counter()
        self.error = None
        luns = [lun for lun in range(PLAIN) if lun % WORKERS == index]
        # Its blocks of the disk that cannot flush.
        self.unsafe = 8 + index * 8
        self.clients = [Client(self, number, luns[number // WORKERS % len(luns)])
                        for number in range(index, SESSIONS, WORKERS)]

    def run(self):
        try:
            for client in self.clients:
                client.open()
                client.session.ready(client.lun)
            self.barrier.wait(120)
            actions = (
                (self.transfer, 1000), (self.logout, 25), (self.lose, 20), (self.reinstate, 10), (self.abort, 12),
                (self.reset_unit, 4), (self.medium_error, 6), (self.hang, 2), (self.slow, 3), (self.hostile, 12),
                (self.flush_error, 6), (self.gone, 4))
            while time.monotonic() < self.end:
                self.rng.choices([a for a, _ in actions], [w for _, w in actions])[0]()
            for client in self.clients:
                client.verify()
        except Exception:  # the test reports it
            self.error = traceback.format_exc()
            self.barrier.abort()
        finally:
            for client in self.clients:
                client.close()

    def client(self):
        return self.rng.choice(self.clients)

    def transfer(self):
        """Several requests of several sessions at once, answered in any order."""
        chosen = self.rng.sample(self.clients, min(len(self.clients), self.rng.randint(1, 6)))
        # Requests of one session must not overlap: their order at the disk is nobody's.
        under_way = [(client, client.begin(self.rng)) for client in chosen]
        for client, request in under_way:
            client.end(request)
            self.count["commands"] += 1

    def logout(self):
        client = self.client()
        assert client.session.logout() == 0
        client.session = None
        self.count["logouts"] += 1
        client.open()

    def lose(self):
        """A host that loses power with a request under way, and comes back."""
        client = self.client()
        client.begin(self.rng)
        client.reset()
        self.count["connections reset"] += 1
        client.open()

    def reinstate(self):
        """The same initiator port logs in again: its old session is over (RFC 7143 6.3.5)."""
        client = self.client()
        old = client.session
        client.begin(self.rng)
        client.open()
        if not old.connection.is_closed_within(10):
            raise AssertionError("the session that was reinstated is still there")
        old.close()
        self.count["reinstatements"] += 1

    def abort(self):
        client = self.client()
        request = client.begin(self.rng)
        tag = request[0]
        # 0: it was aborted; 1: there was no such task any more, for it had been answered.
        response = client.session.task_management(
            initiator.ABORT_TASK, client.lun, tag, client.session.cmd_sn - 1, seconds=10)
        if response not in (0, 1):
            raise AssertionError(f"ABORT TASK is answered with {response}")
        self.count["tasks aborted" if response == 0 else "tasks answered before their abort"] += 1
        client.session.pending.clear()
        client.session.command(client.lun, scsi.test_unit_ready())

    def reset_unit(self):
        client = self.client()
        if client.session.task_management(initiator.LUN_RESET, client.lun, seconds=10) != 0:
            raise AssertionError("LUN RESET is refused")
        self.count["units reset"] += 1
        for other in self.clients:
            if other.lun == client.lun:
                other.session.ready(other.lun)

    def medium_error(self):
        session = self.client().session
        result = told(session, MEDIUM, scsi.read16(96, 16), 16 * BLOCK)
        if (result.sense_key, result.asc) != (scsi.MEDIUM_ERROR, 0x1100):
            raise AssertionError(f"a medium error is answered with {result.sense_key}, {result.asc}")
        told(session, MEDIUM, scsi.read16(104, 8), 8 * BLOCK).good()
        self.count["medium errors"] += 1

    def hang(self):
        """A command that the disk keeps: its abort is answered, and the unit serves others."""
        if self.count["hung commands aborted"] == HUNG_MAX:
            return
        session = self.client().session
        session.ready(HANG)
        tag = session.begin(HANG, scsi.read16(0, 1), read=BLOCK)
        response = session.task_management(initiator.ABORT_TASK, HANG, tag, session.cmd_sn - 1, seconds=10)
        # 1: it had its answer already, a unit attention.
        if response not in (0, 1):
            raise AssertionError(f"the abort of a command that hangs is answered with {response}")
        session.pending.clear()
        told(session, HANG, scsi.read16(1024, 8), 8 * BLOCK).good()
        if response == 0:
            self.count["hung commands aborted"] += 1

    def slow(self):
        session = self.client().session
        told(session, SLOW, scsi.read16(0, 8), 8 * BLOCK).good()
        self.count["slow reads"] += 1

    def flush_error(self):
        """A flush has failed: none succeeds any more, and what needs none goes on."""
        session = self.client().session

        def content():
            return b"".join(pattern(self.unsafe + i, self.rng.getrandbits(60)) for i in range(8))
        data = content()
        told(session, FLUSH, scsi.write16(self.unsafe, 8), write=data).good()
        expect(told(session, FLUSH, scsi.synchronize_cache10()), (scsi.HARDWARE_ERROR, 0x4400))
        other = content()
        expect(told(session, FLUSH, scsi.write16(self.unsafe, 8, fua=True), write=other), (scsi.HARDWARE_ERROR, 0x4400))
        # What was not acknowledged may be there all the same.
        if told(session, FLUSH, scsi.read16(self.unsafe, 8), 8 * BLOCK).good().data not in (data, other):
            raise AssertionError(f"block {self.unsafe} does not hold what was written without a flush")
        self.count["flushes and FUA refused"] += 1

    def gone(self):
        """A disk that is gone is no unit, so that multipath gives the path up."""
        expect(told(self.client().session, GONE, scsi.read16(self.rng.randrange(64), 8), 8 * BLOCK),
               (scsi.ILLEGAL_REQUEST, 0x2500))
        self.count["commands to a disk that is gone"] += 1

    def hostile(self):
        """Somebody who does not speak iSCSI, stops in the middle of it, or lies about a length."""
        kind = self.rng.randrange(5)
        with socket.create_connection((self.target.address, self.target.port), timeout=10) as stranger:
            if kind == 0:
                stranger.sendall(self.rng.randbytes(self.rng.randint(1, 400)))
            elif kind == 1:
                # A Login Request whose data never comes.
                stranger.sendall(b"\x43\x87\0\0\0\x01\0\0" + bytes(40))
            elif kind == 2:
                stranger.sendall(b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n")
            elif kind == 3:
                # A command before the login.
                stranger.sendall(b"\x01\x81" + bytes(46))
        if kind == 4:
            # Data that nobody asked for, in the middle of a session: the session may end, and nothing else.
            with initiator.Session(self.target, initiator=f"iqn.2026-01.example:liar-{self.index}", seconds=30) as liar:
                pdu = initiator.PDU(DATA_OUT, FINAL, bytes(512))
                pdu.tag, pdu.transfer_tag = 77, 99
                pdu.put(40, 0xFFFFFE00)
                liar.send(pdu)
                try:
                    liar.ping(seconds=10)
                except Closed:
                    pass
        self.count["hostile connections"] += 1


class Puller(threading.Thread):
    """Pulls disks out and plugs them in again; what was acknowledged before is on them after."""

    def __init__(self, gateway, disks, luns, end):
        super().__init__(daemon=True)
        self.gateway, self.disks, self.luns, self.end = gateway, disks, luns, end
        self.rng = random.Random(SEED)
        self.count = Counter()
        self.error = None

    def _unit(self, session, lun, seconds=20):
        """Waits until the unit answers."""
        def is_ready():
            return session.command(lun, scsi.test_unit_ready(), seconds=20).status == scsi.GOOD
        process.wait_until(is_ready, seconds, f"LUN {lun} is there", step=0.05)

    def run(self):
        try:
            with initiator.Session(self.gateway, initiator="iqn.2026-01.example:puller", seconds=30) as session:
                version = 0
                while time.monotonic() < self.end:
                    index = self.rng.randrange(len(self.disks))
                    disk, lun = self.disks[index], self.luns[index]
                    self._unit(session, lun)
                    version += 1
                    lba = 8 * self.rng.randrange(64)
                    data = b"".join(pattern(lba + i, version) for i in range(8))
                    session.write(lun, lba, data, fua=True, seconds=30).good()
                    device = disk.device
                    # A request is under way as it goes; what becomes of it is not known.
                    tag = session.begin(lun, scsi.read16(1024, 64), read=64 * BLOCK)
                    disk.detach()
                    # It was done, or the disk was not there any more, or there was something else to be told.
                    result = session.finish(tag, read=64 * BLOCK, seconds=30)
                    if result.sense_key != scsi.UNIT_ATTENTION:
                        expect(result, scsi.GOOD, (scsi.ILLEGAL_REQUEST, 0x2500))
                    process.wait_until(lambda: disk.is_gone(device), 20, f"{device} is let go", step=0.05)
                    for cdb, read in ((scsi.read16(lba, 8), 8 * BLOCK), (scsi.test_unit_ready(), 0)):
                        expect(told(session, lun, cdb, read), (scsi.ILLEGAL_REQUEST, 0x2500))
                    disk.attach(device)
                    self._unit(session, lun)
                    if told(session, lun, scsi.read16(lba, 8), 8 * BLOCK).good().data != data:
                        raise AssertionError(f"LUN {lun} came back without what was written to block {lba}")
                    self.count["disks pulled and plugged in"] += 1
                    self.gateway.reload()
                    self.count["reloads of the settings"] += 1
        except Exception:  # the test reports it
            self.error = traceback.format_exc() + self.gateway.ask("disks", check=False).stdout


class Owner(threading.Thread):
    """Has a unit to itself; each time that something has happened to its disk, what was acknowledged is there."""

    def __init__(self, gateway, lun, end):
        super().__init__(daemon=True)
        self.gateway, self.lun, self.end = gateway, lun, end
        self.rng = random.Random(SEED + lun)
        self.count = Counter()
        self.error = None
        # By first block of a chunk: the version that was acknowledged.
        self.versions = {}
        self.version = 0

    def run(self):
        try:
            name = f"iqn.2026-01.example:owner-{self.lun}"
            with initiator.Session(self.gateway, initiator=name, seconds=30) as session:
                self.session = session
                session.ready(self.lun)
                while time.monotonic() < self.end:
                    self.turn()
                    time.sleep(self.rng.uniform(0, 0.2))
                self.verify(list(self.versions))
        except Exception:  # the test reports it
            self.error = traceback.format_exc()

    def content(self, lba, version):
        return b"".join(pattern(lba + i, version) for i in range(CHUNK))

    def write(self, lba, *allowed):
        """Whether a new version was written; if it was not, with an answer that is allowed."""
        self.version += 1
        result = told(self.session, self.lun, scsi.write16(lba, CHUNK, fua=self.rng.random() < 0.5),
                      write=self.content(lba, self.version))
        if expect(result, scsi.GOOD, *allowed) != scsi.GOOD:
            return False
        self.versions[lba] = self.version
        return True

    def verify(self, chunks):
        for lba in chunks:
            data = told(self.session, self.lun, scsi.read16(lba, CHUNK), CHUNK * BLOCK).good().data
            if data != self.content(lba, self.versions[lba]):
                raise AssertionError(f"LUN {self.lun}: the {CHUNK} blocks from {lba} are not those acknowledged")
            self.count["chunks compared"] += 1

    def some(self, count=4):
        return self.rng.sample(sorted(self.versions), min(count, len(self.versions)))


class Protected(Owner):
    """A disk that the kernel makes read-only under us, and writable again."""

    def __init__(self, gateway, lun, end, device):
        super().__init__(gateway, lun, end)
        self.device = device

    def turn(self):
        self.write(CHUNK * self.rng.randrange(64))
        process.run(["blockdev", "--setro", self.device])
        try:
            for lba in self.some():
                result = told(self.session, self.lun, scsi.write16(lba, CHUNK), write=self.content(lba, 0))
                expect(result, (scsi.DATA_PROTECT, 0x2700))
            self.verify(self.some())
        finally:
            process.run(["blockdev", "--setrw", self.device])
        self.write(self.some(1)[0])
        self.count["disks that were read-only"] += 1


class Thin(Owner):
    """A file in a file system of its own that is full for a while."""

    def __init__(self, gateway, lun, end, directory):
        super().__init__(gateway, lun, end)
        self.directory = directory

    def fill(self):
        """Takes all the room there is."""
        with open(Path(self.directory, "filler"), "wb") as filler:
            place, size = 0, 32 << 20
            while size >= 4096:
                try:
                    os.posix_fallocate(filler.fileno(), place, size)
                    place += size
                except OSError:
                    size //= 2

    def turn(self):
        if len(self.versions) >= CHUNKS:
            cdb, parameters = unmap(0, CHUNK * (CHUNKS + 1))
            told(self.session, self.lun, cdb, write=parameters).good()
            for lba in self.some():
                if any(told(self.session, self.lun, scsi.read16(lba, CHUNK), CHUNK * BLOCK).good().data):
                    raise AssertionError(f"LUN {self.lun}: blocks from {lba} are not zero after UNMAP")
            self.versions = {}
        new = CHUNK * len(self.versions)
        self.fill()
        try:
            if self.write(new, (scsi.DATA_PROTECT, 0x2707)):
                raise AssertionError("a full disk has taken something new")
            # What has its place already is written and read as ever.
            for lba in self.some():
                self.write(lba)
            self.verify(self.some())
        finally:
            Path(self.directory, "filler").unlink()
            process.run(["sync", "-f", self.directory])
        self.write(new)
        self.count["disks that were full"] += 1


class Soak(GatewayCase):
    def file_system(self):
        """The directory of one with not much room."""
        pool = self.keep(LoopDisk(32 << 20))
        process.run(["mkfs.ext4", "-q", "-m", "0", pool.device])
        directory = tempfile.mkdtemp(prefix="gatewayd-pool-")
        self.addCleanup(os.rmdir, directory)
        process.run(["mount", pool.device, directory])
        self.addCleanup(process.run, ["umount", "-l", directory])
        return directory

    def resident(self, gateway):
        """Bytes."""
        with open(f"/proc/{gateway.pid}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmRSS"))

    def test_soak(self):
        """Verified load, logouts, resets, aborts, bad and pulled disks and strangers at once: nothing lost or kept"""
        disks, more, options = [], [], {}
        if are_available():
            disks = [self.keep(LoopDisk(32 << 20)) for _ in range(2)]
            only = [word for disk in disks for word in ("--only", disk.device)]
            options = {"discovery": True, "arguments": only}
            protected, pool = self.keep(LoopDisk(32 << 20)), self.file_system()
            # The kernel keeps that of a loop device for whoever has it next.
            self.addCleanup(process.run, ["blockdev", "--setrw", protected.device])
            with open(Path(pool, "thin.raw"), "wb") as file:
                file.truncate(64 << 20)
            more = [protected.device, Path(pool, "thin.raw")]
        units = ["memory:16M"] * PLAIN + ["faulty:16M:medium=100+4", "faulty:16M:hang=0+8", "slow:16M:20",
                                          "faulty:16M:flush-error=1", "faulty:16M:gone"]
        gateway = self.start(*units, *more, settings=f"[limits]\nsessions = {SESSIONS + 64}\n"
                             f"connections-per-address = {2 * SESSIONS + 64}\n", **options)
        luns = []
        for disk in disks:
            found = process.wait_until(
                lambda disk=disk: next((d for d in gateway.ask_json("disks")
                                        if d["path"] == disk.device and d["verdict"] == "exported"), None),
                20, f"{disk.device} is exported", step=0.05)
            luns.append(found["lun"])
        with initiator.Session(gateway) as session:
            # The disk fails one flush, and would not tell the next of it.
            expect(told(session, FLUSH, scsi.synchronize_cache10()), (scsi.MEDIUM_ERROR, 0x0C00))
        process.wait_until(lambda: gateway.ask_json("status")["sessions"] == 0, 5, "nobody is there yet")
        print(f"soak: seed {SEED} (GATEWAYD_SOAK_SEED)", flush=True)
        before = self.holdings(gateway)
        end = time.monotonic() + SECONDS
        barrier = threading.Barrier(WORKERS)
        threads = [Worker(gateway, index, end, barrier) for index in range(WORKERS)]
        if disks:
            threads.append(Puller(gateway, disks, luns, end))
            threads.append(Protected(gateway, PROTECTED, end, protected.device))
            threads.append(Thin(gateway, THIN, end, pool))
        for thread in threads:
            thread.start()
        time.sleep(SECONDS / 3)
        warm = self.resident(gateway)
        for thread in threads:
            thread.join(SECONDS + 240)
        self.assert_alive(gateway)
        self.assertFalse([t for t in threads if t.is_alive()], "a session waits for an answer")
        errors = [thread.error for thread in threads if thread.error]
        self.assertFalse(errors, f"seed {SEED}\n" + "\n".join(errors))
        total = sum((thread.count for thread in threads), Counter())
        print(f"soak: seed {SEED}, {SESSIONS} sessions, {LUNS} LUNs, {SECONDS:.0f} s: "
              + ", ".join(f"{count} {what}" for what, count in total.most_common()))
        # A disk that never answers may still write to the buffers of its commands: those stay.
        before["arena"] += total["hung commands aborted"] * 4096
        self.assert_given_back(gateway, before)
        grown = self.resident(gateway) - warm
        print(f"soak: resident {self.resident(gateway) >> 20} MiB, "
              f"{grown / (1 << 20):+.1f} MiB since a third of the time")
        # A sanitizer keeps what was freed.
        if not process.SANITIZER:
            self.assertLess(grown, 32 << 20, "the process grows")
        faults = ["disks that were read-only", "disks that were full", "disks pulled and plugged in"] if disks else []
        for what in ("commands", "logouts", "connections reset", *faults):
            self.assertGreater(total[what], 0, what)
        # Full service after all of it.
        with initiator.Session(gateway) as session:
            session.ready(0)
            session.read(0, 0, 8).good()


if __name__ == "__main__":
    unittest.main()
