"""What is in a machine: one image for every role, made anew when anything in it has changed."""

import hashlib
import re
import shutil
import tempfile
from pathlib import Path

from .archive import Archive
from .places import CACHE, LAB, gatewayd, run

MODULES = {
    "the machine": ["virtio_pci", "virtio_net", "virtio_blk", "virtio_scsi", "virtio_console", "virtio_rng", "sd_mod",
                    "sg"],
    "checksums": ["crc32_generic", "crc32c_generic", "crc32c-intel", "crct10dif_generic", "libcrc32c", "crc64-rocksoft",
                  "crc64_rocksoft_generic"],
    "file systems": ["ext4", "loop"],
    "the initiator": ["iscsi_tcp", "ib_iser", "scsi_transport_iscsi", "scsi_dh_alua", "sg"],
    "RDMA": ["rdma_rxe", "ib_uverbs", "rdma_ucm", "rdma_cm"],
    "multipath": ["dm-mod", "dm-multipath", "dm-round-robin", "dm-queue-length", "dm-service-time"],
    "thin volumes": ["dm-thin-pool"],
    "the pair": ["softdog", "i6300esb"],
}
PROGRAMS = """
iscsid iscsiadm
udevadm kmod blkid blockdev sfdisk mkfs.ext4 e2fsck fstrim findmnt ip setpriv
sg_persist sg_inq sg_vpd sg_turs sg_raw sg_luns sg_readcap sg_unmap sg_write_same sg_reset sg_rtpg sg_compare_and_write
sg_opcodes sg_sync sg_modes sg_requests sg_logs sg_verify sg_sanitize sg_xcopy sg_copy_results sg_get_lba_status
sg_read_buffer sg_write_buffer sg_timestamp sg_start sg_write_x sg_write_verify
multipathd multipath mpathpersist dmsetup
rdma ibv_devinfo ibv_rc_pingpong rping
""".split()
TREES = [
    "/usr/lib/udev/rules.d", "/usr/lib/udev/scsi_id", "/usr/lib/udev/ata_id",
    "/lib/multipath", "/etc/mke2fs.conf", "/etc/libibverbs.d/rxe.driver",
    "/usr/lib/x86_64-linux-gnu/libibverbs/librxe-rdmav34.so", "/usr/lib/x86_64-linux-gnu/libgcc_s.so.1",
]
EMPTY = ["/proc", "/sys", "/dev", "/run", "/tmp", "/root", "/mnt", "/var/lib/iscsi", "/var/log", "/etc/iscsi",
         "/etc/udev/rules.d"]
# Where tools/count.c looks for two functions of pace.
COUNTING = ["-Wl,--section-start=counting_begins=0x10000000", "-Wl,--section-start=counting_ends=0x10001000"]
# udev's rules name groups; the numbers mean nothing here.
GROUPS = "root daemon sys adm tty disk kmem dialout cdrom tape audio video input kvm render sgx users rdma".split()
TEXTS = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "/etc/group": "".join(f"{name}:x:{number}:\n" for number, name in enumerate(GROUPS)),
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
    "/etc/hosts": "127.0.0.1 localhost\n",
    "/etc/protocols": "ip 0 IP\nicmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\n",
    "/etc/services": "iscsi-target 3260/tcp\n",
    "/etc/os-release": "ID=lab\nNAME=lab\n",
}


