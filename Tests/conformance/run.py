#!/usr/bin/env python3
"""Runs libiscsi's iscsi-test-cu, each test in its own process with a time limit, and judges the outcome.

A pass is a CUnit summary with one test run and none failed, and no "[SKIPPED]" line. The tool ends with 0 also when it
ran nothing, so its exit status says nothing. A skip is accepted only when expected-skips.txt names it with a reason.
"""

import argparse
import collections
import fnmatch
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))

from harness import process  # noqa: E402
from harness.daemon import Gateway  # noqa: E402
from harness.targets import TgtTarget  # noqa: E402

SECOND_CHANCES = 3

# Tests that need a kind of LUN of their own: (names, --disk, [[disk]] of the settings, seconds that a test may take).
SPECIAL_KINDS = [
    ("ALL.PreventAllow.*", "memory:64M", "removable = true", 20),
    ("ALL.StartStopUnit.*", "memory:64M", "removable = true", 20),
    ("ALL.ReadOnly.*", "memory:64M", "read-only = true", 20),
    # It looks for the operation again after resets and a login, and then once a minute whether it is done.
    ("ALL.Sanitize.Reset", "slow:64M:80", "", 150),
]
# What --kind has all tests run on, and nothing else: (--disk, [[disk]] of the settings).
KINDS = {
    "memory": ("memory:64M", ""), "4096": ("memory:64M", "block-bytes = 4096"), "thick": ("memory:64M", "thin = false"),
    "removable": ("memory:64M", "removable = true"), "read-only": ("memory:64M", "read-only = true"),
}
# (kinds, tests, what the tool says when it fails there, why that is right)
KIND_FAILURES = [
    ("read-only", "ALL.*", "(0x2700)", "the tests write, and are refused with WRITE PROTECTED"),
    ("read-only", "ALL.*Copy*", "(0x0d01)", "the same of a copy's destination"),
    ("read-only", "ALL.Write10.Async", "SCSI_STATUS_CHECK_CONDITION", "the same, and the tool shows the status alone"),
    ("read-only", "ALL.iSCSITMF.AbortTaskSimpleAsync", "SCSI_STATUS_CHECK_CONDITION", "the same"),
    ("*", "ALL.Sanitize.Reset", "TESTUNITREADY successful", "memory is overwritten before the tool looks"),
    ("*", "ALL.Sanitize.BlockErase", "MAPPED", "of memory nobody can tell what is mapped"),
    ("*", "ALL.GetLBAStatus.UnmapSingle", "lba offset in first descriptor",
     "the tool asks for the next logical block, and expects the next physical one"),
    ("4096", "ALL.WriteAtomic16.Simple", "(0x2400)",
     "the tool writes up to 256 blocks, whatever MAXIMUM ATOMIC TRANSFER LENGTH says"),
    ("4096", "ALL.Verify1?.Mismatch", "no end within",
     "of more than 256 KiB the tool does not find the data that an R2T asks for, and after its reconnect it writes "
     "from an address that is none, without end"),
]
PASS, FAIL, SKIP, HANG, BROKEN = "pass", "FAIL", "skip", "HANG", "broken"
Outcome = collections.namedtuple("Outcome", "result reason seconds output")

SUMMARY = re.compile(r"^\s+tests\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)", re.MULTILINE)
SKIPPED = re.compile(r"\[SKIPPED\]\s*(.*)")
FAILED = re.compile(r"\[FAILED\]\s*(.*)")


def all_tests():
    """The tests (not families, not suites) of the family ALL, which holds every suite once."""
    listed = process.run(["iscsi-test-cu", "--list"]).stdout.split()
    return [name for name in listed if name.startswith("ALL.") and name.count(".") == 2]


def judge(output, return_code):
    """(result, reason) from what the tool printed."""
    summary = SUMMARY.search(output)
    if summary is None:
        return FAIL, f"ended without a summary ({return_code})"
    _, ran, passed, failed = (int(n) for n in summary.groups())
    if failed > 0:
        reasons = FAILED.findall(output) or re.findall(r"^\s+1\. (.*)$", output, re.MULTILINE)
        return FAIL, reasons[0].strip() if reasons else "failed"
    if ran != 1 or passed != 1:
        return FAIL, f"ran {ran} tests, not 1"
    skipped = SKIPPED.search(output)
    if skipped:
        return SKIP, skipped.group(1).strip()
    return PASS, ""


