"""Runs the load generator."""

import json
import os
import subprocess

from harness import process

from .targets import BUILD, SIZE


class Failed(RuntimeError):
    """A target that does not do what it is asked."""


def binary():
    return os.environ.get("GATEWAYD_LOAD", BUILD / "load")


def command(target, arguments, warmup=0.0, seconds=1.0, cpu=None):
    line = [binary(), "--address", target.address, "--port", target.port, "--target", target.name, "--lun",
            target.first_lun, "--size", SIZE, "--warmup", warmup, "--seconds", seconds, *arguments]
    if cpu is not None:
        line += ["--cpu", cpu]
    if target.pid is not None:
        line += ["--watch", target.pid]
    return [str(word) for word in line]


def result(target, finished):
    if not finished.stdout.startswith("{"):
        raise Failed(f"{target.kind}: {finished.stderr.strip() or finished.stdout.strip()}")
    found = json.loads(finished.stdout)
    if found["errors"] or found["rejects"]:
        raise Failed(f"{target.kind}: {found['errors']} errors, {found['rejects']} rejects")
    return found


def measure(target, arguments, warmup, seconds, cpu, prefix=()):
    """One run of the load generator, behind `prefix`; what it says."""
    try:
        finished = process.run([*prefix, *command(target, arguments, warmup, seconds, cpu)],
                               seconds=warmup + seconds + 60, check=False)
    except subprocess.TimeoutExpired:
        raise Failed(f"{target.kind}: the load generator does not end") from None
    return result(target, finished)


def fill(target):
    """Writes every block once, so that no target reads from holes or pays for its first touch while it is measured."""
    measure(target, ["--block", "1M", "--depth", "4", "--rw", "write", "--sequential"], 0.1, 1.5, None)