def build(kernel, programs=(), modules=()):
    """The initramfs with the binary under test, and what a lab wants beside it: cached by what went into it."""
    archive = Archive()
    for name in ("bin", "sbin", "lib", "lib64"):
        archive.link("/" + name, "usr/" + name)
    for path in (*EMPTY, "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64"):
        archive.directory(path)
    archive.device("/dev/console", 5, 1)
    archive.device("/dev/null", 1, 3)
    for program in (*PROGRAMS, *programs):
        archive.file(_found(program))
    for tree in TREES:
        if Path(tree).exists():
            archive.tree(tree)
    archive.link("/usr/lib/systemd/systemd-udevd", "/usr/bin/udevadm")
    archive.file(_stripped(gatewayd()), "/usr/bin/gatewayd")
    archive.file(tool("verify", ["-static"]), "/usr/bin/verify")
    archive.file(tool("pace", ["-static", *COUNTING]), "/usr/bin/pace")
    for name in ("persist", "ask", "activate"):
        archive.file(tool(name, ["-static"]), f"/usr/bin/{name}")
    archive.file(LAB / "guest" / "init", "/init")
    archive.file(LAB / "guest" / "agent", "/usr/sbin/lab-agent")
    for name in ("keep", "tally"):
        archive.file(tool(name, ["-shared", "-fPIC"]), f"/usr/lib/{name}.so")
    for path, content in TEXTS.items():
        archive.text(path, content)
    archive.text("/etc/iscsi/iscsid.conf", _initiator_settings())
    _busybox(archive)
    _modules(archive, kernel, modules)
    return _cached(archive)


def tool(name, how=()):
    """A program of Tests/lab/tools, compiled when its source has changed; `how`: more words for the compiler."""
    source, binary = LAB / "tools" / f"{name}.c", CACHE / name
    CACHE.mkdir(parents=True, exist_ok=True)
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        run(["cc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", *how, "-o", binary, source])
    return binary


def _found(program):
    path = shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if path is None:
        raise RuntimeError(f"{program} is not installed; ./dev lab installs what it needs")
    return path


def _stripped(binary):
    """Without what only a debugger reads: two thirds of the image."""
    slim = CACHE / "gatewayd"
    if not slim.exists() or slim.stat().st_mtime_ns != binary.stat().st_mtime_ns:
        run(["strip", "--strip-debug", "--preserve-dates", "-o", slim, binary])
    return slim


def _initiator_settings():
    """Debian's settings; the machine has no init system that could start iscsid on demand."""
    settings = Path("/etc/iscsi/iscsid.conf").read_text()
    return re.sub(r"(?m)^\s*iscsid\.startup.*$", "", settings)


def _busybox(archive):
    archive.file("/usr/bin/busybox")
    for line in run(["/usr/bin/busybox", "--list"]).split():
        if not archive.has(line):
            archive.link(f"/usr/bin/{line}", "busybox")
    for name in ("modprobe", "insmod", "rmmod", "lsmod", "modinfo", "depmod"):
        archive.entries.pop(f"/usr/bin/{name}", None)
        archive.link(f"/usr/sbin/{name}", "/usr/bin/kmod")


def _modules(archive, kernel, more):
    wanted = [name for names in MODULES.values() for name in names] + list(more)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        inside = Path(scratch) / "lib" / "modules" / kernel.release
        for module in kernel.closure(wanted):
            (inside / module).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(kernel.modules / module, inside / module)
        for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            shutil.copy(kernel.modules / name, inside / name)
        run(["depmod", "-b", scratch, kernel.release])
        for path in sorted(inside.rglob("*")):
            if path.is_file():
                data = path.read_bytes()
                archive.data(f"/usr/lib/modules/{kernel.release}/{path.relative_to(inside)}", data)


def _cached(archive):
    digest = hashlib.sha256()
    for path, (mode, content, device) in sorted(archive.entries.items()):
        stamp = content.stat() if isinstance(content, Path) else None
        what = f"{content} {stamp.st_size} {stamp.st_mtime_ns}".encode() if stamp else content
        digest.update(f"{path} {mode} {device} {len(what)} ".encode() + what)
    target = CACHE / f"image-{digest.hexdigest()[:16]}.cpio"
    if not target.exists():
        # One of each kind: what is older was of another binary or kernel.
        for old in sorted(CACHE.glob("image-*.cpio*"), key=lambda path: path.stat().st_mtime)[:-1]:
            old.unlink()
        archive.write(target.with_suffix(".cpio.new"))
        target.with_suffix(".cpio.new").rename(target)
    return target
