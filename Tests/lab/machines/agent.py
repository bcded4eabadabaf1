"""The host's end of the line to a machine: scripts go there, their status and output come back."""

import base64
import socket
import time

from .places import TimedOut, wait_until


class Failed(AssertionError):
    """A script in a machine ended with another status than 0."""


class Agent:
    def __init__(self, path, name):
        self.name = name
        self.number = 0
        self.received = b""
        self.socket = socket.socket(socket.AF_UNIX)
        wait_until(lambda: self._connect(path), 20, f"QEMU listens at {path}", step=0.02)

    def _connect(self, path):
        try:
            self.socket.connect(str(path))
            return True
        except OSError:
            return False

    def greeting(self, seconds):
        """Waits until the machine is up; seconds since its kernel started."""
        return float(self._answer(0, seconds)[1])

    def __call__(self, script, seconds=30):
        """Runs a shell script; (status, output). Status 137: it took longer than `seconds`."""
        self.number += 1
        encoded = base64.b64encode(script.encode()).decode()
        self.socket.sendall(f"{self.number} {seconds} {encoded}\n".encode())
        return self._answer(self.number, seconds + 15)

    def _answer(self, number, seconds):
        deadline = time.monotonic() + seconds
        while True:
            line, newline, rest = self.received.partition(b"\n")
            if newline:
                self.received = rest
                words = line.decode().split(" ")
                if int(words[0]) == number:
                    return int(words[1]), base64.b64decode(words[2]).decode(errors="replace")
                continue
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                data = self.socket.recv(1 << 16)
            except socket.timeout:
                raise TimedOut(f"{self.name} does not answer within {seconds} s") from None
            if not data:
                raise TimedOut(f"{self.name} has ended")
            self.received += data

    def close(self):
        self.socket.close()