def run_test(name, urls, seconds):
    begin = time.monotonic()
    arguments = ["iscsi-test-cu", "--dataloss", "--allow-sanitize", "--test", name, *urls]
    child = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        output, _ = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
        output, _ = child.communicate()
        return Outcome(HANG, f"no end within {seconds} s", time.monotonic() - begin, output.decode(errors="replace"))
    text = output.decode(errors="replace")
    return Outcome(*judge(text, child.returncode), time.monotonic() - begin, text)


def run_on_kinds(name, kinds, seconds):
    """The outcome on the first kind of LUN that shows the feature; a failure anywhere on the way counts."""
    outcome = None
    for urls in kinds:
        outcome = run_test(name, urls, seconds)
        if outcome.result != SKIP:
            return outcome
    return outcome


def special_disks(first):
    """Of LUNs that follow `first` others: (--disk values, settings, [(pattern of tests that need it, LUN, seconds)])"""
    disks, rules, special = [], "", []
    for number, (pattern, disk, rule, seconds) in enumerate(SPECIAL_KINDS, start=first):
        if rule:
            rules += f'[[disk]]\nname = "*#{number}"\n{rule}\n'
        disks.append(disk)
        special.append((pattern, number, seconds))
    return disks, rules, special


def special_kind(name, special):
    """(kinds, seconds) of the LUN that a test needs, or None."""
    return next((kind for pattern, kind in special if fnmatch.fnmatch(name, pattern)), None)


def is_right_here(outcome, name, kind):
    """Whether it failed as it has to on this kind of LUN."""
    return outcome.result in (FAIL, HANG) and any(
        fnmatch.fnmatch(kind, kinds) and fnmatch.fnmatch(name, tests) and text in outcome.output + outcome.reason
        for kinds, tests, text, _ in KIND_FAILURES)


def is_broken(outcome, reason):
    """Whether it failed in the way that broken-tests.txt tells of."""
    return outcome.result == FAIL and reason is not None and reason.split(" | ")[0] in outcome.output


def expectations(path):
    """{test: text} from lines of `test  text`."""
    expected = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, reason = line.partition(" ")
        if not reason.strip():
            raise SystemExit(f"{path.name}:{number}: a line needs a test and a reason")
        expected[name] = reason.strip()
    return expected


