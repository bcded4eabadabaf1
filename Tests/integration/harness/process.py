"""Processes and waits. Every wait has a bound."""

import os
import socket
import subprocess
import time
from pathlib import Path

# How many times longer a wait may take: more than 1 for a daemon built with a sanitizer.
SLOWNESS = float(os.environ.get("GATEWAYD_SLOWNESS", "1"))
# The sanitizer that the daemon is built with; none: "".
SANITIZER = os.environ.get("GATEWAYD_SANITIZER", "")
REPOSITORY = Path(__file__).resolve().parents[3]


class TimedOut(AssertionError):
    """Something that had to happen did not happen in time."""


def wait_until(condition, seconds, what, step=0.01):
    """Polls until `condition()` is true and returns its value; raises TimedOut after `seconds`."""
    deadline = time.monotonic() + seconds * SLOWNESS
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimedOut(f"not within {seconds} s: {what}")
        time.sleep(step)


def run(arguments, seconds=30, check=True, **options):
    """Runs a program to its end; its output comes back as text."""
    result = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, timeout=seconds,
                            stdin=subprocess.DEVNULL, **options)
    if check and result.returncode != 0:
        raise AssertionError(f"{arguments[0]} ended with {result.returncode}:\n{result.stdout}{result.stderr}")
    return result


given_ports = set()


def free_port(address="127.0.0.1"):
    """A TCP port that nothing listens on, and another each time: the kernel may offer one again that is not used."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    while True:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, 0))
            port = probe.getsockname()[1]
        if port not in given_ports:
            given_ports.add(port)
            return port


def is_listening(address, port):
    """Whether a TCP connection is accepted."""
    try:
        socket.create_connection((address, port), timeout=1).close()
        return True
    except OSError:
        return False


def stop(process, seconds=5):
    """SIGTERM, and SIGKILL after `seconds`. Returns the exit status; negative: a signal."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
    return process.returncode


def is_root():
    return os.geteuid() == 0
