"""A lab: a switch and the machines on it. It ends with its scene, whatever happens; the logs stay."""

import shutil
import tempfile
from pathlib import Path

from . import image
from .kernel import Kernel
from .machine import Machine
from .places import LOGS, start, wait_until


class Lab:
    def __init__(self, name, programs=(), modules=()):
        self.logs = LOGS / name
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir(parents=True)
        self.kernel = Kernel.prepare()
        self.image = image.build(self.kernel, programs, modules)
        # Sockets have short names: not below a checkout that may lie deep.
        self.directory = Path(tempfile.mkdtemp(prefix="gatewayd-lab."))
        self.wire = self.directory / "wire"
        self.machines = []
        self.hub = start([image.tool("hub"), self.wire], self.logs / "hub.log")
        wait_until(self.wire.exists, 10, "the switch is there", step=0.01)

    def machine(self, name, **options):
        machine = Machine(self, name, number=len(self.machines) + 1, **options)
        self.machines.append(machine)
        return machine

    def close(self):
        for machine in self.machines:
            machine.close()
        self.hub.kill()
        self.hub.wait(10)
        shutil.rmtree(self.directory, ignore_errors=True)
