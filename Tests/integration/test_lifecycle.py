"""Start, idle, end; and starts that cannot be."""

import ctypes
import os
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest

from harness import daemon, initiator, process, scsi
from harness.case import GatewayCase
from harness.daemon import Gateway
from harness.load import Writer

READY_SECONDS = 0.2
RESIDENT_KIB_MAX = 32 << 10
BINARY_BYTES_MAX = 25_000_000
IO_URING_SETUP = 425
MEASURED = "a figure of the release build; this one has a sanitizer in it"


def forbid_io_uring():
    """In the child: io_uring_setup answers EPERM, as where a container forbids it (seccomp(2))."""
    load, jump, end = 0x20, 0x15, 0x06
    code = b"".join(struct.pack("HBBI", *row) for row in (
        (load, 0, 0, 0), (jump, 0, 1, IO_URING_SETUP), (end, 0, 0, 0x00050000 | 1), (end, 0, 0, 0x7FFF0000)))
    buffer = ctypes.create_string_buffer(code)
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) != 0 or libc.prctl(22, 2, program, 0, 0) != 0:
        os._exit(99)


def switches(pid):
    """Voluntary context switches by thread: each is a sleep that something ended."""
    found = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/status") as file:
            found[thread] = next(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt"))
    return found


class Lifecycle(GatewayCase):
    def test_end_with_sessions(self):
        """SIGTERM with sessions under load ends it with 0 within 5 s"""
        gateway = self.start("memory:64M", "memory:64M")
        idle = self.keep(initiator.Session(gateway))
        writer = Writer(gateway, lun=1)
        writer.start()
        process.wait_until(lambda: writer.count > 20, 5, "the load runs")
        self.assertEqual(gateway.terminate(5), 0)
        self.assertTrue(idle.connection.is_closed_within(1))
        writer.join(5)

    def test_asked_to_log_out(self):
        """SIGTERM asks who has spoken to log out, within a second, and answers who does; the others are closed"""
        gateway = self.start()
        polite, deaf, silent = [self.keep(initiator.Session(gateway, initiator=f"iqn.2026-01.example:{name}"))
                                for name in ("polite", "deaf", "silent")]
        seeker = self.keep(initiator.Session(gateway, discovery=True))
        for session in (polite, deaf):
            session.ready()
        seeker.ping()
        gateway.process.send_signal(signal.SIGTERM)
        for session in (polite, deaf, seeker):
            # Event 1: log out within Parameter3 seconds.
            self.assertEqual(self.assert_message(session, 1, (0, 0, 1)), b"")
        for session in (polite, seeker):
            self.assertEqual(session.logout(), 0)
        with self.assertRaises(initiator.Closed):
            silent.connection.receive(2 * process.SLOWNESS)
        self.assertTrue(deaf.connection.is_closed_within(5))
        self.assertEqual(gateway.process.wait(5 * process.SLOWNESS), 0)

    def test_restart_on_the_same_port(self):
        """A start right after an end or a kill takes the same port"""
        gateway = self.start()
        for end in (gateway.terminate, gateway.kill, gateway.terminate):
            with initiator.Session(gateway) as session:
                session.ready()
                end()
            gateway.start(5)

    @unittest.skipIf(process.SLOWNESS > 1, MEASURED)
    def test_ready_quickly(self):
        """It accepts connections within 200 ms of its start"""
        times = []
        for _ in range(5):
            gateway = Gateway(start=False)
            self.addCleanup(gateway.stop)
            times.append(gateway.start())
            gateway.terminate()
        self.assertLess(min(times), READY_SECONDS, f"{times}")

    @unittest.skipIf(process.SLOWNESS > 1, MEASURED)
    def test_restart_is_short(self):
        """A restart keeps the portal away for less than a second, also with a session that does not log out"""
        times = []
        for _ in range(3):
            gateway = self.start("memory:64M")
            session = self.keep(initiator.Session(gateway))
            session.ready()
            begin = time.monotonic()
            gateway.terminate()
            gateway.start()
            initiator.Session(gateway).close()
            times.append(time.monotonic() - begin)
            gateway.terminate()
        self.assertLess(min(times), 1, f"{times}")

    @unittest.skipIf(process.SLOWNESS > 1, MEASURED)
    def test_idle(self):
        """Idle, it holds at most 32 MiB and does not wake up"""
        gateway = self.start("memory:64M", arguments=["--threads", "1"])
        time.sleep(1)
        before = switches(gateway.pid)
        time.sleep(10)
        # A thread that has ended since took its number with it.
        woken = sum(max(0, count - before.get(thread, 0)) for thread, count in switches(gateway.pid).items())
        with open(f"/proc/{gateway.pid}/status") as file:
            resident = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
        self.assertLessEqual(woken, 2, "wake-ups in 10 s")
        self.assertLessEqual(resident, RESIDENT_KIB_MAX, "KiB resident")

    @unittest.skipIf(process.SLOWNESS > 1, MEASURED)
    def test_binary_is_small(self):
        """The stripped binary has at most 25 MB"""
        with tempfile.NamedTemporaryFile() as stripped:
            process.run(["strip", "-o", stripped.name, daemon.binary()])
            self.assertLessEqual(os.path.getsize(stripped.name), BINARY_BYTES_MAX)

    def test_status(self):
        """status, disks and sessions answer in JSON and for people"""
        gateway = self.start("memory:64M", "null:1G")
        with initiator.Session(gateway) as session:
            session.ready()
            status = gateway.ask_json("status")
            self.assertEqual(status["targetName"], gateway.name)
            self.assertEqual(len(status["logicalUnits"]), 2)
            self.assertEqual(status["sessions"], 1)
            sessions = gateway.ask_json("sessions")
            self.assertEqual([s["initiator"] for s in sessions], [session.initiator])
            for verb in ("status", "disks", "sessions"):
                self.assertTrue(gateway.ask(verb).stdout.strip())

    def test_metrics(self):
        """metrics prints what is counted, and writes it as a file: without a daemon, that there is none"""
        gateway = self.start("memory:64M")
        with initiator.Session(gateway) as session:
            session.ready()
            text = gateway.ask("metrics").stdout
        self.assertIn('\ngatewayd_sessions{transport="tcp"} 1\n', text)
        self.assertIn('\ngatewayd_lun_size_bytes{lun="0"} 67108864\n', text)
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "gatewayd.prom")
            gateway.ask("metrics", "--output", path)
            with open(path) as file:
                self.assertIn("\ngatewayd_up 1\n", file.read())
            nobody = ["--control", os.path.join(directory, "nobody")]
            result = process.run([daemon.binary(), "metrics", "--output", path, *nobody], check=False)
            self.assertEqual(result.returncode, 69)
            with open(path) as file:
                self.assertTrue(file.read().endswith("\ngatewayd_up 0\n"))
            self.assertEqual(os.listdir(directory), ["gatewayd.prom"])

    def test_initiators(self):
        """doctor prints a block for each kind of initiator; those for a shell have no fault that sh knows"""
        gateway = self.start("memory:64M")
        for kind in ("linux", "linux-service-address", "vmware", "windows", "libiscsi"):
            text = gateway.ask("doctor", "--initiator", kind).stdout
            self.assertIn("# To expect, until the application goes on:\n", text)
            self.assertEqual(gateway.ask_json("doctor", "--initiator", kind)["kind"], kind)
            if kind != "windows":
                result = subprocess.run(["sh", "-n"], input=text, text=True, timeout=10, capture_output=True)
                self.assertEqual((result.returncode, result.stderr), (0, ""), text)
        self.assertEqual(gateway.ask("doctor", "--initiator", "amiga", check=False).returncode, 64)


