"""What the gateway tells of its connections: counters, traces, and never a secret."""

import contextlib
import os
import signal
import subprocess
import unittest
from unittest import mock

from harness import daemon, initiator, process, scsi
from harness.case import GatewayCase
from harness.initiator import COMMAND, FINAL, IMMEDIATE

SECRETS = ["correct-horse-1", "battery-staple-2", "discovery-only-3"]
CHAP = f"""
[access.chap]
user = "somebody"
secret = "{SECRETS[0]}"
mutual-user = "gateway"
mutual-secret = "{SECRETS[1]}"
[discovery-auth]
user = "asker"
secret = "{SECRETS[2]}"
"""


class ObservationCase(GatewayCase):
    def events(self, gateway, session=0):
        """The events of the last trace of a session."""
        traces = gateway.ask_json("sessions", "--trace", str(session))
        return [event["event"] for event in traces[-1]["events"]] if traces else []

    def wait_for(self, gateway, name, value=1, **labels):
        process.wait_until(lambda: self.metric(gateway, name, **labels) >= value, 5, f"{name} {labels} is counted")


class Lines(ObservationCase):
    def test_nobody_reads(self):
        """Where nobody reads the log nobody waits for it, and afterwards it says how many lines were lost"""
        gateway = self.start(start=False)
        fifo = gateway.directory / "log-pipe"
        os.mkfifo(fifo)
        reader = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        gateway.spawn(["sh", "-c", 'exec "$@" 2>"$0"', str(fifo)])
        process.wait_until(lambda: process.is_listening(gateway.address, gateway.port), 10, "gatewayd listens")
        with initiator.Session(gateway, initiator="iqn.2026-01.example:steady") as session:
            session.ready()
            for _ in range(400):
                initiator.Session(gateway, initiator="iqn.2026-01.example:" + "x" * 190, discovery=True).close()
            session.read(0, 0, 8, seconds=5).good()
            self.assertIn("established", os.read(reader, 1 << 20).decode())
        process.wait_until(lambda: "lines were lost" in self.some_of(reader), 5, "the loss is told")

    def some_of(self, reader):
        with contextlib.suppress(BlockingIOError):
            return os.read(reader, 1 << 16).decode()
        return ""


class Counters(ObservationCase):
    def test_logins(self):
        """A refused login is counted by its status, and has a trace under 0"""
        gateway = self.start(settings=CHAP)
        for user, secret, status in (("somebody", "wrong-secret-99", 0x0201), (None, None, 0x0201)):
            with self.assertRaises(initiator.LoginRefused) as refused:
                initiator.Session(gateway, user=user, secret=secret)
            self.assertEqual(refused.exception.status, status)
        self.wait_for(gateway, "logins_refused_total", 2, status="0201", reason="authentication_failure")
        self.wait_for(gateway, "connections_ended_total", 2, reason="login_refused")
        events = self.events(gateway)
        self.assertEqual((events[0], events[-1]), ("accepted", "ended"))
        self.assertIn("login-refused", events)
        with initiator.Session(gateway, user="somebody", secret=SECRETS[0], mutual_user="gateway", mutual=SECRETS[1]):
            number = gateway.ask_json("sessions")[0]["id"]
            text = gateway.ask("sessions", "--trace", str(number)).stdout
            self.assertRegex(text, r"authenticated +CHAP, somebody\n")
            self.assertRegex(text, r"login-stage +security to operational\n")

    def test_session(self):
        """Task management, rejects, aborts and errors of a session are counted, and in its trace"""
        gateway = self.start("memory:64M", "faulty:16M:medium=64+8")
        session = self.keep(initiator.Session(gateway))
        session.ready()
        session.ready(1)
        number = gateway.ask_json("sessions")[0]["id"]
        self.assertEqual(session.read(1, 64, 8).status, scsi.CHECK_CONDITION)
        self.wait_for(gateway, "check_conditions_total", key="medium_error", asc="1100")
        before = self.events(gateway, number)
        for _ in range(100):
            session.read(0, 0, 8).good()
        self.assertEqual(self.events(gateway, number), before, "I/O is in no trace")
        pdu = session.command_pdu(0, scsi.test_unit_ready()).put(24, session.cmd_sn + 10_000)
        session.connection.send(pdu)
        self.wait_for(gateway, "commands_outside_window_total")
        header = bytearray(48)
        header[0], header[1] = 0x1C | IMMEDIATE, FINAL
        header[24:28] = session.cmd_sn.to_bytes(4, "big")
        session.connection.send_bytes(bytes(header))
        self.wait_for(gateway, "protocol_errors_total", reason="opcode")
        self.wait_for(gateway, "rejects_total", reason="protocol_error")
        self.wait_for(gateway, "connections_ended_total", reason="protocol_error")
        self.assertEqual(self.events(gateway, number)[-3:], ["protocol-error", "rejected", "ended"])

    def test_digest(self):
        """A wrong digest is counted, and is the end of its connection"""
        gateway = self.start()
        session = self.keep(initiator.Session(gateway, keys={"HeaderDigest": "CRC32C"}))
        number = gateway.ask_json("sessions")[0]["id"]
        header = bytearray(48)
        header[0], header[1] = COMMAND | IMMEDIATE, FINAL
        session.connection.send_bytes(bytes(header) + b"\0\0\0\0")
        # The first PDU in full feature phase has a digest already.
        self.wait_for(gateway, "digest_errors_total", digest="header")
        self.assertEqual(self.events(gateway, number)[-2:], ["digest-error", "ended"])

    def test_reset(self):
        """A reset and a logout are told apart"""
        gateway = self.start()
        with initiator.Session(gateway) as session:
            session.ready()
            session.logout()
        self.wait_for(gateway, "connections_ended_total", reason="logout")
        session = self.keep(initiator.Session(gateway))
        session.ready()
        session.connection.socket.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER: a reset
        session.connection.socket.close()
        self.wait_for(gateway, "connections_ended_total", reason="reset")

    def test_keep_alive(self):
        """A silent initiator is asked, and its trace says that it did not answer"""
        gateway = self.start(settings="[timeouts]\nnop-interval = 1\n")
        session = self.keep(initiator.Session(gateway))
        session.ready()
        number = gateway.ask_json("sessions")[0]["id"]
        self.wait_for(gateway, "connections_ended_total", reason="keep_alive")
        self.assertEqual(self.events(gateway, number)[-3:], ["keep-alive", "keep-alive-missed", "ended"])
        self.assertEqual(self.metric(gateway, "keep_alives_total", outcome="missed"), 1)

    def test_latency(self):
        """A slow disk shows in its LUN's latency, and in no other's"""
        gateway = self.start("memory:64M", "slow:16M:50")
        with initiator.Session(gateway) as session:
            for lun in (0, 1):
                session.ready(lun)
                for _ in range(5):
                    session.read(lun, 0, 8).good()
        fast, slow = ([latency for latency in unit["latencies"] if latency["direction"] == "read"][0]
                      for unit in gateway.ask_json("status")["logicalUnits"])
        self.assertEqual((fast["commands"], slow["commands"], slow["transport"]), (5, 5, "tcp"))
        self.assertGreaterEqual(slow["p50Ns"], 50_000_000)
        self.assertLess(fast["p50Ns"], 50_000_000)
        self.assertEqual(self.metric(gateway, "command_seconds_count", lun="1", direction="read"), 5)
        self.assertEqual(self.metric(gateway, "command_seconds_bucket", lun="1", direction="read", le="0.033554432"), 0)


