"""The image and Linux's initiator on another machine, over TCP and over soft-RoCE, which the image has if told to."""

import re
import unittest

from appliance import Appliance, another_version
from machines.initiator import Initiator
from machines.lab import Lab
from machines.places import wait_until
from machines.scene import counts, verify_command


class Initiators(unittest.TestCase):
    """Two machines on one network, in the order of the tests' names."""

    goes_on = True

    @classmethod
    def setUpClass(cls):
        lab = Lab("image")
        cls.addClassCleanup(lab.close)
        cls.user, network = lab.machine("initiator", udev=True), lab.networks[0]
        cls.machine = machine = Appliance("Initiators", number=4)
        cls.addClassCleanup(machine.power_off)
        machine.put_version(another_version("94", "gatewayd.rxe=1"))
        hardware, address = network.hardware(machine), network.address(machine)
        machine.devices = [
            "-netdev", f"stream,id=lab,server=off,addr.type=unix,addr.path={network.wire}",
            "-device", f"virtio-net-pci,netdev=lab,mac={hardware},host_mtu=9000"]
        machine.blank("data", 128)
        machine.power_on("data")
        cls.user.ready()
        cls.user.add_rxe()
        machine.until(r"^Version +94 (?s:.*)LUN 0 ")
        machine.can_log_in()
        # There is no DHCP server here; it has its link-local addresses alone.
        machine.run("for card in /sys/class/net/*; do "
                    f"! grep -q {hardware} $card/address || ip address add {address}/24 dev ${{card##*/}}; done")
        cls.initiator = Initiator(cls.user, f"{address}:3260", machine.target())

    def goes_over(self, transport):
        self.initiator.transport = transport
        self.assertIn(self.initiator.name, self.initiator.discover())
        self.initiator.login()
        disk = self.initiator.paths(0)[transport]
        output = self.user.run(verify_command(disk, seconds=8, depth=4, state="/tmp/state", seed=1), 120)
        self.initiator.logout()
        print(f"      {transport}: {output}", flush=True)
        self.assertGreater(counts(output)["writes"], 0)
        self.machine.until(r"^Sessions +0$")

    def test_1_tcp(self):
        """Linux logs in over TCP, writes and reads"""
        self.goes_over("tcp")

    def test_2_iser(self):
        """Linux logs in over iSER, reads what it wrote over TCP, and writes and reads"""
        wait_until(lambda: re.search(r"^iSER +.*listening", self.machine.run("gatewayd status"), re.MULTILINE), 60,
                   "the image serves iSER", step=1)
        self.goes_over("iser")


if __name__ == "__main__":
    unittest.main()
