"""Targets to test against: a name, an address and LUNs that live until stop()."""

import os
import subprocess
import tempfile
from pathlib import Path

from . import process

NAME = "iqn.2026-01.example:gateway"


class Target:
    """A running target. Subclasses fill in `address`, `port`, `name`, `first_lun` and `pid`."""

    kind = "external"
    address = "127.0.0.1"
    port = 3260
    name = NAME
    first_lun = 0
    pid = None
    note = ""

    def url(self, lun=0, user=None):
        """libiscsi's URL of the LUN with this ordinal number."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        credentials = f"{user}@" if user else ""
        return f"iscsi://{credentials}{host}:{self.port}/{self.name}/{self.first_lun + lun}"

    def stop(self):
        """Nothing is ours."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class PeerTarget(Target):
    """Any target by its address: NAME=ADDRESS:PORT/IQN/LUN."""

    def __init__(self, text):
        self.kind, _, where = text.partition("=")
        portal, _, rest = where.partition("/")
        self.name, _, lun = rest.rpartition("/")
        address, _, port = portal.rpartition(":")
        self.address, self.port, self.first_lun = address.strip("[]"), int(port), int(lun)
        self.note = "by address"


class TgtTarget(Target):
    """Debian's tgtd with files in memory behind `bs-type rdwr`: the measure that everybody can install."""

    kind = "tgt"
    first_lun = 1  # LUN 0 is its controller
    note = "backing files in /dev/shm, bs-type rdwr"

    def __init__(self, sizes=(64 << 20,), cpu=None, thin=False):
        if not process.is_root():
            raise RuntimeError("tgtd runs only as root")
        self._directory = tempfile.TemporaryDirectory(prefix="gatewayd-tgt-", dir="/dev/shm")
        self._control = str(20000 + process.free_port() % 10000)
        self.port = process.free_port()
        pin = ["taskset", "-c", str(cpu)] if cpu is not None else []
        self._log = open(Path(self._directory.name, "log"), "wb")
        self._process = subprocess.Popen(
            [*pin, "tgtd", "-f", "-C", self._control, "--iscsi", f"portal={self.address}:{self.port}"],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        self.pid = self._process.pid
        try:
            process.wait_until(lambda: process.is_listening(self.address, self.port), 10, "tgtd listens", step=0.05)
            self._admin("--op", "new", "--mode", "target", "--tid", "1", "-T", self.name)
            for number, size in enumerate(sizes, start=1):
                path = Path(self._directory.name, f"lun{number}")
                with open(path, "wb") as file:
                    os.truncate(file.fileno(), size)
                self._admin("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", str(number),
                            "-b", path, "--bstype", "rdwr")
                if thin:
                    self._admin("--op", "update", "--mode", "logicalunit", "--tid", "1", "--lun", str(number),
                                "--params", "thin_provisioning=1")
            self._admin("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")
        except BaseException:
            self.stop()
            raise

    def _admin(self, *arguments):
        process.run(["tgtadm", "-C", self._control, "--lld", "iscsi", *arguments])

    def stop(self):
        self._process.kill()  # it does not heed SIGTERM
        self._process.wait(5)
        self._log.close()
        Path(f"/var/run/tgtd/socket.{self._control}").unlink(missing_ok=True)
        Path(f"/var/run/tgtd/socket.{self._control}.lock").unlink(missing_ok=True)
        self._directory.cleanup()
