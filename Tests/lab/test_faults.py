"""What initiators live through: a gateway that dies and comes back, a cable that is pulled."""

from machines.scene import SceneCase


class Outages(SceneCase):
    def setUp(self):
        super().setUp()
        self.target.start()
        (self.lun,) = self.export("disk")
        self.connect()
        device = self.initiator.disk(self.lun)
        self.initiator.machine.background("load", f"verify {device} seconds=25 depth=8 max=131072")
        self.initiator.machine.run("sleep 4")

    def assert_survived(self):
        """The load ends well, and something was written after all."""
        load = self.assert_verified("load", 180)
        self.assertGreater(load["writes"], 10)
        print(f"      longest request: {load['longest']} ms", flush=True)
        return load

    def test_crash(self):
        """kill -9 and a new start under verified load: the initiator comes back by itself, no error, no byte lost"""
        self.target.kill()
        self.target.resume()
        self.assert_survived()

    def test_crash_with_a_pause(self):
        """So it does when the gateway is away for 10 s"""
        self.target.kill()
        self.initiator.machine.run("sleep 10")
        self.target.resume()
        self.assert_survived()

    def test_restart(self):
        """A start after SIGTERM, too"""
        self.target.stop()
        self.target.resume()
        self.assert_survived()

    def test_link(self):
        """A cable that is out for 15 s costs time and no error"""
        self.target.machine.link(False)
        self.initiator.machine.run("sleep 15")
        self.target.machine.link(True)
        self.assert_survived()
