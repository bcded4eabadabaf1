"""The ESP as a loss of power may leave it: a machine's writes, applied one after the other, and what would start then.

FAT32 is read here as firmware reads it: from the first of the two tables, with nothing repaired.
"""

import random
import re
import struct
import zlib

SECTOR = 512
# Where the image has its ESP: 1 MiB on.
ESP_SECTOR = 2048
ESP_SECTORS = 1024 * 2048
DELETED, LONG_NAME = 0xE5, 0x0F


def logged(path):
    """The requests of QEMU's blklogwrites as (first sector, data); data None: a flush. Discards are left out."""
    flush, discard = 1, 4
    with open(path, "rb") as log:
        log.seek(SECTOR)
        while len(header := log.read(SECTOR)) == SECTOR:
            sector, count, flags, _ = struct.unpack_from("<QQQQ", header)
            if (count, flags) == (0, 0):
                return
            if flags & flush:
                yield sector, None
            if count and not flags & discard:
                yield sector, log.read(count * SECTOR)


class ESP:
    """What stands on the ESP of a disk."""

    def __init__(self, path, begin=ESP_SECTOR):
        """`begin`: where it is in the file, in sectors."""
        self.clusters, self.sums, self.directories = {}, {}, set()
        with open(path, "rb") as disk:
            disk.seek(begin * SECTOR)
            boot = disk.read(SECTOR)
            sectors_per_cluster, reserved = struct.unpack_from("<BH", boot, 13)
            self.table_sectors, = struct.unpack_from("<I", boot, 36)
            self.root, = struct.unpack_from("<I", boot, 44)
            self.table, self.cluster_bytes = reserved, sectors_per_cluster * SECTOR
            # All before the first cluster, which has the number 2.
            self.first = reserved + boot[16] * self.table_sectors
            disk.seek(begin * SECTOR)
            self.head = bytearray(disk.read(self.first * SECTOR))
            for cluster, following in enumerate(self._table()):
                if cluster >= 2 and following:
                    disk.seek((begin + self.first) * SECTOR + (cluster - 2) * self.cluster_bytes)
                    self._put(cluster, disk.read(self.cluster_bytes))

    def copy(self):
        other = object.__new__(ESP)
        other.__dict__ = self.__dict__ | {"head": bytearray(self.head), "clusters": dict(self.clusters),
                                          "sums": dict(self.sums), "directories": set(self.directories)}
        return other

    def _table(self):
        begin = self.table * SECTOR
        return memoryview(self.head)[begin:begin + self.table_sectors * SECTOR].cast("I")

    def _put(self, cluster, data):
        self.clusters[cluster], self.sums[cluster] = data, zlib.crc32(data)

    def write(self, sector, data):
        """Whether this may change what starts: it was more than the content of files."""
        sector -= ESP_SECTOR
        if not 0 <= sector < ESP_SECTORS:
            return False
        if sector < self.first:
            self.head[sector * SECTOR:sector * SECTOR + len(data)] = data
            return True
        begin = (sector - self.first) * SECTOR
        end, is_directory = begin + len(data), False
        for place in range(begin - begin % self.cluster_bytes, end, self.cluster_bytes):
            cluster = place // self.cluster_bytes + 2
            low, high = max(place, begin), min(place + self.cluster_bytes, end)
            old = self.clusters.get(cluster, bytes(self.cluster_bytes))
            self._put(cluster, old[:low - place] + data[low - begin:high - begin] + old[high - place:])
            is_directory = is_directory or cluster in self.directories
        return is_directory

    # ---- As firmware reads it

    def _chain(self, cluster):
        table, chain = self._table(), []
        while 2 <= cluster < len(table) and len(chain) < len(table):
            chain.append(cluster)
            cluster = table[cluster] & 0x0FFFFFFF
        return chain

    def files(self, *path):
        """A directory's files by their names: (first cluster, bytes)."""
        entries = self._entries(self.root)
        for name in path:
            entries = self._entries(entries.get(name, (0, 0))[0])
        return entries

    def _entries(self, cluster):
        chain = self._chain(cluster)
        self.directories.update(chain)
        data = b"".join(self.clusters.get(each, b"") for each in chain)
        found, long = {}, b""
        for place in range(0, len(data), 32):
            entry = data[place:place + 32]
            if entry[0] == 0:
                break
            if entry[0] == DELETED:
                long = b""
            elif entry[11] == LONG_NAME:
                long = entry[1:11] + entry[14:26] + entry[28:32] + long
            else:
                name = long.decode("utf-16-le", "replace").split("\0")[0]
                if not name:
                    stem, suffix = (part.decode("latin-1").rstrip() for part in (entry[:8], entry[8:11]))
                    name = f"{stem}.{suffix}".rstrip(".")
                high, low, size = struct.unpack_from("<H4xHI", entry, 20)
                if name:
                    found[name] = (high << 16 | low, size)
                long = b""
        return found

    def content(self, entry):
        """Tells one file's content from another's."""
        first, size = entry
        return size, tuple(self.sums.get(cluster) for cluster in self._chain(first))

    def chosen(self):
        """The file that systemd-boot starts (systemd-boot(7)), and its place; None: there is none.

        The newest version that has tries left or needs none, else one that has none left; no file without a header.
        """
        def rank(name):
            version, _, tries = name.removeprefix("gatewayd-").removesuffix(".efi").partition("+")
            left = re.match(r"\d+", tries)
            return left is None or int(left[0]) > 0, [int(number) for number in re.findall(r"\d+", version)]

        found = {name: entry for name, entry in self.files("EFI", "Linux").items()
                 if name.endswith(".efi") and self.clusters.get(entry[0], b"")[:2] == b"MZ" and entry[1]}
        return max(found.items(), key=lambda item: rank(item[0]), default=None)


