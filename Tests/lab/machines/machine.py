"""One emulated machine: Debian's kernel, our image, a card on the lab's switch, disks of virtio and of SCSI."""

import array
import os
import shlex
import time
from pathlib import Path

from . import clock
from .agent import Agent, Failed
from .image import tool
from .places import TimedOut, start, wait_until
from .qmp import QMP

KERNEL_LINE = (
    "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nokaslr tsc=reliable no_timer_check random.trust_cpu=on "
    "net.ifnames=0 raid=noautodetect")
BOOT_SECONDS = 240
KERNEL_PLACE = 0x1000000


class Machine:
    """Boots at once; `ready()` waits for it. Everything about it lies in the lab's directory of this run."""

    def __init__(self, lab, name, number, networks, megabytes=512, udev=False, counted=False, watchdog=False,
                 root=None):
        """`counted`: its clock counts instructions, so that what it measures repeats, whatever else is going on.

        `watchdog`: it has one; a machine that its watchdog resets is off. `root`: the image of a disk with a system of
        its own, which starts `lab-agent`.
        """
        self.lab, self.name, self.number, self.networks = lab, name, number, networks
        self.address = networks[0].address(self)
        self.console = lab.logs / f"{name}.log"
        self.console.unlink(missing_ok=True)
        # Name: the file that is the disk. A disk that was pulled out keeps it.
        self.disks = {}
        self.plugged = set()
        # Name: the address of a card that was plugged in.
        self.cards = {}
        # In a counted machine: where the instructions of programs in user mode are counted.
        self.counter = lab.directory / f"{name}.counter"
        self.command = self._command(megabytes, udev, counted, root)
        if watchdog:
            self.command += ["-device", "i6300esb", "-action", "watchdog=reset"]
        self._boot()

    def _boot(self):
        self.begin = time.monotonic()
        self.process = start(self.command, self.lab.logs / f"{self.name}.qemu.log")
        self.qmp = QMP(self._socket("qmp"))
        self.agent = Agent(self._socket("agent"), self.name)

    def _socket(self, kind):
        return self.lab.directory / f"{self.name}.{kind}"

    def _command(self, megabytes, udev, counted, root):
        # A counted machine makes a nanosecond of each instruction. Each step of a string instruction counts as one, and
        # a copy by bytes would seem to cost eight times what it does: so it copies by words.
        accelerator = (["-accel", "tcg,thread=single,tb-size=256", "-icount", "shift=0,sleep=off",
                        "-plugin", f"{tool('count', ['-shared', '-fPIC'])},table={self.counter}"] if counted
                       else ["-accel", "tcg,thread=multi,tb-size=256"])
        processor = "max,erms=off,fsrm=off" if counted else "max"
        # Where there can be only one processor QEMU leaves the guest's memory barriers out, though its own devices run
        # beside it: a virtio queue loses a notification under load, and stands still for ever; with merged buffers
        # within seconds.
        processors, merging = ("1", "off") if counted else ("1,maxcpus=2", "on")
        frequency = 1_000_000 if counted else clock.tsc_khz()
        line = (f"{KERNEL_LINE} tsc_early_khz={frequency} lab.name={self.name} "
                f"lab.addresses={','.join(network.address(self) for network in self.networks)} "
                f"lab.udev={int(udev)} lab.root={int(root is not None)}{' norandmaps' if counted else ''}")
        cards = [word for place, network in enumerate(self.networks) for word in (
            "-netdev", f"stream,id=n{place},server=off,addr.type=unix,addr.path={network.wire}",
            "-device", f"virtio-net-pci,id=nic{place},netdev=n{place},mac={network.hardware(self)},host_mtu=9000,"
                       f"mrg_rxbuf={merging},rx_queue_size=1024")]
        disk = [] if root is None else [
            "-drive", f"if=none,id=root,format=raw,cache=unsafe,file={root}",
            "-device", "virtio-blk-pci,drive=root,serial=lab-root"]
        return [
            "qemu-system-x86_64", "-name", f"lab-{self.name}", "-nodefaults", "-no-user-config", "-no-reboot",
            "-machine", "pc,usb=off,vmport=off", *accelerator, "-cpu", processor,
            "-m", str(megabytes), "-smp", processors, "-display", "none", "-vga", "none",
            "-bios", "/usr/share/qemu/qboot.rom",
            "-kernel", self.lab.kernel.image, "-initrd", self.lab.image, "-append", line,
            "-chardev", f"file,id=console,append=on,path={self.console}", "-serial", "chardev:console",
            "-qmp", f"unix:{self._socket('qmp')},server=on,wait=off",
            "-chardev", f"socket,id=agent,path={self._socket('agent')},server=on,wait=off",
            "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=lab",
            "-object", "rng-builtin,id=r0", "-device", "virtio-rng-pci,rng=r0",
            "-device", "virtio-scsi-pci,id=scsi0",
            *cards, *disk,
        ]

    def ready(self):
        """Waits for the boot; the seconds that it took."""
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            try:
                self.agent.greeting(5)
                return time.monotonic() - self.begin
            except TimedOut as late:
                if time.monotonic() > deadline:
                    raise TimedOut(f"{late}; its console: {self.console}") from None
            if self._has_lost_its_kernel():
                print(f"lab: {self.name} found no kernel, and is booted again", flush=True)
                self.close()
                self._boot()

    def _has_lost_its_kernel(self):
        """One boot in some forty runs through zeroes where the kernel should be: without page tables, and for ever."""
        for _ in range(2):
            registers = self.qmp("human-monitor-command", command_line="info registers").split()
            places = [int(word[4:], 16) for word in registers if word.startswith("EIP=")]
            if "CR3=00000000" not in registers or not places or places[0] < KERNEL_PLACE:
                return False
            time.sleep(1)
        return True

    def power_cut(self):
        """Takes the power away and gives it back: nobody is told, and it boots again. The seconds that it took.

        What was plugged into it is gone. (Not QEMU's system_reset: after it most machines find no kernel.)
        """
        self.power_off()
        return self.power_on()

    def power_off(self):
        """Takes the power away: nobody is told. What was plugged into it is gone."""
        self.close()
        self.plugged.clear()
        self.cards.clear()

    def power_on(self, waits=True):
        """Boots it again; the seconds that it took, if it is waited for."""
        self._boot()
        return self.ready() if waits else None

    def halt(self, is_halted=True):
        """Stops its processor, or lets it go on: it answers nobody, not even with a refusal."""
        self.qmp("stop" if is_halted else "cont")

    # ---- What runs in it

    def run(self, script, seconds=30):
        """Runs a shell script that must end well; its output."""
        status, output = self.agent(script, seconds)
        if status != 0:
            raise Failed(f"{self.name}: status {status} of: {script}\n{output}")
        return output.strip()

    def attempt(self, script, seconds=30):
        """Runs a shell script that may fail: (status, output)."""
        status, output = self.agent(script, seconds)
        return status, output.strip()

    def until(self, script, seconds, what):
        """Repeats a script in the machine until it ends well; its output."""
        last = []

        def done():
            last[:] = self.attempt(script, 20)
            return last[0] == 0

        try:
            wait_until(done, seconds, what, step=0.3)
        except TimedOut as late:
            raise TimedOut(f"{self.name}: {late}; last: {last}") from None
        return last[1]

    def background(self, name, command):
        """Starts a command; `finish(name)` waits for its end."""
        inner = f"{command} >/run/lab/{name}.out 2>&1; echo $? >/run/lab/{name}.status"
        self.run(f"rm -f /run/lab/{name}.status; setsid sh -c {shlex.quote(inner)} >/dev/null 2>&1 &")

    def finish(self, name, seconds):
        """Waits for the end of a command in the background: (status, output)."""
        self.until(f"test -e /run/lab/{name}.status", seconds, f"{name} ends")
        return int(self.run(f"cat /run/lab/{name}.status")), self.run(f"cat /run/lab/{name}.out")

    def user_instructions(self):
        """What programs ran in user mode in a counted machine while it counted (tools/count.c): {address: count}."""
        words = array.array("Q", self.counter.read_bytes())
        return {address: count for address, count in zip(words[::2], words[1::2]) if count}

    # ---- Its cards

    def add_rxe(self, name="rxe0", card="eth0"):
        """Soft-RoCE on a card. The address comes first: the GIDs are made of it."""
        self.run("modprobe -a rdma_rxe ib_uverbs rdma_ucm rdma_cm && "
                 f"rdma link add {name} type rxe netdev {card}", 60)
        self.until(f"ls /dev/infiniband/uverbs* && grep -q ffff: /sys/class/infiniband/{name}/ports/1/gids/*", 20,
                   f"{name} has its GIDs")

    def remove_rxe(self, name=None, seconds=30):
        """Takes soft-RoCE away, all there is unless told which. It waits for who has it open."""
        names = name or "$(ls /sys/class/infiniband 2>/dev/null)"
        self.run(f"for name in {names}; do rdma link delete $name || exit 1; done", seconds)

    def plug_card(self, name):
        """Plugs a card in, and gives it an address on a network of its own: the interface and the address."""
        number = len(self.networks) + len(self.cards)
        self.qmp("netdev_add", type="stream", id=f"net-{name}", server=False,
                 addr={"type": "unix", "path": str(self.lab.wire)})
        before = set(self.run("ls /sys/class/net").split())
        self.qmp("device_add", driver="virtio-net-pci", id=name, netdev=f"net-{name}", host_mtu=9000,
                 mac=f"52:54:00:77:{number:02x}:{self.number:02x}", rx_queue_size=1024)
        self.cards[name] = address = f"10.77.{number}.{self.number}"
        found = wait_until(lambda: set(self.run("ls /sys/class/net").split()) - before, 20, f"{name} is an interface")
        interface = found.pop()
        # All cards are on one switch: each answers for its own address only, or RoCE's packets come to the wrong one.
        self.run("cd /proc/sys/net/ipv4/conf/all && echo 1 >arp_ignore && echo 2 >arp_announce && "
                 f"ip link set {interface} up && ip address add {address}/24 dev {interface}")
        return interface, address

    def unplug_card(self, name, seconds=20):
        """Pulls a card out, as it is."""
        self.qmp("device_del", id=name)
        wait_until(lambda: not self._has_device(name), seconds, f"{self.name} lets go of {name}")
        self.qmp("netdev_del", id=f"net-{name}")
        del self.cards[name]

    def _has_device(self, name):
        devices = self.qmp("qom-list", path="/machine/peripheral")
        return any(device["name"] == name for device in devices)

    # ---- Its disks

    def plug(self, name, kind="blk", megabytes=64, wwn=None, content=None):
        """Plugs a disk in: kind `blk` (virtio-blk) or `scsi` (virtio-scsi; `wwn`: its NAA name as a number)."""
        path = self.disks.get(name) or self.lab.directory / f"{self.name}.{name}.raw"
        if not Path(path).exists():
            with open(path, "wb") as file:
                file.truncate(megabytes << 20)
                if content is not None:
                    file.write(content)
        self.disks[name] = path
        file = {"driver": "file", "filename": str(path), "discard": "unmap"}
        self.qmp("blockdev-add", driver="raw", node_name=f"node-{name}", discard="unmap", file=file)
        if kind == "blk":
            device = {"driver": "virtio-blk-pci"}
        else:
            device = {"driver": "scsi-hd", "bus": "scsi0.0", "vendor": "LAB", "product": "DISK"}
            if wwn is not None:
                device["wwn"] = wwn
        self.qmp("device_add", id=name, drive=f"node-{name}", serial=name, **device)
        self.plugged.add(name)

    def device(self, name, seconds=20):
        """The node that udev has linked to the disk with this serial number, with its links settled."""
        links = f"/dev/disk/by-id/virtio-{name} /dev/disk/by-id/scsi-0LAB_DISK_{name}"
        return self.until(f"for link in {links}; do [ -e $link ] && readlink -f $link && exit 0; done; exit 1", seconds,
                          f"udev knows {name}")

    def unplug(self, name, seconds=20):
        """Pulls a disk out; its content stays for the next `plug`."""
        self.qmp.unplug(name, seconds, f"{self.name} lets go of {name}")
        self.plugged.discard(name)

    def remove(self, name):
        """Pulls a disk out, if it is in, and forgets it."""
        if name in self.plugged:
            self.unplug(name)
        Path(self.disks.pop(name)).unlink()

    def resize(self, name, megabytes):
        self.qmp("block_resize", node_name=f"node-{name}", size=megabytes << 20)

    def allocated(self, name):
        """How many bytes the disk takes on this machine."""
        return os.stat(self.disks[name]).st_blocks * 512

    def link(self, is_up, network=None):
        """The cable of a card, pulled or put back; the machine sees it."""
        place = self.networks.index(network) if network is not None else 0
        self.qmp("set_link", name=f"nic{place}", up=is_up)

    def close(self):
        self.agent.close()
        self.qmp.close()
        self.process.kill()
        self.process.wait(20)
