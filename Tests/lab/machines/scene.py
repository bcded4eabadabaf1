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
            machines = self.lab.machine("target", udev=True), self.lab.machine("initiator")
            took = [machine.ready() for machine in machines]
            print("lab: booted in " + " and ".join(f"{seconds:.1f} s" for seconds in took), flush=True)
            self.target = Target(machines[0])
            self.initiator = Initiator(machines[1], self.target.portal)
        except BaseException:
            self.lab.close()
            raise


class SceneCase(unittest.TestCase):
    """A test gets a target without disks and an initiator without sessions, and leaves them so."""

    def setUp(self):
        scene = _scene()
        self.target, self.initiator = scene.target, scene.initiator
        self.addCleanup(self._restore)
        for machine in (self.target.machine, self.initiator.machine):
            machine.run(f"dmesg -c >/dev/null; echo 'lab: ==== {self.id()}' >/dev/console")

    def _restore(self):
        """Back to nothing; a scene that does not come back is thrown away."""
        try:
            self.initiator.machine.attempt("umount -l /mnt; killall -9 verify", 20)
            self.initiator.forget()
            if self.target.is_running():
                self.target.stop()
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

    def connect(self):
        self.initiator.discover()
        self.initiator.login()

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
            found[first] = int(second)
    return found
