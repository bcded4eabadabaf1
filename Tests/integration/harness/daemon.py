"""Starts and stops gatewayd for a test."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from . import process
from .targets import NAME, Target


def binary():
    """The daemon under test: $GATEWAYD, or the release build."""
    return Path(os.environ.get("GATEWAYD", process.REPOSITORY / ".build/release/gatewayd"))


class Gateway(Target):
    """One gatewayd on a port of its own. Its state, log and control socket are in a directory that goes with it."""

    kind = "gatewayd"
    note = "memory disk"

    def __init__(self, disks=("memory:64M",), arguments=(), settings=None, discovery=False, cpu=None, start=True,
                 address="127.0.0.1"):
        self._directory = tempfile.TemporaryDirectory(prefix="gatewayd-test-")
        self.directory = Path(self._directory.name)
        self.address, self.port, self.name = address, process.free_port(address), NAME
        self.disks, self.arguments, self.discovery, self.cpu = list(disks), list(arguments), discovery, cpu
        self.control = self.directory / "control.sock"
        self.log_path = self.directory / "log"
        self.settings_path = None
        if settings is not None:
            self.settings_path = self.directory / "gatewayd.toml"
            self.settings_path.touch(mode=0o600)  # it may hold secrets
            self.settings_path.write_text(settings)
        self.process = None
        if start:
            try:
                self.start()
            except BaseException:
                self.stop()
                raise

    def command(self):
        host = f"[{self.address}]" if ":" in self.address else self.address
        line = ["taskset", "-c", str(self.cpu)] if self.cpu is not None else []
        line += [str(binary()), "run", "--listen", f"{host}:{self.port}", "--state", str(self.directory / "state"),
                 "--control", str(self.control), "--target", self.name]
        if not self.discovery:
            line.append("--no-discovery")
        if self.settings_path:
            line += ["--settings", str(self.settings_path)]
        for disk in self.disks:
            line += ["--disk", str(disk)]
        return line + [str(a) for a in self.arguments]

    def spawn(self, prefix=()):
        """Starts the process without waiting for it to be ready."""
        with open(self.log_path, "ab") as log:
            command = [*prefix, *self.command()]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = self.process.pid

    def start(self, seconds=10):
        """Starts it and waits until it accepts connections. Returns the seconds that took."""
        begin = time.monotonic()
        self.spawn()
        process.wait_until(lambda: self._is_up(), seconds, f"gatewayd listens\n{self.log}", step=0.002)
        taken = time.monotonic() - begin
        process.wait_until(lambda: self._is_asked(), seconds, f"gatewayd answers\n{self.log}", step=0.05)
        return taken

    def _is_up(self):
        if self.process.poll() is not None:
            raise AssertionError(f"gatewayd ended with {self.process.returncode}:\n{self.log}")
        # The control socket comes a moment after the first connection can: with a sanitizer a long one.
        return process.is_listening(self.address, self.port) and (process.SLOWNESS == 1 or self.control.exists())

    def _is_asked(self):
        # The control socket comes a moment after the portals.
        return subprocess.run([str(binary()), "status", "--control", str(self.control)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0

    @property
    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def terminate(self, seconds=5):
        """SIGTERM; the exit status, or TimedOut when it takes longer than `seconds`."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise process.TimedOut(f"gatewayd did not end within {seconds} s of SIGTERM:\n{self.log}") from None

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait(5)

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def ask(self, *arguments, check=True):
        """A command over the control socket (`status`, `disks`, `sessions`...)."""
        return process.run([binary(), *arguments, "--control", self.control], check=check)

    def ask_json(self, *arguments):
        return json.loads(self.ask(*arguments, "--json").stdout)

    def stop(self):
        if self.process is not None:
            process.stop(self.process)
        with contextlib.suppress(OSError):
            self._directory.cleanup()

    def __exit__(self, kind, *_):
        if kind is not None:
            print(f"--- gatewayd's log ---\n{self.log}---")
        self.stop()
