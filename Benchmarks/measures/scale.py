"""Many sessions, many LUNs, many logins, and a modest session beside a greedy one."""

import contextlib
import json
import statistics
import subprocess
import time
from pathlib import Path

from harness.targets import TgtTarget

from . import load, targets

SESSIONS = (1, 16, 256, 1000)
TOTAL_DEPTH = 256
LUNS = (1, 64, 256)
LUN_BYTES = 16 << 20
IDLE = 1000
TOGETHER = 16
GREEDY = ["--block", "128K", "--depth", "128"]
MODEST = ["--block", "4K", "--depth", "1"]


def memory(pid):
    """{"Rss": KiB, "Pss": KiB} of a process; nothing of one that runs elsewhere."""
    found = {}
    if pid is None:
        return found
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("Rss", "Pss"):
            found[name] = int(rest.split()[0])
    return found


def grown(pid, before, count):
    """KiB by which a process grew, for each of `count`."""
    after = memory(pid)
    return {f"{name.lower()}_kib": (after[name] - before[name]) / count for name in before}


@contextlib.contextmanager
def running(target, arguments, seconds, cpu):
    """A load that runs beside what the block does; yields the function that waits for its result."""
    line = load.command(target, arguments, 0.2, seconds, cpu)
    child = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait():
        out, error = child.communicate(timeout=seconds + 60)
        return load.result(target, subprocess.CompletedProcess(line, child.returncode, out, error))
    try:
        yield wait
    finally:
        child.kill()
        child.wait(5)


@contextlib.contextmanager
def idle(target, sessions, processes, cpu):
    """Sessions that are logged in and do nothing; yields what each process says of its logins."""
    line = [*load.command(target, ["--idle", "--sessions", str(sessions)], cpu=cpu)]
    children = [subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                for _ in range(processes)]
    try:
        said = [child.stdout.readline() for child in children]
        if not all(said):
            raise load.Failed(f"{target.kind}: {children[said.index('')].stderr.read().strip()}")
        yield [json.loads(text) for text in said]
        for child in children:
            child.stdin.close()
            child.wait(30)
    finally:
        for child in children:
            child.kill()
            child.wait(5)
            child.stdout.close()
            child.stderr.close()


def measure_sessions(target, arguments):
    """{kind of depth: {sessions: result}}."""
    found = {"constant": {}, "one": {}}
    for sessions in SESSIONS:
        depths = {"constant": max(TOTAL_DEPTH // sessions, 1), "one": 1}
        for kind, depth in depths.items():
            options = ["--block", "4K", "--sessions", str(sessions), "--depth", str(depth)]
            found[kind][sessions] = load.measure(target, options, arguments.warmup, arguments.seconds,
                                                 arguments.load_cpu)
    return found


def measure_idle(target, arguments):
    """What 1000 idle sessions hold of memory, and how fast they come one after the other."""
    before = memory(target.pid)
    with idle(target, IDLE, 1, arguments.load_cpu) as (said,):
        time.sleep(0.5)
        found = grown(target.pid, before, IDLE)
    found["logins_per_s"] = said["logins"] / (said["end_ns"] - said["begin_ns"]) * 1e9
    found["login_p50_us"], found["login_p99_us"] = said["p50_us"], said["p99_us"]
    return found


def measure_storm(target, arguments):
    """Logins a second when 16 processes log in at once."""
    each = IDLE // TOGETHER
    with idle(target, each, TOGETHER, arguments.load_cpu) as said:
        span = max(s["end_ns"] for s in said) - min(s["begin_ns"] for s in said)
        return {"logins_per_s": each * TOGETHER / span * 1e9, "login_p99_us": max(s["p99_us"] for s in said)}


def measure_fairness(target, arguments):
    """The modest session's latencies alone and beside the greedy one; both loads share a processor."""
    alone = load.measure(target, MODEST, 0.2, arguments.seconds, arguments.load_cpu)
    with running(target, GREEDY, arguments.seconds + 1.0, arguments.load_cpu) as greedy:
        time.sleep(0.5)
        beside = load.measure(target, MODEST, 0.2, arguments.seconds, arguments.load_cpu)
        return {"alone": alone, "beside": beside, "greedy": greedy()}


def with_luns(name, count, arguments):
    """A target with so many small LUNs, or nothing where it has only one."""
    if name == "gatewayd":
        return targets.gateway(arguments, disks=[f"memory:{LUN_BYTES}"] * count)
    if name == "tgt":
        return TgtTarget(sizes=(LUN_BYTES,) * count, cpu=arguments.target_cpu)
    return None


def measure_luns(name, arguments):
    """{LUNs: result, with the memory of the target before any load}."""
    found = {}
    for count in LUNS:
        target = with_luns(name, count, arguments)
        if target is None:
            return None
        with contextlib.closing(_Stopping(target)):
            held = memory(target.pid)
            options = ["--block", "4K", "--sessions", "16", "--depth", "16", "--luns", str(count), "--size",
                       str(LUN_BYTES)]
            found[count] = load.measure(target, options, arguments.warmup, arguments.seconds, arguments.load_cpu)
            found[count] |= {"rss_kib": held["Rss"], "pss_kib": held["Pss"]}
    return found


class _Stopping:
    def __init__(self, target):
        self.close = target.stop


PARTS = {"idle": measure_idle, "storm": measure_storm, "fairness": measure_fairness, "sessions": measure_sessions}


def measure_target(name, start, arguments, say):
    """{part: result} of one round, and how many parts failed: these are left out, with a line. Each begins with a fresh
    target."""
    found, failures = {}, 0
    for part in (*PARTS, "luns"):
        if arguments.only and not any(text in part for text in arguments.only):
            continue
        say(f"scale: {name}, {part}")
        try:
            if part == "luns":
                found[part] = measure_luns(name, arguments)
                continue
            with contextlib.closing(_Stopping(target := start())):
                if part in ("fairness", "sessions"):
                    load.fill(target)
                found[part] = PARTS[part](target, arguments)
        except (load.Failed, AssertionError, OSError, subprocess.TimeoutExpired) as error:
            failures += 1
            say(f"  {error}")
    return found, failures


def measure(starters, arguments, rounds, say):
    """Appends to `rounds`, {target: {part: [result of each round]}}; the targets take turns. Returns how many parts
    failed."""
    failures = 0
    for number in range(arguments.rounds):
        for name in list(starters) if number % 2 == 0 else list(reversed(starters)):
            found, failed = measure_target(name, starters[name], arguments, say)
            failures += failed
            for part, result in found.items():
                rounds.setdefault(name, {}).setdefault(part, []).append(result)
    return failures


def medians(rounds):
    """Of results of one shape, number by number; what a round has not is left out of that number."""
    there = [each for each in rounds if each is not None]
    if not there or not isinstance(there[0], dict):
        return statistics.median(there) if there else None
    return {key: medians([each.get(key) for each in there]) for key in there[0]}
