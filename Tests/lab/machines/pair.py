"""The scene of the pair: a machine with disks that two others share and serve, and one that uses what they serve.

    storage ──┬── a ──┬── initiator      three networks: disks, front, back
              └── b ──┘

Every fault is a method; `PairCase` mends all of them after each test, and boots anew what does not come back.
"""

import atexit
import signal
import time
import unittest

from . import scene, shared_disk
from .initiator import Initiator
from .lab import Lab
from .places import TimedOut, wait_until
from .target import CONTROL, Target

_current = None
_count = 0
INTERFACES = {"disks": "eth0", "front": "eth1", "back": "eth2"}


class Node:
    """One of the two: its session with the disks, and its gateway."""

    def __init__(self, machine, shelf, networks):
        self.machine, self.shelf, self.networks = machine, shelf, networks
        self.nexus = shared_disk.Nexus(machine, shelf)
        self.target = Target(machine)
        # Initiators come over both networks, and not over that of the disks.
        self.portals = [f"{network.address(machine)}:3260" for network in networks[1:]]
        self.listen()

    def listen(self, *portals):
        """Where its gateway listens from its next start on; nothing told: on the networks of the initiators."""
        first, *others = portals or self.portals
        self.target.portal = first
        self.listening = [word for portal in others for word in ("--listen", portal)]

    def attach_disks(self):
        """Logs in to the disks: udev tells the gateway of them."""
        self.nexus.login()

    def detach_disks(self):
        self.machine.attempt("iscsiadm -m node -u; iscsiadm -m node -o delete", 60)

    def start(self, settings="", arguments=()):
        self.target.start(settings, [*self.listening, *arguments])

    def disk(self, lun):
        """The gateway's word on a shared disk; None: it does not know it."""
        return self.target.report(self.nexus.disk(lun))

    def is_listening(self):
        return self.machine.attempt(f"gatewayd status --control {CONTROL}")[0] == 0

    # ---- What happens to it

    def signal(self, number):
        self.machine.run(f"kill -{int(number)} $(cat /run/gatewayd.pid)")

    def crash(self):
        """kill -9."""
        self.signal(signal.SIGKILL)

    def freeze(self, is_frozen=True):
        """The program stands still, or goes on as if nothing had been (SIGSTOP, SIGCONT)."""
        self.signal(signal.SIGSTOP if is_frozen else signal.SIGCONT)

    def halt(self, is_halted=True):
        """The whole machine stands still, or goes on."""
        self.machine.halt(is_halted)

    def lose_power(self):
        self.machine.power_off()

    def boot(self, waits=True):
        """After `lose_power`; the seconds that it took, if it is waited for."""
        return self.machine.power_on(waits)

    def lose_disks(self, shelf_machine):
        """Its way to the disks is cut; its links to the other node and the initiators are not."""
        self.networks[0].cut(self.machine, shelf_machine)

    def delay_writes(self, shelf_machine):
        """What it sends to the disks waits in the switch until `mend`: ghosts that arrive after a takeover."""
        self.networks[0].hold(self.machine, shelf_machine)


