"""A pair that an initiator knows by one service address: without multipath, as hosts have it that can do no better."""

import re

from machines.initiator import Path
from machines.scene import verify_command
from machines.target import NAME
from test_takeover import TakeoverCase


class Service(TakeoverCase):
    def setUp(self):
        super().setUp()
        self.address = f"10.77.{self.pair.front.number}.100"
        former = self.initiator.portal
        self.addCleanup(lambda: setattr(self.initiator, "portal", former))
        self.initiator.portal = f"{self.address}:3260"
        for node in self.pair.nodes:
            # The address comes and goes: nobody listens on it alone.
            node.listen("[::]:3260")
        self.start_pair(f'[pair]\naddresses = ["{self.address}/24"]\n')
        self.until_at(self.order()[0])

    def attach(self):
        # Who asks at this address is told of no other.
        self.assertEqual(self.initiator.discover().splitlines(), [f"{self.address}:3260,1 {NAME}"])
        self.initiator.login()
        return self.initiator.disk(self.lun)

    def owners(self):
        return [node for node in self.pair.nodes
                if re.search(rf"\b{re.escape(self.address)}/24", node.machine.run("ip -o address show"))]

    def until_at(self, node):
        """The address comes after the service."""
        node.machine.until(f"ip -o address show | grep -qF '{self.address}/24'", 20, "the active has the address")

    def mend(self, active, passive):
        if not active.target.is_running():
            active.target.resume()
        self.until_paired()
        self.assertEqual(self.owners(), [passive])

    def test_crash(self):
        """The active node is killed: the one address goes to the other, and the initiator with it"""
        self.rounds("kill -9, service address", lambda active, passive: active.crash(), self.mend, check=self.until_at)

    def test_switchover(self):
        """An operator has the other node take over, there and back"""
        self.rounds("switchover, service address", self.switch, self.mend, check=self.until_at)

    def test_reservation(self):
        """A host that has reserved the disk by the one address goes on through takeovers, and another stays out"""
        device, other = self.attach(), Path(self.initiator.machine, self.initiator.portal, "other").login()
        user, kind = self.initiator.machine, "--prout-type=3"
        user.run(f"sg_turs -n 16 {device}; set -e; sg_persist -n --out --register --param-sark=0x11 {device}; "
                 f"sg_persist -n --out --reserve --param-rk=0x11 {kind} {device}")
        for fault in (lambda node: node.crash(), self.switch):
            active, passive = self.order()
            user.background("reserved", verify_command(device, seconds=15, depth=4, max=65536))
            user.run("sleep 3")
            fault(active)
            self.until_role(passive, "active", 30)
            self.assert_verified("reserved", 240)
            status, output = user.attempt(verify_command(other.disk(self.lun), count=1, read=100, final=0), 60)
            self.assertEqual((status, "Invalid exchange" in output), (1, True), output)
            self.mend(active, passive)
