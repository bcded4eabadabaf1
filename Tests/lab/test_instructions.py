"""How many instructions the daemon spends on a warm I/O of 4 KiB, and that it asks for no memory: with thresholds.

One machine is target and initiator; its clock counts instructions (docs/TESTING.md says what repeats and why). The
thresholds are in instructions.txt. GATEWAYD_LAB_LOWER=1 lowers those that are too high; nothing raises them.
Run by name to see where they are: ./dev lab Profile.
"""

import collections
import math
import os
import unittest

from machines.places import LAB, gatewayd
from machines.symbols import Symbols, demangled
from machines.target import NAME
from test_peers import Peers

FILE = LAB / "instructions.txt"
TOLERANCE = 0.03
WARM_UP, COUNT = 500, 1500
# Of all threads: nothing but a shard's has work to do.
# A table may grow once meanwhile, which was seen once in many runs; one for each I/O would be 1500.
ALLOCATIONS = 2
# So many functions are listed.
LONGEST = 40


class Thresholds:
    """What instructions.txt says: for each point the instructions in user mode, and those of the shard's thread."""

    def __init__(self, text):
        self.text = text
        self.kernel, self.points = None, {}
        for line in text.splitlines():
            words = line.split()
            if words[:1] == ["kernel"]:
                self.kernel = words[1]
            elif words and not line.startswith("#"):
                self.points[" ".join(words[:3])] = [None if word == "-" else int(word) for word in words[3:]]

    def judge(self, point, counts, kernel):
        """(faults, hints) of what was counted at a point: `counts` in user mode, and of the thread."""
        faults, hints = [], []
        for what, count, threshold in zip(("in user mode", "of the thread"), counts, self.points[point]):
            if threshold is None:
                continue
            line = f"{point}: {count:.0f} instructions {what}, threshold {threshold} ({count / threshold - 1:+.1%})"
            if what == "of the thread" and kernel != self.kernel:
                # The most of it is the kernel's, and that is another one.
                hints.append(f"{line}, not judged: it was set with kernel {self.kernel}, this is {kernel}")
            elif count > threshold * (1 + TOLERANCE):
                faults.append(line)
            elif count < threshold * (1 - TOLERANCE):
                hints.append(f"{line}: lower it with GATEWAYD_LAB_LOWER=1 ./dev lab Instructions")
        return faults, hints

    def lowered(self, counted, kernel):
        """The file's text with what was counted where that is less. With another kernel the thread's are set anew."""
        lines = []
        for line in self.text.splitlines():
            point = " ".join(line.split()[:3])
            if line.startswith("kernel "):
                line = f"kernel {kernel}"
            elif point in counted:
                user, thread = self.points[point]
                user = min(user, math.ceil(counted[point][0]))
                if thread is not None:
                    new = math.ceil(counted[point][1])
                    thread = min(thread, new) if kernel == self.kernel else new
                line = f"{point} {user} {'-' if thread is None else thread}"
            lines.append(line + "\n")
        return "".join(lines)


class Counted(Peers):
    """The gateway in a machine where all it does can be counted."""

    name = "instructions"
    # The image of the other tests.
    programs, modules = [], []

    def start_gatewayd(self):
        self.target.start(arguments=["--no-discovery", "--disk", "memory:16M", "--threads", "1"],
                          environment="LD_PRELOAD=/usr/lib/tally.so TALLY=/run/tally")
        return NAME, 3260

    def count(self, device, direction, depth):
        """What I/Os take: instructions in user mode by their places, those of the shard's thread, calls for memory."""
        load = f"pace {device} bytes=4096 depth={depth} write={int(direction == 'write')} counted=1"
        look = "cut -d ' ' -f 1 ${shard%comm}schedstat && od -An -t u8 /run/tally"
        self.machine.run(f"{load} count={WARM_UP}", 100)
        before = self.machine.user_instructions()
        # In one go: while we look, an idle machine's clock flies, and the daemon's timers with it.
        words = self.machine.run(
            "cd /proc/$(cat /run/gatewayd.pid)/task && shard=$(grep -l ^shard */comm) && sleep 0.3 && "
            f"{look} && {load} count={COUNT} >/dev/null && sleep 0.3 && {look}", 100).split()
        after = self.machine.user_instructions()
        self.assertGreater(int(words[1]), 0, "calls for memory are counted")
        user = {place: total - before.get(place, 0) for place, total in after.items()}
        return user, int(words[2]) - int(words[0]), int(words[3]) - int(words[1])

    def points(self):
        """(point, what `count` says) of each, over both transports."""
        for transport in ("tcp", "iser"):
            with self.disk_of("gatewayd", transport) as device:
                for direction in ("read", "write"):
                    for depth in (1, 32):
                        yield f"{transport} {direction} {depth}", self.count(device, direction, depth)


