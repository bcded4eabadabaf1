"""Debian's kernel out of its package: nothing is installed on this machine."""

import lzma
import os
import re
import shutil

from .places import CACHE, run

XZ_MAGIC = b"\xfd7zXZ\x00"


class Kernel:
    """An uncompressed kernel (it boots by PVH, without minutes of emulated unpacking) and its modules."""

    def __init__(self, package):
        self.release = package.removeprefix("linux-image-")
        self.directory = CACHE / package
        self.image = self.directory / "vmlinux"
        self.modules = self.directory / "lib" / "modules" / self.release

    @classmethod
    def prepare(cls):
        """The kernel that linux-image-amd64 stands for now, fetched if it is not here; offline the one that is."""
        kernel = cls(os.environ.get("LAB_KERNEL") or cls._newest())
        if not kernel.image.exists():
            kernel._fetch()
        return kernel

    @staticmethod
    def _newest():
        depends = run(["apt-cache", "depends", "linux-image-amd64"])
        names = re.findall(r"Depends: (linux-image-\d\S*)", depends)
        if not names:
            here = sorted(path.name for path in CACHE.glob("linux-image-*"))
            if not here:
                raise RuntimeError("apt knows no linux-image-amd64: apt-get update")
            return here[-1]
        return names[0]

    def _fetch(self):
        new = self.directory.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        package = "linux-image-" + self.release
        run(["apt-get", "download", package], seconds=600, cwd=new)
        (archive,) = new.glob("*.deb")
        run(["dpkg-deb", "-x", archive, new])
        archive.unlink()
        run(["depmod", "-b", new, self.release])
        packed = (new / "boot" / f"vmlinuz-{self.release}").read_bytes()
        payload = packed[packed.index(XZ_MAGIC):]
        (new / "vmlinux").write_bytes(lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(payload))
        shutil.rmtree(self.directory, ignore_errors=True)
        new.rename(self.directory)

    def closure(self, names):
        """The files of these modules and of those that they need, relative to `modules`."""
        needs = {}
        for line in (self.modules / "modules.dep").read_text().splitlines():
            path, _, rest = line.partition(":")
            needs[module_name(path)] = [path, *rest.split()]
        built_in = {module_name(line) for line in (self.modules / "modules.builtin").read_text().split()}
        wanted = set()
        for name in names:
            if module_name(name) in needs:
                wanted.update(needs[module_name(name)])
            elif module_name(name) not in built_in:
                raise RuntimeError(f"kernel {self.release} has no module {name}")
        return sorted(wanted)


def module_name(path):
    """`kernel/net/a-b.ko` and `a-b` are both the module a_b."""
    return path.rsplit("/", 1)[-1].removesuffix(".ko").replace("-", "_")
