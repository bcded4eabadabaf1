"""Soft-RoCE between two machines: what the iSER tests stand on."""

import unittest

from machines.lab import Lab


class SoftRoCE(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = Lab("rxe")
        cls.addClassCleanup(cls.lab.close)
        cls.server, cls.client = cls.lab.machine("server"), cls.lab.machine("client")
        for machine in (cls.server, cls.client):
            machine.ready()
            machine.add_rxe()

    def test_rping(self):
        """rxe: connections by RDMA-CM carry RDMA READs and WRITEs (rping)"""
        address = self.server.address
        self.server.background("rping", f"rping -s -a {address} -p 9999 -C 20 -V")
        self.client.until(f"rping -c -a {address} -p 9999 -C 20 -V", 60, "rping has a partner")
        self.assertEqual(self.server.finish("rping", 30)[0], 0)

    def test_pingpong(self):
        """rxe: reliable queue pairs carry messages (ibv_rc_pingpong)"""
        self.server.background("pong", "ibv_rc_pingpong -d rxe0 -g 1 -n 200")
        self.client.until(f"ibv_rc_pingpong -d rxe0 -g 1 -n 200 {self.server.address}", 60, "a pong to the ping")
        self.assertEqual(self.server.finish("pong", 30)[0], 0)
