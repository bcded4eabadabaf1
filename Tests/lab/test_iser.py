"""iSER (RFC 7145): the kernel's initiator over soft-RoCE. What TCP has to do, and what only RDMA can do wrong."""

import os
import re

import test_disks
import test_faults
import test_initiator
from machines.scene import SceneCase
from machines.target import NAME

LOGINS = 50
DEATHS = int(os.environ.get("GATEWAYD_LAB_DEATHS", "20"))


class ISERCase(SceneCase):
    transport = "iser"


class Discovery(ISERCase):
    def test_portals(self):
        """SendTargets over TCP and over iSER tells every portal, each with the one tag (RFC 7143 §4.4.1)"""
        self.target.start(arguments=["--listen", f"{self.target.machine.address}:3261"])
        wanted = {f"{self.target.machine.address}:{port},1 {NAME}" for port in (3260, 3261)}
        for transport in ("tcp", "iser"):
            with self.subTest(transport):
                self.assertEqual(set(self.initiator.discover(transport).splitlines()), wanted)

    def test_identity(self):
        """A session says that it is iSER on both sides, and the disk is the one that TCP has"""
        lun = self.start_with_memory()
        self.connect()
        self.assertIn("Iface Transport: iser", self.initiator.machine.run("iscsiadm -m session -P 1"))
        self.assertEqual([session["transport"] for session in self.target.ask("sessions")], ["iser"])
        pages = self.initiator.machine.run(f"sg_vpd --page=di {self.initiator.disk(lun)}").lower()
        self.assertIn("0x" + self.target.unit(lun)["naa"].lower(), pages)


class FileSystemOverISER(test_initiator.FileSystem):
    transport = "iser"


class VerifiedIOOverISER(test_initiator.VerifiedIO):
    transport = "iser"
    # RFC 7145 §6.1: none over iSER.
    test_digests = None


class OutagesOverISER(test_faults.Outages):
    transport = "iser"


class ComingsOverISER(test_disks.Comings):
    transport = "iser"
    # The same whatever the transport.
    test_names = test_hot_plug_by_attention = test_unplugged_and_back = None


class AuthenticationOverISER(test_initiator.Authentication):
    transport = "iser"


class Together(ISERCase):
    def test_both_transports(self):
        """One address, port and name, both transports at once under load: each reads what the other wrote"""
        lun = self.start_with_memory()
        for transport in ("tcp", "iser"):
            self.initiator.discover(transport)
            self.initiator.login(transport)
        paths = self.initiator.paths(lun)
        self.assertEqual(sorted(paths), ["iser", "tcp"])
        self.assertEqual(sorted(each["transport"] for each in self.target.ask("sessions")), ["iser", "tcp"])
        half = 16 << 20
        for number, path in enumerate(paths.values()):
            self.initiator.machine.background(
                f"load{number}", f"verify {path} seconds=8 depth=8 offset={number * half} size={half} "
                f"state=/tmp/state{number}")
        for number in (0, 1):
            self.assertGreater(self.assert_verified(f"load{number}", 120)["writes"], 0)
        for number, path in enumerate(reversed(paths.values())):
            self.verify(path, count=1, read=100, offset=number * half, size=half, state=f"/tmp/state{number}")

    def test_groups(self):
        """The port that a path leads to is in a group of its own: iSER's optimized, TCP's not (SPC-5 §5.18)"""
        lun = self.start_with_memory()
        for transport in ("tcp", "iser"):
            self.initiator.discover(transport)
            self.initiator.login(transport)
        states = {}
        for transport, path in self.initiator.paths(lun).items():
            page = self.initiator.machine.run(f"sg_turs {path}; sg_vpd --page=di {path}")
            group = re.search(r"Target port group: (0x[0-9a-f]+)", page).group(1)
            report = self.initiator.machine.run(f"sg_rtpg {path}")
            found = dict(re.findall(r"group id : (0x[0-9a-f]+) .*?access state : (0x[0-9a-f]+)", report, re.DOTALL))
            states[transport] = found[group]
        # Active/optimized and active/non-optimized (SPC-5 table 285).
        self.assertEqual(states, {"iser": "0x00", "tcp": "0x01"})


class Leftovers(ISERCase):
    """Nothing that an initiator made the gateway hold outlives it."""

    def setUp(self):
        super().setUp()
        self.lun = self.start_with_memory()
        # Once, so that what is made only once is there.
        self.connect()
        self.verify(self.initiator.disk(self.lun), count=50)
        self.initiator.logout()
        self.target.until_holdings(self.target.holdings() | {"sessions": 0, "connections": 0, "queuePairs": 0,
                                                             "identifiers": 0, "arena": 0}, 30)
        self.before = self.target.holdings()

    def test_logins(self):
        """After 50 logins and logouts the gateway holds what it held before: memory, queue pairs, descriptors"""
        script = f"set -e; for i in $(seq {LOGINS}); do {self.initiator.node('--login')}; " \
                 f"{self.initiator.node('--logout')}; done"
        self.initiator.machine.run(script, 600)
        self.target.until_holdings(self.before, 30)

    def test_deaths(self):
        """After 20 power cuts of an initiator under load it does, too, and the next session works"""
        for number in range(DEATHS):
            self.initiator.machine.background(
                "load", f"verify {self.initiator_disk(number)} seconds=600 depth=8 max=262144 seed={number}")
            self.initiator.machine.run("sleep 2")
            seconds = self.initiator.machine.power_cut()
            self.initiator.prepare()
            self.initiator.machine.add_rxe()
            print(f"      death {number + 1}: up again after {seconds:.1f} s", flush=True)
        self.verify(self.initiator_disk(DEATHS), count=100)
        self.initiator.logout()
        self.target.until_holdings(self.before, 90)
        self.assertTrue(self.target.is_running())

    def initiator_disk(self, number):
        self.connect()
        return self.initiator.disk(self.lun)
