"""libiscsi's iscsi-test-cu over iSER: initiator and gateway in one machine, each test in a process of its own.

Judged as Tests/conformance judges it over TCP; tests that cannot pass over iSER are in not-over-iser.txt with the
reason, and must pass over TCP in the same machine. Run by name: ./dev lab Suite. GATEWAYD_LAB_SUITE=Prout,Read10 takes
only those; GATEWAYD_LAB_SUITE=not-over-iser those of the list.
"""

import collections
import importlib.util
import os
import subprocess
import unittest
from pathlib import Path

from machines.lab import Lab
from machines.target import NAME, Target

HERE = Path(__file__).resolve().parent
SECONDS = 150
# libiscsi 1.19 uses what it has freed, whatever the target: nothing is freed then (tools/keep.c).
KEPT = "LD_PRELOAD=/usr/lib/keep.so"
# It also takes a second without an event for an error, which on a busy host says nothing of the target.
CLIENT_FAULTS = ("revents is not POLLIN",)
TRIES = 4


def conformance():
    """The module that judges the same suite over TCP."""
    path = HERE.parent / "conformance" / "run.py"
    spec = importlib.util.spec_from_file_location("conformance", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Suite(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.judge = staticmethod(conformance().judge)
        cls.expected = conformance().expectations(HERE.parent / "conformance" / "expected-skips.txt")
        cls.broken = conformance().expectations(HERE.parent / "conformance" / "broken-tests.txt")
        cls.not_over_iser = conformance().expectations(HERE / "not-over-iser.txt")
        cls.lab = Lab("suite", programs=["iscsi-test-cu"])
        cls.addClassCleanup(cls.lab.close)
        cls.machine = cls.lab.machine("both", megabytes=768, udev=True)
        cls.machine.ready()
        cls.machine.add_rxe()
        cls.target = Target(cls.machine)
        # Behind the memory disk the kinds of LUN that single tests need.
        disks, settings, cls.special = conformance().special_disks(1)
        cls.target.start(settings, [word for disk in ["memory:64M", *disks] for word in ("--disk", disk)])
        cls.machine.plug("disk")
        cls.lun = cls.target.verdict("disk", "exported", 90)["lun"]

    def run_one(self, name, transport):
        """The outcome on the disk, and where that lacks the feature on memory with physical blocks of several."""
        for lun in conformance().special_kind(name, [(p, [lun]) for p, lun, _ in self.special]) or (self.lun, 0):
            url = f"{transport}://{self.machine.address}/{NAME}/{lun}"
            command = (f"{KEPT} timeout -s KILL {SECONDS} iscsi-test-cu --dataloss --allow-sanitize --test {name} "
                       f"{url} {url}")
            for _ in range(TRIES):
                status, output = self.machine.attempt(command, SECONDS + 20)
                if not any(sign in output for sign in CLIENT_FAULTS):
                    break
                self.retries += 1
            result, reason = ("HANG", f"no end within {SECONDS} s") if status == 137 else self.judge(output, status)
            if result != "skip":
                break
        return result, reason, output

    def test_suite(self):
        """Every test passes, or is skipped as over TCP, or is one that the suite cannot do over iSER"""
        listed = subprocess.run(["iscsi-test-cu", "--list"], capture_output=True, text=True, check=True,
                                timeout=30).stdout.split()
        only = os.environ.get("GATEWAYD_LAB_SUITE", "ALL.")
        parts = list(self.not_over_iser) if only == "not-over-iser" else only.split(",")
        counts, wrong, self.retries = collections.Counter(), [], 0
        for name in listed:
            if not name.startswith("ALL.") or name.count(".") != 2 or not any(part in name for part in parts):
                continue
            result, reason, output = self.run_one(name, "iser")
            note = ""
            if result in ("FAIL", "HANG") and name in self.not_over_iser:
                over_tcp = self.run_one(name, "iscsi")[0]
                note, result = f" ({result} over iSER, {over_tcp} over TCP)", "not over iSER"
                if over_tcp != "pass" and name not in self.expected:
                    wrong.append(f"{name}: over TCP {over_tcp}")
            elif result == "FAIL" and name in self.broken and self.broken[name].split(" | ")[0] in output:
                result = "broken"
            elif result in ("FAIL", "HANG") or result == "skip" and name not in self.expected:
                wrong.append(f"{name}: {result}: {reason}")
            if result in ("FAIL", "HANG"):
                print(output[-1500:])
            counts[result] += 1
            print(f"{result:<13} {name:<44} {reason}{note}", flush=True)
        print(f"lab: iscsi-test-cu over iSER: {dict(counts)}; {self.retries} tries the client ended", flush=True)
        self.assertTrue(self.target.is_running(), "gatewayd has ended")
        self.assertEqual(wrong, [])
