"""A cpio archive (newc), the kernel's first root: files, links, and the libraries that they need."""

import os
import re
import stat
import subprocess
from pathlib import Path

LIBRARY = re.compile(r"(/\S+) \(0x")
MERGED = ("bin", "sbin", "lib", "lib64")


def merged(path):
    """/bin is /usr/bin, and so on: Debian's merged /usr."""
    path = os.path.normpath(str(path))
    return "/usr" + path if path.split("/")[1] in MERGED else path


class Archive:
    def __init__(self):
        # Path in the archive: (mode with its type, bytes or the file that has them, device number).
        self.entries = {}
        self.resolved = set()

    def directory(self, path):
        path = str(path)
        if path not in self.entries and path != "/":
            self.directory(os.path.dirname(path))
            self.entries[path] = (stat.S_IFDIR | 0o755, b"", 0)

    def data(self, path, content):
        self._put(path, (stat.S_IFREG | 0o644, content, 0))

    def text(self, path, content):
        self.data(path, content.encode())

    def link(self, path, target):
        self._put(path, (stat.S_IFLNK | 0o777, target.encode(), 0))

    def device(self, path, major, minor):
        self._put(path, (stat.S_IFCHR | 0o666, b"", major << 8 | minor))

    def file(self, source, path=None):
        """A file at its own path or another one; a program brings its libraries."""
        path = merged(path or source)
        source = Path(source).resolve()
        mode = stat.S_IMODE(source.stat().st_mode) | 0o444
        self._put(path, (stat.S_IFREG | mode, source, 0))
        with open(source, "rb") as opened:
            is_program = opened.read(4) == b"\x7fELF" and source.suffix != ".ko"
        if is_program:
            self._libraries(source)

    def tree(self, source, path=None):
        """Everything below a directory; a link to /dev/null (a rule that is switched off) stays one."""
        source = Path(source)
        if not source.is_dir():
            self.file(source, path)
            return
        for found in sorted(source.rglob("*")):
            inside = merged(Path(path or source) / found.relative_to(source))
            if found.is_file():
                self.file(found, inside)
            elif found.is_symlink() and os.readlink(found) == "/dev/null":
                self.link(inside, "/dev/null")

    def has(self, name):
        """Whether a program of that name is there."""
        return any(f"/usr/{place}/{name}" in self.entries for place in ("bin", "sbin"))

    def write(self, target):
        """Uncompressed: the emulated machine would take seconds to unpack it."""
        with open(target, "wb", buffering=1 << 20) as output:
            for number, path in enumerate(sorted(self.entries), start=1):
                mode, content, device = self.entries[path]
                data = content.read_bytes() if isinstance(content, Path) else content
                _record(output, path.lstrip("/"), data, number, mode, device)
            _record(output, "TRAILER!!!", b"", 0, 0, 0)

    def _put(self, path, entry):
        self.directory(os.path.dirname(str(path)))
        self.entries[str(path)] = entry

    def _libraries(self, program):
        if program in self.resolved:
            return
        self.resolved.add(program)
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, timeout=30, check=False).stdout
        if "not found" in listed:
            raise RuntimeError(f"{program} lacks libraries:\n{listed}")
        for library in LIBRARY.findall(listed):
            if merged(library) not in self.entries:
                self.file(library)


def _record(output, name, data, inode, mode, device):
    encoded = name.encode() + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, device >> 8, device & 255, len(encoded), 0)
    output.write(b"070701" + b"".join(b"%08X" % field for field in fields) + encoded)
    output.write(bytes(-(110 + len(encoded)) % 4))
    output.write(data)
    output.write(bytes(-len(data) % 4))
