"""Persistent reservations of initiators through takeovers: what was acknowledged is there, and nothing else is."""

import random
import re
import statistics
import time
from collections import Counter
from dataclasses import dataclass, replace

from machines.initiator import Path
from test_takeover import ROUNDS, TakeoverCase

# Exit codes of sg_persist; the third is ours.
GOOD, CONFLICT, NO_STATUS = 0, 24, -1
# TYPE, as sg_persist takes it, and whether others may read (SPC-5 table 63).
TYPES = {1: True, 3: False, 5: True, 6: False, 7: True, 8: False}
NAMES = {"Write Exclusive": 1, "Exclusive Access": 3, "Write Exclusive, registrants only": 5,
         "Exclusive Access, registrants only": 6, "Write Exclusive, all registrants": 7,
         "Exclusive Access, all registrants": 8}


@dataclass(frozen=True)
class Table:
    """What READ KEYS and READ RESERVATION tell; `full`: READ FULL STATUS, as text."""

    generation: int
    keys: tuple
    kind: int
    holder: int
    full: str = ""

    @classmethod
    def of(cls, keys, reservation, full):
        generation = int(re.search(r"PR generation=(0x[0-9a-f]+)", keys)[1], 16)
        found = tuple(int(key, 16) for key in re.findall(r"^ +(0x[0-9a-f]+)$", keys, re.MULTILINE))
        held = re.search(r"Key=(0x[0-9a-f]+)\n.*type: (.*)$", reservation, re.MULTILINE)
        return cls(generation, found, NAMES[held[2].strip()] if held else 0, int(held[1], 16) if held else 0, full)

    def since(self, other):
        """Without what a takeover need not keep of another table: how often it had changed before."""
        return replace(self, generation=self.generation - other.generation, full="")


class ReservationCase(TakeoverCase):
    """A pair, and initiators that have a path to each node: names like "first"."""

    def start_hosts(self, *names, settings=""):
        self.start_pair(settings)
        self.active, self.passive = self.order()
        self.paths = {(name, node): Path(self.initiator.machine, node.portals[0], name).login()
                      for name in names for node in self.pair.nodes}
        self.devices = {key: path.disk(self.lun) for key, path in self.paths.items()}

    def device(self, name):
        """The disk by the path to the active node."""
        return self.devices[name, self.active]

    def attempt(self, *scripts, seconds=90):
        """Runs scripts, each (name, text with the disk in $disk), once that path is there and has told all that it had.

        (status, output); after one that fails there are no more.
        """
        ready = "for i in $(seq 300); do sg_turs $disk >/dev/null 2>&1 && break; usleep 100000; done"
        return self.initiator.machine.attempt(
            "\n".join(f"disk={self.device(name)}; {ready}; {{ {text}; }} || exit" for name, text in scripts), seconds)

    def out(self, name, words, status=GOOD):
        """PERSISTENT RESERVE OUT, which is to end so."""
        ended, output = self.attempt((name, f"sg_persist -n --out {words} $disk"))
        self.assertEqual(self.outcome(ended, output), status, f"{name}: {words}: {output}")

    def outs(self, *steps):
        """Several, each (name, words), which are to end well."""
        ended, output = self.attempt(*((name, f"sg_persist -n --out {words} $disk") for name, words in steps))
        self.assertEqual(self.outcome(ended, output), GOOD, f"{steps}: {output}")

    @staticmethod
    def outcome(ended, output):
        """How PERSISTENT RESERVE OUT ended: sg_persist ends with 0 too where there was no status, and says so."""
        return NO_STATUS if ended == 0 and output else ended

    def table(self, name="first"):
        status, output = self.attempt(
            (name, "for what in -k -r -s; do sg_persist -n --in $what $disk || exit; echo ---; done"))
        self.assertEqual(status, 0, output)
        return Table.of(*output.removesuffix("---").split("---\n"))

    def empty(self, name="first"):
        """Nobody is registered."""
        self.outs((name, "--register-ignore --param-sark=0xffff"), (name, "--clear --param-rk=0xffff"))
        table = self.table(name)
        self.assertEqual((table.keys, table.kind), ((), 0))
        return table

    def allowed(self, what, *names):
        """Those of the initiators who may "read" or "write"; whoever may not meets a conflict, and nothing else."""
        # What the kernel knows of a path's state may be of the time before a takeover.
        text = ("echo 1 >/sys/block/${disk#/dev/}/device/rescan; "
                f"verify $disk count=1 final=0 read={100 if what == 'read' else 0} 2>&1 | tail -n 2 | paste -s -d ' '")
        status, output = self.attempt(*((name, text) for name in names))
        self.assertEqual(status, 0, output)
        lines = dict(zip(names, output.splitlines()))
        for name, line in lines.items():
            self.assertRegex(line, "^verified.* 0 errors|Invalid exchange", name)
        return [name for name, line in lines.items() if line.startswith("verified")]

    # ---- Takeovers

    def crash(self, active):
        active.crash()

    def take_over(self, fault=None, is_mended=True):
        """The other node becomes active, by a fault or in good order; then they are a pair again, unless told."""
        (fault or self.switch)(self.active)
        self.until_role(self.passive, "active", 30)
        self.active, self.passive = self.passive, self.active
        if is_mended:
            self.mend()

    def mend(self):
        """What a crash left is started again."""
        if not self.passive.target.is_running():
            self.passive.target.resume()
        self.until_paired()


