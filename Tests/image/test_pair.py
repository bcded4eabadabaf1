"""Two machines that run the image and see the same disk: a pair, with nothing configured."""

import re
import subprocess
import threading
import time
import unittest

from appliance import BOOT_SECONDS, WORK, Appliance, initiate
from machines.places import TimedOut, wait_until

BLOCK = 64 << 10


class Load:
    """Writes one block after the other, by whichever of the two answers, and goes on with what got no answer."""

    def __init__(self, machines, target):
        self.machines, self.target = list(machines), target
        self.written = []
        self.longest = 0.0
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _url(self, machine):
        return f"iscsi://127.0.0.1:{machine.portal}/{self.target}/0"

    def _run(self):
        last = time.monotonic()
        while not self.is_over.is_set():
            number = len(self.written)
            try:
                initiate(f"write -P {number % 255 + 1} {number % 512 * BLOCK} {BLOCK}", url=self._url(self.machines[0]),
                         seconds=30)
            except (RuntimeError, subprocess.TimeoutExpired):
                self.machines.reverse()
                self.is_over.wait(0.2)
                continue
            self.longest = max(self.longest, time.monotonic() - last)
            last = time.monotonic()
            self.written.append(number)

    def stop(self):
        self.is_over.set()
        self.thread.join(60)

    def verify(self, machine):
        """Every block that was acknowledged is there, in its last version."""
        last = {number % 512: number % 255 + 1 for number in self.written}
        initiate(*(f"read -P {pattern} {place * BLOCK} {BLOCK}" for place, pattern in last.items()),
                 url=self._url(machine))


class Pair(unittest.TestCase):
    """Two machines, in the order of the tests' names."""

    goes_on = True

    @classmethod
    def setUpClass(cls):
        cls.machines = [Appliance(f"Pair-{name}", number=number) for number, name in ((2, "a"), (3, "b"))]
        for machine in cls.machines:
            cls.addClassCleanup(machine.power_off)
        shared = WORK / "shared.disk"
        with open(shared, "wb") as file:
            file.truncate(96 << 20)
        links = [machine.directory / "link" for machine in cls.machines]
        for machine, own, other in zip(cls.machines, links, reversed(links)):
            machine.devices = [
                "-device", "i6300esb", "-action", "watchdog=reset",
                "-netdev", f"dgram,id=link,local.type=unix,local.path={own},remote.type=unix,remote.path={other}",
                "-device", f"virtio-net-pci,netdev=link,mac=52:54:00:99:01:{machine.number:02x}",
                "-blockdev", f"driver=raw,node-name=shared,file.driver=file,file.locking=off,file.filename={shared}",
                "-device", "virtio-blk-pci,drive=shared,serial=shared,share-rw=on"]
            machine.power_on()

    def role(self, machine):
        match = re.search(r"^Pair +this node is (\w+); \S+ is (\w+)", machine.page(), re.MULTILINE)
        return match.groups() if match else None

    def test_power_off(self):
        """One serves and one stands by; the first loses its power under load, the second serves, and nothing is lost"""
        def roles():
            found = [self.role(machine) for machine in self.machines]
            return sorted(found, key=str) == [("active", "passive"), ("passive", "active")]

        try:
            wait_until(roles, 2 * BOOT_SECONDS, "one is active and the other passive", step=1)
        except TimedOut as late:
            raise TimedOut(f"{late}\n" + "\n".join(machine.page() for machine in self.machines)) from None
        active, passive = sorted(self.machines, key=self.role)
        for machine in self.machines:
            machine.can_log_in()
        try:
            wait_until(lambda: "by lease, after 10 s" in active.run("gatewayd pair"), 60, "the disk may be taken over",
                       step=2)
        except TimedOut as late:
            raise TimedOut(f"{late}\n{active.run('gatewayd pair')}\n{passive.run('gatewayd pair')}") from None
        self.assertEqual(active.target(), passive.target())
        load = Load((active, passive), active.target())
        self.addCleanup(load.stop)
        wait_until(lambda: len(load.written) >= 20, 120, "the load runs")
        active.power_off()
        begin, count = time.monotonic(), len(load.written)
        passive.until(r"^Pair +this node is active", 120)
        took = time.monotonic() - begin
        wait_until(lambda: len(load.written) >= count + 20, 120, "the load goes on")
        load.stop()
        load.verify(passive)
        print(f"taken over {took:.1f} s after the loss of power, as the page tells; the longest write took "
              f"{load.longest:.1f} s; {len(load.written)} blocks are as written", flush=True)
