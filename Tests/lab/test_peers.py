"""How the gateway compares with tgt and LIO over the same soft-RoCE, measured in guest instructions.

Not tests of right or wrong: they print tables. One machine is target and initiator; its clock counts instructions, so
a rate is a length of path (the initiator's, soft-RoCE's and the target's) and repeats, whatever else is going on.
Run by name: ./dev lab Comparison, and ./dev lab Breakdown for whose share of the path is how large.
GATEWAYD_LAB_ROUNDS=5 alternates so often.
"""

import contextlib
import os
import re
import statistics
import unittest

from machines.initiator import Initiator
from machines.lab import Lab
from machines.target import NAME, Target

ROUNDS = int(os.environ.get("GATEWAYD_LAB_ROUNDS", "2"))
POINTS = {
    "4k read d1": "bytes=4096 depth=1", "4k write d1": "bytes=4096 depth=1 write=1",
    "4k read d16": "bytes=4096 depth=16", "4k write d16": "bytes=4096 depth=16 write=1",
    "4k read d32": "bytes=4096 depth=32", "4k write d32": "bytes=4096 depth=32 write=1",
    "128k read d4": "bytes=131072 depth=4 sequential=1 count=300",
    "128k write d4": "bytes=131072 depth=4 sequential=1 count=300 write=1",
}
TGT = "iqn.2026-01.example.lab:tgt"
LIO = "iqn.2026-01.example.lab:lio"
LIO_ROOT = "/sys/kernel/config/target"


# Adds up samples with their call chains: what runs below soft-RoCE's functions is soft-RoCE's, whoever it runs for, the
# rest its process's.
SHARES = r"""
function add() { if (who != "") { count[who]++; total++ } }
/^[^ \t]/ {
  add(); who = "initiator"
  if ($0 ~ /^(shard|gatewayd|tgtd)/) who = "target"
  if ($0 ~ /^swapper/) who = "idle"
  next
}
/rxe_|_rxe|net_rx_action/ { if (who != "") who = "soft-RoCE" }
END { add(); for (who in count) printf "%s %.2f\n", who, 100 * count[who] / total }
"""


class Peers(unittest.TestCase):
    """A machine with the three targets, one at a time."""

    name = "peers"
    programs = ["tgtd", "tgtadm"]
    modules = ["ib_isert", "iscsi_target_mod", "target_core_mod"]

    @classmethod
    def setUpClass(cls):
        cls.lab = Lab(cls.name, programs=cls.programs, modules=cls.modules)
        cls.addClassCleanup(cls.lab.close)
        cls.machine = cls.lab.machine("both", megabytes=1024, counted=True)
        cls.machine.ready()
        cls.machine.add_rxe()
        cls.target = Target(cls.machine)
        cls.initiator = Initiator(cls.machine, cls.target.portal)
        cls.machine.run("modprobe ib_iser")

    def start_gatewayd(self):
        self.target.start(arguments=["--no-discovery", "--disk", "memory:64M", "--threads", "1"])
        return NAME, 3260

    def start_tgt(self, driver):
        portal = f"--iscsi portal={self.machine.address}:3261" if driver == "iscsi" else "--iser pool_sz_mb=128"
        self.machine.run(f"dd if=/dev/zero of=/dev/shm/disk bs=1M count=64 2>/dev/null; "
                         f"setsid tgtd -f {portal} --iscsi portal={self.machine.address}:3261 >/run/tgtd.log 2>&1 &")
        self.machine.until("tgtadm --mode sys --op show", 30, "tgtd is up")
        admin = f"tgtadm --lld {driver}"
        self.machine.run(
            f"{admin} --op new --mode target --tid 1 -T {TGT} && "
            f"{admin} --op new --mode logicalunit --tid 1 --lun 1 --backing-store /dev/shm/disk && "
            f"{admin} --op bind --mode target --tid 1 -I ALL && "
            f"{admin} --op bind --mode target --tid 1 --initiator-name "
            f"$(sed -n s/InitiatorName=//p /etc/iscsi/initiatorname.iscsi)")
        return TGT, 3260 if driver == "iser" else 3261

    def start_lio(self, driver):
        group = f"{LIO_ROOT}/iscsi/{LIO}/tpgt_1"
        portal = f"{group}/np/{self.machine.address}:3262"
        self.machine.run(
            f"modprobe -a target_core_mod iscsi_target_mod ib_isert && "
            f"{{ [ -d {LIO_ROOT} ] || mount -t configfs none /sys/kernel/config; }} && mkdir -p {LIO_ROOT}/iscsi "
            f"{LIO_ROOT}/core/rd_mcp_0/ram && echo rd_pages=16384 >{LIO_ROOT}/core/rd_mcp_0/ram/control && "
            f"echo 1 >{LIO_ROOT}/core/rd_mcp_0/ram/enable && mkdir -p {group} && "
            f"for a in authentication=0 generate_node_acls=1 demo_mode_write_protect=0 cache_dynamic_acls=1 "
            f"default_cmdsn_depth=128; do echo ${{a#*=}} >{group}/attrib/${{a%=*}}; done && "
            f"mkdir -p {group}/lun/lun_0 && ln -s {LIO_ROOT}/core/rd_mcp_0/ram {group}/lun/lun_0/ram && "
            f"mkdir -p {portal} && {{ [ {driver} != iser ] || echo 1 >{portal}/iser; }} && echo 1 >{group}/enable", 60)
        return LIO, 3262

    def stop(self, kind):
        if kind == "gatewayd":
            self.target.stop()
        elif kind == "tgt":
            self.machine.run("killall -9 tgtd; rm -f /dev/shm/disk; sleep 1")
        else:
            group = f"{LIO_ROOT}/iscsi/{LIO}/tpgt_1"
            self.machine.run(
                f"echo 0 >{group}/enable; rm -f {group}/lun/lun_0/ram; rmdir {group}/lun/lun_0 {group}/np/* {group} "
                f"{LIO_ROOT}/iscsi/{LIO} {LIO_ROOT}/core/rd_mcp_0/ram", 60)

    @contextlib.contextmanager
    def disk_of(self, kind, transport):
        """The initiator's block device of a LUN of that target."""
        driver = "iser" if transport == "iser" else "iscsi"
        name, port = {"gatewayd": self.start_gatewayd, "tgt": lambda: self.start_tgt(driver),
                      "lio": lambda: self.start_lio(driver)}[kind]()
        node = f"iscsiadm -m node -T {name} -p {self.machine.address}:{port}"
        try:
            self.machine.run(f"{node} -o new >/dev/null && {node} -o update -n iface.transport_name -v {transport} && "
                             f"{node} --login", 90)
            device = self.machine.until(
                "ls -d /sys/class/iscsi_session/session*/device/target*/*/block/* | tail -n 1", 30, "a disk")
            device = "/dev/" + device.strip().rsplit("/", 1)[1]
            # No target's memory is touched for the first time by what is measured, and all have looked around by then.
            self.machine.run(f"dd if=/dev/zero of={device} bs=1M oflag=direct 2>/dev/null; sleep 3", 120)
            yield device
        finally:
            self.machine.attempt(f"{node} --logout; {node} -o delete", 60)
            self.stop(kind)


