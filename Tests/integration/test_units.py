"""The daemon as its unit runs it, without a single capability, and the parts that have a few (systemd/README.md)."""

import array
import os
import socket
import struct
import subprocess
import unittest

from harness import initiator, process
from harness.case import GatewayCase
from harness.loops import LoopDisk, are_available
from harness.parts import USER, Part, Room, UnprivilegedGateway, activated, lend, without_privileges

GREETING = b"gatewayd"
READ_KEYS = 6
ENOTBLK, EACCES, EOPNOTSUPP, EBADF = 15, 13, 95, 9


def fence_request(operation, key=0):
    """FenceMessages: operation, bound in ms, own key, the victim's."""
    return struct.pack(">B3xIQQ", operation, 1000, key, 0)


def ask(connection, request, descriptor=None):
    """The answer; empty: the other end has closed."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))] if descriptor is not None else []
    try:
        connection.sendmsg([request], rights)
        return connection.recv(4096)
    except ConnectionResetError:
        return b""


class UnitCase(GatewayCase):
    def setUp(self):
        if not are_available():
            self.skipTest("loop devices need root")
        if process.SANITIZER:
            self.skipTest("a sanitizer does not start as another user without capabilities")
        self.room = self.keep(Room())

    def part(self, name, prefix=()):
        return self.keep(Part(self.room, name, prefix))

    def disk(self):
        disk = self.keep(LoopDisk())
        self.addCleanup(lend(disk.device))
        return disk

    def gateway(self, *disks, **options):
        gateway = UnprivilegedGateway(self.room, disks, **options)
        self.addCleanup(self._end, gateway)
        return gateway


class Daemon(UnitCase):
    def test_disk(self):
        """A daemon without capabilities exports a disk of its group, and what was written is there"""
        disk = self.disk()
        self.part("fence")
        gateway = self.gateway(disk.device)
        status = gateway.status()
        self.assertEqual({int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")}, {0})
        self.assertEqual(status["NoNewPrivs"], "1")
        process.wait_until(lambda: gateway.ask_json("disks")[0]["verdict"] == "exported", 30, "the disk is exported")
        with initiator.Session(gateway) as session:
            session.ready()
            session.write(0, 0, b"units" + bytes(507))
            self.assertEqual(session.read(0, 0, 1).data[:5], b"units")
        self.assertEqual(gateway.terminate(), 0)

    def test_passed_sockets(self):
        """Sockets that the service manager passed are its portals, and nothing else is"""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            gateway = self.start()
            command = activated(listener, [*gateway.command()])
            gateway.terminate()
            gateway.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                               stderr=subprocess.DEVNULL, pass_fds=[listener.fileno()])
            process.wait_until(gateway._is_asked, 10, "gatewayd answers")
            self.assertEqual([p["address"] for p in gateway.ask_json("status")["portals"]], [f"127.0.0.1:{port}"])
            self.assertFalse(process.is_listening("127.0.0.1", gateway.port))
            gateway.port = port
            with initiator.Session(gateway) as session:
                session.ready()


class Fence(UnitCase):
    def test_descriptors(self):
        """The part for reservations has nothing but those of a disk that the asker has open for writing"""
        part, disk = self.part("fence"), self.disk()
        connection, greeting = part.connect()
        self.addCleanup(connection.close)
        self.assertEqual(greeting, GREETING + bytes([1, 1]))

        def errno_for(path, flags):
            descriptor = os.open(path, flags)
            self.addCleanup(os.close, descriptor)
            outcome, code = struct.unpack(">B3xI", ask(connection, fence_request(READ_KEYS), descriptor))
            self.assertEqual(outcome, 3)
            return code

        self.assertEqual(errno_for("/dev/null", os.O_RDWR), ENOTBLK)
        self.assertEqual(errno_for(part.log_path, os.O_RDWR), ENOTBLK)
        self.assertEqual(errno_for(disk.device, os.O_RDONLY), EBADF)
        self.assertEqual(errno_for(disk.device, os.O_RDWR), EOPNOTSUPP, "a loop device has no reservations")

    def test_in_use(self):
        """Reservations of a disk that the machine itself uses are not to be had, whoever has it open"""
        part, disk = self.part("fence"), self.disk()
        process.run(["mkfs.ext4", "-q", disk.device])
        place = self.room.path / "mounted"
        place.mkdir()
        process.run(["mount", disk.device, place])
        self.addCleanup(process.run, ["umount", place])
        try:
            descriptor = os.open(disk.device, os.O_RDWR)
        except OSError:
            self.skipTest("this kernel lets nobody write to a mounted disk")
        self.addCleanup(os.close, descriptor)
        connection, _ = part.connect()
        self.addCleanup(connection.close)
        answer = ask(connection, fence_request(READ_KEYS), descriptor)
        self.assertEqual(struct.unpack(">B3xI", answer), (3, EACCES))
        self.assertIn("is in use", part.log)

    def test_strangers(self):
        """What is no request ends the connection, and another user gets none"""
        part, disk = self.part("fence"), self.disk()
        descriptor = os.open(disk.device, os.O_RDWR)
        self.addCleanup(os.close, descriptor)
        good = fence_request(READ_KEYS)
        for request in (b"x", good[:-1], good + b"\0", bytes([99]) + good[1:], good[:23] + b"\1", b"a" * 4096):
            with self.subTest(request[:24]):
                connection, _ = part.connect()
                self.assertEqual(ask(connection, request, descriptor), b"")
                connection.close()
        connection, _ = part.connect()
        self.assertEqual(ask(connection, good), b"", "without a descriptor")
        connection.close()
        part.path.chmod(0o666)
        script = ("import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); "
                  "s.connect(sys.argv[1]); print(len(s.recv(64)))")
        for user, wanted in ((USER, "10"), (USER - 7, "0")):
            told = process.run([*without_privileges(user), "python3", "-c", script, part.path]).stdout.strip()
            self.assertEqual(told, wanted, f"user {user}")
        self.assertIn(f"user {USER - 7} may not ask", part.log)

    def test_without_a_socket(self):
        """Started by hand, a part says which unit starts it"""
        told = process.run([self.room.program, "privileged", "fence", "--user", "0"], check=False)
        self.assertEqual(told.returncode, 1)
        self.assertIn("systemctl start gatewayd-fence.socket", told.stderr)


class Addresses(UnitCase):
    ADDRESS = "10.98.0.50"
    SETTINGS = f'[pair]\naddresses = ["{ADDRESS}/24"]\n'

    def setUp(self):
        super().setUp()
        self.namespace = f"gatewayd-units-{os.getpid()}"
        if process.run(["ip", "netns", "add", self.namespace], check=False).returncode != 0:
            self.skipTest("needs network namespaces")
        self.addCleanup(process.run, ["ip", "netns", "delete", self.namespace], check=False)
        for words in ("link set lo up", "link add eth0 type veth peer name eth1", "link set eth0 up",
                      "link set eth1 up", "address add 10.98.0.1/24 dev eth0"):
            self.ip(words)
        self.inside = ["nsenter", f"--net=/run/netns/{self.namespace}"]

    def ip(self, words):
        return process.run(["ip", "-n", self.namespace, *words.split()]).stdout

    def has_address(self):
        return f"inet {self.ADDRESS}/24" in self.ip("address show dev eth0")

    def serve(self):
        gateway = self.gateway(self.disk().device, prefix=self.inside, settings=self.SETTINGS)
        process.wait_until(lambda: gateway.ask_json("disks")[0]["verdict"] == "exported", 60, "the disk is exported")
        return gateway

    def test_address(self):
        """A service address is taken by way of its part, announced, and gone with the daemon"""
        part = self.part("addresses", self.inside)
        gateway = self.serve()
        process.wait_until(self.has_address, 30, f"the address is there\n{gateway.log}\n{part.log}", step=0.1)
        report = gateway.ask_json("pair")["serviceAddresses"]
        self.assertEqual([(each["interface"], each.get("problem")) for each in report], [("eth0", None)])
        self.assertEqual(gateway.terminate(), 0)
        self.assertFalse(self.has_address())

    def test_restarted_part(self):
        """A part that was started again between two requests is found again"""
        part = self.part("addresses", self.inside)
        gateway = self.serve()
        process.wait_until(self.has_address, 30, "the address is there", step=0.1)
        part.end()
        part.start()
        self.assertEqual(gateway.terminate(), 0)
        self.assertFalse(self.has_address())

    def test_absent(self):
        """Without the part it is told which unit is missing"""
        gateway = self.serve()

        def problem():
            report = gateway.ask_json("pair")["serviceAddresses"]
            return next((each["problem"] for each in report if each.get("problem")), None)

        self.assertIn("gatewayd-addresses.socket", process.wait_until(problem, 30, "a problem is told", step=0.1))
        self.assertFalse(self.has_address())

    def test_machines_own(self):
        """The machine's own address is neither removed nor announced; one that cannot move is not added"""
        part = self.part("addresses", self.inside)
        connection, greeting = part.connect()
        self.addCleanup(connection.close)
        self.assertEqual(greeting, GREETING + bytes([2, 1]))
        index = int(self.ip("-o link show dev eth0").split(":")[0])

        def request(operation, address, prefix=24):
            return struct.pack(">BBBxI4s12x", operation, 4, prefix, index, socket.inet_aton(address))

        for operation, prefix in ((1, 24), (2, 24), (3, 0)):
            answer = ask(connection, request(operation, "10.98.0.1", prefix))
            self.assertEqual(struct.unpack(">i", answer)[0], EACCES)
        self.assertEqual(struct.unpack(">i", ask(connection, request(1, self.ADDRESS)))[0], 0)
        self.assertTrue(self.has_address())
        self.assertEqual(struct.unpack(">i", ask(connection, request(3, self.ADDRESS, 0)))[0], 0)
        self.assertEqual(struct.unpack(">i", ask(connection, request(2, self.ADDRESS)))[0], 0)
        self.assertFalse(self.has_address())
        self.assertIn("10.98.0.1/24", self.ip("address show dev eth0"))
        self.assertEqual(ask(connection, request(1, "127.0.0.2")), b"", "that is no request")


if __name__ == "__main__":
    unittest.main()
