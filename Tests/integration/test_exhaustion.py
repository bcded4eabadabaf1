"""What there is only so much of, used up: the right answer meanwhile, and full service afterwards."""

import contextlib
import os
import socket
import time
import unittest

from harness import initiator, process, scsi
from harness.case import GatewayCase
from harness.load import pattern


# With two threads it needs some 20 itself.
DESCRIPTORS = 48
STRANGERS = 80


class Exhaustion(GatewayCase):
    def test_descriptors(self):
        """Without a file descriptor for another connection, those that are there are served; afterwards others too"""
        # It is the descriptors that there are too few of, not the places of an address.
        gateway = self.start("memory:16M", start=False, arguments=["--threads", "2"],
                             settings="[limits]\nconnections-per-address = 500\n")
        gateway.spawn(["prlimit", f"--nofile={DESCRIPTORS}"])
        process.wait_until(lambda: process.is_listening(gateway.address, gateway.port), 10, "gatewayd listens")
        self.exhaust(gateway)

    def descriptors(self, gateway):
        return len(os.listdir(f"/proc/{gateway.pid}/fd"))

    def processor_seconds(self, gateway):
        with open(f"/proc/{gateway.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def exhaust(self, gateway):
        session = self.keep(initiator.Session(gateway, seconds=10))
        session.ready()
        for _ in range(3):
            with contextlib.ExitStack() as stack:
                strangers = []
                for _ in range(STRANGERS):
                    stranger = stack.enter_context(socket.socket())
                    stranger.settimeout(0.2)
                    with contextlib.suppress(OSError):
                        stranger.connect((gateway.address, gateway.port))
                        strangers.append(stranger)
                process.wait_until(lambda: self.descriptors(gateway) == DESCRIPTORS, 5, "it has all that it may")
                # The others wait where they are, and nothing is done about them without end.
                begin = self.processor_seconds(gateway), time.monotonic()
                waiting = process.run(["ss", "-Htln", f"sport = :{gateway.port}"]).stdout.split()[1]
                self.assertGreater(int(waiting), len(strangers) - DESCRIPTORS)
                block = pattern(0, len(strangers))
                session.write(0, 0, block).good()
                self.assertEqual(session.read(0, 0, 1).good().data, block)
                time.sleep(0.5)
                self.assert_alive(gateway)
                self.assertEqual(self.descriptors(gateway), DESCRIPTORS)
                self.assertLess(self.processor_seconds(gateway) - begin[0], (time.monotonic() - begin[1]) / 2)
            # As soon as they are gone there is room.
            def is_let_in():
                try:
                    with initiator.Session(gateway, initiator="iqn.2026-01.example:next", seconds=2) as following:
                        following.ready()
                    return True
                except (OSError, TimeoutError, initiator.Closed, initiator.LoginRefused):
                    return False
            process.wait_until(is_let_in, 20, "another initiator is let in", step=0.1)

    def test_commands(self):
        """More commands than the window has room for are none of the target's: those within it are all answered"""
        gateway = self.start("slow:16M:100", settings="[limits]\nqueue-depth = 8\n")
        session = self.keep(initiator.Session(gateway, seconds=10))
        session.ready()
        tags = [session.begin(0, scsi.read16(8 * i, 8), read=4096) for i in range(24)]
        answered = []
        for tag in tags:
            with contextlib.suppress(TimeoutError):
                session.finish(tag, read=4096, seconds=1.5).good()
                answered.append(tag)
            if tag not in answered:
                break
        self.assertGreaterEqual(len(answered), 8)
        with initiator.Session(gateway, initiator="iqn.2026-01.example:next") as following:
            following.ready()
            following.read(0, 0, 8).good()

    def test_address_space(self):
        """Where the system gives too little memory the gateway ends with a line that says so, or serves what it can"""
        if process.SANITIZER:
            self.skipTest("a sanitizer takes address space of its own")
        for mebibytes in (256, 512, 1024, 2048):
            with self.subTest(mebibytes):
                self.start_with(mebibytes)

    def start_with(self, mebibytes):
        gateway = self.start("memory:16M", start=False)
        gateway.spawn(["prlimit", f"--as={mebibytes << 20}"])
        process.wait_until(
            lambda: gateway.process.poll() is not None or gateway.ask("status", check=False).returncode == 0, 10,
            "gatewayd answers or ends", step=0.1)
        if gateway.process.poll() is not None:
            self.assertEqual(gateway.process.returncode, 71, gateway.log)
            self.assertIn("address space", gateway.log)
            return
        sessions = []
        with contextlib.suppress(OSError, TimeoutError, initiator.Closed, initiator.LoginRefused):
            for number in range(200):
                name = f"iqn.2026-01.example:memory-{number}"
                sessions.append(self.keep(initiator.Session(gateway, initiator=name, seconds=5)))
        self.assertTrue(sessions)
        for session in sessions[:8]:
            session.ready()
            session.read(0, 0, 256).good()
        self.assert_alive(gateway)


if __name__ == "__main__":
    unittest.main()