class Reservations(ReservationCase):
    def test_types(self):
        """After a takeover every type of reservation is there, and others meet a conflict"""
        self.every_type("", [self.crash, self.switch])

    def test_types_aptpl(self):
        """The same of reservations that are to survive a loss of power"""
        self.every_type("--param-aptpl", [self.switch, self.crash])

    def every_type(self, aptpl, faults):
        self.start_hosts("first", "second", "third")
        for number, (kind, lets_read) in enumerate(TYPES.items()):
            first, second = 0x10 + kind, 0x20 + kind
            self.empty()
            self.outs(("first", f"--register --param-sark={first:#x} {aptpl}"),
                      ("second", f"--register --param-sark={second:#x} {aptpl}"),
                      ("first", f"--reserve --param-rk={first:#x} --prout-type={kind}"))
            before = self.table()
            # An all-registrants reservation has no holder's key (SPC-5 §6.16.3.2).
            self.assertEqual((before.keys, before.kind, before.holder),
                             ((first, second), kind, first if kind < 7 else 0))
            self.take_over(faults[number % 2])
            self.assertEqual(self.table(), before)
            # By paths that nobody has registered: what the initiators did by the others counts.
            self.assertEqual(self.allowed("write", "first", "second", "third"),
                             ["first", "second"] if kind >= 5 else ["first"], f"type {kind}")
            self.assertEqual(self.allowed("read", "third"), ["third"] if lets_read else [], f"type {kind}")
            self.out("third", f"--reserve --param-rk=0x1 --prout-type={kind}", CONFLICT)
            self.assertEqual(self.table("third"), before)

    def test_back(self):
        """A holder whose node was active before and is so again goes on as if nothing had been"""
        self.start_hosts("first", "second")
        self.outs(("first", "--register --param-sark=0x11"), ("first", "--reserve --param-rk=0x11 --prout-type=3"))
        before = self.table()
        for fault in (self.crash, self.switch):
            for _ in range(2):
                self.take_over(fault)
            self.assertEqual(self.table(), before)
            self.assertEqual(self.allowed("write", "first", "second"), ["first"])
            self.assertEqual(self.allowed("read", "second"), [])
        self.outs(("first", "--reserve --param-rk=0x11 --prout-type=3"),
                  ("first", "--release --param-rk=0x11 --prout-type=3"))
        self.assertEqual(self.allowed("write", "second"), ["second"])

    def test_power(self):
        """When both nodes lose power, reservations with APTPL are there after it, and those without are not"""
        self.start_hosts("first", "second")
        for is_kept in (True, False):
            self.empty()
            self.outs(("first", f"--register --param-sark=0x11 {'--param-aptpl' if is_kept else ''}"),
                      ("first", "--reserve --param-rk=0x11 --prout-type=1"))
            # First as in other takeovers: nobody has lost power but one node.
            before = self.table()
            self.take_over(self.crash)
            self.assertEqual(self.table(), before)
            for node in self.pair.nodes:
                node.lose_power()
            for node in self.pair.nodes:
                node.boot()
                node.attach_disks()
                node.start()
            self.until_paired()
            self.active, self.passive = self.order()
            after = self.table("second")
            self.assertEqual((after.keys, after.kind, after.holder), ((0x11,), 1, 0x11) if is_kept else ((), 0, 0))
            self.assertEqual(self.allowed("write", "second"), [] if is_kept else ["second"])


