"""A pair over RDMA: initiators have an iSER path and a TCP path to each node, and use iSER's to the active one."""

from machines.pair import INTERFACES
from machines.places import wait_until
from test_takeover import TakeoverCase


class OverISER(TakeoverCase):
    def setUp(self):
        super().setUp()
        for node in self.pair.nodes:
            node.machine.add_rxe(card=INTERFACES["front"])
        # Its first card: it is not on the network of the disks.
        self.initiator.machine.add_rxe(card="eth0")
        self.start_pair()
        for node in self.pair.nodes:
            self.until_listening(node)

    def until_listening(self, node):
        wait_until(lambda: node.target.ask("status")["rdma"]["listener"]["state"] == "listening", 60,
                   f"{node.machine.name} listens over RDMA", step=0.5)

    def attach(self):
        device = self.initiator.attached(self.lun, *(node.portals[0] for node in self.pair.nodes))
        self.assertEqual(set(self.initiator.routes(self.lun)),
                         {(self.address(node), transport) for node in self.pair.nodes for transport in ("iser", "tcp")})
        return device

    @staticmethod
    def address(node):
        return node.portals[0].rsplit(":", 1)[0]

    def until_carried_by(self, node):
        """The load goes over iSER to that node, and no other way."""
        wanted = {(self.address(node), "iser")}
        wait_until(lambda: self.initiator.busy_routes(self.lun) == wanted, 60, f"{wanted} carries the load")

    def mend(self, active, passive):
        if not active.target.is_running():
            active.target.resume()
        self.until_listening(active)

    def test_crash(self):
        """The active node is killed: the initiator goes on over iSER to the other"""
        self.rounds("kill -9, iSER", lambda active, passive: active.crash(), self.mend, seconds=40,
                    check=self.until_carried_by)

    def test_switchover(self):
        """An operator has the other node take over: the initiator goes on over iSER to that one"""
        self.rounds("switchover, iSER", self.switch, self.mend, seconds=40, check=self.until_carried_by)
