#!/usr/bin/env python3
"""Measures gatewayd against tgt, the bare answerer and any target by address on this machine, in alternation.

Each round starts a fresh process of every target, pins it to one processor and the load generator to another, and walks
through the points. What counts is the ratio of the medians over the rounds: absolute numbers belong to the machine.

  quick   a small part, about a minute       full   every point, then the disk
  disk    what gatewayd adds to a disk       scale  many sessions, LUNs and logins
  all     full and scale                     docs   docs/PERFORMANCE.md from the newest results
"""

import argparse
import contextlib
import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "Tests/integration")]

from measures import charts, counts, disk, docs, load, machine, points, report, scale, targets  # noqa: E402

MODES = ["quick", "full", "disk", "scale", "all", "docs"]


def say(text):
    print(text, file=sys.stderr, flush=True)


def measure_round(name, start, chosen, arguments, data):
    """One target through all points; the number of points that failed."""
    failures = 0
    with contextlib.ExitStack() as stack:
        target = start()
        stack.callback(target.stop)
        data["notes"][name] = target.note
        load.fill(target)
        for point, options in chosen.items():
            if name == "polling" and point not in points.POLLING:
                continue
            try:
                found = load.measure(target, options, arguments.warmup, arguments.seconds, arguments.load_cpu)
                data["results"][name].setdefault(point, []).append(found)
            except load.Failed as error:
                failures += 1
                say(f"  {point}: {error}")
                if target.pid is not None and not Path(f"/proc/{target.pid}").exists():
                    break
    return failures


def rounds_of(data, chosen):
    """How many rounds of these points there are already."""
    return max((len(by.get(point, ())) for by in data["results"].values() for point in chosen), default=0)


def measure_points(starters, chosen, arguments, data):
    """Rounds in alternation, then what can be counted."""
    failures = 0
    data["points"] = {p: o for p, o in points.POINTS.items() if p in data["points"] or p in chosen}
    for name in starters:
        data["results"].setdefault(name, {})
    there = rounds_of(data, chosen)
    for number in range(arguments.rounds):
        for name in list(starters) if (there + number) % 2 == 0 else list(reversed(starters)):
            say(f"round {number + 1}/{arguments.rounds}: {name}")
            failures += measure_round(name, starters[name], chosen, arguments, data)
            save(arguments, "results.json", data)
    if arguments.no_counts:
        return failures
    for name, start in starters.items():
        if name == "polling":
            continue
        say(f"counting: {name}")
        try:
            data["counts"].setdefault(name, {}).update(counts.count(start, chosen, arguments.load_cpu, say))
        except (load.Failed, AssertionError, OSError) as error:
            say(f"  not counted: {error}")
    return failures


def fresh(arguments, name):
    """What results begin with: nothing, or with --add what is there."""
    path = arguments.out / name
    if arguments.add and path.exists():
        data = json.loads(path.read_text())
    else:
        data = {"commands": [], "notes": {}, "points": {}, "results": {}, "counts": {}}
    command = "./dev bench " + shlex.join(a for a in sys.argv[1:] if a not in ("--add", "--write-docs"))
    if command.strip() not in data["commands"]:
        data["commands"].append(command.strip())
    return data | {"taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine.describe(),
                   "seconds": arguments.seconds}


def save(arguments, name, data):
    (arguments.out / name).write_text(json.dumps(data, indent=1))


def show_points(arguments, data):
    """The tables, on the terminal and in table.txt, and the charts."""
    text = report.aligned(report.text_rows(data)) if data["points"] else ""
    if data.get("disk"):
        text += "\n\n" + report.aligned(report.disk_rows(data["disk"]))
    (arguments.out / "table.txt").write_text(text + "\n")
    for name, svg in charts.all_charts(data).items():
        (arguments.out / name).write_text(svg)
    print(f"\n{arguments.rounds} rounds, {arguments.seconds:g} s a point, medians; target on processor "
          f"{arguments.target_cpu}, load on {arguments.load_cpu}; Linux {data['machine']['kernel']}, loopback")
    for name, note in data["notes"].items():
        print(f"  {name}: {note}")
    print(text)
    if data["results"]:
        print(f"IOPS of first, CPU of first: {next(iter(data['results']))}'s number divided by that row's. CPU, system "
              "calls, context switches, allocations and instructions are the target's, for each I/O.")


