"""CDBs and results, as far as the tests need them (SPC-5, SBC-4)."""

import struct
from dataclasses import dataclass

GOOD, CHECK_CONDITION, BUSY, RESERVATION_CONFLICT, TASK_SET_FULL, TASK_ABORTED = 0, 2, 8, 0x18, 0x28, 0x40
NOT_READY, MEDIUM_ERROR, HARDWARE_ERROR, ILLEGAL_REQUEST, UNIT_ATTENTION, DATA_PROTECT = 2, 3, 4, 5, 6, 7
ABORTED_COMMAND, MISCOMPARE = 0xB, 0xE
POWER_ON, NEXUS_LOSS = 0x2900, 0x2907


@dataclass
class Result:
    """Status, data-in, sense data and residual count of a command."""

    status: int
    data: bytes
    sense: bytes
    residual: int = 0

    @property
    def sense_key(self):
        return self._parts()[0]

    @property
    def asc(self):
        """Additional sense code and qualifier, as 0x2400."""
        return self._parts()[1]

    @property
    def information(self):
        """INFORMATION of fixed-format sense data; None: it is not valid."""
        return int.from_bytes(self.sense[3:7], "big") if self.sense[0] & 0x80 else None

    def _parts(self):
        if len(self.sense) < 4:
            return None, None
        if self.sense[0] & 0x7F in (0x72, 0x73):
            return self.sense[1] & 0xF, self.sense[2] << 8 | self.sense[3]
        return self.sense[2] & 0xF, self.sense[12] << 8 | self.sense[13]

    def good(self):
        if self.status != GOOD:
            raise AssertionError(f"status {self.status:#x}, sense key {self.sense_key}, ASC {self.asc}")
        return self


def test_unit_ready():
    return bytes(6)


def inquiry(page=None, length=255):
    return struct.pack(">BBBHB", 0x12, 0 if page is None else 1, page or 0, length, 0)


def report_luns(length=4096):
    return struct.pack(">BBBBBBIBB", 0xA0, 0, 0, 0, 0, 0, length, 0, 0)


def read_capacity16(length=32):
    return struct.pack(">BBQIBB", 0x9E, 0x10, 0, length, 0, 0)


def read16(lba, blocks, fua=False):
    return struct.pack(">BBQIBB", 0x88, 8 if fua else 0, lba, blocks, 0, 0)


def write16(lba, blocks, fua=False):
    return struct.pack(">BBQIBB", 0x8A, 8 if fua else 0, lba, blocks, 0, 0)


def compare_and_write(lba, blocks=1):
    return struct.pack(">BBQ3xBBB", 0x89, 0, lba, blocks, 0, 0)


def synchronize_cache10():
    return bytes([0x35]) + bytes(9)


def persistent_reserve_in(action, length=256):
    return struct.pack(">BBBBBBBHB", 0x5E, action, 0, 0, 0, 0, 0, length, 0)


def persistent_reserve_out(action, kind=0):
    return struct.pack(">BBBBBIB", 0x5F, action, kind, 0, 0, 24, 0)


def reserve_parameters(key=0, service_key=0, aptpl=False):
    """The 24 bytes of PERSISTENT RESERVE OUT (SPC-5 §6.17.3)."""
    return struct.pack(">QQIBBH", key, service_key, 0, 1 if aptpl else 0, 0, 0)


def naa(page83):
    """The NAA designator of a logical unit in VPD page 83h as hexadecimal digits (SPC-5 §7.7.6)."""
    at, end = 4, 4 + int.from_bytes(page83[2:4], "big")
    while at + 4 <= end:
        length = page83[at + 3]
        if page83[at + 1] & 0x3F == 3:  # association: logical unit, type: NAA
            return page83[at + 4:at + 4 + length].hex()
        at += 4 + length
    return None


def sanitize(action, length=0, immediate=False, may_exit=False):
    """SANITIZE: 1 OVERWRITE, 2 BLOCK ERASE, 1Fh EXIT FAILURE MODE."""
    return struct.pack(">BB5xHB", 0x48, action | (0x80 if immediate else 0) | (0x20 if may_exit else 0), length, 0)


def overwrite_parameters(pattern, passes=1, invert=False):
    return struct.pack(">BBH", passes | (0x80 if invert else 0), 0, len(pattern)) + pattern


def request_sense():
    return bytes([0x03, 0, 0, 0, 18, 0])


def extended_copy(length):
    return struct.pack(">BB8xIBB", 0x83, 0, length, 0, 0)


def copy_parameters(targets, segments, identifier=1):
    """The parameter list of EXTENDED COPY(LID1).

    `targets` are (NAA as hexadecimal digits, block length), `segments` are (source, destination, blocks, source LBA,
    destination LBA).
    """
    head = struct.pack(">BBHBBBB", 0xE4, 0, 0, 1, 3, 0, 16)
    listed = b"".join(head + bytes.fromhex(name) + struct.pack(">II", 0, length) for name, length in targets)
    parts = b"".join(struct.pack(">BBHHHHHQQ", 2, 0, 24, source, destination, 0, blocks, lba, to)
                     for source, destination, blocks, lba, to in segments)
    return struct.pack(">BBHIII", identifier, 0, len(listed), 0, len(parts), 0) + listed + parts


def receive_copy_results(action, identifier=1, length=512):
    return struct.pack(">BBB7xIBB", 0x84, action, identifier, length, 0, 0)


def log_sense(page, length=512):
    return struct.pack(">BBBBBHHB", 0x4D, 0, 0x40 | page, 0, 0, 0, length, 0)
