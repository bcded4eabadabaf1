"""Names for the places in a program that is loaded in a machine."""

import bisect
import shutil
import subprocess

from .places import run


class Symbols:
    """The daemon's functions, and the libraries beside it as a whole: Debian's have no names."""

    def __init__(self, binary, maps):
        """`maps`: /proc/PID/maps of a process that runs it."""
        self.regions = []
        for words in map(str.split, maps.splitlines()):
            begin, end = (int(word, 16) for word in words[0].split("-"))
            self.regions.append((begin, end, words[5].rsplit("/", 1)[-1] if len(words) > 5 else "?"))
        self.program = "gatewayd"
        self.base = min(begin for begin, _, name in self.regions if name == self.program)
        lines = [line.split(None, 2) for line in run(["nm", "-n", "--defined-only", binary]).splitlines()]
        self.functions = [(int(place, 16), name) for place, kind, name in lines if kind in "tTwW"]

    def name(self, place):
        region = next((name for begin, end, name in self.regions if begin <= place < end), "?")
        if region != self.program:
            return region
        number = bisect.bisect(self.functions, place - self.base, key=lambda function: function[0]) - 1
        return self.functions[number][1] if number >= 0 else region


def demangled(names):
    """{name: the same as Swift's source has it}, where there is Swift."""
    names = sorted(names)
    swift = shutil.which("swift")
    if swift is None:
        return dict(zip(names, names))
    output = subprocess.run([swift, "demangle", "--compact"], input="\n".join(names), capture_output=True, text=True,
                            timeout=60, check=True).stdout
    return dict(zip(names, output.splitlines()))
