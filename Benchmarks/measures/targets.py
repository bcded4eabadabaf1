"""What is measured: gatewayd, tgt, the bare answerer, and any target by its address."""

import contextlib
import os
import subprocess
import tempfile

from harness import process
from harness.daemon import Gateway, binary
from harness.targets import PeerTarget, Target, TgtTarget

SIZE = 1 << 30
BUILD = process.REPOSITORY / ".build"
# All sessions come from one address here, which the defaults would take for a storm.
SETTINGS = "[limits]\nsessions = 8192\nconnections-per-address = 8192\nqueue-depth = 256\n"


class BareTarget(Target):
    """The least io_uring program that moves the same bytes (Benchmarks/bare): the floor."""

    kind = "bare"
    note = "the bare answerer: no checks, one LUN of memory, nothing copied"

    def __init__(self, cpu=None):
        self.port = process.free_port()
        pin = ["taskset", "-c", str(cpu)] if cpu is not None else []
        self._process = subprocess.Popen([*pin, BUILD / "bare", str(self.port), str(SIZE)], stdin=subprocess.DEVNULL)
        self.pid = self._process.pid
        try:
            process.wait_until(lambda: process.is_listening(self.address, self.port), 10, "bare listens")
        except BaseException:
            self.stop()
            raise

    def stop(self):
        process.stop(self._process)


class DigestingTgt(TgtTarget):
    """tgt, told that it may agree to digests."""

    def __init__(self, **options):
        super().__init__(**options)
        try:
            for name in ("HeaderDigest", "DataDigest"):
                self._admin("--op", "update", "--mode", "target", "--tid", "1", "--name", name,
                            "--value", "CRC32C,None")
        except BaseException:
            self.stop()
            raise


def gateway(arguments, disks=(f"memory:{SIZE}",), settings=""):
    """gatewayd with one thread, on the processor of the targets."""
    return Gateway(disks=disks, arguments=["--threads", "1", *arguments.daemon_argument], settings=settings + SETTINGS,
                   cpu=arguments.target_cpu)


def polling_gateway(arguments):
    """The same, looking for work before it sleeps."""
    target = gateway(arguments, settings="[target]\npoll-us = 100\n")
    target.kind, target.note = "polling", "gatewayd with poll-us = 100, at few points"
    return target


def starters(arguments):
    """{name: function that starts it}, in the order of a round."""
    found = {}
    if binary().exists():
        found["gatewayd"] = lambda: gateway(arguments)
    if process.is_root():
        found["tgt"] = lambda: DigestingTgt(sizes=(SIZE,), cpu=arguments.target_cpu)
    if (BUILD / "bare").exists():
        found["bare"] = lambda: BareTarget(cpu=arguments.target_cpu)
    if binary().exists():
        found["polling"] = lambda: polling_gateway(arguments)
    for name in arguments.without:
        found.pop(name, None)
    for text in arguments.peer:
        peer = PeerTarget(text)
        found[peer.kind] = lambda peer=peer: peer
    return found


@contextlib.contextmanager
def counted(start):
    """A target started so that it counts its allocations; yields it and the file that they are counted in."""
    with tempfile.NamedTemporaryFile(prefix="gatewayd-count-") as file:
        file.truncate(8)
        added = {"LD_PRELOAD": str(BUILD / "tally.so"), "TALLY": file.name}
        os.environ.update(added)
        try:
            target = start()
        finally:
            for name in added:
                del os.environ[name]
        try:
            yield target, file.name
        finally:
            target.stop()