def run_points(arguments):
    """quick, full and disk."""
    failures, data = 0, fresh(arguments, "results.json")
    if arguments.mode != "disk":
        chosen = points.chosen(arguments.mode == "quick", arguments.only, arguments.points)
        starters = targets.starters(arguments)
        if not starters or not chosen:
            raise SystemExit("nothing to measure: no gatewayd (./dev build), no tgt (needs root), no point")
        failures += measure_points(starters, chosen, arguments, data)
    is_whole = arguments.mode in ("full", "all") and not arguments.only + arguments.points
    if (arguments.mode == "disk" or is_whole) and "gatewayd" not in arguments.without:
        try:
            data["disk"] = disk.measure(arguments, say)
        except (load.Failed, AssertionError, OSError) as error:
            failures += 1
            say(f"  disk: {error}")
    save(arguments, "results.json", data)
    show_points(arguments, data)
    if arguments.json:
        arguments.json.write_text(json.dumps(data, indent=1))
    return failures


def run_scale(arguments):
    data = fresh(arguments, "scale.json")
    rounds = data.setdefault("rounds", {})
    failures = scale.measure(targets.starters(arguments), arguments, rounds, say)
    # As it is read again: the keys of JSON are texts.
    rounds = data["rounds"] = json.loads(json.dumps(rounds))
    results = data["results"] = {
        name: {part: scale.medians(each) for part, each in parts.items()} for name, parts in rounds.items()}
    save(arguments, "scale.json", data)
    text = "\n\n".join(f"{title}\n{report.aligned(rows)}" for title, rows in report.scale_tables(results))
    (arguments.out / "scale.txt").write_text(text + "\n")
    print(text)
    return failures


def parse():
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", nargs="?", choices=MODES, default="full")
    parser.add_argument("--rounds", type=int, help="alternations (5; quick: 1; scale: 3)")
    parser.add_argument("--seconds", type=float, help="measured time of a point (1.5; quick: 1)")
    parser.add_argument("--warmup", type=float, help="before it (0.3; quick: 0.2)")
    parser.add_argument("--only", action="append", default=[],
                        help="only the points whose name has this in it, or that a glob matches; parts of scale")
    parser.add_argument("--points", type=lambda text: text.split(","), default=[], help="exactly these, with commas")
    parser.add_argument("--list", action="store_true", help="print the names of the points")
    parser.add_argument("--without", action="append", default=[], choices=["tgt", "gatewayd", "bare", "polling"])
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=ADDRESS:PORT/IQN/LUN",
                        help="a target that is running already; its LUN is overwritten")
    parser.add_argument("--daemon-argument", action="append", default=[], help="passed on to gatewayd run")
    parser.add_argument("--target-cpu", type=int, default=0)
    parser.add_argument("--load-cpu", type=int, default=1)
    parser.add_argument("--no-counts", action="store_true", help="without the runs that count system calls and so on")
    parser.add_argument("--add", action="store_true", help="add rounds to the results that are there")
    parser.add_argument("--out", type=Path, default=targets.BUILD / "bench", help="directory for tables, JSON, charts")
    parser.add_argument("--json", type=Path, help="write the results here too")
    parser.add_argument("--write-docs", action="store_true", help="write docs/PERFORMANCE.md when done")
    arguments = parser.parse_args()
    quick = arguments.mode == "quick"
    arguments.rounds = arguments.rounds or {"quick": 1, "scale": 3}.get(arguments.mode, 5)
    arguments.seconds = arguments.seconds or (1 if quick else 1.5)
    arguments.warmup = (0.2 if quick else 0.3) if arguments.warmup is None else arguments.warmup
    return arguments


def end(number, _):
    """SIGTERM and SIGHUP unwind the stack as ^C does: no target and no loop device stays behind."""
    raise SystemExit(128 + number)


def main():
    arguments = parse()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    if arguments.list:
        print("\n".join(points.POINTS))
        return 0
    if (os.cpu_count() or 1) < 2:
        arguments.target_cpu = arguments.load_cpu = 0
        say("only one processor: target and load share it")
    arguments.out.mkdir(parents=True, exist_ok=True)
    failures = 0
    if arguments.mode not in ("scale", "docs"):
        failures += run_points(arguments)
    if arguments.mode in ("scale", "all"):
        failures += run_scale(arguments)
    if arguments.mode == "docs" or arguments.write_docs:
        docs.write(arguments.out)
        say(f"written: {docs.DOCUMENT.relative_to(machine.ROOT)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
