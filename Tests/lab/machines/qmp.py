"""QEMU's control protocol: disks that come and go, links that break, sizes that change."""

import json
import socket

from .places import wait_until


class QMPError(AssertionError):
    """QEMU refused a command."""


class QMP:
    def __init__(self, path, seconds=20):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(seconds)

        def connected():
            try:
                self.socket.connect(str(path))
                return True
            except OSError:
                return False

        wait_until(connected, seconds, f"QEMU listens at {path}", step=0.02)
        self.lines = self.socket.makefile("rw")
        self.lines.readline()
        self("qmp_capabilities")

    def __call__(self, command, **arguments):
        """The value that the command returns."""
        # Arguments are spelled with hyphens, but those of device_add are the devices' own properties.
        spelled = {key if command == "device_add" else key.replace("_", "-"): value for key, value in arguments.items()}
        request = {"execute": command, "arguments": spelled}
        self.lines.write(json.dumps(request) + "\n")
        self.lines.flush()
        while True:
            line = self.lines.readline()
            if not line:
                raise QMPError(f"QEMU ended in {command}")
            answer = json.loads(line)
            if "error" in answer:
                raise QMPError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def unplug(self, name, seconds, what):
        """Pulls a disk out that was plugged in under this name; waits until the machine lets go of it."""
        self("device_del", id=name)

        def gone():
            try:
                self("blockdev-del", node_name=f"node-{name}")
                return True
            except QMPError:
                return False

        wait_until(gone, seconds, what)

    def close(self):
        self.socket.close()