class Nexuses(GatewayCase):
    def first(self, session, lun=0):
        """What the first command to a LUN meets."""
        return session.finish(session.begin(lun, scsi.test_unit_ready()))

    def test_new_sessions_are_told(self):
        """A new session is told by each LUN, once, whether the gateway or its nexus was lost (SAM-5 §5.14, §6.3.4)"""
        gateway = self.start("memory:16M", "memory:16M")
        isid = b"\x80\1\2\3\4\5"
        with initiator.Session(gateway, isid=isid) as session:
            session.luns()
            for lun in (0, 1):
                result = self.first(session, lun)
                self.assertEqual((result.sense_key, result.asc), (scsi.UNIT_ATTENTION, scsi.POWER_ON))
                self.assertEqual(self.first(session, lun).status, scsi.GOOD)
            self.assertEqual(session.command(0, [0x16, 0, 0, 0, 0, 0]).status, scsi.GOOD)  # RESERVE(6)
            with initiator.Session(gateway, initiator="iqn.2026-01.example:other") as other:
                self.assertEqual(other.write(0, 0, bytes(512)).status, scsi.RESERVATION_CONFLICT)
        # Its reservation went with its session, and it hears of that before anything else is done for it.
        with initiator.Session(gateway, isid=isid) as session:
            result = session.finish(session.begin(0, scsi.write16(0, 1), write=bytes(512)))
            self.assertEqual((result.sense_key, result.asc), (scsi.UNIT_ATTENTION, scsi.NEXUS_LOSS))
            # Reinstated, while it is there.
            with initiator.Session(gateway, isid=isid) as again:
                self.assertEqual(self.first(again).asc, scsi.NEXUS_LOSS)
        gateway.terminate()
        gateway.start()
        with initiator.Session(gateway, isid=isid) as session:
            self.assertEqual(self.first(session).asc, scsi.POWER_ON)


class Refusals(GatewayCase):
    def spawn(self, gateway, **options):
        self.addCleanup(gateway.stop)
        with open(gateway.log_path, "ab") as log:
            gateway.process = subprocess.Popen(gateway.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                               **options)

    def test_port_in_use(self):
        """A port that is taken: a line that names it, and no start"""
        gateway = Gateway(start=False)
        with socket.socket() as holder:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind((gateway.address, gateway.port))
            holder.listen()
            self.spawn(gateway)
            self.assert_ends_with_a_line(gateway, str(gateway.port))

    def test_missing_disk(self):
        """A disk that does not exist: a line that names it, and no start"""
        gateway = Gateway(disks=["/nowhere/disk"], start=False)
        self.spawn(gateway)
        self.assert_ends_with_a_line(gateway, "/nowhere/disk")

    def test_bad_option(self):
        """An option's value that is none: a line that says what is allowed, and no start"""
        gateway = Gateway(disks=["memory:lots"], start=False)
        self.spawn(gateway)
        self.assert_ends_with_a_line(gateway, "memory:lots")

    def test_io_uring_forbidden(self):
        """Where io_uring is forbidden it says so in a line and ends"""
        gateway = Gateway(start=False)
        self.spawn(gateway, preexec_fn=forbid_io_uring)
        self.assert_ends_with_a_line(gateway, "io_uring")


if __name__ == "__main__":
    unittest.main()
