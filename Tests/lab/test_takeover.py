"""Takeovers: everything that can happen to the active node, under verified load of an initiator with dm-multipath.

`GATEWAYD_LAB_ROUNDS` says how often each fault is made (2 unless told). What was measured is printed at the end of each
test, and written to `.build/logs/lab/takeovers.json`.
"""

import json
import os
import statistics

from machines.pair import PairCase
from machines.places import LOGS, TimedOut, wait_until
from machines.scene import verify_command

ROUNDS = int(os.environ.get("GATEWAYD_LAB_ROUNDS", "2"))
FIGURES = LOGS / "takeovers.json"
# MiB that a disk grows by.
GROWTH = 64


class TakeoverCase(PairCase):
    """Two gateways with one disk; whoever is active has index 0 of `self.order()`."""

    def report(self, node):
        try:
            return node.target.ask("pair")
        except (AssertionError, TimedOut, ValueError):
            return {"isRunning": False, "role": "", "changes": [], "peer": None, "disks": [], "epoch": 0}

    def role(self, node):
        return self.report(node)["role"]

    def order(self):
        """(active, passive); an error if there are not exactly these."""
        roles = {node.machine.name: self.role(node) for node in self.pair.nodes}
        self.assertEqual(sorted(roles.values()), ["active", "passive"], roles)
        return sorted(self.pair.nodes, key=lambda node: roles[node.machine.name])

    def until_role(self, node, role, seconds=60):
        seen = []

        def reached():
            seen[:] = [self.report(node)]
            return seen[0]["role"] == role

        try:
            wait_until(reached, seconds, f"{node.machine.name} is {role}", step=0.1)
        except TimedOut as late:
            raise TimedOut(f"{late}: {seen}") from None

    def until_paired(self, seconds=90):
        seen = []

        def reached():
            seen[:] = [self.report(node) for node in self.pair.nodes]
            return (sorted(each["role"] for each in seen) == ["active", "passive"]
                    and all(each.get("peer") for each in seen))

        try:
            wait_until(reached, seconds, "the two are a pair", step=0.2)
        except TimedOut as late:
            raise TimedOut(f"{late}: {seen}") from None

    def start_pair(self, settings=""):
        self.a.attach_disks()
        self.a.start(settings)
        self.until_role(self.a, "active", 120)
        self.b.attach_disks()
        self.b.start(settings)
        self.until_role(self.b, "passive")
        self.until_paired()
        wait_until(lambda: (self.b.disk(self.lun) or {}).get("verdict") == "exported", 60, "b knows the disk", step=0.5)

    def attach(self):
        return self.initiator.attached(0, *self.a.portals, *self.b.portals)

    def took(self, node):
        """Milliseconds from the first doubt to service, and of each part, of the node's last takeover."""
        changes = self.report(node)["changes"]
        parts, total = {}, 0.0
        for change in reversed(changes):
            if change["to"] in ("suspecting",) or (change["to"] == "fencing" and change["from"] == "passive"):
                break
            parts[change["from"]] = change.get("milliseconds") or 0.0
            total += change.get("milliseconds") or 0.0
        return total, parts

    def keys_are(self, node):
        """What the disk itself says: one key, of that node's epoch."""
        keys, kind = self.pair.shelf.registrations(list(self.pair.shelf.disks)[self.lun])
        epoch = self.report(node)["epoch"]
        self.assertEqual([key & 0xFFFFFFFF for key in keys], [epoch], (keys, kind))
        self.assertIn("Write Exclusive Access, Registrants Only", kind)

    def switch(self, active, passive=None):
        """A planned switchover; `passive` is there for `rounds`. It is called off where the drain takes too long."""
        answers = []

        def done():
            status, output = active.target.command("switchover")
            answers.append(output)
            self.assertTrue(status == 0 or "called off" in output, output)
            return status == 0

        wait_until(done, 60, f"the nodes change places: {answers}")
        if len(answers) > 1:
            print(f"      {len(answers)} orders to switch over", flush=True)

    def begin_load(self, name, number, device, seconds=12, ahead=3):
        """Begins verified I/O for one round, and lets it run for a while; its name."""
        load = f"{name.replace(' ', '')}{number}"
        self.initiator.machine.background(
            load, verify_command(device, seconds=seconds, depth=4, max=65536, read=50, seed=number + 1))
        self.initiator.machine.run(f"sleep {ahead}")
        return load

    def rounds(self, name, fault, mend, count=ROUNDS, seconds=12, check=lambda successor: None, limit=30):
        """Makes a fault again and again under load; the successor serves, and nothing was lost.

        `check`: what else is to be so once it serves, while the load goes on; `limit`: seconds until it serves.
        """
        device = self.attach()
        stalls, ready = [], []
        for number in range(count):
            active, passive = self.order()
            load = self.begin_load(name, number, device, seconds)
            fault(active, passive)
            self.until_role(passive, "active", limit)
            ready.append(self.took(passive)[0])
            self.keys_are(passive)
            check(passive)
            verified = self.assert_verified(load, 240)
            stalls.append(verified["longest"])
            mend(active, passive)
            self.until_paired()
            self.resume()
        self.tell(name, ready, stalls)

    def resume(self):
        """Three takeovers in ten minutes would hold the next."""
        for node in self.pair.nodes:
            status, output = node.target.command("pair resume")
            self.assertEqual(status, 0, output)

    def undisturbed(self, name, fault):
        """Something that must not end in a takeover, again and again under load."""
        device = self.attach()
        active, passive = self.order()
        epoch = self.report(active)["epoch"]
        stalls = []
        for number in range(ROUNDS):
            load = self.begin_load(name, number, device, seconds=12, ahead=2)
            fault(number, active, passive)
            self.until_paired()
            self.assertEqual(self.order()[0], active)
            self.assertEqual(self.report(active)["epoch"], epoch, "the disks were taken once, and by this node")
            stalls.append(self.assert_verified(load, 120)["longest"])
        self.tell(name, [0], stalls)

    def tell(self, name, ready, stalls):
        figures = {"rounds": len(stalls), "ready ms": [round(value) for value in ready], "stall ms": stalls}
        print(f"      {name}: {len(stalls)} rounds; ready within p50 {statistics.median(ready):.0f} ms, "
              f"max {max(ready):.0f} ms; stall p50 {statistics.median(stalls):.0f} ms, max {max(stalls):.0f} ms",
              flush=True)
        known = json.loads(FIGURES.read_text(encoding="ascii")) if FIGURES.exists() else {}
        FIGURES.write_text(json.dumps({**known, name: figures}, indent=1), encoding="ascii")