class Instructions(Counted):
    def test_thresholds(self):
        """A warm read and write takes no more instructions than its threshold over TCP and over iSER, and no memory"""
        thresholds = Thresholds(FILE.read_text())
        kernel = self.machine.run("uname -r")
        counted, faults, hints = {}, [], []
        for point, (user, thread, allocations) in self.points():
            counts = counted[point] = sum(user.values()) / COUNT, thread / COUNT
            print(f"{point}: {counts[0]:.0f} instructions in user mode, {counts[1]:.0f} of the thread, "
                  f"{allocations} allocations", flush=True)
            if allocations > ALLOCATIONS:
                faults.append(f"{point}: {allocations} allocations in {COUNT} I/Os")
            for found, more in zip((faults, hints), thresholds.judge(point, counts, kernel)):
                found.extend(more)
        print(*hints, sep="\n", end="\n" if hints else "", flush=True)
        if os.environ.get("GATEWAYD_LAB_LOWER") == "1":
            FILE.write_text(thresholds.lowered(counted, kernel))
        self.assertEqual(set(counted), set(thresholds.points))
        self.assertFalse(faults, "\n".join(faults))


class Profile(Counted):
    def test_functions(self):
        """Where the instructions in user mode of a warm I/O are: the functions that have the most"""
        symbols, functions = None, {}
        for point, (user, _, _) in self.points():
            symbols = symbols or Symbols(gatewayd(), self.machine.run("cat /proc/$(cat /run/gatewayd.pid)/maps"))
            functions[point] = collections.Counter()
            for place, count in user.items():
                functions[point][symbols.name(place)] += count / COUNT
        names = demangled({name for found in functions.values() for name in found})
        for point, found in functions.items():
            print(f"\n{point}: {found.total():.0f}")
            for name, count in found.most_common(LONGEST):
                print(f"{count:8.0f}  {names[name]}", flush=True)
            self.assertIn("Gateway.Shard.run() -> ()", [names[name] for name, _ in found.most_common(LONGEST)])


class Judging(unittest.TestCase):
    thresholds = Thresholds("# why\nkernel 6.1\ntcp read 1 1000 5000\niser read 32 1000 -\n")

    def test_more_fails(self):
        """More than three percent above a threshold is a fault, in user mode and of the thread"""
        self.assertEqual(self.thresholds.judge("tcp read 1", (1030, 5150), "6.1"), ([], []))
        self.assertEqual(len(self.thresholds.judge("tcp read 1", (1031, 5000), "6.1")[0]), 1)
        self.assertEqual(len(self.thresholds.judge("tcp read 1", (1000, 5151), "6.1")[0]), 1)
        self.assertEqual(len(self.thresholds.judge("iser read 32", (1031, 9999), "6.1")[0]), 1)

    def test_less_hints(self):
        """More than three percent below a threshold is no fault, but said; another kernel's work is not judged"""
        faults, hints = self.thresholds.judge("tcp read 1", (969, 4849), "6.1")
        self.assertEqual((faults, len(hints)), ([], 2))
        faults, hints = self.thresholds.judge("tcp read 1", (1000, 9000), "6.2")
        self.assertEqual((faults, len(hints)), ([], 1))

    def test_only_down(self):
        """Lowering never raises; with another kernel the thread's counts are set anew"""
        counted = {"tcp read 1": (900.2, 6000), "iser read 32": (1100, 1)}
        self.assertEqual(self.thresholds.lowered(counted, "6.1"),
                         "# why\nkernel 6.1\ntcp read 1 901 5000\niser read 32 1000 -\n")
        self.assertEqual(self.thresholds.lowered(counted, "6.2"),
                         "# why\nkernel 6.2\ntcp read 1 901 6000\niser read 32 1000 -\n")