class Moments(ReservationCase):
    """The active node dies within PERSISTENT RESERVE OUT."""

    # What the initiators have done before, and the change that a node dies in.
    BEFORE = [("first", "--register --param-sark=0x11 --param-aptpl"),
              ("second", "--register --param-sark=0x22 --param-aptpl"),
              ("first", "--reserve --param-rk=0x11 --prout-type=5")]
    CHANGES = [("second", "--register-ignore --param-sark=0x33 --param-aptpl"),
               ("first", "--release --param-rk=0x11 --prout-type=5"),
               ("second", "--preempt-abort --param-rk=0x22 --param-sark=0x11 --prout-type=5"),
               ("first", "--clear --param-rk=0x11")]

    def prepare(self):
        self.empty()
        self.outs(*self.BEFORE)
        return self.table()

    def send(self, command, device, hold):
        """Has an initiator send a command in the background, and something held up from the moment that it arrives.

        Not before: a connection that gets no answers for some tenths of a second sends nothing more either.
        """
        user, node = self.initiator.machine, self.active.machine
        self.pair.front.hold(user, node)
        count = f"$(($(cat /sys/block/{device[5:]}/device/iorequest_cnt)))"
        before = user.run(f"echo {count}")
        user.background("change", command)
        user.until(f"[ {count} -gt {before} ]", 30, "it was sent")
        hold(self.active)
        self.pair.front.let_go(user, node)
        user.run("sleep 1")

    def test_steps(self):
        """It dies before the table is on the disk, before it knows that, or before the initiator does: old, or new"""
        self.start_hosts("first", "second")
        storage, user = self.pair.storage, self.initiator.machine
        steps = {
            "not on the disk": lambda node: self.pair.disks.hold(node.machine, storage),
            "the disk has not answered": lambda node: self.pair.disks.hold(storage, node.machine),
            "the initiator has no answer": lambda node: self.pair.front.hold(node.machine, user),
        }
        # How often each step has led to which table: a slow machine may not have come to the step that was meant.
        counts = Counter()
        for name, words in self.CHANGES:
            old = self.prepare()
            self.out(name, words)
            new = self.table().since(old)
            self.assertNotEqual(new, old.since(old))
            for step, hold in steps.items():
                old = self.prepare()
                device = self.device(name)
                self.send(f"sg_persist -n --out {words} {device}", device, hold)
                self.assertNotEqual(user.attempt("test -e /run/lab/change.status")[0], 0, f"{words}: {step}")
                self.take_over(self.crash, is_mended=False)
                found = self.table()
                # What was held arrives now: the old node's write meets the fence, an answer its initiator.
                self.pair.mend()
                ended, output = user.finish("change", 60)
                self.assertIn(found.since(old), [old.since(old), new], f"{words}: {step}")
                is_new = found.since(old) == new
                self.assertTrue(is_new or self.outcome(ended, output) != GOOD, f"{words}: {step}: acknowledged")
                counts[step, "new" if is_new else "old"] += 1
                self.mend()
                self.assertEqual(self.table(), found, f"{words}: {step}: changed afterwards")
        print(f"      {dict(counts)}", flush=True)
        self.assertEqual(counts["not on the disk", "new"], 0)
        for step in list(steps)[1:]:
            self.assertGreater(counts[step, "new"], 0, f"{step}: {counts}")

    def test_any(self):
        """It dies at any moment of a stream of changes: the table is that of the last acknowledged, or one later"""
        self.start_hosts("first", "second")
        seed = time.time_ns() % 1_000_000
        choices = random.Random(seed)
        print(f"      seed {seed}", flush=True)
        user, counts, later = self.initiator.machine, [], 0
        for number in range(ROUNDS * 2):
            begin = self.empty()
            user.background("stream", f"persist {self.device('first')}")
            user.run(f"usleep {choices.randrange(300_000, 1_500_000)}")
            self.take_over(self.crash, is_mended=False)
            found = self.table("second")
            _, output = user.finish("stream", 60)
            count = int(re.fullmatch(r"acknowledged: (\d+) then \d+", output)[1])
            possible = [self.after(begin, changes) for changes in (count, count + 1)]
            self.assertIn(replace(found, full=""), possible, f"seed {seed}, round {number}: {count} acknowledged")
            counts.append(count)
            later += replace(found, full="") != possible[0]
            self.mend()
        self.assertGreater(statistics.median(counts), 3, "there was a stream of changes")
        print(f"      {len(counts)} crashes after {counts} changes; {later} had one more on the disk", flush=True)

    @staticmethod
    def after(begin, changes):
        """The table after so many changes of tools/persist.c."""
        if changes == 0:
            return replace(begin, full="")
        number, step = divmod(changes - 1, 3)
        key = 3 * number + 1
        generation = begin.generation + number + 1
        if step == 1:
            kind = list(TYPES)[number % len(TYPES)]
            return Table(generation, (key,), kind, key if kind < 7 else 0)
        return Table(generation, (key,), 0, 0)
