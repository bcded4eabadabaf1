"""A lab: switches and the machines on them. It ends with its scene, whatever happens; the logs stay."""

import shutil
import tempfile
from pathlib import Path

from . import image
from .kernel import Kernel
from .machine import Machine
from .network import Network
from .places import LOGS


class Lab:
    def __init__(self, name, programs=(), modules=()):
        self.logs = LOGS / name
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir(parents=True)
        self.kernel = Kernel.prepare()
        self.image = image.build(self.kernel, programs, modules)
        # Sockets have short names: not below a checkout that may lie deep.
        self.directory = Path(tempfile.mkdtemp(prefix="gatewayd-lab."))
        self.machines = []
        self.networks = []
        # Where machines are unless told otherwise.
        self.wire = self.network("wire").wire

    def network(self, name):
        """Another switch: no frame goes from one to another."""
        network = Network(self, name, number=len(self.networks))
        self.networks.append(network)
        return network

    def machine(self, name, networks=None, **options):
        """`networks`: a card on each; the first is the one that its address belongs to."""
        machine = Machine(self, name, number=len(self.machines) + 1, networks=networks or self.networks[:1], **options)
        self.machines.append(machine)
        return machine

    def close(self):
        for machine in self.machines:
            machine.close()
        for network in self.networks:
            network.close()
        shutil.rmtree(self.directory, ignore_errors=True)
