"""The command line of attach and detach: what they refuse, and the script that they are. Tests/lab runs it."""

import shutil
import unittest

from harness import process
from harness.daemon import binary

ADDRESSES = ["10.0.0.1", "10.0.0.1:3261", "fd00::1", "[fd00::1]:3261"]
MISTAKES = ["", "gateway.example", "3260", "10.0.0", "10.0.0.1:0", "10.0.0.1:port", "10.0.0.1:65536", "::", "0.0.0.0",
            "10.0.0.1;id", "10.0.0.1'", "$(id)", "fd00::1]:3260"]
VARIANTS = [[], ["--no-multipath"], ["--tcp-only"], ["--tcp-only", "--no-multipath"]]


def gatewayd(*arguments, **options):
    return process.run([binary(), *arguments], **options)


def script(command, address, *options):
    return gatewayd(command, address, "--print", *options).stdout


class Attach(unittest.TestCase):
    def test_bad_addresses(self):
        """An address that is none is refused with a reason, before anything is done or printed"""
        for command in ("attach", "detach"):
            for address in MISTAKES:
                with self.subTest(command=command, address=address):
                    result = gatewayd(command, "--print", "--", address, check=False)
                    self.assertEqual((result.returncode, result.stdout), (64, ""))
                    self.assertIn("not the address of a gateway", result.stderr)

    def test_nothing_said(self):
        """Without an address the command line is wrong"""
        self.assertEqual(gatewayd("attach", check=False).returncode, 64)

    def test_addresses(self):
        """The script has the address as the kernel writes it, and the standard port unless told another"""
        for address, host, portal in [("10.0.0.1", "10.0.0.1", "10.0.0.1:3260"),
                                      ("10.0.0.1:3261", "10.0.0.1", "10.0.0.1:3261"),
                                      ("fd00:0::0:1", "fd00::1", "[fd00::1]:3260"),
                                      ("[fd00::1]:3261", "fd00::1", "[fd00::1]:3261")]:
            lines = script("attach", address).splitlines()
            self.assertIn(f"host='{host}'", lines)
            self.assertIn(f"portal='{portal}'", lines)

    def test_choices(self):
        """What was told is what the script does"""
        self.assertIn("\nuse_rdma=1\nuse_multipath=1\n", script("attach", "10.0.0.1"))
        self.assertIn("\nuse_rdma=0\nuse_multipath=1\n", script("attach", "10.0.0.1", "--tcp-only"))
        self.assertIn("\nuse_rdma=1\nuse_multipath=0\n", script("attach", "10.0.0.1", "--no-multipath"))
        self.assertIn("\naction='detach'\n", script("detach", "10.0.0.1"))

    @unittest.skipUnless(shutil.which("shellcheck"), "shellcheck is not installed")
    def test_shell(self):
        """The script is POSIX shell without a fault that shellcheck knows"""
        texts = [script("attach", address, *variant) for address in ADDRESSES for variant in VARIANTS]
        texts += [script("detach", address) for address in ADDRESSES]
        for text in texts[:1] + texts[-1:]:
            self.assertTrue(text.startswith("#!/bin/sh\n"))
            result = process.subprocess.run(["shellcheck", "--shell=sh", "-"], input=text, text=True, timeout=60,
                                            capture_output=True)
            self.assertEqual(result.returncode, 0, result.stdout)
        for text in texts:
            result = process.subprocess.run(["sh", "-n"], input=text, text=True, timeout=10, capture_output=True)
            self.assertEqual((result.returncode, result.stderr), (0, ""))
