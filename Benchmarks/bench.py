#!/usr/bin/env python3
"""Measures gatewayd against tgt (and any target by address) on this machine, in alternation.

Each round starts a fresh process of every target, pins it to one processor and the load generator to another, and walks
through the points. What counts is the ratio of the medians over the rounds: absolute numbers belong to the machine.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "Tests/integration"))

from harness import process  # noqa: E402
from harness.daemon import Gateway, binary  # noqa: E402
from harness.targets import PeerTarget, TgtTarget  # noqa: E402

SIZE = 1 << 30
# name, arguments of the load generator
POINTS = [
    ("4k-read-d1", ["--block", "4K", "--depth", "1"]),
    ("4k-read-d32", ["--block", "4K", "--depth", "32"]),
    ("4k-read-16x16", ["--block", "4K", "--depth", "16", "--sessions", "16"]),
    ("4k-write-d32", ["--block", "4K", "--depth", "32", "--rw", "write"]),
    ("4k-mix-16x16", ["--block", "4K", "--depth", "16", "--sessions", "16", "--rw", "mix"]),
    ("128k-read-d8", ["--block", "128K", "--depth", "8"]),
    ("128k-write-d8", ["--block", "128K", "--depth", "8", "--rw", "write"]),
    ("1m-read-d4", ["--block", "1M", "--depth", "4"]),
    ("1m-write-d4", ["--block", "1M", "--depth", "4", "--rw", "write"]),
]
QUICK = ("4k-read-d1", "4k-read-d32", "4k-write-d32", "128k-read-d8", "1m-write-d4")


def fill(target):
    """Writes every block once, so that no target reads from holes or pays for its first touch while it is measured."""
    measure(target, ["--block", "1M", "--depth", "4", "--rw", "write", "--sequential"], 0.1, 1.5, None)


def measure(target, arguments, warmup, seconds, cpu):
    command = [os.environ["GATEWAYD_LOAD"], "--address", target.address, "--port", target.port, "--target", target.name,
               "--lun", target.first_lun, "--size", SIZE, "--warmup", warmup, "--seconds", seconds, *arguments]
    if cpu is not None:
        command += ["--cpu", cpu]
    if target.pid is not None:
        command += ["--watch", target.pid]
    finished = process.run(command, seconds=warmup + seconds + 60, check=False)
    if not finished.stdout.startswith("{"):
        raise RuntimeError(f"{target.kind}: {finished.stderr.strip() or finished.stdout.strip()}")
    result = json.loads(finished.stdout)
    if result["errors"] or result["rejects"]:
        raise RuntimeError(f"{target.kind}: {result['errors']} errors, {result['rejects']} rejects")
    return result


def starters(arguments):
    """{name: function that starts it}, in the order of a round."""
    cpu = arguments.target_cpu
    found = {}
    if binary().exists() and "gatewayd" not in arguments.without:
        extra = ["--threads", "1", *arguments.daemon_argument]
        found["gatewayd"] = lambda: Gateway(disks=[f"memory:{SIZE}"], arguments=extra, cpu=cpu)
    if "tgt" not in arguments.without and process.is_root():
        found["tgt"] = lambda: TgtTarget(sizes=(SIZE,), cpu=cpu)
    for text in arguments.peer:
        peer = PeerTarget(text)
        found[peer.kind] = lambda peer=peer: peer
    return found


def run_rounds(arguments, points, targets):
    """{target: {point: [results]}}; a target that fails at a point has fewer results there and a line on stderr."""
    results = {name: {point: [] for point, _ in points} for name in targets}
    notes, failures = {}, 0
    for number in range(arguments.rounds):
        order = list(targets) if number % 2 == 0 else list(reversed(targets))
        for name in order:
            print(f"round {number + 1}/{arguments.rounds}: {name}", file=sys.stderr, flush=True)
            with contextlib.closing(_Closing(targets[name]())) as holder:
                notes[name] = holder.target.note
                fill(holder.target)
                for point, options in points:
                    try:
                        results[name][point].append(
                            measure(holder.target, options, arguments.warmup, arguments.seconds, arguments.load_cpu))
                    except (RuntimeError, subprocess.TimeoutExpired) as error:
                        failures += 1
                        print(f"  {point}: {error}", file=sys.stderr)
                        break
    return results, notes, failures


class _Closing:
    def __init__(self, target):
        self.target = target

    def close(self):
        self.target.stop()


def median(results, key):
    return statistics.median(r[key] for r in results) if results else None


COLUMNS = [("IOPS", "iops", "{:11.0f}"), ("MB/s", "mb_per_s", "{:9.1f}"), ("p50 us", "p50_us", "{:9.1f}"),
           ("p99 us", "p99_us", "{:9.1f}"), ("CPU us/IO", "target_cpu_us_per_io", "{:10.2f}"),
           ("target %", "target_cpu_percent", "{:9.0f}"), ("load %", "load_cpu_percent", "{:7.0f}")]


def report(results, points):
    """A table of medians, and for each point the ratios to the first target."""
    titles = "".join(f"{title:>11}" for title, _, _ in COLUMNS)
    print(f"{'point':<15}{'target':<12}{titles}   ratio: IOPS, CPU/IO")
    for point, _ in points:
        base = None
        for name in results:
            row = results[name][point]
            if not row:
                print(f"{point:<15}{name:<12}  (failed)")
                continue
            cells = "".join(f"{form.format(median(row, key)):>11}" for _, key, form in COLUMNS)
            iops, cpu = median(row, "iops"), median(row, "target_cpu_us_per_io")
            ratio = ""
            if base is None:
                base = (iops, cpu)
            else:
                ratio = f"   {base[0] / iops:.2f}x"
                ratio += f", {base[1] / cpu:.2f}x" if cpu and base[1] else ""
            print(f"{point:<15}{name:<12}{cells}{ratio}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", nargs="?", choices=["quick", "full"], default="full")
    parser.add_argument("--rounds", type=int, help="alternations (5; quick: 1)")
    parser.add_argument("--seconds", type=float, help="measured time of a point (3; quick: 1)")
    parser.add_argument("--warmup", type=float, default=0.5)
    parser.add_argument("--only", action="append", default=[], help="only the points whose name contains this")
    parser.add_argument("--without", action="append", default=[], choices=["tgt", "gatewayd"])
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=ADDRESS:PORT/IQN/LUN",
                        help="a target that is running already; its LUN is overwritten")
    parser.add_argument("--daemon-argument", action="append", default=[], help="passed on to gatewayd run")
    parser.add_argument("--target-cpu", type=int, default=0)
    parser.add_argument("--load-cpu", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write everything here too")
    arguments = parser.parse_args()
    quick = arguments.mode == "quick"
    arguments.rounds = arguments.rounds or (1 if quick else 5)
    arguments.seconds = arguments.seconds or (1 if quick else 3)
    if (os.cpu_count() or 1) < 2:
        arguments.target_cpu = arguments.load_cpu = 0
        print("only one processor: target and load share it", file=sys.stderr)

    points = [(name, options) for name, options in POINTS
              if (not quick or name in QUICK) and (not arguments.only or any(text in name for text in arguments.only))]
    targets = starters(arguments)
    if not targets or not points:
        raise SystemExit("nothing to measure: no gatewayd (./dev build), no tgt (needs root), no --peer; or no point")
    results, notes, failures = run_rounds(arguments, points, targets)

    print(f"\n{arguments.rounds} rounds, {arguments.seconds} s a point, medians; target on processor "
          f"{arguments.target_cpu}, load on {arguments.load_cpu}; Linux {platform.release()}, loopback")
    for name, note in notes.items():
        print(f"  {name}: {note}")
    report(results, points)
    print(f"A ratio above 1 of IOPS: {next(iter(results))} does more; a CPU ratio below 1: it needs less time per I/O.")
    if arguments.json:
        arguments.json.write_text(json.dumps({
            "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "kernel": platform.release(),
            "rounds": arguments.rounds, "seconds": arguments.seconds, "notes": notes, "results": results}, indent=1))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
