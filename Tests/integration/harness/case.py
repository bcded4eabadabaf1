"""The base of the integration tests."""

import contextlib
import functools
import re
import unittest

from . import daemon, initiator, process
from .daemon import Gateway


@functools.cache
def run_help():
    """What `gatewayd run --help` prints: which options this build has."""
    return process.run([daemon.binary(), "run", "--help"], check=False).stdout


class GatewayCase(unittest.TestCase):
    """Gateways and sessions that a test starts end with it, whatever happens; a failing test shows the log."""

    @classmethod
    def setUpClass(cls):
        if not daemon.binary().exists():
            raise AssertionError(f"no gateway to test: {daemon.binary()} (./dev build)")

    def start(self, *disks, **options):
        gateway = Gateway(disks=disks or ("memory:64M",), **options)
        self.addCleanup(self._end, gateway)
        return gateway

    def _end(self, gateway):
        outcome = getattr(self, "_outcome", None)
        if outcome is not None and not getattr(outcome, "success", True) and gateway.directory.exists():
            print(f"--- gatewayd's log, {self.id()} ---\n{gateway.log[-6000:]}---")
        gateway.stop()

    def keep(self, resource):
        """Closes `resource` when the test ends."""
        self.addCleanup(resource.close)
        return resource

    @staticmethod
    def holdings(gateway):
        """What there is of sessions, bytes of buffers and descriptors."""
        status = gateway.ask_json("status")
        return {"sessions": status["sessions"], "arena": status["memory"]["arenaUsedBytes"],
                "descriptors": status["memory"]["descriptors"]}

    @staticmethod
    def metric(gateway, name, **labels):
        """The sum of a metric's values with these labels."""
        total = 0
        for line in gateway.ask("metrics").stdout.splitlines():
            found = re.fullmatch(r"gatewayd_(\w+)(?:\{(.*)\})? (\S+)", line)
            if found and found[1] == name and all(f'{key}="{labels[key]}"' in (found[2] or "") for key in labels):
                total += float(found[3])
        return total

    def assert_given_back(self, gateway, before, seconds=20):
        """All that was held beyond `before` goes away in that time."""
        with contextlib.suppress(process.TimedOut):
            process.wait_until(lambda: self.holdings(gateway) == before, seconds, "all is given back", step=0.1)
        self.assertEqual(self.holdings(gateway), before, "not all is given back")

    def assert_message(self, session, event, parameters=(0, 0, 0), lun=0, seconds=5):
        """An Async Message (RFC 7143 §11.9) like this comes, and has the next StatSN; its data segment."""
        expected = session.exp_stat_sn
        # Its Initiator Task Tag is a reserved one.
        pdu = session.receive_for(initiator.RESERVED, seconds * process.SLOWNESS)
        self.assertEqual((pdu.opcode, pdu.flags, pdu.header[2:5].hex()), (initiator.ASYNC, 0x80, "000000"))
        self.assertEqual((pdu.event, pdu.header[37], pdu.parameters), (event, 0, parameters))
        self.assertEqual(pdu.header[8:16], (lun << 48).to_bytes(8, "big"))
        self.assertEqual((pdu.header[20:24], pdu.header[44:48]), (bytes(4), bytes(4)), "reserved")
        self.assertEqual((pdu.stat_sn, session.exp_stat_sn), (expected, (expected + 1) & 0xFFFFFFFF))
        return pdu.data

    def assert_alive(self, gateway):
        self.assertIsNone(gateway.process.poll(), f"gatewayd ended\n{gateway.log}")

    def assert_ends_with_a_line(self, gateway, *words, seconds=5):
        """It ends by itself, with another status than 0, no signal, and one line that has all these words."""
        try:
            status = gateway.process.wait(seconds)
        except Exception:
            raise AssertionError(f"gatewayd does not end\n{gateway.log}") from None
        self.assertGreater(status, 0, gateway.log)
        lines = [line for line in gateway.log.splitlines() if all(word in line for word in words)]
        self.assertTrue(lines, f"no line with {words}:\n{gateway.log}")
