"""What a measurement was taken on."""

import os
import platform
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _output(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL, cwd=ROOT,
                              check=False).stdout.strip()
    except OSError:
        return ""


def _first(pattern, text):
    found = re.search(pattern, text, re.MULTILINE)
    return found.group(1).strip() if found else ""


def package(name):
    """The version of a Debian package, or nothing."""
    return _output("dpkg-query", "-W", "-f", "${Version}", name)


def describe():
    """{what: text}, in the order in which it is told."""
    cpu = Path("/proc/cpuinfo").read_text()
    memory = int(_first(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text()) or 0)
    flags = _first(r"^flags\s*:(.*)$", cpu).split()
    model = _first(r"^model name\s*:(.*)$", cpu) or platform.machine()
    # Some machines tell no more of their processor than its maker.
    numbers = "family {}, model {}".format(_first(r"^cpu family\s*:(.*)$", cpu), _first(r"^model\s*:(.*)$", cpu))
    return {
        "processor": f"{model} ({numbers})",
        "cores": str(os.cpu_count()) + (", virtual machine" if "hypervisor" in flags else ""),
        "memory": f"{memory / (1 << 20):.0f} GiB",
        "kernel": platform.release(),
        "system": _first(r'^PRETTY_NAME="?([^"\n]*)', Path("/etc/os-release").read_text()),
        "Swift": _first(r"Swift version ([\d.]+)", _output("swift", "--version")),
        "gatewayd": _output("git", "-c", "safe.directory=*", "rev-parse", "--short=12", "HEAD"),
        "tgt": package("tgt"),
        "fio": package("fio"),
        "liburing": package("liburing-dev"),
    }