class Takeover(TakeoverCase):
    def test_crash(self):
        """The active gateway is killed"""
        self.start_pair()
        self.rounds("kill -9", lambda active, passive: active.crash(), lambda active, passive: active.target.resume())

    def test_switchover(self):
        """An operator has the other node take over"""
        self.start_pair()
        self.rounds("switchover", self.switch, lambda active, passive: None)

    def test_freeze(self):
        """The active gateway stands still for 10 s, and finds that it is not active any more"""
        self.start_pair()

        def mend(active, passive):
            active.freeze(False)
            self.until_role(active, "passive", 30)
            self.assertEqual(self.role(passive), "active")

        self.rounds("SIGSTOP", lambda active, passive: active.freeze(), mend)

    def test_power(self):
        """The active node loses power"""
        self.start_pair()

        def mend(active, passive):
            active.boot()
            active.attach_disks()
            active.start()

        self.rounds("power-off", lambda active, passive: active.lose_power(), mend)

    def test_links(self):
        """The nodes do not hear each other, or one does not: the active stays, for its beats on the disk are seen"""
        self.start_pair()

        def cut(number, active, passive):
            if number % 3 == 0:
                self.pair.cut_links()
            else:
                ends = (active, passive) if number % 3 == 1 else (passive, active)
                for network in self.pair.networks:
                    network.cut(ends[0].machine, ends[1].machine, both=False)
            self.initiator.machine.run("sleep 5")
            self.assertEqual(self.role(active), "active")
            self.assertNotIn(self.role(passive), ("active", "fencing", "recovering"))
            self.pair.mend()

        self.undisturbed("links", cut)

    def test_disk_path(self):
        """The active node loses its way to the disks, and nothing else"""
        self.start_pair()

        def mend(active, passive):
            self.pair.mend()
            self.until_role(active, "passive", 120)

        self.rounds("disk path", lambda active, passive: active.lose_disks(self.pair.storage), mend)

    def test_idle_disk_path(self):
        """Nobody asks for anything when the active loses its way to the disks, and its kernel gives up on them"""
        self.start_pair()
        device = self.attach()
        active, passive = self.order()
        active.lose_disks(self.pair.storage)
        self.until_role(passive, "active", 60)
        load = self.begin_load("idle", 0, device, seconds=5)
        self.assert_verified(load, 120)
        self.pair.mend()
        self.until_role(active, "passive", 120)

    def test_passive(self):
        """The passive node is killed and comes back: nobody notices"""
        self.start_pair()

        def kill(_, active, passive):
            passive.crash()
            self.initiator.machine.run("sleep 3")
            passive.target.resume()

        self.undisturbed("passive", kill)

    def test_cold(self):
        """Both nodes lose power and come back: one is active, nothing that was acknowledged is lost"""
        self.start_pair()
        device = self.attach()
        stalls, ready = [], []
        for number in range(ROUNDS):
            load = self.begin_load("cold", number, device)
            for node in self.pair.nodes:
                node.lose_power()
            # At once: the initiator waits for a minute.
            for node in self.pair.nodes:
                node.boot(waits=False)
            for node in self.pair.nodes:
                node.machine.ready()
                node.attach_disks()
                node.start()
            self.until_paired(120)
            active = self.order()[0]
            ready.append(self.took(active)[0])
            self.keys_are(active)
            stalls.append(self.assert_verified(load, 300)["longest"])
        self.tell("both powered off and on", ready, stalls)

    def test_both(self):
        """Both nodes start at once: exactly one is active, and it goes on so"""
        for node in self.pair.nodes:
            node.attach_disks()
        for node in self.pair.nodes:
            node.start()
        self.until_paired(120)
        active, passive = self.order()
        self.keys_are(active)
        self.initiator.machine.run("sleep 3")
        self.assertEqual(self.order(), [active, passive])

    def test_ghost(self):
        """Writes of the old active node that the network holds up do not land once the new one serves"""
        self.start_pair()
        active, passive = self.order()
        device = self.attach()
        self.initiator.machine.background("ghost", verify_command(device, seconds=30, depth=8, max=65536, read=0))
        self.initiator.machine.run("sleep 3")
        active.delay_writes(self.pair.storage)
        self.until_role(passive, "active", 40)
        self.initiator.machine.run("sleep 5")
        self.pair.mend()
        self.assert_verified("ghost", 240)
        self.until_role(active, "passive", 60)
        self.keys_are(passive)


    def test_growth(self):
        """The shared disk grows under load, the passive sees it first, and the active is killed: none of it is lost"""
        self.start_pair()
        device = self.attach()
        active, passive = self.order()
        before = active.target.unit(self.lun)["sizeBytes"]
        load = self.begin_load("growth", 0, device, seconds=30)
        self.pair.grow(self.lun, GROWTH)
        passive.nexus.rescan(self.lun)
        self.initiator.machine.run("sleep 3")
        self.assertEqual(active.target.unit(self.lun)["sizeBytes"], before, "it moved before who serves it saw it")
        active.nexus.rescan(self.lun)
        active.target.until_unit(self.lun, lambda unit: unit["sizeBytes"] == before + (GROWTH << 20))
        self.assertEqual(self.order(), [active, passive])
        active.crash()
        self.until_role(passive, "active", 30)
        self.keys_are(passive)
        self.assert_verified(load, 240)
        self.assertEqual(passive.target.unit(self.lun)["sizeBytes"], before + (GROWTH << 20))
        active.target.resume()
        self.until_paired()
        self.initiator.resize(self.lun, device, before + (GROWTH << 20))
        self.verify(device, count=200, offset=before - (8 << 20), seconds=60)
        # And back, with records that are where the label is now.
        self.resume()
        load = self.begin_load("growth", 1, device)
        self.switch(passive)
        self.until_role(active, "active", 30)
        self.keys_are(active)
        self.assert_verified(load, 120)


