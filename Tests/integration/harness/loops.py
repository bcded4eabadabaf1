"""Loop devices as stand-ins for disks that come and go."""

import os
import tempfile
from pathlib import Path

from . import process


def are_available():
    """Loop devices can be made here: root, and a kernel that has them."""
    return process.is_root() and os.path.exists("/dev/loop-control")


class LoopDisk:
    """A sparse file and, while attached, the loop device over it. `close()` leaves nothing behind."""

    def __init__(self, size=64 << 20, directory=None, attach=True):
        descriptor, name = tempfile.mkstemp(prefix="gatewayd-disk-", dir=directory)
        os.ftruncate(descriptor, size)
        os.close(descriptor)
        self.file = Path(name)
        self.device = None
        if attach:
            try:
                self.attach()
            except BaseException:
                self.close()
                raise

    def attach(self, device=None):
        """Attaches the file: to `device`, or to the first free one, whose path is returned.

        A device that was detached is free when its last holder has closed it.
        """
        command = ["losetup", "--direct-io=on", *([device] if device else ["--find", "--show"]), self.file]
        if device:
            process.wait_until(lambda: process.run(command, check=False).returncode == 0, 10, f"{device} is free")
        else:
            device = process.run(command).stdout.strip()
        self.device = device
        return self.device

    def detach(self):
        """Takes the device away, as pulling the disk would. The kernel finishes once the last holder has closed it."""
        if self.device is None:
            return
        device, self.device = self.device, None
        process.run(["losetup", "--detach", device], check=False)

    def is_gone(self, device):
        """Whether `device` is not bound to our file any more (somebody else may have taken it meanwhile)."""
        try:
            backing = Path(f"/sys/block/{Path(device).name}/loop/backing_file").read_text().rstrip("\n")
        except OSError:
            return True
        return backing != str(self.file)

    def grow(self, size):
        os.truncate(self.file, size)
        process.run(["losetup", "--set-capacity", self.device])

    def close(self):
        self.detach()
        self.file.unlink(missing_ok=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
