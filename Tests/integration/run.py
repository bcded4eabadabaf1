#!/usr/bin/env python3
"""Runs the unittest modules of a directory: run.py DIRECTORY [PATTERN]... Its last line: `NAME: N passed, N failed`."""

import fnmatch
import sys
import time
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

# So many failing tests are tried a second time; more are a failure at once.
SECOND_CHANCES = 4


class Sentences(unittest.TextTestResult):
    """One line for each test: outcome, time, and the sentence that it is."""

    def startTest(self, test):
        unittest.TestResult.startTest(self, test)
        self._begin = time.monotonic()

    def _line(self, outcome, test, note=""):
        sentence = test.shortDescription() or str(test)
        self.stream.writeln(f"{outcome:<5}{time.monotonic() - self._begin:7.2f} s  {sentence}{note}")
        self.stream.flush()

    def addSuccess(self, test):
        unittest.TestResult.addSuccess(self, test)
        self._line("pass", test)

    def addFailure(self, test, error):
        unittest.TestResult.addFailure(self, test, error)
        self._line("FAIL", test, f"  ({test.id()})")

    def addError(self, test, error):
        unittest.TestResult.addError(self, test, error)
        self._begin = getattr(self, "_begin", time.monotonic())
        self._line("ERROR", test, f"  ({test.id()})")

    def addSkip(self, test, reason):
        unittest.TestResult.addSkip(self, test, reason)
        self._begin = getattr(self, "_begin", time.monotonic())
        self._line("skip", test, f": {reason}")

    def addExpectedFailure(self, test, error):
        unittest.TestResult.addExpectedFailure(self, test, error)
        self._line("known", test)


def flat(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from flat(item)
        else:
            yield item


def chosen(found, patterns):
    """The tests that any of the patterns names: by the whole name, else by a part, a glob, or words of the sentence."""
    names = {test.id() for test in found}

    def matches(test, pattern):
        if pattern in names:
            return test.id() == pattern
        return (pattern in test.id() or fnmatch.fnmatch(test.id(), pattern)
                or pattern.lower() in (test.shortDescription() or "").lower())

    for pattern in patterns:
        if not any(matches(test, pattern) for test in found):
            raise SystemExit(f"no test matches {pattern}")
    return [test for test in found if any(matches(test, pattern) for pattern in patterns)]


def failures(result):
    """The ids of the tests that failed. A test may fail more than once (its parts, its end): it counts once."""
    return {test.id().split(" ")[0] for test, _ in result.failures + result.errors}


def load(directory):
    return unittest.TestLoader().discover(str(directory), pattern="test_*.py", top_level_dir=str(directory))


def once_more(tests, broken, ran):
    """Those that are broken. In a class with `goes_on` each begins where the one before ended: what led there too."""
    for test in tests:
        kin = [name for name in broken if name.rpartition(".")[0] == test.id().rpartition(".")[0]]
        if getattr(test, "goes_on", False) and kin:
            if test.id() in ran and test.id() <= max(kin):
                yield test
        elif test.id() in broken:
            yield test


def main():
    directory = Path(sys.argv[1]).resolve()
    patterns = sys.argv[2:]
    found = list(flat(load(directory)))
    if patterns:
        found = chosen(found, patterns)
    if not found:
        raise SystemExit(f"there is no test in {directory.name}")
    result = unittest.TextTestRunner(resultclass=Sentences, verbosity=2).run(unittest.TestSuite(found))
    broken = failures(result)
    # Who asks for one test wants to see how it ends.
    if 0 < len(broken) <= SECOND_CHANCES and len(patterns) != 1:
        # Some tests have bounds in seconds, and the machine may have been busy with something else: what fails for a
        # reason of its own fails twice. Those that do not are named.
        print(f"once more: {', '.join(sorted(broken))}", flush=True)
        again = list(once_more(flat(load(directory)), broken, {test.id() for test in found}))
        second = unittest.TextTestRunner(resultclass=Sentences, verbosity=2).run(unittest.TestSuite(again))
        # What a class or a module could not begin with is no test, and has no second chance.
        stubborn = failures(second) | broken - {test.id() for test in again}
        for name in sorted(broken - stubborn):
            print(f"passed only on its second try: {name}", flush=True)
        broken = stubborn
    failed = len(broken) + len(result.unexpectedSuccesses)
    print(f"{directory.name}: {max(result.testsRun - failed - len(result.skipped), 0)} passed, {failed} failed, "
          f"{len(result.skipped)} skipped", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
