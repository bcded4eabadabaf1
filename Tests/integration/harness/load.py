"""I/O in the background that checks what it reads."""

import struct
import threading
import time

from . import initiator, process

BLOCK = 512


def pattern(lba, version):
    """A block that says where it belongs and which writing of it it is."""
    return struct.pack(">QQ", lba, version) * (BLOCK // 16)


class Writer(threading.Thread):
    """Writes versions of the blocks of a LUN, round and round, and remembers what was acknowledged.

    `error` is the exception that ended it, or None. After a crash a block may hold its last acknowledged version or the
    one that was in flight, and nothing else.
    """

    def __init__(self, target, lun=0, blocks=256, verify=True, pause=0.0):
        super().__init__(daemon=True)
        self.target, self.lun, self.blocks, self.verify, self.pause = target, lun, blocks, verify, pause
        self.acknowledged, self.sent = {}, {}
        self.count, self.error, self.longest = 0, None, 0.0
        self._end = threading.Event()

    def run(self):
        try:
            with initiator.Session(self.target, initiator=f"iqn.2026-01.example:writer-{self.lun}") as session:
                session.ready(self.lun)
                while not self._end.is_set():
                    self._step(session)
                    if self.pause:
                        time.sleep(self.pause)
        except Exception as error:  # reported by the test that looks at it
            self.error = error

    def _step(self, session):
        version, lba = divmod(self.count, self.blocks)
        begin = time.monotonic()
        self.sent[lba] = version
        result = session.write(self.lun, lba, pattern(lba, version))
        if result.sense_key == initiator.scsi.UNIT_ATTENTION:
            return
        result.good()
        self.acknowledged[lba] = version
        if self.verify and self.count % 8 == 0:
            data = session.read(self.lun, lba, 1)
            if data.sense_key != initiator.scsi.UNIT_ATTENTION and data.good().data != pattern(lba, version):
                raise AssertionError(f"block {lba} does not hold version {version}")
        self.longest = max(self.longest, time.monotonic() - begin)
        self.count += 1

    def reach(self, count, seconds=10):
        """Waits until so many writes have been acknowledged."""
        process.wait_until(lambda: self.count >= count or self.error, seconds, f"{count} writes")

    def finish(self):
        """Stops, and raises what went wrong on the way."""
        self._end.set()
        self.join(10)
        if self.error is not None:
            raise self.error

    close = finish

    def missing(self, target):
        """The blocks that do not hold what was acknowledged, nor what was sent after it."""
        wrong = []
        with initiator.Session(target, initiator="iqn.2026-01.example:reader") as session:
            session.ready(self.lun)
            for lba, version in self.acknowledged.items():
                data = session.read(self.lun, lba, 1).good().data
                if data not in (pattern(lba, version), pattern(lba, self.sent[lba])):
                    wrong.append(lba)
        return wrong


class Threads:
    """Runs a function in threads; raises what went wrong in any of them."""

    def __init__(self, function, arguments):
        self.errors = []
        self.threads = [threading.Thread(target=self._run, args=(function, a), daemon=True) for a in arguments]
        for thread in self.threads:
            thread.start()

    def _run(self, function, argument):
        try:
            function(argument)
        except Exception as error:  # raised by join
            self.errors.append(error)

    def join(self, seconds):
        deadline = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(max(0, deadline - time.monotonic()))
        if self.errors:
            raise self.errors[0]
        if any(thread.is_alive() for thread in self.threads):
            raise AssertionError(f"not done within {seconds} s")
