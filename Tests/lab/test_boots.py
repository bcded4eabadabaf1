"""Starts of a pair: both nodes at once, one after the other, and one that was away while the other went on.

`GATEWAYD_LAB_BOOTS` says how often both start at once (3 unless told).
"""

import os
import random
import time

from test_takeover import TakeoverCase

BOOTS = int(os.environ.get("GATEWAYD_LAB_BOOTS", "3"))


class Boots(TakeoverCase):
    def test_at_once(self):
        """Both nodes start at once, again and again: exactly one becomes active, and holds the disk"""
        self.start_pair()
        seed = time.time_ns() % 1_000_000
        choices = random.Random(seed)
        print(f"      seed {seed}", flush=True)
        winners, epoch = [], self.report(self.a)["epoch"]
        for number in range(BOOTS):
            for node in self.pair.nodes:
                if choices.random() < 0.5:
                    node.crash()
                else:
                    node.target.stop()
            first, second = choices.sample(self.pair.nodes, 2)
            first.target.launch()
            time.sleep(choices.uniform(0, 0.5))
            second.target.launch()
            self.until_paired()
            active, _ = self.order()
            self.keys_are(active)
            self.assertGreater(self.report(active)["epoch"], epoch, f"seed {seed}, boot {number}")
            epoch = self.report(active)["epoch"]
            winners.append("first" if active is first else "second")
        print(f"      {BOOTS} boots: {winners.count('first')} times the node that was started first is active, "
              f"{winners.count('second')} times the other", flush=True)

    def test_later(self):
        """A node that is alone serves alone; the other comes later, and becomes the passive one"""
        self.start_one(self.a)
        self.until_role(self.a, "active")
        epoch = self.report(self.a)["epoch"]
        self.initiator.machine.run("sleep 8")
        self.b.attach_disks()
        self.b.start()
        self.until_paired()
        self.assertEqual(self.order(), [self.a, self.b])
        self.assertEqual(self.report(self.a)["epoch"], epoch)
        self.keys_are(self.a)

    def test_stale(self):
        """A node that was dead, or stood still, while the other took over and started again joins as the passive one"""
        self.start_pair()
        for leave, come_back in ((lambda node: node.crash(), lambda node: node.target.resume()),
                                 (lambda node: node.freeze(), lambda node: node.freeze(False))):
            stale, other = self.order()
            epoch = self.report(stale)["epoch"]
            leave(stale)
            self.until_role(other, "active")
            other.crash()
            other.target.resume()
            self.until_role(other, "active")
            self.assertGreaterEqual(self.report(other)["epoch"], epoch + 2)
            come_back(stale)
            self.until_paired()
            self.assertEqual(self.order(), [other, stale])
            self.keys_are(other)