def start_target(arguments):
    """(target or None, kinds of LUN as lists of URLs: the LUN and its second path, what single tests need instead)"""
    special = []
    if arguments.url:
        return None, [arguments.url] + [[also] for also in arguments.also], special
    if arguments.kind:
        disk, rule = KINDS[arguments.kind]
        target = Gateway(disks=[disk], arguments=arguments.daemon_argument,
                         settings=f'[[disk]]\nname = "*"\n{rule}\n' if rule else None)
        return target, [[target.url()] * 2], special
    if arguments.target == "tgt":
        target = TgtTarget(sizes=(64 << 20,))
    else:
        # A file: thin, with real direct I/O behind it. 8 MiB of it are the label area.
        disk = Path(tempfile.mkdtemp(prefix="conformance-")) / "disk"
        with open(disk, "wb") as file:
            file.truncate(72 << 20)
        # What needs atomic writes, or physical blocks of several logical ones, is tried on a memory disk.
        extra, rules, special = special_disks(2)
        # A test sleeps for a minute, and would not see the end of what it waits for: each time it would have a new
        # session, with a unit attention.
        rules += "[timeouts]\nnop-interval = 300\n"
        disks = [str(disk), "memory:64M", *extra]
        target = Gateway(disks=disks, arguments=arguments.daemon_argument, settings=rules)
        target.scratch = disk.parent
        special = [(pattern, ([[target.url(number)] * 2], seconds)) for pattern, number, seconds in special]
        arguments.also.append(target.url(1))
    url = target.url()
    return target, [[url, url]] + [[also] for also in arguments.also], special


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pattern", nargs="?", default="*", help="only tests that match, as 'Prout*' or 'ALL.Read10.*'")
    parser.add_argument("--target", choices=["gatewayd", "tgt"], default="gatewayd")
    parser.add_argument("--kind", choices=[*KINDS, "all"],
                        help="all tests on this kind of LUN alone, or on each; what it skips is not judged")
    parser.add_argument("--url", action="append", help="a running target instead; twice: its second path")
    parser.add_argument("--also", action="append", default=[], metavar="URL",
                        help="another kind of LUN (thin, read-only, removable...) on which skipped tests are tried")
    parser.add_argument("--daemon-argument", action="append", default=[], help="passed on to gatewayd run")
    parser.add_argument("--seconds", type=float, default=20, help="limit for one test")
    parser.add_argument("--no-expectations", action="store_true", help="only report, do not judge the skips")
    parser.add_argument("--verbose", action="store_true", help="show the output of what fails")
    arguments = parser.parse_args()
    arguments.no_expectations |= arguments.kind is not None
    if arguments.kind == "all":
        for kind in KINDS:
            print(f"---- {kind}", flush=True)
            if subprocess.run([sys.executable, __file__, "--kind", kind, arguments.pattern], check=False).returncode:
                return 1
        return 0

    wanted = [name for name in all_tests()
              if fnmatch.fnmatch(name, arguments.pattern) or fnmatch.fnmatch(name, f"ALL.{arguments.pattern}")
              or arguments.pattern in name]
    if not wanted:
        raise SystemExit(f"no test matches {arguments.pattern}")
    expected = {} if arguments.no_expectations else expectations(HERE / "expected-skips.txt")
    broken = expectations(HERE / "broken-tests.txt")
    counts, unexpected, stale = collections.Counter(), [], []
    target, kinds, special = start_target(arguments)
    chances = 0 if len(wanted) == 1 else SECOND_CHANCES
    begin = time.monotonic()
    try:
        for name in wanted:
            needs = special_kind(name, special) or (kinds, arguments.seconds)
            outcome, note = run_on_kinds(name, *needs), ""
            if is_broken(outcome, broken.get(name)) or arguments.kind and is_right_here(outcome, name, arguments.kind):
                outcome = outcome._replace(result=BROKEN)
            elif outcome.result in (FAIL, HANG) and chances > 0:
                # A reset by the test before may take its effect late, on a busy machine: a unit attention met this one.
                # What fails for a reason of its own fails twice.
                chances -= 1
                print(f"once more: {name}: {outcome.reason}", flush=True)
                time.sleep(2)
                outcome = run_on_kinds(name, *needs)
            counts[outcome.result] += 1
            if outcome.result == SKIP and name not in expected and not arguments.no_expectations:
                unexpected.append(name)
                note = "  <- not an expected skip"
            if outcome.result != SKIP and name in expected:
                stale.append(name)
            if outcome.result in (FAIL, HANG) and arguments.verbose:
                print(outcome.output)
            print(f"{outcome.result}  {name:<44} {outcome.seconds:6.2f} s  {outcome.reason}{note}", flush=True)
            if isinstance(target, Gateway) and target.process.poll() is not None:
                print(f"gatewayd ended with {target.process.returncode}:\n{target.log}")
                counts[FAIL] += len(wanted) - sum(counts.values())
                break
    finally:
        if target is not None:
            target.stop()
            if getattr(target, "scratch", None):
                shutil.rmtree(target.scratch, ignore_errors=True)

    print(f"\n{len(wanted)} tests in {time.monotonic() - begin:.0f} s: {counts[PASS]} pass, {counts[FAIL]} fail, "
          f"{counts[HANG]} hang, {counts[SKIP]} skip ({len(unexpected)} of them unexpected), "
          f"{counts[BROKEN]} {'as it has to be here' if arguments.kind else 'broken in the suite itself'}")
    for name in stale:
        print(f"expected-skips.txt: {name} is not skipped any more, take the line away")
    failed = counts[FAIL] + counts[HANG] + len(unexpected)
    print(f"conformance: {counts[PASS] + counts[SKIP] + counts[BROKEN] - len(unexpected)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