class TwoDisks(TakeoverCase):
    disk_count = 2

    def start_pair(self, settings=""):
        super().start_pair(settings)
        for lun in self.pair.luns:
            for node in self.pair.nodes:
                self.until_known(node, lun)

    @staticmethod
    def until_known(node, lun):
        wait_until(lambda: (node.disk(lun) or {}).get("verdict") == "exported", 60,
                   f"{node.machine.name} knows disk {lun}", step=0.5)

    def test_force(self):
        """The disk that decides is lost, and the active's power: nobody takes over by itself, and an operator can"""
        self.start_pair()
        active, passive = self.order()
        arbiter, other = sorted(self.report(passive)["disks"], key=lambda disk: not disk["isArbiter"])
        device = self.initiator.attached(other["lun"], *self.a.portals, *self.b.portals)
        load = self.begin_load("force", 0, device, seconds=10)
        state = f"/sys/block/{arbiter['path'].removeprefix('/dev/')}/device/state"
        passive.machine.run(f"echo offline >{state}")
        active.lose_power()
        self.initiator.machine.run("sleep 12")
        self.assertNotEqual(self.role(passive), "active")
        self.assertEqual(passive.target.command("pair force --yes")[0], 0)
        self.until_role(passive, "active", 30)
        self.assert_verified(load, 120)
        # What was lost is back, and who was off: it has no say in what was decided.
        passive.machine.run(f"echo running >{state}")
        active.boot()
        active.attach_disks()
        active.start()
        self.until_paired()
        self.assertEqual(self.order(), [passive, active])
        for lun in self.pair.luns:
            self.until_known(passive, lun)
            keys, kind = self.pair.shelf.registrations(list(self.pair.shelf.disks)[lun])
            self.assertEqual([key & 0xFFFFFFFF for key in keys], [self.report(passive)["epoch"]], (lun, keys, kind))
            device = self.initiator.attached(lun, *self.a.portals, *self.b.portals)
            self.assert_verified(self.begin_load("forced", lun, device, seconds=4, ahead=0), 120)

    def test_one_path(self):
        """One of two disks answers the active node no more, though its kernel shows it: the other node serves both"""
        self.start_pair()
        active, passive = self.order()
        other = next(disk for disk in self.report(active)["disks"] if not disk["isArbiter"])
        state = f"/sys/block/{other['path'].removeprefix('/dev/')}/device/state"
        active.machine.run(f"echo offline >{state}")
        try:
            self.until_role(passive, "active", 60)
            self.until_role(active, "passive", 60)
            self.assertTrue(any("lost" in change["reason"] for change in self.report(active)["changes"]))
            for number, lun in enumerate((0, 1)):
                device = self.initiator.attached(lun, *self.a.portals, *self.b.portals)
                load = self.begin_load("two disks", number, device, seconds=4, ahead=0)
                self.assert_verified(load, 120)
        finally:
            active.machine.run(f"echo running >{state}")