class Judge:
    """Looks after each write whether a whole version starts, and between two flushes also at what a cache may lose.

    A sector is there or not; any of those that were written since the last flush may be missing.
    """

    subsets = 40

    def __init__(self, esp, versions):
        """`versions`: the files of all versions that there are, by their names."""
        self.durable, self.now, self.cached = esp, esp.copy(), []
        self.matters = False
        self.versions = {name: self._content(path.read_bytes(), esp.cluster_bytes) for name, path in versions.items()}
        self.random = random.Random(1)
        self.writes = self.states = 0
        self.seen, self.faults = {}, []

    @staticmethod
    def _content(data, size):
        return len(data), tuple(zlib.crc32(data[place:place + size]) for place in range(0, len(data), size))

    def write(self, sector, data):
        self.writes += 1
        self.cached.append((sector, data))
        if self.now.write(sector, data):
            self.matters = True
            self.judge(self.now, "all written")

    def flush(self):
        if self.matters:
            for _ in range(self.subsets):
                self._lose_some()
        for sector, data in self.cached:
            self.durable.write(sector, data)
        self.cached, self.matters = [], False

    def _lose_some(self):
        esp = self.durable.copy()
        lost = 0
        for sector, data in self.cached[:self.random.randint(1, len(self.cached))]:
            # What is long is content.
            size = SECTOR if len(data) <= 64 * SECTOR else len(data)
            for place in range(0, len(data), size):
                if self.random.random() < 0.5:
                    esp.write(sector + place // SECTOR, data[place:place + size])
                else:
                    lost += 1
        self.judge(esp, f"{lost} pieces lost of {len(self.cached)} writes")

    def judge(self, esp, how):
        self.states += 1
        name, entry = esp.chosen() or ("nothing", None)
        version = name.removeprefix("gatewayd-").removesuffix(".efi").partition("+")[0]
        self.seen[name] = self.seen.get(name, 0) + 1
        if entry is None or version not in self.versions:
            fault = "no version of ours"
        else:
            size, sums = esp.content(entry)
            # What follows the end within the last cluster is nobody's.
            wanted_size, wanted = self.versions[version]
            if (size, sums[:-1]) == (wanted_size, wanted[:-1]):
                return
            fault = f"{size} bytes in {len(sums)} clusters, {wanted_size} in {len(wanted)} wanted"
        if len(self.faults) < 20:
            self.faults.append(f"after write {self.writes}, {how}: {name} starts: {fault}; "
                               f"{esp.files('EFI', 'Linux')}")

    def summary(self):
        seen = ", ".join(f"{name} {count}" for name, count in self.seen.items())
        return f"{self.writes} writes, {self.states} states of the ESP; what starts: {seen}"
