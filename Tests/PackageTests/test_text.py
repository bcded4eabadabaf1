"""What every text file of the repository keeps to."""

import re
import subprocess
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = 120

# Absolute places that exist on one machine only. Spelled in parts, so that this file does not hold them.
PRIVATE_PLACES = re.compile("|".join(re.escape("/" + place + "/") for place in ("work", "root", "home", "Users")))
CODE = {".swift", ".c", ".h", ".py", ".sh", ".modulemap"}
PROSE = {".md", ".toml", ".service", ".rules", ".conf", ".txt", ".yml", ".yaml"}


def files():
    """Every text file that git keeps or would keep."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL,
                            check=True).stdout
    for name in listed.split("\0"):
        path = ROOT / name
        is_script = path.suffix == "" and path.is_file() and not path.is_symlink() and path.read_bytes()[:2] == b"#!"
        if name and path.is_file() and "corpus" not in path.parts and (path.suffix in CODE | PROSE or is_script):
            yield path


def lines(path):
    return enumerate(path.read_text(errors="replace").splitlines(), start=1)


def place(path, number):
    return f"{path.relative_to(ROOT)}:{number}"


class Text(unittest.TestCase):
    def offenders(self, is_wrong, suffixes=None):
        return [place(path, number) for path in files() if suffixes is None or path.suffix in suffixes
                for number, line in lines(path) if is_wrong(line)]

    def test_no_private_places(self):
        """No file names a directory of somebody's own machine"""
        self.assertEqual(self.offenders(lambda line: PRIVATE_PLACES.search(line)), [])

    def test_line_length(self):
        """Code has at most 120 columns (Swift is the formatter's to judge)"""
        self.assertEqual(self.offenders(lambda line: len(line) > COLUMNS, CODE - {".swift"} | {""}), [])

    def test_no_tabs_and_no_blanks_at_the_end(self):
        """Code has no tabs and no blanks at the end of a line"""
        self.assertEqual(self.offenders(lambda line: "\t" in line or line != line.rstrip(), CODE), [])

    def test_merges_are_finished(self):
        """No file has the marks of a merge that nobody finished"""
        self.assertEqual(self.offenders(lambda line: re.match("<{7} |={7}$|>{7} ", line)), [])

    def test_files_are_seen(self):
        """The scan sees the repository"""
        names = {p.name for p in files()}
        self.assertLessEqual({"Package.swift", "dev", "test_text.py"}, names)


if __name__ == "__main__":
    unittest.main()
