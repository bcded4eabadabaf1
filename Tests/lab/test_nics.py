"""RDMA NICs that come, go and are not fit, as the kernel, udev and rtnetlink tell of them."""

import re
import unittest

from machines.lab import Lab
from machines.places import TimedOut, wait_until
from machines.target import Target

ADD = "rdma link add rxe0 type rxe netdev eth0"
DELETE = "rdma link delete rxe0"
SWITCHES = "cat /proc/$(cat /run/gatewayd.pid)/task/*/status | grep ^voluntary"


class NICs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = Lab("nics")
        cls.addClassCleanup(cls.lab.close)
        cls.machine = cls.lab.machine("target", udev=True)
        cls.machine.ready()
        cls.machine.run("modprobe -a rdma_rxe ib_uverbs rdma_cm", 60)
        cls.target = Target(cls.machine)
        # On every address: so no device is held open by the listener alone.
        cls.target.portal = "[::]:3260"

    def setUp(self):
        self.addCleanup(self._restore)
        self.machine.run(f"echo 'lab: ==== {self.id()}' >/dev/console")

    def _restore(self):
        if self.target.is_running():
            self.target.stop()
        self.target.portal = "[::]:3260"
        self.machine.attempt(f"{DELETE}; rdma link delete rxe1; ip link set eth0 up; "
                             f"ip address replace {self.machine.address}/24 dev eth0; "
                             "echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6; modprobe rdma_ucm")

    def start(self, *arguments, settings="", modules="rdma_ucm"):
        self.machine.run(f"modprobe -a {modules}" if modules else "true", 60)
        words = ("--no-discovery", "--disk", "memory:64M", *arguments)
        self.target.start(settings, words)

    def nic(self):
        """The report of rxe0; None: there is none."""
        return next((nic for nic in self.target.ask("nics") if nic["name"] == "rxe0"), None)

    def listener(self):
        return self.target.ask("status")["rdma"]["listener"]

    def until_nic(self, what, condition):
        seen = []

        def fits():
            seen[:] = [self.nic()]
            return condition(seen[0])

        try:
            wait_until(fits, 20, what, step=0.2)
        except TimedOut as late:
            raise TimedOut(f"{late}: {seen}") from None
        return seen[0]

    def until_usable(self):
        return self.until_nic("rxe0 is usable", lambda nic: nic and nic["verdict"] == "usable" and not nic["warnings"])

    def until_reason(self, code):
        nic = self.until_nic(f"rxe0 is unusable: {code}",
                             lambda nic: nic and code in [reason["code"] for reason in nic["reasons"]])
        self.assertEqual(nic["verdict"], "unusable")
        return nic

    def test_none(self):
        """A gateway without RDMA serves TCP only, says so, and the doctor finds nothing wrong with that"""
        self.start()
        self.assertEqual(self.target.ask("nics"), [])
        wait_until(lambda: self.listener()["reason"] == "no RDMA device", 10, "it has looked")
        self.assertEqual(self.listener()["state"], "off")
        self.assertRegex(self.target.command("status")[1], r"(?m)^iSER +off: no RDMA device; TCP only$")
        self.assertEqual(self.target.command("nics"), (0, "No RDMA NICs."))
        status, output = self.target.command("doctor")
        self.assertEqual(status, 0, output)
        self.assertIn("no device: TCP only", output)

    def test_comes_and_goes(self):
        """A NIC that comes is told and listened on without a restart, and vanishes when it goes"""
        self.start()
        self.machine.run(ADD, 60)
        nic = self.until_usable()
        (port,) = nic["ports"]
        self.assertEqual((nic["driver"], port["linkLayer"], port["state"]), ("rxe", "Ethernet", "ACTIVE"))
        self.assertIn("RoCE v2", port["gidTypes"])
        self.assertEqual([interface["name"] for interface in port["interfaces"]], ["eth0"])
        self.assertIn(self.machine.address, port["interfaces"][0]["addresses"])
        wait_until(lambda: self.listener()["state"] == "listening", 10, f"it listens: {self.listener()}")
        self.assertIn(f"{self.machine.address}:3260", self.listener()["addresses"])
        status, output = self.target.command("doctor")
        self.assertEqual(status, 0, output)
        status, output = self.target.command("doctor --initiator linux")
        self.assertEqual(status, 0, output)
        self.assertRegex(output, r"(?m)^attach '.*' iser$")
        self.machine.run(DELETE)
        self.until_nic("rxe0 is gone", lambda nic: nic is None)
        self.assertEqual(self.listener()["reason"], "no RDMA device")
        log = self.machine.console.read_text(errors="replace")
        self.assertRegex(log, r"NIC rxe0: usable, RoCE v2 on eth0 " + re.escape(self.machine.address))
        self.assertIn("NIC rxe0 gone", log)

    def test_present_at_start(self):
        """A NIC that was there before the gateway is used from the start"""
        self.machine.run(ADD, 60)
        self.start()
        self.until_usable()
        wait_until(lambda: self.listener()["state"] == "listening", 10, "it listens")

    def test_listener_on_its_address(self):
        """A listener on an address of a NIC lets it go, and listens again when it comes back"""
        self.target.portal = f"{self.machine.address}:3260"
        # librdmacm lets no device go that is the last one.
        self.machine.run(f"{ADD} && rdma link add rxe1 type rxe netdev lo", 60)
        self.start()
        for _ in range(2):
            self.until_usable()
            wait_until(lambda: self.machine.attempt("rdma resource show cm_id | grep -q LISTEN")[0] == 0, 20,
                       "it listens on the device")
            self.machine.run(DELETE)
            self.until_nic("rxe0 is gone", lambda nic: nic is None)
            self.machine.run(ADD, 60)
        self.until_usable()

    def test_interface_down(self):
        """An interface that is set down makes its NIC unusable, with the reason, and set up again usable"""
        self.machine.run(ADD, 60)
        self.start()
        self.until_usable()
        self.machine.run("ip link set eth0 down")
        nic = self.until_reason("interface-down")
        self.assertEqual(nic["reasons"][0]["advice"], "ip link set eth0 up")
        self.assertEqual(self.listener()["state"], "off")
        self.machine.run("ip link set eth0 up")
        self.until_usable()

    def test_cable(self):
        """A cable that is pulled out is told from an interface that is set down"""
        self.machine.run(ADD, 60)
        self.start()
        self.until_usable()
        self.machine.link(False)
        self.addCleanup(self.machine.link, True)
        self.until_reason("port-down")
        self.machine.link(True)
        self.until_usable()

    def test_addresses(self):
        """Without an address a NIC is unusable; the one that it is given makes it usable"""
        self.machine.run(ADD, 60)
        self.start()
        self.machine.run("echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip -4 address flush dev eth0")
        self.until_reason("no-address")
        self.machine.run(f"ip address add {self.machine.address}/24 dev eth0")
        self.until_usable()

    def test_modules(self):
        """Without rdma_ucm the reason names it, and loading it is enough"""
        self.machine.run("rmmod rdma_ucm 2>/dev/null; [ ! -e /dev/infiniband/rdma_cm ]")
        self.machine.run(ADD, 60)
        self.start(modules="")
        nic = self.until_reason("no-connection-manager")
        self.assertEqual(nic["reasons"][0]["advice"], "modprobe rdma_ucm")
        self.machine.run("modprobe rdma_ucm")
        self.until_usable()
        wait_until(lambda: self.listener()["state"] == "listening", 10, f"it listens: {self.listener()}")

    def test_switched_off(self):
        """Told to serve TCP only, by option or settings, it knows its NICs and does not listen on them"""
        self.machine.run(ADD, 60)
        for arguments, settings in ((("--no-iser",), ""), ((), "[iser]\nenabled = false\n")):
            with self.subTest(arguments=arguments, settings=settings):
                self.start(*arguments, settings=settings)
                self.until_usable()
                self.assertEqual(self.listener()["reason"], "switched off by the settings or by --no-iser")
                self.target.stop()

    def test_idle(self):
        """Watching costs nothing while nothing happens: no thread wakes for 3 s"""
        self.machine.run(ADD, 60)
        self.start()
        self.until_usable()
        self.machine.run(f"for i in 1 2 3 4 5; do before=$({SWITCHES}); sleep 3; "
                         f"[ \"$before\" = \"$({SWITCHES})\" ] && exit 0; done; exit 1", 60)
