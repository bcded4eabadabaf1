"""A network of a lab: its switch, and what goes wrong with its wires."""

import socket

from .image import tool
from .places import start, wait_until


class Network:
    """Machine number N has the address 10.77.NUMBER.N in it."""

    def __init__(self, lab, name, number):
        self.name, self.number = name, number
        self.wire = lab.directory / name
        self.hub = start([tool("hub"), self.wire], lab.logs / f"hub-{name}.log")
        wait_until(self.wire.exists, 10, f"the switch {name} is there", step=0.01)
        # The kernel gives it a name, for the answers.
        self.orders = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.orders.bind("")
        self.orders.settimeout(10)
        self.rules = set()

    def address(self, machine):
        return f"10.77.{self.number}.{machine.number}"

    def hardware(self, machine):
        """The Ethernet address of a machine's card in this network."""
        return f"52:54:00:77:{self.number:02x}:{machine.number:02x}"

    def cut(self, one=None, other=None, both=True):
        """No frame goes from one machine to another (None: to or from any), nor back unless told; nobody is told."""
        self._rule("cut", one, other, both)

    def hold(self, one=None, other=None, both=False):
        """Frames from one to the other wait in the switch until `mend`: they arrive late, and in order."""
        self._rule("hold", one, other, both)

    def let_go(self, one, other):
        """What `hold` keeps from one to the other arrives, and what comes after it."""
        rule = f"{self.hardware(one)} {self.hardware(other)}"
        self._order(f"mend {rule}")
        self.rules.discard(rule)

    def mend(self):
        """Everything works again; what waited arrives."""
        for rule in sorted(self.rules):
            self._order(f"mend {rule}")
        self.rules.clear()

    def _rule(self, verb, one, other, both):
        ends = ["any" if end is None else self.hardware(end) for end in (one, other)]
        for pair in (ends, ends[::-1]) if both else (ends,):
            rule = " ".join(pair)
            if rule not in self.rules:
                self._order(f"{verb} {rule}")
                self.rules.add(rule)

    def _order(self, order):
        self.orders.sendto(order.encode(), str(self.wire) + ".orders")
        answer = self.orders.recv(16)
        if answer != b"ok":
            raise AssertionError(f"the switch {self.name} does not understand: {order}")

    def close(self):
        self.orders.close()
        self.hub.kill()
        self.hub.wait(10)
