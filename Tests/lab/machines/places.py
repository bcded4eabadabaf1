"""Where the lab keeps things, and how its programs are called. Every call has a bound."""

import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path

LAB = Path(__file__).resolve().parents[1]
REPOSITORY = LAB.parents[1]
CACHE = REPOSITORY / ".build" / "lab"
LOGS = REPOSITORY / ".build" / "logs" / "lab"
PR_SET_PDEATHSIG = 1


def gatewayd():
    """The binary under test."""
    return Path(os.environ.get("GATEWAYD", REPOSITORY / ".build" / "release" / "gatewayd"))


class TimedOut(AssertionError):
    """Something that had to happen did not happen in time."""


def wait_until(condition, seconds, what, step=0.1):
    """Polls until `condition()` is true and returns its value; raises TimedOut after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimedOut(f"not within {seconds} s: {what}")
        time.sleep(step)


def run(arguments, seconds=120, **options):
    """Runs a program of this machine to its end; its output as text."""
    # depmod and others are not in everybody's PATH.
    environment = os.environ | {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    result = subprocess.run([str(word) for word in arguments], capture_output=True, text=True, timeout=seconds,
                            stdin=subprocess.DEVNULL, env=environment, **options)
    if result.returncode != 0:
        raise RuntimeError(f"{arguments[0]} ended with {result.returncode}:\n{result.stdout}{result.stderr}")
    return result.stdout


def start(arguments, log):
    """Starts a program that dies with us, whatever we die of."""
    libc = ctypes.CDLL(None)

    def tie():
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    with open(log, "ab") as output:
        return subprocess.Popen([str(word) for word in arguments], stdin=subprocess.DEVNULL, stdout=output,
                                stderr=output, preexec_fn=tie)