class Pair:
    """Four machines, booted at once."""

    def __init__(self, name, luns=1):
        self.lab = Lab(name, modules=shared_disk.MODULES)
        try:
            begin = time.monotonic()
            self.disks, self.front, self.back = self.networks = (
                self.lab.networks[0], self.lab.network("front"), self.lab.network("back"))
            fronts = [self.front, self.back]
            self.storage = self.lab.machine("storage", megabytes=512)
            machines = [self.lab.machine(each, networks=self.networks, udev=True, watchdog=True)
                        for each in ("a", "b")]
            self.user = self.lab.machine("initiator", networks=fronts, udev=True)
            self.boots = {machine.name: machine.ready() for machine in self.lab.machines}
            self.shelf = shared_disk.Shelf(self.storage)
            self.luns = [self.shelf.add(f"disk{number}", 64) for number in range(1, luns + 1)]
            self.nodes = self.a, self.b = [Node(machine, self.shelf, self.networks) for machine in machines]
            self.initiator = Initiator(self.user, self.a.portals[0])
            self.seconds = time.monotonic() - begin
            print("lab: booted in " + ", ".join(f"{name} {took:.1f} s" for name, took in self.boots.items())
                  + f"; the scene was ready after {self.seconds:.1f} s", flush=True)
        except BaseException:
            self.lab.close()
            raise

    def cut_links(self, both=True):
        """a and b do not hear each other on any network (or b does not hear a); disks and initiators hear both."""
        for network in self.networks:
            network.cut(self.a.machine, self.b.machine, both)

    def mend(self):
        for network in self.networks:
            network.mend()
        for machine in self.lab.machines:
            # One that its watchdog has reset is off.
            if machine.process.poll() is None:
                for network in machine.networks:
                    machine.link(True, network)

    def release(self):
        """Nobody is registered with the disks any more. Whoever was active last still was: keys are not given back."""
        machine, nexus = self.a.machine, self.a.nexus
        nexus.login()
        for lun in self.luns:
            disk = nexus.disk(lun)
            # The first commands may be told what happened to the node's former registration.
            machine.attempt(f"sg_turs -n 8 {disk}")
            machine.run(f"sg_persist -n --out --register-ignore --param-sark=0x1 {disk} && "
                        f"sg_persist -n --out --clear --param-rk=0x1 {disk}")
        self.a.detach_disks()

    def wipe(self):
        """The disks as new: nothing on them, nobody registered (a disk that somebody is registered with is no such)."""
        for name in self.shelf.disks:
            keys = self.storage.run(f"cat {shared_disk.CONFIG}/core/iblock_0/{name}/pr/res_pr_registered_i_pts")
            if "Key:" in keys:
                raise TimedOut(f"somebody is still registered with {name}: {keys}")
            # LIO goes around the page cache; busybox's dd cannot.
            disk = self._device(name)
            self.storage.run(f"dd if=/dev/zero of={disk} bs=1M conv=fsync 2>/dev/null; blockdev --flushbufs {disk}", 60)
            if self.text(name):
                raise TimedOut(f"{name} has something on it still")

    def grow(self, lun, megabytes):
        """A disk becomes so much larger; who uses it is not told."""
        name = list(self.shelf.disks)[lun]
        size = f"blockdev --getsize64 {self._device(name)}"
        wanted = int(self.storage.run(size)) + (megabytes << 20)
        self.storage.resize(name, wanted >> 20)
        self.storage.until(f"[ $({size}) = {wanted} ]", 20, f"{name} has grown")

    def text(self, name, count=1):
        """What stands in the first blocks of 512 bytes of a disk, without its zeroes."""
        disk = self._device(name)
        return self.storage.run(f"blockdev --flushbufs {disk} && dd if={disk} bs=512 count={count} 2>/dev/null "
                                "| tr -d '\\0'")

    def _device(self, name):
        """The disk as the machine that has it knows it."""
        return self.storage.run(f"for disk in /sys/block/vd*; do [ \"$(cat $disk/serial)\" = {name} ] && "
                                "echo /dev/${disk##*/} && exit 0; done; exit 1")

    def memory_megabytes(self):
        """What each machine takes on this one."""
        found = {}
        for machine in self.lab.machines:
            with open(f"/proc/{machine.process.pid}/status", encoding="ascii") as status:
                found[machine.name] = next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) >> 10
        return found


def leave():
    """Ends the scene: the next test that wants one boots anew."""
    global _current
    if _current is not None:
        pair, _current = _current, None
        pair.lab.close()


atexit.register(leave)


class PairCase(unittest.TestCase):
    """A test gets four machines, disks that are attached to nobody, and no gateway running; it leaves them so."""

    verify = scene.SceneCase.verify
    assert_verified = scene.SceneCase.assert_verified
    # How many disks there are; a class with another number boots machines of its own.
    disk_count = 1

    def setUp(self):
        global _current, _count
        if _current is not None and len(_current.luns) != self.disk_count:
            leave()
        if _current is None:
            # Another scene's machines would take half of this machine's time.
            scene.leave()
            _count += 1
            _current = Pair("pair" if _count == 1 else f"pair-{_count}", self.disk_count)
        self.pair = _current
        self.a, self.b, self.initiator = self.pair.a, self.pair.b, self.pair.initiator
        self.lun = self.pair.luns[0]
        self.addCleanup(self._restore)
        for machine in self.pair.lab.machines:
            machine.run(f"dmesg -c >/dev/null; echo 'lab: ==== {self.id()}' >/dev/console")

    def _restore(self):
        try:
            for node in self.pair.nodes:
                if node.machine.process.poll() is not None:
                    node.boot()
                node.halt(False)
            self.pair.mend()
            self.initiator.machine.attempt("umount -l /mnt; killall -9 verify persist", 20)
            self.initiator.forget()
            for node in self.pair.nodes:
                node.machine.attempt("kill -CONT $(cat /run/gatewayd.pid)")
                if node.target.is_running():
                    node.target.stop()
                node.listen()
                node.detach_disks()
                node.machine.run("rm -rf /var/lib/gatewayd /run/gatewayd.pid /run/gatewayd.sock.watchdog")
            for machine in (self.a.machine, self.b.machine, self.initiator.machine):
                machine.remove_rxe()
            self.pair.release()
            self.pair.wipe()
        except (AssertionError, OSError) as broken:
            print(f"lab: the scene is broken, the next test boots anew: {broken}", flush=True)
            leave()
            if not isinstance(broken, TimedOut):
                raise

    def start_one(self, node, settings="", arguments=()):
        """Attaches the disks and starts the gateway; waits until it serves the first of them."""
        node.attach_disks()
        node.start(settings, arguments)
        wait_until(lambda: (node.disk(self.lun) or {}).get("verdict") == "exported", 120,
                   f"{node.machine.name} exports the disk: {node.disk(self.lun)}", step=0.5)
