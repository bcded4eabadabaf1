"""RDMA that is not there, comes, and goes: TCP carries on, and hands back what it took over."""

from machines.places import wait_until
from machines.scene import SceneCase

# Emulated machines are slow; what a real initiator waits for is fast_io_fail_tmo, 5 s.
PAUSE_MS_MAX = 30_000


class Listening(SceneCase):
    """The gateway starts without RDMA."""

    def listener(self):
        return self.target.ask("status")["rdma"]["listener"]

    def until_listener(self, state):
        wait_until(lambda: self.listener()["state"] == state, 30, f"iSER is {state}", step=0.3)

    def test_tcp_alone(self):
        """Without RDMA the gateway serves TCP, and status says why it serves nothing else"""
        lun = self.start_with_memory()
        self.assertEqual(self.listener()["state"], "off")
        self.assertIn("RDMA", self.listener()["reason"])
        self.connect()
        self.verify(self.initiator.disk(lun), count=50)

    def test_late(self):
        """A NIC that comes later is served without a restart, and from then on preferred"""
        lun = self.start_with_memory()
        self.initiator.machine.add_rxe()
        self.target.machine.add_rxe()
        self.until_listener("listening")
        self.carry("iser", lun)

    def test_comes_and_goes(self):
        """A NIC that goes is let go and TCP serves on; when it is back, it is served again"""
        for machine in self.machines:
            machine.add_rxe()
        lun = self.start_with_memory()
        for _ in range(2):
            self.carry("iser", lun)
            self.target.machine.remove_rxe()
            self.carry("tcp", lun)
            self.target.machine.add_rxe()

    def carry(self, transport, lun):
        """A session over this transport carries data."""
        self.initiator.machine.until("iscsiadm -m discovery -t sendtargets "
                                     f"-p {self.initiator.portal} -I {self.initiator.interface(transport)}", 60,
                                     f"it is there over {transport}")
        self.initiator.login(transport)
        self.verify(self.initiator.paths(lun)[transport], count=50)
        self.initiator.logout(transport)


class UnderLoad(SceneCase):
    """Verified load on the multipath device of a LUN, and the paths that carry it."""

    def load(self, seconds=45):
        self.initiator.machine.background("load", f"verify {self.device} seconds={seconds} depth=8 max=131072")
        self.until_carried_by("iser", 20)

    def until_carried_by(self, transport, seconds=90):
        wait_until(lambda: self.initiator.carriers(self.lun) == {transport}, seconds, f"{transport} carries the load")

    def assert_no_harm(self):
        """The load ends without an error or a difference."""
        load = self.assert_verified("load", 180)
        self.assertGreater(load["writes"], 10)
        print(f"      longest request: {load['longest']} ms", flush=True)
        self.assertLess(load["longest"], PAUSE_MS_MAX)

    def there_and_back(self, remove, restore):
        self.load()
        remove()
        self.until_carried_by("tcp")
        restore()
        self.until_carried_by("iser")
        self.assert_no_harm()


class Multipath(UnderLoad):
    """One disk, a path over each transport, and verified load on the multipath device while RDMA goes and comes."""

    transport = "iser"

    def setUp(self):
        super().setUp()
        self.lun = self.start_with_memory()
        self.device = self.initiator.attached(self.lun)

    def test_priorities(self):
        """multipath sees the iSER path at priority 50 (active/optimized) and TCP's at 10 (active/non-optimized)"""
        paths = self.initiator.paths(self.lun)
        wanted = {paths["iser"].removeprefix("/dev/"): (50, "ready"), paths["tcp"].removeprefix("/dev/"): (10, "ready")}
        wait_until(lambda: self.initiator.priorities() == wanted, 30, f"the priorities are {wanted}", step=0.5)

    def test_initiator_loses_rdma(self):
        """The initiator's RDMA device goes under load: TCP takes over; it comes: iSER again, and there is no error"""
        self.there_and_back(self.initiator.machine.remove_rxe, self.initiator.machine.add_rxe)

    def test_gateway_loses_rdma(self):
        """The gateway's RDMA device goes under load, and comes: the same"""
        self.there_and_back(self.target.machine.remove_rxe, self.target.machine.add_rxe)

    def test_initiator_stops(self):
        """An initiator that is there no more, and says nothing, is noticed, and its sessions end; awake it goes on"""
        self.load(20)
        self.initiator.machine.halt()
        self.addCleanup(self.initiator.machine.halt, False)
        wait_until(lambda: self.target.ask("sessions") == [], 90, "its sessions have ended", step=1)
        self.initiator.machine.halt(False)
        self.assert_no_harm()


class Cards(UnderLoad):
    """RDMA has a card of its own in each machine."""

    def setUp(self):
        super().setUp()
        self.cards = {machine: machine.plug_card("card") for machine in self.machines}
        for machine, (interface, _) in self.cards.items():
            machine.add_rxe(card=interface)
        address = self.cards[self.target.machine][1]
        self.lun = self.start_with_memory("--listen", f"{address}:3260")
        self.device = self.initiator.attached(self.lun, address)
        self.initiator.attached(self.lun, words="--tcp-only")

    def test_card_unplugged(self):
        """The initiator's card is pulled out under load: TCP over the other one takes over; put back: iSER again"""
        self.there_and_back(self.pull, self.put_back)

    def pull(self):
        self.initiator.machine.unplug_card("card", 60)

    def put_back(self):
        interface, _ = self.initiator.machine.plug_card("card")
        self.initiator.machine.add_rxe(card=interface)
