"""A machine with UEFI that boots the image, watched over its serial console: markers are polled for, with a bound."""

import base64
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path.append(str(REPOSITORY / "Tests" / "lab"))

from machines.places import TimedOut, run, start, wait_until  # noqa: E402
from machines.qmp import QMP  # noqa: E402

IMAGES = REPOSITORY / ".build" / "image"
WORK = REPOSITORY / ".build" / "image-tests"
LOGS = REPOSITORY / ".build" / "logs" / "image"
FIRMWARE = Path("/usr/share/OVMF")
# Emulated, on a machine that may have other work: a start takes 40 s at best.
BOOT_SECONDS = 240 * float(os.environ.get("GATEWAYD_SLOWNESS", "1"))
PAGE = "\x1b[H\x1b[2J"
# As long as console=ttyS0 is the last on the kernel's command line: a panic is told there.
PANIC = "Kernel panic - not syncing"
# On a busy host the kernel may measure the emulated clocks so wrongly that its timer never comes again.
STALLED = "rcu: INFO: rcu_preempt detected stalls"


def latest():
    """The image that was built last: the path of its files without the suffix."""
    return Path(os.path.realpath(IMAGES / "latest.raw")).with_suffix("")


def suffixed(base, suffix):
    return base.with_name(base.name + suffix)


def login_key():
    """A key for logins by SSH: made once."""
    path = WORK / "login-key"
    if not path.exists():
        WORK.mkdir(parents=True, exist_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path])
    return path


def another_version(version, cmdline=""):
    """The image that was built, under another version and with more on its command line: a signed .efi."""
    base, target = latest(), WORK / f"gatewayd-{version}.efi"
    WORK.mkdir(parents=True, exist_ok=True)
    scratch = WORK / f"version-{version}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    release = (f"ID=gatewayd\nNAME=gatewayd\nPRETTY_NAME=\"gatewayd {version}\"\nVERSION_ID={version}\n"
               f"IMAGE_ID=gatewayd\nIMAGE_VERSION={version}\n")
    (scratch / "os-release").write_text(release)
    # The kernel unpacks one archive after the other; what comes later replaces.
    archive = subprocess.run(["cpio", "--create", "--format=newc", "--quiet"], input=b"os-release\n", cwd=scratch,
                             capture_output=True, timeout=30, check=True).stdout
    (scratch / "initrd").write_bytes(suffixed(base, ".initrd").read_bytes() + archive)
    (scratch / "cmdline").write_text(f"{suffixed(base, '.cmdline').read_text()} {cmdline}".strip())
    run([REPOSITORY / "image" / "uki", IMAGES / "stub", scratch / "os-release", scratch / "cmdline",
         suffixed(base, ".vmlinuz"), scratch / "initrd", target])
    sign(target)
    shutil.rmtree(scratch)
    return target


def sign(path):
    run(["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", IMAGES / "signing-key.pem", "-in", path,
         "-out", f"{path}.sig"])


