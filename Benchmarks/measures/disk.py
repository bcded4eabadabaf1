"""A real disk: what the gateway adds to it.

A loop device over a file with direct I/O is asked by fio through io_uring, then by the load generator through gatewayd.
"""

import json
import shutil

from harness import process
from harness.loops import LoopDisk, are_available

from . import load, targets

FILE_BYTES = 1 << 30
SPAN_BYTES = FILE_BYTES - (64 << 20)  # asked by both; the label lies beyond
# name: fio's options, the load generator's
POINTS = {
    "4k-read-d1": (["--rw=randread", "--bs=4k", "--iodepth=1"], ["--block", "4K", "--depth", "1"]),
    "4k-read-d32": (["--rw=randread", "--bs=4k", "--iodepth=32"], ["--block", "4K", "--depth", "32"]),
    "4k-write-d32": (["--rw=randwrite", "--bs=4k", "--iodepth=32"],
                     ["--block", "4K", "--depth", "32", "--rw", "write"]),
    "128k-read-d8": (["--rw=randread", "--bs=128k", "--iodepth=8"], ["--block", "128K", "--depth", "8"]),
}


def reason_against():
    """Why there is no such measurement here, or nothing."""
    if not are_available():
        return "a loop device needs root"
    if shutil.which("fio") is None:
        return "there is no fio"
    return ""


def parse_fio(text):
    """What the load generator would say of fio's run."""
    job = json.loads(text[text.index("{"):])["jobs"][0]
    side = max((job["read"], job["write"]), key=lambda s: s["total_ios"])
    part = side["lat_ns"]["percentile"]
    cpu = job["usr_cpu"] + job["sys_cpu"]
    return {"iops": side["iops"], "mb_per_s": side["bw_bytes"] / 1e6, "p50_us": part["50.000000"] / 1e3,
            "p99_us": part["99.000000"] / 1e3, "mean_us": side["lat_ns"]["mean"] / 1e3,
            "cpu_us_per_io": cpu * 1e4 / max(side["iops"], 1)}


def run_fio(device, options, seconds, cpu):
    finished = process.run(
        ["fio", "--name=disk", f"--filename={device}", "--ioengine=io_uring", "--direct=1", "--fixedbufs",
         "--registerfiles", "--time_based", f"--size={SPAN_BYTES}", f"--runtime={seconds * 1000:.0f}ms",
         "--ramp_time=200ms", f"--cpus_allowed={cpu}", "--lat_percentiles=1", "--clat_percentiles=0",
         "--output-format=json", *options], seconds=seconds + 30, check=False)
    if finished.returncode != 0:
        raise load.Failed(f"fio: {finished.stderr.strip() or finished.stdout.strip()}")
    return parse_fio(finished.stdout)


def run_round(disk, arguments, results):
    """fio on the device, then gatewayd: one after the other, for each opens it alone."""
    for point, (fio, _) in POINTS.items():
        results["fio"][point].append(run_fio(disk.device, fio, arguments.seconds, arguments.target_cpu))
    with targets.gateway(arguments, disks=[disk.device]) as target:
        for point, (_, options) in POINTS.items():
            results["gatewayd"][point].append(
                load.measure(target, [*options, "--size", str(SPAN_BYTES)], arguments.warmup, arguments.seconds,
                             arguments.load_cpu))


def measure(arguments, say):
    """{who: {point: [results]}}, or None where it cannot be measured."""
    reason = reason_against()
    if reason:
        say(f"the real disk is skipped: {reason}")
        return None
    results = {who: {point: [] for point in POINTS} for who in ("fio", "gatewayd")}
    with LoopDisk(FILE_BYTES, directory=arguments.out) as disk:
        # No holes: every block of the file is there before it is measured.
        process.run(["dd", "if=/dev/zero", f"of={disk.device}", "bs=4M", "oflag=direct", f"count={FILE_BYTES >> 22}"],
                    seconds=120)
        targets.gateway(arguments, disks=[disk.device]).stop()  # labels the blank disk, before fio writes to it
        for number in range(arguments.rounds):
            say(f"disk, round {number + 1}/{arguments.rounds}")
            run_round(disk, arguments, results)
    return results
