"""A pair with a disk that has no persistent reservations: who has it is said by a lease on it, and each node's watchdog
resets the machine that can no longer renew it (docs/HA.md).

The watchdog is QEMU's i6300esb, the disk LIO's without reservations. A machine that its watchdog resets is off here.
"""

from machines.places import wait_until
from machines.shared_disk import CONFIG
from machines.target import CONTROL
from test_takeover import TakeoverCase

# Until a lease that stands still is over, and what the emulation takes.
EXPIRY = 60


class LeaseCase(TakeoverCase):
    def setUp(self):
        super().setUp()
        self.has_reservations(False)
        self.addCleanup(self.has_reservations, True)
        for node in self.pair.nodes:
            self.load_driver(node)

    def has_reservations(self, has):
        attribute = f"{CONFIG}/core/iblock_0/{list(self.pair.shelf.disks)[self.lun]}/attrib/emulate_pr"
        self.pair.storage.run(f"echo {int(has)} >{attribute}")
        self.assertEqual(self.pair.storage.run(f"cat {attribute}"), str(int(has)))

    @staticmethod
    def load_driver(node):
        node.machine.run("modprobe i6300esb")
        node.machine.until("ls /sys/class/watchdog/watchdog0", 20, "there is a watchdog")

    def disk_report(self, node):
        return self.report(node)["disks"][0]

    def keys_are(self, node):
        """Nothing is registered; what stands in for it is the report of who has the disk."""
        self.assertIn("lease", self.disk_report(node)["takeover"])

    def start_pair(self, settings=""):
        super().start_pair(settings)
        active, _ = self.order()
        wait_until(lambda: "this node only" not in self.disk_report(active)["takeover"], 30, "the label names both")

    def until_reset(self, node):
        """Its watchdog resets the machine."""
        wait_until(lambda: node.machine.process.poll() is not None, EXPIRY, f"{node.machine.name} is reset")
        node.lose_power()

    def come_back(self, node):
        node.boot()
        self.load_driver(node)
        node.attach_disks()
        node.start()

    def fails(self, name, fault, limit=30):
        """A fault after which the watchdog resets the active's machine, and the other takes the disk."""
        self.start_pair()

        def begin(active, passive):
            self.assertEqual(self.disk_report(active)["takeover"], "by lease, after 10 s")
            fault(active)
            self.until_reset(active)

        self.rounds(name, begin, lambda active, passive: self.come_back(active), seconds=20, limit=limit)


class Lease(LeaseCase):
    def test_crash(self):
        """The active gateway is killed: nobody feeds its watchdog any more"""
        self.fails("lease, kill -9", lambda active: active.crash())

    def test_start_again(self):
        """The active gateway is killed and started again at once: no machine is reset, and the watchdog is set anew"""
        self.start_pair()

        def begin(active, passive):
            active.crash()
            active.target.launch()

        self.rounds("lease, kill -9 and a start", begin, lambda active, passive: None, seconds=20)
        for node in self.pair.nodes:
            self.assertIsNone(node.machine.process.poll())
        active, _ = self.order()
        self.assertIn("armed", self.report(active)["watchdog"])
        self.assertEqual(self.disk_report(active)["takeover"], "by lease, after 10 s")

    def test_freeze(self):
        """The active gateway stands still"""
        self.fails("lease, SIGSTOP", lambda active: active.freeze())

    def test_hang(self):
        """The kernel of the active stands still, and its watchdog does not"""
        # The unit's reset waits in LIO for the data of writes that the dead kernel will not send, until LIO gives its
        # connection up.
        self.fails("lease, kernel hangs", lambda active: active.machine.run(
            "echo 0 >/proc/sys/kernel/panic; setsid sh -c 'sleep 1; echo c >/proc/sysrq-trigger' >/dev/null 2>&1 &"),
            limit=120)

    def test_disk_path(self):
        """The active loses its way to the disk: it cannot renew its lease, answers nothing, and the other takes it"""
        self.start_pair()

        def mend(active, passive):
            self.pair.mend()
            if active.machine.process.poll() is not None:
                active.lose_power()
                self.come_back(active)
            self.until_role(active, "passive", 120)

        self.rounds("lease, disk path", lambda active, passive: active.lose_disks(self.pair.storage), mend, seconds=20)

    def test_switchover(self):
        """An operator has the other node take over: nobody waits for a lease, and nobody is reset"""
        self.start_pair()
        self.rounds("lease, switchover", self.switch, lambda active, passive: None)
        for node in self.pair.nodes:
            self.assertIsNone(node.machine.process.poll())


class Unguarded(LeaseCase):
    def test_force(self):
        """Without a watchdog nobody takes over by itself, both are told, and an operator can"""
        self.start_pair('[pair]\nwatchdog = "off"\n')
        active, passive = self.order()
        self.assertEqual(self.disk_report(active)["takeover"], "NOT by itself: no watchdog")
        doctor = active.target.command("doctor")[1]
        self.assertIn("no watchdog", doctor)
        active.crash()
        self.initiator.machine.run("sleep 15")
        self.assertNotEqual(self.role(passive), "active")
        self.assertIn("pair force", self.disk_report(passive)["takeover"])
        passive.machine.run(f"gatewayd pair force --yes --control {CONTROL}", 60)
        self.until_role(passive, "active", 60)
        active.target.resume()
        self.until_paired()
        self.assertEqual(self.order(), [passive, active])