def free_ports(count):
    """So many TCP ports that nothing listens on, each another."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class Appliance:
    """Its system disk is a copy of the image that grows as it is written; `flash()` makes it anew."""

    def __init__(self, name, megabytes=1024, number=1):
        """`number`: of two that run at once each has its own."""
        self.name, self.megabytes, self.number = name, megabytes, number
        self.directory = WORK / name
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        LOGS.mkdir(parents=True, exist_ok=True)
        self.console = LOGS / f"{name}.log"
        self.console.unlink(missing_ok=True)
        self.portal, self.login = free_ports(2)
        self.credentials = {"gatewayd.authorized_keys": login_key().with_suffix(".pub").read_text()}
        # What else QEMU is to give it.
        self.devices = []
        # Else it has no disk with the image, and starts from the network.
        self.has_system = True
        self.process = self.qmp = None
        # The status that QEMU ended with by itself.
        self.fault = 0
        # Who starts and ends QEMU: we, or the thread that starts it again.
        self.lock = threading.Lock()
        # Names of disks: as it was powered on, and what was plugged in since.
        self.drives, self.plugged = (), {}
        self.mark = self.begin = 0
        shutil.copy(FIRMWARE / "OVMF_VARS_4M.fd", self.directory / "vars")
        self.flash("system")

    # ---- Its disks

    def path(self, name):
        return self.directory / f"{name}.disk"

    def flash(self, name, megabytes=3072):
        """A disk with the image on it, and empty beyond."""
        run(["cp", "--sparse=always", suffixed(latest(), ".raw"), self.path(name)])
        os.truncate(self.path(name), megabytes << 20)
        return name

    def blank(self, name, megabytes=64):
        with open(self.path(name), "wb") as file:
            file.truncate(megabytes << 20)
        return name

    def put_on_esp(self, name, text):
        """A file into the ESP's directory `gatewayd`, as an operator does it before the first start."""
        (self.directory / "file").write_text(text)
        run(["mcopy", "-o", "-i", f"{self.path('system')}@@1M", self.directory / "file", f"::gatewayd/{name}"])

    def put_version(self, path):
        """A version onto the ESP beside the one that was flashed: the next start takes the newer."""
        run(["mcopy", "-i", f"{self.path('system')}@@1M", path, "::EFI/Linux/"])

    def _drive(self, name, index=None):
        device = f"virtio-blk-pci,drive=node-{name},id={name},serial={name}"
        return ["-blockdev", f"driver=raw,node-name=node-{name},discard=unmap,file.driver=file,file.filename="
                f"{self.path(name)},file.discard=unmap",
                "-device", device + (f",bootindex={index}" if index is not None else "")]

    def plug(self, name):
        self.plugged[name] = True
        self._plug(name)

    def _plug(self, name):
        self.qmp("blockdev-add", driver="raw", node_name=f"node-{name}",
                 file={"driver": "file", "filename": str(self.path(name))})
        self.qmp("device_add", id=name, driver="virtio-blk-pci", drive=f"node-{name}", serial=name, bus="port0")

    def unplug(self, name):
        self.qmp.unplug(name, 60, f"{name} is let go of")
        del self.plugged[name]

    # ---- Its power

    def power_on(self, *disks):
        """Boots from the disk `system`, with these disks beside it."""
        self.drives, self.plugged, self.fault = disks, {}, 0
        self._start()
        self.mark = self.begin
        threading.Thread(target=self._keep_on, args=(self.process,), daemon=True).start()

    def _keep_on(self, process):
        """Where the machine resets itself QEMU is started anew: beside what it has translated a boot lasts minutes."""
        while True:
            status = process.wait()
            with self.lock:
                if self.process is not process:
                    return
                if status != 0:
                    self.fault = status
                    return
                self.qmp.close()
                self._start()
                for name in self.plugged:
                    self._plug(name)
                process = self.process

    def _start(self):
        credentials = [word for name, text in self.credentials.items() for word in (
            "-smbios", "type=11,value=io.systemd.credential.binary:"
            f"{name}={base64.b64encode(text.encode()).decode()}")]
        drives = self._drive("system", 0) if self.has_system else []
        drives += [word for name in self.drives for word in self._drive(name)]
        # Where on its console this start begins.
        self.begin = self.console.stat().st_size if self.console.exists() else 0
        control = self.directory / "qmp"
        control.unlink(missing_ok=True)
        self.process = start([
            "qemu-system-x86_64", "-name", f"image-{self.name}", "-nodefaults", "-no-user-config", "-no-reboot",
            "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", self.megabytes,
            "-display", "none",
            "-chardev", f"file,id=console,append=on,path={self.console}", "-serial", "chardev:console",
            "-drive", f"if=pflash,format=raw,readonly=on,file={FIRMWARE}/OVMF_CODE_4M.fd",
            "-drive", f"if=pflash,format=raw,file={self.directory}/vars",
            "-qmp", f"unix:{control},server=on,wait=off", *drives, *credentials, *self.devices,
            "-uuid", f"5d1d2f5e-0a43-4c6c-9d8c-1e6f3a1b2c{self.number:02x}",
            "-device", "pcie-root-port,id=port0,chassis=1",
            "-netdev", f"user,id=net0,hostfwd=tcp:127.0.0.1:{self.portal}-:3260,"
                       f"hostfwd=tcp:127.0.0.1:{self.login}-:22",
            "-device", f"virtio-net-pci,netdev=net0,mac=52:54:00:99:00:{self.number:02x}", "-device", "virtio-rng-pci",
        ], LOGS / f"{self.name}.qemu.log")
        self.qmp = QMP(control)

    def power_off(self):
        with self.lock:
            process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait(20)
            self.qmp.close()

    # ---- What it shows

    def shown(self):
        """What came over the serial line since the mark."""
        return self._said_since(self.mark)

    def _said_since(self, place):
        with open(self.console, "rb") as file:
            file.seek(place)
            return file.read().decode(errors="replace")

    def page(self):
        """The page that is shown last; empty before the first."""
        pages = self.shown().split(PAGE)
        return pages[-1].replace("\r", "") if len(pages) > 1 else ""

    def until(self, pattern, seconds=BOOT_SECONDS, what=None):
        """Waits until the last page matches; the match."""
        return self._wait(lambda: re.search(pattern, self.page(), re.MULTILINE), seconds, what or pattern)

    def until_shown(self, text, seconds=BOOT_SECONDS):
        """Waits until the text came over the serial line, since the mark."""
        return self._wait(lambda: text in self.shown(), seconds, text)

    def _wait(self, condition, seconds, what):
        def step():
            if self.fault:
                raise TimedOut(f"QEMU has ended with {self.fault}; {LOGS}/{self.name}.qemu.log")
            self._start_again_if_stalled()
            return condition()

        try:
            return wait_until(step, seconds, f"'{what}' on {self.console}", step=0.5)
        except TimedOut as late:
            raise TimedOut(f"{late}; the last page:\n{self.page()}") from None

    def _start_again_if_stalled(self):
        """A start whose clock stands still, before anything of the system ran, is done once more."""
        begin = self.begin
        said = self._said_since(begin)
        if STALLED not in said or PAGE in said:
            return
        print(f"{self.name}: its clock stands still: started once more", flush=True)
        self.qmp("quit")
        wait_until(lambda: self.begin != begin, 60, "QEMU is started anew", step=0.1)

    def forget(self):
        """What was shown until now is not looked at any more."""
        self.mark = self.console.stat().st_size

    # ---- What is done in it

    def attempt(self, script, seconds=120):
        """Runs a script by SSH: (status, output)."""
        result = subprocess.run(
            ["ssh", "-i", login_key(), "-p", str(self.login), "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR",
             "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=60", "-o", "BatchMode=yes",
             "-o", "ServerAliveInterval=20", "-T", "root@127.0.0.1", script],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)
        return result.returncode, (result.stdout + result.stderr).strip()

    def run(self, script, seconds=120):
        """Runs a script that must end well; its output."""
        status, output = self.attempt(script, seconds)
        if status != 0:
            raise AssertionError(f"status {status} of: {script}\n{output}")
        return output

    def can_log_in(self, seconds=BOOT_SECONDS):
        wait_until(lambda: self.attempt("true")[0] == 0, seconds, "a login by SSH", step=2)

    def restart(self, command="systemctl --no-block reboot"):
        self.forget()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.attempt(command)

    def target(self):
        return re.search(r"^Target +(\S+)", self.page(), re.MULTILINE).group(1)

    def url(self, lun):
        return f"iscsi://127.0.0.1:{self.portal}/{self.target()}/{lun}"


def initiate(*commands, url, seconds=120):
    """qemu-io's commands on a LUN, over libiscsi."""
    words = [word for command in commands for word in ("-c", command)]
    return run(["qemu-io", "-f", "raw", *words, url], seconds)


class ApplianceCase(unittest.TestCase):
    """Tests of one machine, in the order of their names: each goes on where the one before ended."""

    goes_on = True

    @classmethod
    def setUpClass(cls):
        cls.machine = Appliance(cls.__name__)
        cls.addClassCleanup(cls.machine.power_off)