class Comparison(Peers):
    def measure(self, kind, transport):
        rates = {}
        with self.disk_of(kind, transport) as device:
            for point, options in POINTS.items():
                line = self.machine.run(f"pace {device} {options}", 300)
                rates[point] = float(re.search(r"iops (\d+)", line).group(1))
        return rates

    def test_compare(self):
        """Rates of gatewayd, tgt and LIO at each point, in virtual time"""
        runs = {}
        kinds = [("gatewayd", "iser"), ("tgt", "iser"), ("lio", "iser"), ("gatewayd", "tcp"), ("tgt", "tcp")]
        for number in range(ROUNDS):
            for kind, transport in kinds if number % 2 == 0 else reversed(kinds):
                rates = self.measure(kind, transport)
                print(f"round {number + 1}: {kind} {transport}: {rates}", flush=True)
                for point, rate in rates.items():
                    runs.setdefault((kind, transport), {}).setdefault(point, []).append(rate)
        first = runs["gatewayd", "iser"]
        print(f"\n{'':<16}" + "".join(f"{f'{kind} {transport}':>24}" for kind, transport in kinds))
        for point in POINTS:
            cells = []
            for key in kinds:
                rates = runs[key][point]
                median = statistics.median(rates)
                spread = (max(rates) - min(rates)) / median * 100
                ratio = statistics.median(first[point]) / median
                cells.append(f"{median:>8.0f} ±{spread:3.0f}% {ratio:5.2f}x   ")
            print(f"{point:<16}" + "".join(f"{cell:>24}" for cell in cells))


class Breakdown(Peers):
    programs = ["tgtd", "tgtadm", "perf"]

    def test_shares(self):
        """Whose code the path of an I/O over iSER runs through: soft-RoCE's, the initiator's, the target's"""
        self.machine.run(f"echo -1 >/proc/sys/kernel/perf_event_paranoid; cat >/run/shares <<'END'\n{SHARES}END")
        shares = {}
        for _ in range(ROUNDS):
            for kind in ("gatewayd", "tgt"):
                with self.disk_of(kind, "iser") as device:
                    for point in ("4k read d32", "4k write d32"):
                        output = self.machine.run(
                            f"perf record -q -a -g -e cpu-clock -F 20000 -o /run/samples -- pace {device} "
                            f"{POINTS[point]} >&2 && perf script -i /run/samples -F comm,ip,sym 2>/dev/null | "
                            "awk -f /run/shares; rm -f /run/samples", 600)
                        for who, percent in re.findall(r"^(\S+) ([\d.]+)$", output, re.MULTILINE):
                            shares.setdefault((kind, point), {}).setdefault(who, []).append(float(percent))
        print()
        for (kind, point), found in sorted(shares.items()):
            cells = [f"{who} {statistics.median(values):.1f} % (±{max(values) - min(values):.1f})"
                     for who, values in sorted(found.items())]
            print(f"{point} {kind}: {', '.join(cells)}", flush=True)
        self.assertTrue(all("soft-RoCE" in found for found in shares.values()), shares)
