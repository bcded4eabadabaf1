"""The pair: two gateways with the same disks. So far, that the scene is what it is to be."""

from machines.pair import PairCase
from machines.places import wait_until
from machines.scene import verify_command


class Scene(PairCase):
    """Four machines, as every test of the pair gets them; each gateway runs for itself."""

    def test_boot(self):
        """The scene boots, the nodes see the same disk, and the initiator reaches both on both networks"""
        print(f"      memory: {self.pair.memory_megabytes()} MB", flush=True)
        for node in self.pair.nodes:
            node.attach_disks()
        names = {node.machine.run(f"cat /sys/block/{node.nexus.disk(self.lun)[5:]}/device/wwid")
                 for node in self.pair.nodes}
        self.assertEqual(len(names), 1, names)
        for node in self.pair.nodes:
            for portal in node.portals:
                self.initiator.machine.run(f"ping -c 1 -W 5 {portal.rsplit(':', 1)[0]}")

    def test_gateways(self):
        """Both gateways see the disk: the one that finds it blank labels and serves it, the other finds it labelled"""
        self.start_one(self.a)
        self.b.attach_disks()
        self.b.start()
        wait_until(lambda: self.b.disk(self.lun) is not None, 60, "b knows the disk", step=0.5)
        seen = {node.machine.name: node.disk(self.lun) for node in self.pair.nodes}
        self.assertEqual(seen["a"]["verdict"], "exported")
        print(f"      b says: {seen['b']['verdict']}", flush=True)
        self.assertEqual(seen["a"]["lun"], 0)

    def test_multipath(self):
        """The initiator has a path by each network, and goes on over one when the other is cut"""
        self.start_one(self.a)
        device = self.initiator.attached(0, *self.a.portals)
        self.assertEqual(len(self.initiator.disks(0, 2)), 2)
        self.initiator.machine.background("load", verify_command(device, seconds=25, depth=4, max=65536))
        self.pair.front.cut(self.initiator.machine, self.a.machine)
        load = self.assert_verified("load", 180)
        self.assertGreater(load["writes"], 5)
        print(f"      longest request: {load['longest']} ms", flush=True)


class Faults(PairCase):
    """The ways to break the scene do what they say."""

    def test_one_way(self):
        """A cable can be cut one way: what a sends does not come to b, what b sends comes to a"""
        a, b = self.a.machine, self.b.machine
        for network in self.pair.networks:
            b.run(f"ping -c 1 -W 5 {network.address(a)}")
        self.pair.cut_links(both=False)
        for interface, network in zip(("eth0", "eth1", "eth2"), self.pair.networks):
            before = self.received(a, interface), self.received(b, interface)
            a.attempt(f"ping -c 2 -W 1 {network.address(b)}")
            b.attempt(f"ping -c 3 -W 1 {network.address(a)}")
            after = self.received(a, interface), self.received(b, interface)
            self.assertGreaterEqual(after[0] - before[0], 3, f"{network.name}: a hears b")
            self.assertEqual(after[1] - before[1], 0, f"{network.name}: b does not hear a")
        # Others are heard all the same.
        b.run(f"ping -c 1 -W 5 {self.pair.front.address(self.initiator.machine)}")
        self.pair.mend()
        b.run(f"ping -c 1 -W 5 {self.pair.front.address(a)}")

    @staticmethod
    def received(machine, interface):
        return int(machine.run(f"cat /sys/class/net/{interface}/statistics/rx_packets"))

    def test_ghost_write(self):
        """A write that the network holds up reaches the disk when it is let go"""
        storage, node = self.pair.storage, self.a
        node.attach_disks()
        disk = node.nexus.disk(self.lun)
        node.delay_writes(storage)
        node.machine.background("ghost", f"sh -c 'printf ghost | dd of={disk} bs=4096 conv=sync,fsync'")
        node.machine.run("sleep 3")
        self.assertEqual(self.pair.text("disk1"), "")
        self.assertNotEqual(node.machine.attempt("test -e /run/lab/ghost.status")[0], 0, "it waits")
        self.pair.mend()
        status, output = node.machine.finish("ghost", 60)
        self.assertEqual(status, 0, output)
        self.assertEqual(self.pair.text("disk1"), "ghost")

    def test_power(self):
        """A node loses power and boots again; the other and the disks have noticed nothing"""
        self.start_one(self.a)
        self.a.lose_power()
        self.b.attach_disks()
        self.b.nexus.disk(self.lun)
        print(f"      booted again in {self.a.boot():.1f} s", flush=True)
        self.start_one(self.a)

    def test_freeze(self):
        """A gateway stands still, its machine does not; then it goes on"""
        self.start_one(self.a)
        self.a.freeze()
        self.assertNotEqual(self.a.machine.attempt("timeout 3 gatewayd status --control /run/gatewayd.sock")[0], 0)
        self.a.freeze(False)
        self.assertTrue(self.a.is_listening())
