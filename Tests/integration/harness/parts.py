"""The daemon as its unit has it: a user without capabilities, and the two small parts that have some."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from . import daemon, process
from .daemon import Gateway

# Nobody's: a user of the tests alone.
USER = 64999
DISK_GROUP = 64998
CAPABILITIES = {"fence": "sys_rawio,sys_admin", "addresses": "net_admin,net_raw"}
# systemd's side of socket activation (sd_listen_fds(3)): descriptor 3, and the process that it is meant for.
ACTIVATE = ("import os, sys; os.dup2(int(sys.argv[1]), 3); "
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); os.execvp(sys.argv[2], sys.argv[2:])")


def without_privileges(user, groups=(), capabilities=None):
    """The words that run a command as this user with these capabilities and no way to more."""
    more = "".join(f",+{name}" for name in (capabilities or "").split(",") if name)
    return ["setpriv", "--reuid", str(user), "--regid", str(user),
            *(["--groups", ",".join(map(str, groups))] if groups else ["--clear-groups"]),
            f"--inh-caps=-all{more}", f"--ambient-caps=-all{more}", f"--bounding-set=-all{more}", "--no-new-privs"]


def activated(listener, command):
    """The words that run a command with a listening socket, which has to be passed (`pass_fds`)."""
    return [sys.executable, "-c", ACTIVATE, str(listener.fileno()), *map(str, command)]


class Room:
    """A directory that everybody may look into, with the program: a user of ours may not reach the build's."""

    def __init__(self):
        # Not in TMPDIR, which may be its owner's alone.
        self._directory = tempfile.TemporaryDirectory(prefix="gatewayd-units-", dir="/tmp")
        self.path = Path(self._directory.name)
        self.path.chmod(0o755)
        self.program = self.path / "gatewayd"
        shutil.copy(daemon.binary(), self.program)
        self.program.chmod(0o755)

    def close(self):
        self._directory.cleanup()


class Part:
    """One of the parts: its socket, as the unit makes it, and the process, started at once."""

    def __init__(self, room, name, prefix=()):
        self.path = room.path / f"{name}.sock"
        self.log_path = room.path / f"{name}.log"
        self.command = [*prefix, *without_privileges(USER + 1, capabilities=CAPABILITIES[name]),
                        room.program, "privileged", name, "--user", USER]
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(self.path))
        os.chown(self.path, 0, USER)
        self.path.chmod(0o660)
        self.listener.listen(16)
        self.process = None
        self.start()

    def start(self):
        with open(self.log_path, "ab") as log:
            command = activated(self.listener, self.command)
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            pass_fds=[self.listener.fileno()])

    def end(self):
        process.stop(self.process)

    @property
    def log(self):
        return self.log_path.read_text(errors="replace")

    def connect(self):
        """A connection that was greeted."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(10 * process.SLOWNESS)
        connection.connect(str(self.path))
        return connection, connection.recv(64)

    def close(self):
        self.end()
        self.listener.close()
        self.path.unlink(missing_ok=True)


class UnprivilegedGateway(Gateway):
    """A gateway that has the rights of its unit; `prefix` goes before everything, such as what enters a namespace."""

    def __init__(self, room, disks, prefix=(), **options):
        self.room, self.prefix = room, list(prefix)
        super().__init__(disks=disks, start=False, **options)
        self.directory = Path(tempfile.mkdtemp(dir=room.path))
        self.control = self.directory / "control.sock"
        os.chown(self.directory, USER, USER)
        if self.settings_path is not None:
            self.settings_path = Path(shutil.move(self.settings_path, self.directory))
            os.chown(self.settings_path, USER, USER)
        try:
            self.start(30)
        except BaseException:
            self.stop()
            raise

    def command(self):
        return [*self.prefix, *without_privileges(USER, [DISK_GROUP]), "env", f"GATEWAYD_PARTS={self.room.path}",
                str(self.room.program), *super().command()[1:]]

    def _is_up(self):
        # In another network namespace nobody reaches its portal.
        if self.prefix and self.process.poll() is None:
            return self.control.exists()
        return super()._is_up()

    def status(self):
        """Lines of /proc/PID/status, by name."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return dict(line.split(":\t", 1) for line in text.splitlines())


def lend(device):
    """Gives a block device to the group of the daemon, as udev gives disks to 'disk'; what undoes it."""
    former = os.stat(device)
    os.chown(device, 0, DISK_GROUP)
    os.chmod(device, 0o660)

    def undo():
        os.chown(device, former.st_uid, former.st_gid)
        os.chmod(device, former.st_mode & 0o7777)
    return undo
