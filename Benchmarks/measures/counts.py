"""What a target does for an I/O, counted in runs of their own: system calls, context switches, instructions,
allocations. Times of these runs mean nothing."""

import shutil
import tempfile
from pathlib import Path

from . import load, targets

# Our name, perf's name.
EVENTS = {"syscalls": "raw_syscalls:sys_enter", "switches": "context-switches", "instructions": "instructions"}


def parse(text):
    """{our name: number, or None where this machine cannot count it}, from `perf stat -x,`."""
    found = dict.fromkeys(EVENTS)
    for line in text.splitlines():
        fields = line.split(",")
        for name, event in EVENTS.items():
            if len(fields) > 2 and fields[2].split(":u")[0] == event and fields[0].isdigit():
                found[name] = int(fields[0])
    return found


def usable_events():
    """perf's names of what can be counted here."""
    if shutil.which("perf") is None:
        return []
    usable = []
    for event in EVENTS.values():
        finished = load.process.run(["perf", "stat", "-x,", "-e", event, "true"], check=False)
        if finished.returncode == 0 and finished.stderr.split(",")[0].isdigit():
            usable.append(event)
    return usable


def count_point(target, tally, options, events, cpu, seconds=0.3):
    """{name: per I/O, or None} of one point. perf sees the logins too. A login and its end allocate some hundred times,
    more than all commands of a short run: so allocations are counted only while commands are measured."""
    with tempfile.NamedTemporaryFile("r", prefix="gatewayd-perf-") as file:
        prefix = ["perf", "stat", "-x,", "-o", file.name, "-e", ",".join(events), "-p", str(target.pid), "--"]
        said = load.measure(target, [*options, "--tally", tally], 0.1, seconds, cpu, prefix if events else ())
        done = max(said["all_commands"], 1)
        found = parse(Path(file.name).read_text())
    found = {name: None if value is None else value / done for name, value in found.items()}
    found["allocations"] = said["allocations"] / max(said["commands"], 1)
    return found


def count(start, points, cpu, say):
    """{point: {name: per I/O}} of one target; a point that fails is left out."""
    events, found = usable_events(), {}
    with targets.counted(start) as (target, tally):
        if target.pid is None:
            return found
        load.fill(target)
        for point, options in points.items():
            try:
                found[point] = count_point(target, tally, options, events, cpu)
            except load.Failed as error:
                say(f"  {point}: {error}")
    return found
