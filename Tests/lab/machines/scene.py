"""The scene of most tests: a machine with the gateway, one with the initiator; booted once, kept while it works."""

import atexit
import unittest

from .initiator import Initiator
from .lab import Lab
from .places import TimedOut
from .target import Target

_current = None
_count = 0


def _scene():
    global _current, _count
    if _current is None:
        _count += 1
        _current = Scene("tcp" if _count == 1 else f"tcp-{_count}")
    return _current


def leave():
    """Ends the scene: the next test that wants one boots anew."""
    global _current
    if _current is not None:
        scene, _current = _current, None
        scene.lab.close()


atexit.register(leave)


class Scene:
    def __init__(self, name):
        self.lab = Lab(name)
        try:
            machines = self.lab.machine("target", udev=True), self.lab.machine("initiator", udev=True)
            took = [machine.ready() for machine in machines]
            print("lab: booted in " + " and ".join(f"{seconds:.1f} s" for seconds in took), flush=True)
            self.target = Target(machines[0])
            self.initiator = Initiator(machines[1], self.target.portal)
        except BaseException:
            self.lab.close()
            raise


class SceneCase(unittest.TestCase):
    """A test gets a target without disks and an initiator without sessions, and leaves them so.

    A class of tests is run over RDMA by a subclass with `transport = "iser"`: both machines then have soft-RoCE before
    the gateway starts.
    """

    transport = "tcp"

    def setUp(self):
        scene = _scene()
        self.target, self.initiator = scene.target, scene.initiator
        self.initiator.transport = self.transport
        self.addCleanup(self._restore)
        for machine in self.machines:
            machine.run(f"dmesg -c >/dev/null; echo 'lab: ==== {self.id()}' >/dev/console")
            if self.transport == "iser":
                machine.add_rxe()

    @property
    def machines(self):
        return self.target.machine, self.initiator.machine

    def shortDescription(self):
        sentence = super().shortDescription()
        return f"[iSER] {sentence}" if sentence and self.transport == "iser" else sentence

    def _restore(self):
        """Back to nothing; a scene that does not come back is thrown away."""
        try:
            self.initiator.machine.attempt("umount -l /mnt; killall -9 verify", 20)
            self.initiator.forget()
            if self.target.is_running():
                self.target.stop()
            for machine in self.machines:
                machine.remove_rxe()
                for name in list(machine.cards):
                    machine.unplug_card(name)
            for name in list(self.target.machine.disks):
                self.target.machine.remove(name)
            # What the gateway knew of disks that are gone for ever must not number those of the next test.
            self.target.machine.run("umount -l /mnt 2>/dev/null; rm -rf /var/lib/gatewayd")
        except (AssertionError, OSError) as broken:
            print(f"lab: the scene is broken, the next test boots anew: {broken}", flush=True)
            leave()
            if not isinstance(broken, TimedOut):
                raise

    def export(self, *names, **options):
        """Plugs disks in and waits until they are LUNs; their numbers."""
        for name in names:
            if name not in self.target.machine.plugged:
                self.target.machine.plug(name, **options)
        return [self.target.verdict(name, "exported")["lun"] for name in names]

    def start_with_memory(self, *arguments):
        """Starts the gateway with a disk of memory, where it does not matter what the disk is; its LUN."""
        self.target.start(arguments=["--disk", "memory:64M", *arguments])
        return 0

    def connect(self):
        self.initiator.discover()
        self.initiator.login()

    # What each transport has to carry: one request at a time and 32, 4 KiB to 1 MiB, reads and writes.
    MIXES = [
        {"min": 4096, "max": 4096, "depth": 1, "read": 50},
        {"min": 4096, "max": 4096, "depth": 32, "read": 70},
        {"min": 4096, "max": 1 << 20, "depth": 32, "read": 50},
        {"min": 1 << 20, "max": 1 << 20, "depth": 8, "read": 0},
        {"min": 131072, "max": 524288, "depth": 4, "read": 30},
    ]

    def each_mix(self, device):
        for seed, mix in enumerate(self.MIXES):
            with self.subTest(mix):
                self.assertGreater(self.verify(device, 120, seconds=4, seed=seed, **mix)["writes"], 0)

    def verify(self, device, limit=90, **options):
        """Verified I/O, to its end (within `limit` seconds); its counts."""
        status, output = self.initiator.machine.attempt(verify_command(device, **options), limit)
        self.assertEqual(status, 0, f"{options}: {output}\n{self.initiator.kernel_log()[-3000:]}")
        return counts(output)

    def assert_verified(self, name, seconds):
        """Waits for verified I/O in the background; its counts."""
        status, output = self.initiator.machine.finish(name, seconds)
        self.assertEqual(status, 0, f"{name}: {output}\n{self.initiator.kernel_log()[-3000:]}")
        return counts(output)


def verify_command(device, **options):
    return f"verify {device} " + " ".join(f"{name}={value}" for name, value in options.items())


def counts(output):
    """`verified: 12 reads 3 writes … longest 5 ms`: {"reads": 12, …, "longest": 5}."""
    words = output.splitlines()[-1].split()[1:]
    found = {}
    for first, second in zip(words, words[1:]):
        if first.isdigit():
            found.setdefault(second, int(first))
        elif second.isdigit():
            found.setdefault(first, int(second))
    return found
