"""One fault after another, as a seed has it, under verified load: of two nodes one always is well and has its disk.

`GATEWAYD_LAB_MINUTES` says how long (2 unless told), `GATEWAYD_LAB_SEED` repeats the faults of a former run.
"""

import os
import random
import time

from machines.places import wait_until
from machines.scene import verify_command
from test_takeover import TakeoverCase

SECONDS = float(os.environ.get("GATEWAYD_LAB_MINUTES", "2")) * 60
SEED = int(os.environ.get("GATEWAYD_LAB_SEED", str(time.time_ns() % 1_000_000)))


class Faults(TakeoverCase):
    def test_random(self):
        """Faults at random for minutes: no I/O error, no difference, one key on the disk, and a pair in the end"""
        self.start_pair()
        print(f"      seed {SEED}", flush=True)
        device, choices = self.attach(), random.Random(SEED)
        self.initiator.machine.background(
            "random", verify_command(device, seconds=int(SECONDS) + 20, depth=4, max=65536, read=50, seed=SEED + 1))
        self.begin = time.monotonic()
        faults = [self.kill, self.stand_still, self.lose_power, self.cut_links, self.cut_one_way, self.lose_disks,
                  self.delay_writes, self.switch_over]
        while time.monotonic() < self.begin + SECONDS:
            # One is well; the fault meets the other one, whatever that is just now.
            victim, witness = choices.sample(self.pair.nodes, 2)
            self.until_well(witness)
            seconds = choices.uniform(0.3, 12)
            fault = choices.choice(faults)
            print(f"      {time.monotonic() - self.begin:5.1f} s: {fault.__name__} {victim.machine.name} "
                  f"({self.role(victim)}) for {seconds:.1f} s", flush=True)
            fault(victim, seconds)
            time.sleep(choices.uniform(0, 5))
        for node in self.pair.nodes:
            self.until_well(node)
        self.until_paired()
        verified = self.assert_verified("random", int(SECONDS) + 240)
        active, _ = self.order()
        self.keys_are(active)
        self.assertGreater(verified["writes"], 10)
        print(f"      {verified['reads']} reads, {verified['writes']} writes, the longest {verified['longest']} ms; "
              f"epoch {self.report(active)['epoch']}", flush=True)

    def until_well(self, node):
        wait_until(lambda: self.role(node) in ("active", "passive"), 90,
                   f"{node.machine.name} is well: {self.report(node)}", step=0.2)

    # ---- Faults, each mended when it returns

    def kill(self, node, seconds):
        node.crash()
        time.sleep(seconds)
        node.target.resume()

    def stand_still(self, node, seconds):
        node.freeze()
        time.sleep(seconds)
        node.freeze(False)

    def lose_power(self, node, seconds):
        node.lose_power()
        time.sleep(seconds)
        node.boot()
        node.attach_disks()
        node.start()

    def cut_links(self, node, seconds):
        self.pair.cut_links()
        time.sleep(seconds)
        self.pair.mend()

    def cut_one_way(self, node, seconds):
        """The other does not hear the node."""
        other, = (each for each in self.pair.nodes if each is not node)
        for network in self.pair.networks:
            network.cut(node.machine, other.machine, both=False)
        time.sleep(seconds)
        self.pair.mend()

    def lose_disks(self, node, seconds):
        node.lose_disks(self.pair.storage)
        time.sleep(seconds)
        self.pair.mend()

    def delay_writes(self, node, seconds):
        node.delay_writes(self.pair.storage)
        time.sleep(seconds)
        self.pair.mend()

    def switch_over(self, node, seconds):
        """It may be refused: the other may not be ready yet."""
        node.target.command("switchover")
        time.sleep(seconds)
