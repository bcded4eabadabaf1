"""What foreign owners leave on disks, where no tool makes it without a kernel driver."""

import os
import struct


def write_md_superblock(path):
    """A version 1.2 superblock of Linux's md, 4 KiB from the start, as a member of a RAID 1 of two has it."""
    sectors = os.path.getsize(path) // 512 if os.path.isfile(path) else 1 << 17
    block = bytearray(256 + 2 * 128)
    struct.pack_into("<IIII", block, 0, 0xA92B4EFC, 1, 0, 0)
    block[16:32] = os.urandom(16)
    block[32:64] = b"example:0".ljust(32, b"\0")
    struct.pack_into("<QIIQII", block, 64, 1, 1, 0, sectors - 2048, 0, 2)
    struct.pack_into("<QQQQII", block, 128, 2048, sectors - 2048, 8, 0, 0, 0)
    block[168:184] = os.urandom(16)
    struct.pack_into("<QQQII", block, 192, 1, 1, 0xFFFFFFFFFFFFFFFF, 0, 128)
    words = struct.unpack(f"<{len(block) // 4}I", bytes(block))
    total = sum(words)
    struct.pack_into("<I", block, 216, ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF)
    with open(path, "r+b") as disk:
        disk.seek(4096)
        disk.write(block)
        disk.flush()
        os.fsync(disk.fileno())