class Secrets(ObservationCase):
    def test_nowhere(self):
        """Secrets are in no metric, trace, status, report or log, whatever the logins were"""
        port = process.free_port("127.0.0.1")
        gateway = self.start(settings=CHAP + f"[metrics]\nlisten = {port}\n[log]\nlevel = \"debug\"\n")
        good = {"user": "somebody", "secret": SECRETS[0]}
        attempts = [good, {**good, "mutual_user": "gateway", "mutual": SECRETS[1]}, {**good, "secret": SECRETS[1]},
                    {"user": SECRETS[0], "secret": SECRETS[0]},
                    {"user": "asker", "secret": SECRETS[2], "discovery": True}]
        for attempt in attempts:
            with contextlib.suppress(initiator.LoginRefused, initiator.Closed, ConnectionError):
                initiator.Session(gateway, **attempt).close()
        told = [gateway.log]
        for words in (["metrics"], ["status"], ["status", "--json"], ["sessions", "--json"], ["disks", "--json"],
                      *(["sessions", "--json", "--trace", str(number)] for number in range(6))):
            told.append(gateway.ask(*words).stdout)
        told.append(process.run(["curl", "-s", f"http://127.0.0.1:{port}/metrics"]).stdout)
        environment = {**os.environ, "GATEWAYD_CONTROL": str(gateway.control)}
        told.append(process.run([daemon.binary(), "report"], env=environment, check=False).stdout)
        # A name that is a secret is the initiator's own doing: it is not in what was refused, either.
        for text in told:
            for secret in SECRETS:
                self.assertNotIn(secret, text)

    def test_no_core(self):
        """An abort leaves no core, whatever the limits say"""
        # A debug build would tell of its own end for seconds.
        with mock.patch.dict(os.environ, SWIFT_BACKTRACE="enable=no"):
            gateway = self.start(settings=CHAP)
        directory = str(gateway.directory)
        unlimited = ["prlimit", "--core=unlimited"]
        probe = subprocess.Popen([*unlimited, "sh", "-c", "kill -ABRT $$"], cwd=directory, stderr=subprocess.DEVNULL)
        _, status = os.waitpid(probe.pid, 0)
        probe.returncode = 0
        process.run([*unlimited, "--pid", str(gateway.pid)])
        os.kill(gateway.pid, signal.SIGABRT)
        _, ended = os.waitpid(gateway.pid, 0)
        gateway.process.returncode = 0
        self.assertTrue(os.WIFSIGNALED(ended))
        self.assertFalse(os.WCOREDUMP(ended))
        if not os.WCOREDUMP(status):
            self.skipTest("this system dumps no cores at all: nothing was tried")


if __name__ == "__main__":
    unittest.main()
